"""Import: what a recipe names becomes a folder that `mocme.data.ingest.reader` reads.

Everything is read once, in pieces; what is held is the indexed graph.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import tomli_w
import torch
from torch import Tensor

from mocme.data.formats import tables, writers
from mocme.data.formats.literals import Literals
from mocme.data.formats.report import Reject, Report
from mocme.data.graph import SPLITS
from mocme.data.ingest.indexer import FactIndexer
from mocme.data.ingest.recipe import Column, FileColumn, NumberColumns, Recipe

# Facts of which the recipe does not say to which split they belong.
POOL = "pool"


@dataclass
class ImportReport:
    """What became of everything that a recipe names.

    Attributes:
        folder: where the graph lies.
        facts: distinct facts by split; `repeated`: those that were there before.
        missing: empty cells of texts, numbers and files, by modality.
        unknown: rows of texts, numbers and files about entities without a fact that were left
            out (``entities = "facts"``), by modality.
        reports: the account of each file.
    """

    folder: str
    entities: int = 0
    relations: int = 0
    facts: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and texts, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [str(report) for report in self.reports]
        counts = ", ".join(f"{split} {count:,}" for split, count in self.facts.items())
        lines.append(
            f"{self.folder}: {self.entities:,} entities, {self.relations:,} relations; facts: "
            f"{counts}; {sum(self.repeated.values()):,} repeated ones dropped"
        )
        for name, count in self.values.items():
            lines.append(
                f"{name}: {count:,} values; {self.missing.get(name, 0):,} empty cells; "
                f"{self.unknown.get(name, 0):,} of entities without a fact left out"
            )
        if any(len(report.rejects) > 5 for report in self.reports):
            lines.append(f"all rejects are in {Path(self.folder) / 'import.json'}")
        return "\n".join(lines)


def bring_in(
    recipe: str | Path | Recipe, out: str | Path, advance: Callable[[Report], None] | None = None
) -> ImportReport:
    """Read everything that a recipe (or its file) names and write a folder of TSV files.

    The folder appears when it is whole: ``train.tsv`` and the other splits, ``entities.txt``,
    ``relations.txt``, a file a modality, ``graph.toml``, and ``import.json`` with the account of
    every input. A text's tabs and line breaks become spaces; a *name* with one is refused.

    Args:
        advance: called after each piece with the account of the file that is being read.

    Raises:
        ConfigError, ValueError: naming the file, the line where there is one, and the remedy.
    """
    read = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target}: is there already; remove it or give another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    brought = ImportReport(str(target))
    try:
        _fill(read, fresh, brought, advance or (lambda report: None))
        if target.exists():
            target.rmdir()
        os.replace(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return brought


def _fill(
    recipe: Recipe, folder: Path, brought: ImportReport, advance: Callable[[Report], None]
) -> None:
    collector = FactIndexer()
    declared: dict[str, Any] = {"modalities": {}, "files": {}, "encode": recipe.encode}
    with Literals(folder) as literals:
        for part in recipe.facts:
            report = part.report(recipe.folder)
            brought.reports.append(report)
            for block in part.blocks(report, literals):
                collector.add(part.split or POOL, block, report)
                advance(report)
        _write_literals(literals, folder, declared, brought)
    for name in dict.fromkeys(part.name for part in recipe.columns):
        parts = [part for part in recipe.columns if part.name == name]
        with writers.written(folder / f"{name}.tsv") as file:
            for column in parts:
                _write_column(column, recipe, collector, file, brought, advance)
        section = "files" if isinstance(parts[0], FileColumn) else "modalities"
        if name not in recipe.encode:
            declared[section][name] = parts[0].declared()
    splits: dict[str, list[Tensor]] = {}
    for split in collector.facts:
        facts, brought.repeated[split] = collector.split(split)
        divided = recipe.split.divide(facts) if split == POOL else {split: facts}
        for key, chosen in divided.items():
            splits.setdefault(key, []).append(chosen)
    entities, relations = (list(names) for names in collector.names)
    brought.entities, brought.relations = len(entities), len(relations)
    for split in SPLITS:
        if not any(map(len, splits.get(split, []))):
            continue
        facts = torch.cat(splits[split])
        brought.facts[split] = len(facts)
        writers.write_tsv(folder / f"{split}.tsv", writers.named(facts, entities, relations))
    if "train" not in brought.facts:
        raise ValueError(f"{recipe.path}: leaves no fact to train on; check [[facts]] and [split]")
    for file_name, names in (("entities.txt", entities), ("relations.txt", relations)):
        with writers.written(folder / file_name) as file:
            file.write("".join(f"{name}\n" for name in names).encode())
    about = {"name": recipe.name, **({"licence": recipe.licence} if recipe.licence else {})}
    full = {**about, **{key: table for key, table in declared.items() if table}}
    (folder / "graph.toml").write_text(tomli_w.dumps(full), encoding="utf-8")
    text = json.dumps(brought.as_dict(), indent=1, ensure_ascii=False)
    (folder / "import.json").write_text(text + "\n", encoding="utf-8")


def _write_literals(
    literals: Literals, folder: Path, declared: dict[str, Any], brought: ImportReport
) -> None:
    if literals.numbers:
        brought.values["numbers"] = literals.write_numbers(folder / "numbers.tsv")
        declared["modalities"]["numbers"] = {"kind": "numbers", "path": "numbers.tsv"}
    if literals.texts:
        brought.values["texts"] = literals.write_texts(folder / "texts.tsv")
        table = {"kind": "words", "paths": ["texts.tsv"], "columns": [3]}
        declared["modalities"]["texts"] = table


def _write_column(
    part: Column,
    recipe: Recipe,
    collector: FactIndexer,
    file: IO[bytes],
    brought: ImportReport,
    advance: Callable[[Report], None],
) -> None:
    path = recipe.folder / part.path
    report = Report(str(path))
    brought.reports.append(report)
    ids, name = collector.names[0], part.name
    for count in (brought.values, brought.missing, brought.unknown):
        count.setdefault(name, 0)
    for block in tables.cells(path, report, [part.entity, *part.columns], part.delimiter):
        rows: list[tuple[str, ...]] = []
        for cells, line in zip(zip(*block.columns, strict=True), block.lines, strict=True):
            entity, problem = cells[0], ""
            if not entity:
                problem = "an empty name"
            elif recipe.only_facts and entity not in ids:
                brought.unknown[name] += 1
                continue
            made = []
            for column, cell in zip(part.columns, cells[1:], strict=True):
                if not cell or problem:
                    continue
                try:
                    made.append(part.row(entity, cell, column, path.parent))
                except ValueError as error:
                    wrong = f"{column} is {cell[:40]!r}: {error}"
                    if len(part.columns) == 1:
                        problem = wrong
                        continue
                    # The row's other cells count.
                    report.cells.append(Reject(line, wrong, ", ".join(cells)[:80]))
            if problem:
                report.rows -= 1
                report.reject(line, problem, ", ".join(cells))
                continue
            brought.missing[name] += sum(not cell for cell in cells[1:])
            # A name that is looked up becomes an entity of the graph.
            if made:
                ids[entity]
            rows += made
        text = "".join(["\t".join(row) + "\n" for row in rows])
        width = 2 * len(rows) if isinstance(part, NumberColumns) else len(rows)
        if (text.count("\t"), text.count("\n")) != (width, len(rows)):
            odd = next(row[0] for row in rows if set("\t\n") & set(row[0]))
            problem = "a tab or a line feed, which a table of values cannot"
            raise writers.refusal(path, odd, problem)
        file.write(text.encode())
        brought.values[name] += len(rows)
        advance(report)
