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
LISTS = ("entities.txt", "relations.txt")
HEADERS = {
    ("head", "relation", "tail"),
    ("subject", "predicate", "object"),
    ("subject", "relation", "object"),
    ("source", "relation", "target"),
    ("from", "rel", "to"),
    ("h", "r", "t"),
    ("s", "p", "o"),
}


def load(data: str | Path, *, ratios: tuple[float, float, float] = RATIOS, seed: int = 0) -> Graph:
    """Read a graph.

    Args:
        data: ``"atlas"`` (the embedded data set), a folder with ``train.tsv`` and, where there are
            any, ``valid.tsv``, ``test.tsv``, ``known.tsv``, ``entities.txt``, ``relations.txt`` and
            ``graph.toml`` (``.txt`` serves for ``.tsv``); or one TSV file of facts, split here by
            `ratios`. A file that holds lines but not one fact is an error, and so is a train
            split without a fact.
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
        files_here = sorted(path.name for path in folder.iterdir())
        here = ", ".join(files_here[:8]) + (", ..." if len(files_here) > 8 else "")
        raise ValueError(
            f"{folder}: no train.tsv (or train.txt) in this folder; it holds {here or 'nothing'}"
        )
    tables = {split: _facts(file) for split, file in files.items()}
    if not tables["train"].rows:
        raise ValueError(f"{files['train']}: holds no fact; a graph needs facts to train on")
    lists = {name: tsv.read_names(path) for name in LISTS if (path := folder / name).is_file()}
    names = _collect(list(tables.values()))
    for file_name, table in lists.items():
        names[LISTS.index(file_name)] = dict.fromkeys(name for (name,) in table.rows)
    entities, relations = Vocabulary(names[0]), Vocabulary(names[1], "relation")
    splits = {split: _index(table, entities, relations) for split, table in tables.items()}
    declared = _declared(folder)
    read = [*tables.values(), *lists.values()]
    return Graph(
        entities,
        relations,
        splits,
        name=str(declared.get("name", folder.resolve().name)),
        folder=str(folder.resolve()),
        modalities=_tables(declared, folder),
        inputs={table.report.path: table.report.sha256 for table in read},
        notes=[note for table in read for note in _notes(table)],
    )


def _load_file(path: Path, ratios: tuple[float, float, float], seed: int) -> Graph:
    if len(ratios) != 3 or not (min(ratios) >= 0 and abs(sum(ratios) - 1) <= 1e-6 and ratios[0]):
        raise ValueError(f"ratios are three shares that sum to 1 (train > 0), not {ratios}")
    table = _facts(path)
    names = _collect([table])
    entities, relations = Vocabulary(names[0]), Vocabulary(names[1], "relation")
    facts = _index(table, entities, relations)
    order = torch.randperm(len(facts), generator=torch.Generator().manual_seed(seed))
    cut = [round(len(facts) * ratios[0]), round(len(facts) * (ratios[0] + ratios[1]))]
    if not cut[0]:
        raise ValueError(f"{path}: {len(facts)} facts leave none to train on by ratios {ratios}")
    parts = torch.tensor_split(facts[order], cut)
    note = f"{path}: split by ratios {ratios} with seed {seed}"
    return Graph(
        entities,
        relations,
        {s: part for s, part in zip(SPLITS, parts, strict=False) if len(part)},
        name=path.stem,
        folder=str(path.resolve().parent),
        inputs={str(path): table.report.sha256},
        notes=[*_notes(table), note],
    )


def _find(folder: Path, stem: str) -> Path | None:
    found = [folder / f"{stem}{ending}" for ending in ENDINGS]
    found = [path for path in found if path.is_file()]
    if len(found) > 1:
        raise ValueError(f"{folder}: both {found[0].name} and {found[1].name}; keep one of them")
    return found[0] if found else None


def _facts(path: Path) -> tsv.Table:
    """Rows of three names.

    Raises:
        ValueError: the file holds rejects and not one fact, with what it seems to be instead.
    """
    table = tsv.read(path, 3)
    if table.rows or not table.report.rejects:
        return table
    data = path.read_bytes()
    text = table.report.rejects[0].text
    separator = next((s for s in (",", ";", "|", " ") if text.count(s) == 2), None)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        remedy = "the file seems to be UTF-16; save it as UTF-8"
    elif separator is not None and "\t" not in text:
        remedy = f"its columns seem to be separated by {separator!r}; separate them by tabs"
    else:
        remedy = "a line is HEAD, tab, RELATION, tab, TAIL in UTF-8, and nothing else"
    raise ValueError(f"{path}: not one line is a fact; {remedy}\n{table.report}")


def _notes(table: tsv.Table) -> list[str]:
    notes = [str(table.report)]
    if table.rows and tuple(cell.lower() for cell in table.rows[0]) in HEADERS:
        notes.append(
            f"{table.report.path}: line {table.lines[0]} reads like a header and was taken as a "
            f"fact; remove it if it is none"
        )
    return notes


def _collect(tables: list[tsv.Table]) -> list[dict[str, None]]:
    """Names of entities and of relations, in the order of their first occurrence."""
    entities: dict[str, None] = {}
    relations: dict[str, None] = {}
    for table in tables:
        for head, relation, tail in table.rows:
            entities[head] = entities[tail] = None
            relations[relation] = None
    return [entities, relations]


def _index(table: tsv.Table, entities: Vocabulary, relations: Vocabulary) -> Tensor:
    """Distinct facts of a table in file order; duplicates are counted in its report.

    Raises:
        ValueError: a fact names something that entities.txt or relations.txt does not list.
    """
    heads, kinds, tails = zip(*table.rows, strict=True) if table.rows else ((), (), ())
    columns = entities.find(heads), relations.find(kinds), entities.find(tails)
    seen = dict.fromkeys(zip(*columns, strict=True))
    if unlisted := next((ids for ids in seen if None in ids), None):
        line = list(zip(*columns, strict=True)).index(unlisted)
        place = unlisted.index(None)
        raise ValueError(
            f"{table.report.path}: line {table.lines[line]}: {table.rows[line][place]!r} is not "
            f"listed in {LISTS[place == 1]}; add it there or remove that file (then the names are "
            f"collected from the facts)"
        )
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
        raise ValueError(
            f"{folder / 'graph.toml'}: unknown key {unknown[0]!r}; known: "
            f"{', '.join(sorted(known))}"
        )
    tables = declared.get("modalities", {})
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise ValueError(f"{folder / 'graph.toml'}: [modalities.NAME] must be tables")
    return tables


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
