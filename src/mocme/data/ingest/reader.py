"""From a folder or a file to a `Graph`: which files are looked for, how one file is split."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch

from mocme.data.formats import openke, tsv
from mocme.data.formats.named import HEADERS
from mocme.data.formats.registry import ENDINGS, TSV, ending, format_of
from mocme.data.formats.report import Block, Report
from mocme.data.formats.streams import COMPRESSED
from mocme.data.graph import SPLITS, Graph
from mocme.data.ingest.indexer import FactIndexer
from mocme.data.modality import encoded_path

RATIOS = (0.8, 0.1, 0.1)
ATLAS = Path(__file__).parents[1] / "atlas"
LISTS = ("entities.txt", "relations.txt")
Tables = Mapping[str, object]
Reader = Callable[[Path, Report], Iterator[Block]]


def read_path(
    path: str | Path, ratios: tuple[float, float, float] = RATIOS, seed: int = 0
) -> tuple[Graph, FactIndexer]:
    """Read a folder, a single file of facts or the embedded graph.

    Args:
        path: a folder, a file, or ``"atlas"``.
        ratios: shares of train, valid and test of a single file.
        seed: of that split.

    Returns:
        The graph and the collected rows, by split, or under "all" for a single file.

    Raises:
        ValueError: nothing is there, or what is there cannot be read.
    """
    if path == "atlas":
        path = ATLAS
    path = Path(path)
    if path.is_dir():
        return _load_folder(path)
    if path.is_file():
        return _load_file(path, ratios, seed)
    raise ValueError(f"{path}: there is no such folder or file")


def _load_folder(folder: Path) -> tuple[Graph, FactIndexer]:
    files = {split: found for split in SPLITS if (found := _find(folder, split)) is not None}
    if "train" not in files and openke.is_folder(folder):
        return _load_openke(folder)
    if "train" not in files:
        files_here = sorted(path.name for path in folder.iterdir())
        here = ", ".join(files_here[:8]) + (", ..." if len(files_here) > 8 else "")
        raise ValueError(
            f"{folder}: no train.tsv (or train.txt) in this folder; it holds {here or 'nothing'}"
        )
    lists = {name: tsv.read_names(path) for name in LISTS if (path := folder / name).is_file()}
    listed = [[name for (name,) in lists[n].rows] if n in lists else None for n in LISTS]
    collector = FactIndexer(listed[0], listed[1])
    reports = {
        split: _collect(collector, split, file, format_of(file).facts)
        for split, file in files.items()
    }
    listing = [table.report for table in lists.values()]
    return _graph(folder, collector, reports, listing, LISTS[0] in lists), collector


def _load_openke(folder: Path) -> tuple[Graph, FactIndexer]:
    source = openke.read(folder)
    collector = FactIndexer(source.entities, source.relations, openke.LISTS)
    reports: dict[str, Report] = {}
    for split, file in source.files.items():
        reports[split] = _collect(collector, split, file, _reader(source, split))
    return _graph(folder, collector, reports, source.reports, True), collector


def _reader(source: openke.Folder, split: str) -> Reader:
    return lambda _, report: source.facts(split, report)


def _graph(
    folder: Path,
    collector: FactIndexer,
    reports: Mapping[str, Report],
    listing: Iterable[Report],
    listed: bool,
) -> Graph:
    """The graph of a folder whose facts have been collected."""
    if not reports["train"].rows:
        raise ValueError(f"{reports['train'].path}: holds no fact; a graph needs facts to train on")
    splits = {}
    for split, report in reports.items():
        splits[split], report.duplicates = collector.split(split)
    entities, relations = collector.vocabularies()
    about = declared(folder)
    encode = _tables(about, folder, "encode")
    read = [*reports.values(), *listing]
    return Graph(
        entities,
        relations,
        splits,
        name=str(about.get("name", folder.resolve().name)),
        folder=str(folder.resolve()),
        modalities=_modalities(about, encode, folder),
        encode=encode,
        inputs={report.path: report.sha256 for report in read},
        notes=[note for report in read for note in _notes(report)],
        listed=listed,
    )


def _load_file(
    path: Path, ratios: tuple[float, float, float], seed: int
) -> tuple[Graph, FactIndexer]:
    if len(ratios) != 3 or not (min(ratios) >= 0 and abs(sum(ratios) - 1) <= 1e-6 and ratios[0]):
        raise ValueError(f"ratios are three shares that sum to 1 (train > 0), not {ratios}")
    collector = FactIndexer()
    report = _collect(collector, "all", path, format_of(path).facts)
    facts, report.duplicates = collector.split("all")
    entities, relations = collector.vocabularies()
    order = torch.randperm(len(facts), generator=torch.Generator().manual_seed(seed))
    cut = [round(len(facts) * ratios[0]), round(len(facts) * (ratios[0] + ratios[1]))]
    if not cut[0]:
        raise ValueError(f"{path}: {len(facts)} facts leave none to train on by ratios {ratios}")
    parts = torch.tensor_split(facts[order], cut)
    note = f"{path}: split by ratios {ratios} with seed {seed}"
    graph = Graph(
        entities,
        relations,
        {s: part for s, part in zip(SPLITS, parts, strict=False) if len(part)},
        name=path.stem,
        folder=str(path.resolve().parent),
        inputs={str(path): report.sha256},
        notes=[*_notes(report), note],
    )
    return graph, collector


def _find(folder: Path, stem: str) -> Path | None:
    names = [stem + known + packed for known in ENDINGS for packed in ("", *COMPRESSED)]
    found = [path for name in names if (path := folder / name).is_file()]
    if len(found) > 1:
        raise ValueError(f"{folder}: both {found[0].name} and {found[1].name}; keep one of them")
    return found[0] if found else None


def _collect(collector: FactIndexer, split: str, path: Path, facts: Reader) -> Report:
    """Add the facts of a file to a split.

    Raises:
        ValueError: the file holds rejects and not one fact, with what it seems to be instead.
    """
    report = Report(str(path))
    for block in facts(path, report):
        if not report.first:
            report.first = tuple(column[0] for column in block.columns)
            report.first_line = block.lines[0]
        collector.add(split, block, report)
    if report.rows or not report.rejects:
        return report
    remedy = _remedy(path, report) if ending(path) in TSV else "see what is wrong with its lines"
    raise ValueError(f"{path}: not one line is a fact; {remedy}\n{report}")


def _remedy(path: Path, report: Report) -> str:
    """What a file without a single row of TSV seems to be instead."""
    with path.open("rb") as file:
        start = file.read(2)
    text = report.rejects[0].text
    separator = next((s for s in (",", ";", "|", " ") if text.count(s) == 2), None)
    if start in (b"\xff\xfe", b"\xfe\xff"):
        return "the file seems to be UTF-16; save it as UTF-8"
    if separator is not None and "\t" not in text:
        return f"its columns seem to be separated by {separator!r}; separate them by tabs"
    return "a line is HEAD, tab, RELATION, tab, TAIL in UTF-8, and nothing else"


def _notes(report: Report) -> list[str]:
    notes = [str(report)]
    header = tuple(cell.lower() for cell in report.first) in HEADERS
    if header and ending(report.path) in TSV:
        notes.append(
            f"{report.path}: line {report.first_line} reads like a header and was taken as a "
            f"fact; remove it if it is none"
        )
    return notes


def declared(folder: Path) -> dict[str, object]:
    """What graph.toml says, if there is one.

    Raises:
        ValueError: it is not valid TOML.
    """
    path = folder / "graph.toml"
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from error


def _tables(about: Mapping[str, object], folder: Path, key: str) -> Mapping[str, Tables]:
    """Tables ``[KEY.NAME]`` of graph.toml."""
    known = {"name", "licence", "modalities", "encode", "files", "pictures", "types"}
    if unknown := sorted(set(about) - known):
        raise ValueError(
            f"{folder / 'graph.toml'}: unknown key {unknown[0]!r}; known: "
            f"{', '.join(sorted(known))}"
        )
    tables = about.get(key, {})
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise ValueError(f"{folder / 'graph.toml'}: [{key}.NAME] must be tables")
    return tables


def _modalities(
    about: Mapping[str, object], encode: Mapping[str, Tables], folder: Path
) -> Mapping[str, Tables]:
    """The modalities that graph.toml declares, and those that `mocme encode` makes for it."""
    declared_ones = _tables(about, folder, "modalities")
    if twice := sorted(set(declared_ones) & set(encode)):
        raise ValueError(
            f"{folder / 'graph.toml'}: both [modalities.{twice[0]}] and [encode.{twice[0]}]; an "
            f"encoded modality needs no other table, so rename or remove one of them"
        )
    made = {name: encoded_table(name, table) for name, table in encode.items()}
    # In the order of the file's sections, on which the numbering of modalities depends.
    sections = {"modalities": declared_ones, "encode": made}
    order = sorted(sections, key=lambda key: list(about).index(key) if key in about else 0)
    return {name: table for key in order for name, table in sections[key].items()}


def encoded_table(name: str, table: Tables | None = None) -> Tables:
    """The modality that `mocme encode` makes; with the table it was declared by, only of that."""
    found = {"kind": "encoded", "path": encoded_path(name)}
    return found if table is None else {**found, "settings": settings_of(table)}


def settings_of(table: Tables) -> str:
    """An ``[encode.NAME]`` table as a line of JSON, by which a change of it is seen."""
    return json.dumps(table, sort_keys=True, ensure_ascii=False, default=list)
