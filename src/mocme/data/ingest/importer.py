"""Import by a recipe: its tables and dumps become a folder that `mocme.load` reads.

Every file is read once, in pieces. Memory holds the indexed facts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import tomli_w
import torch
from torch import Tensor

from mocme.core.text import counted
from mocme.data.formats import tables, writers
from mocme.data.formats.kinds import tsv
from mocme.data.formats.literals import Literals
from mocme.data.formats.report import KEPT, LISTED, Block, Report
from mocme.data.graph import SPLITS
from mocme.data.ingest.indexer import FactIndexer
from mocme.data.ingest.reader import LISTS
from mocme.data.ingest.recipe import Column, FileColumn, Recipe
from mocme.data.names import name_notes, name_problem
from mocme.storage.workspace import new_folder

# The split under which facts are indexed whose split the recipe does not determine.
POOL = "pool"
Advance = Callable[[Report], None]


@dataclass
class ImportReport:
    """What became of everything that a recipe names.

    Attributes:
        folder: of the graph.
        facts: distinct facts by split; `repeated`: repetitions that were dropped.
        values: rows of texts, numbers and files, by modality.
        missing: empty cells of texts, numbers and files, by modality.
        unknown: rows of texts, numbers and files that were left out because their entity has no
            fact (``entities = "facts"``), by modality.
        reports: on each file.
        listed: the modalities whose values are files.
        notes: on names that look alike or hold characters that are not seen.
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
    notes: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and texts, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [str(report) for report in self.reports]
        counts = ", ".join(f"{split} {count:,}" for split, count in self.facts.items())
        lines.append(
            f"{self.folder}: {counted(self.entities, 'entity', 'entities')}, "
            f"{counted(self.relations, 'relation')}; facts: {counts}; "
            f"{counted(sum(self.repeated.values()), 'repeated one')} dropped"
        )
        for name, count in self.values.items():
            lines.append(
                f"{name}: {counted(count, 'file' if name in self.listed else 'value')}; "
                f"{counted(self.missing.get(name, 0), 'empty cell')}; "
                f"{self.unknown.get(name, 0):,} of entities without a fact left out"
            )
        most = max((report.rejected for report in self.reports), default=0)
        if most > LISTED:
            which = "all rejects" if most <= KEPT else f"the first {KEPT:,} rejects of each file"
            lines.append(f"{which} are in {Path(self.folder) / 'import.json'}")
        return "\n".join([*lines, *self.notes])


