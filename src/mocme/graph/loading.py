"""From a folder or a file to a `Graph`: which files are looked for, how one file is split."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mocme.graph.formats import tsv
from mocme.graph.triples import SPLITS, Graph, Vocabulary

ENDINGS = (".tsv", ".txt")
RATIOS = (0.8, 0.1, 0.1)


def load(
    data: str | Path, *, ratios: tuple[float, float, float] = RATIOS, seed: int = 0
) -> Graph:
    """Read a graph.

    Args:
        data: ``"atlas"`` (the embedded data set), a folder with ``train.tsv`` and, where there are
            any, ``valid.tsv``, ``test.tsv``, ``known.tsv``, ``entities.txt``, ``relations.txt`` and
            ``graph.toml``; or one TSV file of facts, split here by `ratios`.
        ratios: shares of train, valid and test, for a single file only.
        seed: of that split.

    Raises:
        ValueError: with the file, the line and the remedy.
    """
    if data == "atlas":
        data = Path(__file__).parent / "atlas"
    path = Path(data)
    if path.is_dir():
        return _load_folder(path)
    if path.is_file():
        return _load_file(path, ratios, seed)
    raise ValueError(f"{path}: there is no such folder or file; give a folder with train.tsv in it")


def _load_folder(folder: Path) -> Graph:
    files = {split: found for split in SPLITS if (found := _find(folder, split)) is not None}
    if "train" not in files:
        raise ValueError(f"{folder}: no train.tsv (or train.txt) in this folder")
    tables = {split: tsv.read(file, 3) for split, file in files.items()}
    entities = _names(folder / "entities.txt", "entity")
    relations = _names(folder / "relations.txt", "relation")
    notes: list[str] = []
    inputs = {table.report.path: table.report.sha256 for table in tables.values()}
    if entities is None or relations is None:
        found = _collect(list(tables.values()))
        entities = entities or Vocabulary(found[0])
        relations = relations or Vocabulary(found[1], "relation")
    splits = {}
    for split, table in tables.items():
        splits[split] = _index(table, entities, relations)
        notes.append(str(table.report))
    declared = _declared(folder)
    return Graph(
        entities,
        relations,
        splits,
        name=str(declared.get("name", folder.resolve().name)),
        folder=str(folder.resolve()),
        modalities=_tables(declared, folder),
        inputs=inputs,
        notes=notes,
    )


def _load_file(path: Path, ratios: tuple[float, float, float], seed: int) -> Graph:
    if len(ratios) != 3 or min(ratios) < 0 or abs(sum(ratios) - 1) > 1e-6 or ratios[0] == 0:
        raise ValueError(f"ratios are three shares that sum to 1 (train > 0), not {ratios}")
    table = tsv.read(path, 3)
    heads_tails, kinds = _collect([table])
    entities, relations = Vocabulary(heads_tails), Vocabulary(kinds, "relation")
    facts = _index(table, entities, relations)
    order = torch.randperm(len(facts), generator=torch.Generator().manual_seed(seed))
    cut = [round(len(facts) * ratios[0]), round(len(facts) * (ratios[0] + ratios[1]))]
    parts = torch.tensor_split(facts[order], cut)
    note = f"{path}: split by ratios {ratios} with seed {seed}"
    return Graph(
        entities,
        relations,
        {s: part for s, part in zip(SPLITS, parts, strict=False) if len(part)},
        name=path.stem,
        folder=str(path.resolve().parent),
        inputs={str(path): table.report.sha256},
        notes=[str(table.report), note],
    )


def _find(folder: Path, stem: str) -> Path | None:
    found = [folder / f"{stem}{ending}" for ending in ENDINGS]
    found = [path for path in found if path.is_file()]
    if len(found) > 1:
        raise ValueError(f"{folder}: both {found[0].name} and {found[1].name}; keep one of them")
    return found[0] if found else None


def _names(path: Path, what: str) -> Vocabulary | None:
    if not path.is_file():
        return None
    table = tsv.read(path, 1)
    if table.report.rejects:
        raise ValueError(f"a list of names cannot have rejects, for a line's number is an id\n"
                         f"{table.report}")
    first: dict[str, int] = {}
    for (name,), line in zip(table.rows, table.lines, strict=True):
        if name in first:
            raise ValueError(f"{path}: line {line}: {name!r} stands already in line {first[name]}")
        first[name] = line
    return Vocabulary(first, what)


def _collect(tables: list[tsv.Table]) -> tuple[dict[str, None], dict[str, None]]:
    """Names in the order of their first occurrence (a dict keeps it)."""
    entities: dict[str, None] = {}
    relations: dict[str, None] = {}
    for table in tables:
        for head, relation, tail in table.rows:
            entities[head] = entities[tail] = None
            relations[relation] = None
    return entities, relations


def _index(table: tsv.Table, entities: Vocabulary, relations: Vocabulary) -> Tensor:
    """Distinct facts of a table in file order; duplicates are counted in its report.

    Raises:
        ValueError: a fact names something that entities.txt or relations.txt does not list.
    """
    seen: dict[tuple[int, int, int], None] = {}
    for (head, relation, tail), line in zip(table.rows, table.lines, strict=True):
        ids = entities.get(head), relations.get(relation), entities.get(tail)
        if None in ids:
            what, name = [
                (w, n)
                for w, n, i in zip(
                    ("entities.txt", "relations.txt", "entities.txt"),
                    (head, relation, tail),
                    ids,
                    strict=True,
                )
                if i is None
            ][0]
            raise ValueError(
                f"{table.report.path}: line {line}: {name!r} is not listed in {what}; add it there "
                f"or remove that file (then the names are collected from the facts)"
            )
        seen[ids] = None  # type: ignore[index]
    table.report.duplicates = len(table.rows) - len(seen)
    if not seen:
        return torch.empty(0, 3, dtype=torch.int64)
    return torch.tensor(list(seen), dtype=torch.int64)


def _declared(folder: Path) -> dict[str, object]:
    path = folder / "graph.toml"
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from error


def _tables(declared: Mapping[str, object], folder: Path) -> Mapping[str, Mapping[str, object]]:
    known = {"name", "licence", "modalities", "pictures", "types"}
    if unknown := sorted(set(declared) - known):
        raise ValueError(f"{folder / 'graph.toml'}: unknown key {unknown[0]!r}; known: "
                         f"{', '.join(sorted(known))}")
    tables = declared.get("modalities", {})
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise ValueError(f"{folder / 'graph.toml'}: [modalities.NAME] must be tables")
    return tables


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
