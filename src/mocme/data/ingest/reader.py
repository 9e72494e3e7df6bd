"""Read a folder or a file as a `Graph`: which files are used, and how one file is split."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch

from mocme.core.files import read_toml
from mocme.core.text import counted
from mocme.data.formats import openke, tsv
from mocme.data.formats.columns import HEADERS
from mocme.data.formats.registry import ENDINGS, format_of
from mocme.data.formats.report import Block, Report
from mocme.data.formats.streams import COMPRESSED
from mocme.data.formats.tables import numbered
from mocme.data.graph import SPLITS, Graph, Vocabulary
from mocme.data.ingest.indexer import FactIndexer
from mocme.data.modality import encoded_path
from mocme.data.names import name_notes, name_problem, refused

RATIOS = (0.8, 0.1, 0.1)
ATLAS = Path(__file__).parents[1] / "atlas"
# The file that every run has.
RUN = "run.json"
LISTS = ("entities.txt", "relations.txt")
# The split under which the facts of a single file are indexed, before they are split.
SINGLE_FILE = "all"
TOML_KEYS = frozenset({"name", "licence", "modalities", "encode", "files", "pictures", "types"})
Tables = Mapping[str, object]


def read_path(
    path: str | Path,
    ratios: tuple[float, float, float] = RATIOS,
    seed: int = 0,
    reject: bool = False,
) -> tuple[Graph, FactIndexer]:
    """Read a folder, a single file of facts or the embedded graph.

    Args:
        path: a folder, a file, or ``"atlas"``.
        ratios: fractions of train, valid and test of a single file.
        seed: of that split.
        reject: reject facts with a name that `mocme.data.names` refuses; otherwise the first of
            them is an error.

    Returns:
        The graph, and the indexer with the rows of its files: by split, or under `SINGLE_FILE`.

    Raises:
        ValueError: there is no such folder or file, or it cannot be read.
    """
    if path == "atlas":
        path = ATLAS
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, reject)
    if path.is_file():
        return _read_file(path, ratios, seed, reject)
    raise ValueError(f"{path}: there is no such folder or file")


def _read_folder(folder: Path, reject: bool) -> tuple[Graph, FactIndexer]:
    files = {split: path for split in SPLITS if (path := _find_split(folder, split)) is not None}
    if "train" not in files and openke.is_folder(folder):
        return _read_openke(folder)
    if "train" not in files and (folder / RUN).is_file():
        raise ValueError(
            f"{folder}: is a run, not a graph; give the data that it was trained on ({RUN} in it "
            f"names them), or ask the run: mocme complete {folder} --out FILE writes the facts "
            f"that it predicts"
        )
    if "train" not in files:
        names = sorted(path.name for path in folder.iterdir())
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise ValueError(
            f"{folder}: no train.tsv (or train.txt) in this folder; it holds {shown or 'nothing'}"
        )
    lists = {name: tsv.read_names(path) for name in LISTS if (path := folder / name).is_file()}
    entities, relations = (
        [name for (name,) in lists[file].rows] if file in lists else None for file in LISTS
    )
    indexer = FactIndexer(entities, relations, LISTS, reject)
    reports = {
        split: _index(indexer, split, file, format_of(file).facts) for split, file in files.items()
    }
    list_reports = [table.report for table in lists.values()]
    return _graph(folder, indexer, reports, list_reports, LISTS[0] in lists), indexer


def _read_openke(folder: Path) -> tuple[Graph, FactIndexer]:
    source = openke.read(folder)
    for file, names in zip(openke.LISTS, (source.entities, source.relations), strict=True):
        for name in refused(names, breaks=False):
            problem = name_problem(name, breaks=False)
            raise ValueError(f"{folder / file}: id {names.index(name)}: {problem}")
    indexer = FactIndexer(source.entities, source.relations, openke.LISTS)

    def reader(split: str) -> Callable[[Path, Report], Iterator[Block]]:
        return lambda _, report: source.facts(split, report)

    reports = {
        split: _index(indexer, split, file, reader(split)) for split, file in source.files.items()
    }
    return _graph(folder, indexer, reports, source.reports, True), indexer


def _graph(
    folder: Path,
    indexer: FactIndexer,
    reports: Mapping[str, Report],
    list_reports: Iterable[Report],
    listed: bool,
) -> Graph:
    """The graph of a folder whose facts are indexed.

    Args:
        reports: on the files of facts, by split.
        list_reports: on the lists of names.
        listed: whether a list determines the entities.
    """
    if not reports["train"].rows:
        raise ValueError(f"{reports['train'].path}: holds no fact; a graph needs facts to train on")
    splits = {}
    for split, report in reports.items():
        splits[split], report.duplicates = indexer.split(split)
    entities, relations = indexer.vocabularies()
    content = read_graph_toml(folder)
    encode = _tables(content, folder, "encode")
    all_reports = [*reports.values(), *list_reports]
    return Graph(
        entities,
        relations,
        splits,
        name=str(content.get("name", folder.resolve().name)),
        folder=str(folder.resolve()),
        modalities=_modalities(content, encode, folder),
        encode=encode,
        inputs={report.path: report.sha256 for report in all_reports},
        notes=[
            *(note for report in all_reports for note in _notes(report)),
            *_names_notes(folder, entities, relations),
        ],
        listed=listed,
    )


def _read_file(
    path: Path, ratios: tuple[float, float, float], seed: int, reject: bool
) -> tuple[Graph, FactIndexer]:
    if len(ratios) != 3 or not (min(ratios) >= 0 and abs(sum(ratios) - 1) <= 1e-6 and ratios[0]):
        raise ValueError(f"ratios are three fractions that sum to 1 (train > 0), not {ratios}")
    indexer = FactIndexer(reject=reject)
    report = _index(indexer, SINGLE_FILE, path, format_of(path).facts)
    facts, report.duplicates = indexer.split(SINGLE_FILE)
    entities, relations = indexer.vocabularies()
    order = torch.randperm(len(facts), generator=torch.Generator().manual_seed(seed))
    cut = [round(len(facts) * ratios[0]), round(len(facts) * (ratios[0] + ratios[1]))]
    if not cut[0]:
        count = counted(len(facts), "fact leaves", "facts leave")
        raise ValueError(f"{path}: {count} none to train on with ratios {ratios}")
    parts = torch.tensor_split(facts[order], cut)
    note = f"{path}: split by ratios {ratios} with seed {seed}"
    graph = Graph(
        entities,
        relations,
        {s: part for s, part in zip(SPLITS, parts, strict=False) if len(part)},
        name=path.stem,
        folder=str(path.resolve().parent),
        inputs={str(path): report.sha256},
        notes=[*_notes(report), note, *_names_notes(path, entities, relations)],
    )
    return graph, indexer


def holds_graph(folder: Path) -> bool:
    """Whether a folder is one that a graph is read from."""
    names = [f"train{ending}{packed}" for ending in ENDINGS for packed in ("", *COMPRESSED)]
    return any((folder / name).is_file() for name in names) or openke.is_folder(folder)


def _find_split(folder: Path, split: str) -> Path | None:
    """The file of a split, in any format and compression.

    Raises:
        ValueError: there are several.
    """
    names = [split + ending + packed for ending in ENDINGS for packed in ("", *COMPRESSED)]
    files = [path for name in names if (path := folder / name).is_file()]
    if len(files) > 1:
        raise ValueError(f"{folder}: both {files[0].name} and {files[1].name}; keep one of them")
    return files[0] if files else None


def _index(
    indexer: FactIndexer,
    split: str,
    path: Path,
    facts: Callable[[Path, Report], Iterator[Block]],
) -> Report:
    """Add the facts of a file to a split.

    Raises:
        ValueError: the file has rejects and not one fact; with what it seems to be instead.
    """
    report = Report(str(path))
    for block in facts(path, report):
        if not report.first:
            report.first = tuple(column[0] for column in block.columns)
            report.first_line = block.lines[0]
        indexer.add(split, block, report)
    if report.rows or not report.rejected:
        return report
    diagnose = format_of(path).diagnose
    remedy = diagnose(path, report) if diagnose else "see what is wrong with its lines"
    raise ValueError(f"{path}: not one line is a fact; {remedy}\n{report}")


def _notes(report: Report) -> list[str]:
    notes = [str(report)]
    is_header = tuple(cell.lower() for cell in report.first) in HEADERS
    if is_header and numbered(report.path):
        notes.append(
            f"{report.path}: line {report.first_line} reads like a header and was taken as a "
            f"fact; remove it if it is not one"
        )
    return notes


def _names_notes(where: Path, entities: Vocabulary, relations: Vocabulary) -> list[str]:
    return [
        *name_notes(str(where), entities.names, "entities"),
        *name_notes(str(where), relations.names, "relations"),
    ]


def read_graph_toml(folder: Path) -> dict[str, object]:
    """The content of graph.toml; empty if there is no such file.

    Raises:
        ValueError: it is not valid TOML, or cannot be read.
    """
    path = folder / "graph.toml"
    return read_toml(path) if path.exists() else {}


def _tables(content: Mapping[str, object], folder: Path, key: str) -> Mapping[str, Tables]:
    """The tables ``[KEY.NAME]`` of graph.toml.

    Raises:
        ValueError: graph.toml has an unknown key, or `key` does not hold tables.
    """
    if unknown := sorted(set(content) - TOML_KEYS):
        raise ValueError(
            f"{folder / 'graph.toml'}: unknown key {unknown[0]!r}; known: "
            f"{', '.join(sorted(TOML_KEYS))}"
        )
    tables = content.get(key, {})
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise ValueError(f"{folder / 'graph.toml'}: [{key}.NAME] must be tables")
    return tables


def _modalities(
    content: Mapping[str, object], encode: Mapping[str, Tables], folder: Path
) -> Mapping[str, Tables]:
    """The modalities that graph.toml declares, and those that `mocme encode` writes for it.

    Raises:
        ValueError: a modality is declared both ways.
    """
    modalities = _tables(content, folder, "modalities")
    if twice := sorted(set(modalities) & set(encode)):
        raise ValueError(
            f"{folder / 'graph.toml'}: both [modalities.{twice[0]}] and [encode.{twice[0]}]; an "
            f"encoded modality needs no other table, so rename or remove one of them"
        )
    encoded = {name: encoded_modality(name, table) for name, table in encode.items()}
    # In the order of the file's sections, on which the numbering of modalities depends.
    sections = {"modalities": modalities, "encode": encoded}
    order = sorted(sections, key=lambda key: list(content).index(key) if key in content else 0)
    return {name: table for key in order for name, table in sections[key].items()}


def encoded_modality(name: str, table: Tables | None = None) -> Tables:
    """The settings of the modality that `mocme encode` writes.

    Args:
        table: the ``[encode.NAME]`` table; if given, only features encoded with it are accepted.
    """
    settings = {"kind": "encoded", "path": encoded_path(name)}
    return settings if table is None else {**settings, "settings": settings_json(table)}


def settings_json(table: Tables) -> str:
    """An ``[encode.NAME]`` table as a line of JSON, which shows whether it has changed."""
    return json.dumps(table, sort_keys=True, ensure_ascii=False, default=list)
