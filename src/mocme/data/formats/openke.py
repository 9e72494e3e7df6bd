"""OpenKE folders: lists of names with their ids, and facts as ids.

Each file starts with the number of lines that follow. In ``entity2id.txt`` and ``relation2id.txt``
a line is NAME, spaces or tabs, ID; the name ends at the last run of them, so it may contain spaces
and tabs. In ``train2id.txt``, ``valid2id.txt`` and ``test2id.txt`` a line is HEAD TAIL RELATION:
the relation comes last. ``known2id.txt`` extends the layout with true facts that are neither
trained on nor evaluated. Layout: https://github.com/thunlp/OpenKE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mocme.core.text import counted
from mocme.data.formats.report import Block, Report
from mocme.data.formats.streams import line_chunks, normalize_line_ends, open_stream
from mocme.data.formats.writers import BATCH, atomic_file, check_names, name_error
from mocme.data.graph import SPLITS, Graph

LISTS = ("entity2id.txt", "relation2id.txt")
FILES = {split: f"{split}2id.txt" for split in SPLITS}
# 18 digits fit into 64 bits.
ID = rb"([0-9]{1,18})"
COUNT = re.compile(rb"[ \t]*" + ID + rb"[ \t]*")
NAMED = re.compile(rb"(.*[^ \t])[ \t]+" + ID + rb"[ \t]*")
FACT = re.compile(rb"^[ \t]*(?:[0-9]{1,18}[ \t]+){2}[0-9]{1,18}[ \t]*$", re.MULTILINE)
# Bytes that are parsed at a time.
CHUNK = 1 << 22


@dataclass(frozen=True)
class Folder:
    """The names in an OpenKE folder, and the files of its facts.

    Attributes:
        entities, relations: names in the order of their ids.
        files: existing files by split.
        reports: on the two lists.
    """

    entities: Sequence[str]
    relations: Sequence[str]
    files: Mapping[str, Path]
    reports: tuple[Report, Report]

    def facts(self, split: str, report: Report) -> Iterator[Block]:
        """Facts of a split by name (head, relation, tail), block by block.

        Raises:
            ValueError: the file cannot be read, its first line is not the number of lines that
                follow, or an id is in no list.
        """
        path = self.files[split]
        with open_stream(path, report) as file:
            count = None
            for data in line_chunks(file, report, CHUNK):
                data = normalize_line_ends(data)
                if count is None:
                    first, _, data = data.partition(b"\n")
                    count = _count(first, path, report)
                block = self._block(data, report)
                report.rows += len(block.lines)
                if block.lines:
                    yield block
        _check_count(count, report.rows + report.rejected, path)

    def _block(self, data: bytes, report: Report) -> Block:
        numbers = _fact_lines(data, report)
        if len(numbers) != data.count(b"\n"):
            data = b"\n".join(filter(FACT.fullmatch, data.split(b"\n")))
        ids = np.fromiter(map(int, data.split()), np.int64).reshape(-1, 3)
        limits = (len(self.entities), len(self.entities), len(self.relations))
        if (ids >= limits).any():
            row, column = np.argwhere(ids >= limits)[0]
            what = ("head", "tail", "relation")[column]
            raise ValueError(
                f"{report.path}: line {numbers[row]}: the {what} {ids[row, column]} is not in "
                f"{LISTS[int(column == 2)]}, which ends at {limits[column] - 1}; a line is HEAD "
                f"TAIL RELATION"
            )
        heads, tails, relations = (ids[:, column].tolist() for column in range(3))
        columns = (
            list(map(self.entities.__getitem__, heads)),
            list(map(self.relations.__getitem__, relations)),
            list(map(self.entities.__getitem__, tails)),
        )
        return Block(columns, numbers)


def is_folder(path: str | Path) -> bool:
    """Whether a folder has the layout of OpenKE."""
    return (Path(path) / FILES["train"]).is_file()


def read(folder: str | Path) -> Folder:
    """Read the lists of names; `Folder.facts` then reads the facts.

    Raises:
        ValueError: a file is absent, or a list does not give each of the ids 0 to n - 1 to one
            name.
    """
    folder = Path(folder)
    (entities, entity_report), (relations, relation_report) = (
        _names(folder / name) for name in LISTS
    )
    files = {s: path for s, name in FILES.items() if (path := folder / name).is_file()}
    if "train" not in files:
        raise ValueError(
            f"{folder}: no {FILES['train']} in this folder, which holds the facts; add it"
        )
    return Folder(entities, relations, files, (entity_report, relation_report))


def write(folder: str | Path, graph: Graph) -> None:
    """Write a graph as an OpenKE folder, with its ids. No file appears before all are written.

    Raises:
        ValueError: a name is empty, contains a line feed, or ends with a space or a tab; the
            folder cannot be written, or contains a split that the graph does not have.
    """
    folder = Path(folder)
    for split, name in FILES.items():
        if split not in graph.splits and (folder / name).exists():
            raise ValueError(
                f"{folder}: contains {name}, but this graph has no split {split!r}; remove the "
                f"file or give another folder"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot be created ({error.strerror}); check the path"
        ) from error
    with ExitStack() as stack:
        for name, names in zip(LISTS, (graph.entities, graph.relations), strict=True):
            path = folder / name
            _check_names(names.names, path)
            lines = "".join([f"{name}\t{index}\n" for index, name in enumerate(names)])
            stack.enter_context(atomic_file(path)).write(f"{len(names)}\n{lines}".encode())
        for split, facts in graph.splits.items():
            file = stack.enter_context(atomic_file(folder / FILES[split]))
            file.write(b"%d\n" % len(facts))
            for part in facts.split(BATCH):
                file.write("".join([f"{h}\t{t}\t{r}\n" for h, r, t in part.tolist()]).encode())


def _names(path: Path) -> tuple[list[str], Report]:
    """The names of a list in the order of their ids, and the report on its lines."""
    report, count = Report(str(path)), None
    entries: dict[str, tuple[int, int]] = {}  # id and line of each name
    with open_stream(path, report) as file:
        for data in line_chunks(file, report, CHUNK):
            data = normalize_line_ends(data)
            if count is None:
                first, _, data = data.partition(b"\n")
                count = _count(first, path, report)
            for raw in data.split(b"\n")[:-1]:
                report.lines += 1
                if not raw.strip(b" \t"):
                    report.blank += 1
                    continue
                name, index = _name(raw, path, report.lines)
                if name in entries:
                    raise ValueError(
                        f"{path}: line {report.lines}: {name!r} is already in line "
                        f"{entries[name][1]}; keep one"
                    )
                entries[name] = index, report.lines
    report.rows = _check_count(count, len(entries), path)
    line_of_id: dict[int, int] = {}
    for name, (index, line) in entries.items():
        if index >= len(entries):
            raise ValueError(
                f"{path}: line {line}: the id {index} of {name!r} is not below {len(entries)}, the "
                f"number of names; ids are 0, 1, 2 and so on"
            )
        if index in line_of_id:
            raise ValueError(
                f"{path}: line {line}: the id {index} of {name!r} is already used in line "
                f"{line_of_id[index]}; ids are 0, 1, 2 and so on, each once"
            )
        line_of_id[index] = line
    return sorted(entries, key=lambda name: entries[name][0]), report


def _name(raw: bytes, path: Path, line: int) -> tuple[str, int]:
    match = NAMED.fullmatch(raw)
    if match is None:
        raise ValueError(
            f"{path}: line {line}: {_shown(raw)} is not NAME, space or tab, ID; correct the line"
        )
    try:
        return match[1].decode(), int(match[2])
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: line {line}: {_shown(raw)} is not valid UTF-8; save the file as UTF-8"
        ) from error


def _count(raw: bytes, path: Path, report: Report) -> int:
    match = COUNT.fullmatch(raw)
    if match is None:
        raise ValueError(
            f"{path}: line 1: {_shown(raw)} is not the number of lines that follow; put it there"
        )
    report.lines, report.comments = 1, 1
    return int(match[1])


def _check_count(stated: int | None, count: int, path: Path) -> int:
    if stated is None:
        raise ValueError(f"{path}: is empty; line 1 is the number of lines that follow")
    if stated != count:
        raise ValueError(
            f"{path}: line 1: says that {counted(stated, 'line follows', 'lines follow')}, but "
            f"{counted(count, 'does', 'do')}; the file may be cut off: get it again, or correct "
            f"the number"
        )
    return count


def _fact_lines(data: bytes, report: Report) -> Sequence[int]:
    """The numbers of the lines that are facts; the others are counted in the report."""
    first, total = report.lines + 1, data.count(b"\n")
    report.lines += total
    if len(FACT.findall(data)) == total:
        return range(first, first + total)
    numbers = []
    for number, raw in enumerate(data.split(b"\n")[:-1], first):
        if FACT.fullmatch(raw):
            numbers.append(number)
        elif not raw.strip(b" \t"):
            report.blank += 1
        else:
            report.reject(number, "not three ids (HEAD TAIL RELATION)", raw)
    return numbers


def _check_names(names: Sequence[str], path: Path) -> None:
    check_names(names, path)
    remedy = "rename it, or write TSV, CSV, JSON lines or Parquet"
    for name in names:
        if "\n" in name:
            raise name_error(path, name, "a line feed, which an OpenKE list cannot", remedy)
        if name[-1] in " \t":
            problem = "a space or tab at its end, which an OpenKE list cannot"
            raise name_error(path, name, problem, remedy)


def _shown(raw: bytes) -> str:
    return repr(raw[:80].decode(errors="replace"))