def import_recipe(
    recipe: str | Path | Recipe, out: str | Path, advance: Advance | None = None
) -> ImportReport:
    """Read everything that a recipe (or its file) names and write a folder of TSV files.

    The folder appears when it is complete: ``train.tsv`` and the other splits, ``entities.txt``,
    ``relations.txt``, one file per modality, ``graph.toml``, and ``import.json`` with the report
    on every input. Tabs and line breaks of a text become spaces; a row with such a *name*, or one
    that `mocme.data.names` refuses, is a reject.

    Args:
        advance: called after each block with the report on the file that is being read.

    Raises:
        ConfigError, ValueError: naming the file, the line if there is one, and the remedy.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    report = ImportReport(str(Path(out)))
    with new_folder(Path(out)) as folder:
        _Import(recipe, folder, report, advance or (lambda report: None)).run()
    return report


class _Import:
    """One import into a folder.

    Attributes:
        indexer: the facts so far; entities that only have values are added to its names.
        declared: the tables of graph.toml.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, report: ImportReport, advance: Advance
    ) -> None:
        self.recipe, self.folder, self.report, self.advance = recipe, folder, report, advance
        self.indexer = FactIndexer(reject=True, breaks=True)
        self.declared: dict[str, Any] = {"modalities": {}, "files": {}, "encode": recipe.encode}

    def run(self) -> None:
        """Read all inputs and write all files."""
        with Literals(self.folder) as literals:
            self._read_facts(literals)
            self._write_literals(literals)
        for name in dict.fromkeys(part.name for part in self.recipe.columns):
            self._write_modality(name)
        self._write_splits()
        for file_name, names in zip(LISTS, self.indexer.names, strict=True):
            writers.write_names(self.folder / file_name, names)
        self._write_graph_toml()
        text = json.dumps(self.report.as_dict(), indent=1, ensure_ascii=False)
        (self.folder / "import.json").write_text(text + "\n", encoding="utf-8")

    def _read_facts(self, literals: Literals) -> None:
        for part in self.recipe.facts:
            report = part.report(self.recipe.folder)
            self.report.reports.append(report)
            for block in part.blocks(report, literals):
                self.indexer.add(part.split or POOL, block, report)
                self.advance(report)

    def _write_literals(self, literals: Literals) -> None:
        values, modalities = self.report.values, self.declared["modalities"]
        self._check_literal_names(literals)
        if literals.numbers:
            values["numbers"] = literals.write_numbers(self.folder / "numbers.tsv")
            modalities["numbers"] = {"kind": "numbers", "path": "numbers.tsv"}
        if literals.texts:
            values["texts"] = literals.write_texts(self.folder / "texts.tsv")
            modalities["texts"] = {"kind": "words", "paths": ["texts.tsv"], "columns": [3]}

    def _check_literal_names(self, literals: Literals) -> None:
        """Refuse a table of the recipe that would take the place of literals.

        Raises:
            ValueError: with the name.
        """
        taken = {*(part.name for part in self.recipe.columns), *self.recipe.encode}
        for name, rows in (("numbers", literals.numbers), ("texts", literals.texts)):
            if rows and name in taken:
                raise ValueError(
                    f"{self.recipe.path}: {name}: the {rows:,} {name} of RDF files become a "
                    f"modality of that name; give yours another one, or set literals = false in "
                    f"[[facts]] to leave those out"
                )

    def _write_modality(self, name: str) -> None:
        parts = [part for part in self.recipe.columns if part.name == name]
        for counts in (self.report.values, self.report.missing, self.report.unknown):
            counts.setdefault(name, 0)
        with writers.atomic_file(self.folder / f"{name}.tsv") as file:
            for part in parts:
                self._write_column(part, file)
        section = "files" if isinstance(parts[0], FileColumn) else "modalities"
        if section == "files":
            self.report.listed.append(name)
        if name not in self.recipe.encode:
            self.declared[section][name] = parts[0].declared()

    def _write_column(self, part: Column, file: IO[bytes]) -> None:
        path = self.recipe.folder / part.path
        report = Report(str(path))
        self.report.reports.append(report)
        columns = [part.entity, *part.columns]
        for block in tables.cells(path, report, columns, part.delimiter):
            rows = self._rows(part, block, report)
            text = "".join(["\t".join(row) + "\n" for row in rows])
            file.write(text.encode())
            self.report.values[part.name] += len(rows)
            self.advance(report)

    def _rows(self, part: Column, block: Block, report: Report) -> list[tuple[str, ...]]:
        """The rows to write for a block; unusable rows and cells go into the report."""
        ids, folder = self.indexer.names[0], Path(report.path).parent
        rows: list[tuple[str, ...]] = []
        for (entity, *cells), line in zip(
            zip(*block.columns, strict=True), block.lines, strict=True
        ):
            if self.recipe.only_facts and entity and entity not in ids:
                self.report.unknown[part.name] += 1
                continue
            text = ", ".join((entity, *cells))
            # A name in `ids` was checked before.
            bad_name = name_problem(entity) if entity not in ids else ""
            if entity and not bad_name:
                values, problems = _values(part, entity, cells, folder)
            else:
                values, problems = [], [bad_name or "an empty name"]
            if problems and (not entity or bad_name or len(part.columns) == 1):
                report.rows -= 1
                report.reject(line, problems[0], text)
                continue
            # A row with several columns keeps its other cells.
            for reason in problems:
                report.reject_cell(line, reason, text)
            self.report.missing[part.name] += sum(not cell for cell in cells)
            if values:
                # Looking up a new name makes it an entity of the graph.
                ids[entity]
            rows += values
        return rows

    def _write_splits(self) -> None:
        entities, relations = (list(names) for names in self.indexer.names)
        for names, what in ((entities, "entities"), (relations, "relations")):
            self.report.notes += name_notes(self.report.folder, names, what)
        self.report.entities, self.report.relations = len(entities), len(relations)
        parts: dict[str, list[Tensor]] = {}
        for split in self.indexer.facts:
            facts, self.report.repeated[split] = self.indexer.split(split)
            divided = self.recipe.split.divide(facts) if split == POOL else {split: facts}
            for name, part in divided.items():
                parts.setdefault(name, []).append(part)
        for split in SPLITS:
            if not any(map(len, parts.get(split, []))):
                continue
            facts = torch.cat(parts[split])
            self.report.facts[split] = len(facts)
            tsv.write(self.folder / f"{split}.tsv", writers.named_facts(facts, entities, relations))
        if "train" not in self.report.facts:
            raise ValueError(
                f"{self.recipe.path}: leaves no fact to train on; check [[facts]] and [split]"
            )

    def _write_graph_toml(self) -> None:
        recipe = self.recipe
        about = {"name": recipe.name, **({"licence": recipe.licence} if recipe.licence else {})}
        content = {**about, **{key: table for key, table in self.declared.items() if table}}
        (self.folder / "graph.toml").write_text(tomli_w.dumps(content), encoding="utf-8")


def _values(
    part: Column, entity: str, cells: list[str], folder: Path
) -> tuple[list[tuple[str, ...]], list[str]]:
    """The rows for the cells of one entity, and what is wrong with the other cells."""
    rows: list[tuple[str, ...]] = []
    problems: list[str] = []
    for column, cell in zip(part.columns, cells, strict=True):
        if not cell:
            continue
        try:
            rows.append(part.row(entity, cell, column, folder))
        except ValueError as error:
            problems.append(f"{column} is {cell[:40]!r}: {error}")
    return rows, problems
