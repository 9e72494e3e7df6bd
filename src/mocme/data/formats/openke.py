"""OpenKE folders: lists of names with their ids, and facts as ids.

Each file starts with the number of lines that follow. In ``entity2id.txt`` and ``relation2id.txt``
a line is NAME, spaces or tabs, ID; the name goes up to the last such run, so that it may hold
spaces and tabs itself. In ``train2id.txt``, ``valid2id.txt`` and ``test2id.txt`` a line is
HEAD TAIL RELATION: the relation comes last. ``known2id.txt`` is our addition, for facts that are
true and neither trained on nor asked for. Layout: https://github.com/thunlp/OpenKE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mocme.data.formats.report import Block, Report
from mocme.data.formats.streams import chunks, opened, plain_lines
from mocme.data.formats.writers import check, refusal, written
from mocme.data.graph import SPLITS, Graph

LISTS = ("entity2id.txt", "relation2id.txt")
FILES = {split: f"{split}2id.txt" for split in SPLITS}
# So many digits fit into 64 bits.
ID = rb"([0-9]{1,18})"
COUNT = re.compile(rb"[ \t]*" + ID + rb"[ \t]*")
NAMED = re.compile(rb"(.*[^ \t])[ \t]+" + ID + rb"[ \t]*")
FACT = re.compile(rb"^[ \t]*(?:[0-9]{1,18}[ \t]+){2}[0-9]{1,18}[ \t]*$", re.MULTILINE)
# Bytes that are parsed at a time.
CHUNK = 1 << 22


@dataclass(frozen=True)
class Folder:
    """The names in an OpenKE folder, and where its facts lie.

    Attributes:
        entities, relations: names in the order of their ids.
        files: by split, those that are there.
        reports: of the two lists.
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
        with opened(path, report) as file:
            count = None
            for data in chunks(file, report, CHUNK):
                data = plain_lines(data)
                if count is None:
                    first, _, data = data.partition(b"\n")
                    count = _count(first, path, report)
                block = self._block(data, report)
                report.rows += len(block.lines)
                if block.lines:
                    yield block
        _check_count(count, report.rows + len(report.rejects), path)

    def _block(self, data: bytes, report: Report) -> Block:
        numbers = _fact_lines(data, report)
        if len(numbers) != data.count(b"\n"):
            data = b"\n".join(filter(FACT.fullmatch, data.split(b"\n")))
        ids = np.fromiter(map(int, data.split()), np.int64).reshape(-1, 3)
        limits = (len(self.entities), len(self.entities), len(self.relations))
        if (ids >= limits).any():
            row, place = np.argwhere(ids >= limits)[0]
            what = ("head", "tail", "relation")[place]
            raise ValueError(
                f"{report.path}: line {numbers[row]}: the {what} {ids[row, place]} is not in "
                f"{LISTS[int(place == 2)]}, which ends at {limits[place] - 1}; a line is HEAD TAIL "
                f"RELATION"
            )
        heads, tails, relations = (ids[:, place].tolist() for place in range(3))
        columns = (
            list(map(self.entities.__getitem__, heads)),
            list(map(self.relations.__getitem__, relations)),
            list(map(self.entities.__getitem__, tails)),
        )
        return Block(columns, numbers)


def is_folder(path: str | Path) -> bool:
    """Whether a folder holds facts in this layout."""
    return (Path(path) / FILES["train"]).is_file()


def read(folder: str | Path) -> Folder:
    """Read the lists of names; `Folder.facts` then reads the facts.

    Raises:
        ValueError: a file is absent, or a list does not give each of n ids to one name; with the
            file, the line and the remedy.
    """
    folder = Path(folder)
    (entities, one), (relations, two) = (_names(folder / name) for name in LISTS)
    files = {s: path for s, name in FILES.items() if (path := folder / name).is_file()}
    if "train" not in files:
        raise ValueError(f"{folder}: no {FILES['train']} in this folder; it holds the facts")
    return Folder(entities, relations, files, (one, two))


def write(folder: str | Path, graph: Graph) -> None:
    """Write a graph as an OpenKE folder, with its ids. No file appears before all are written.

    Raises:
        ValueError: a name is empty, holds a line feed, or ends with a space or a tab; the folder
            cannot be written, or holds a split that the graph does not have.
    """
    folder = Path(folder)
    for split, name in FILES.items():
        if split not in graph.splits and (folder / name).exists():
            raise ValueError(
                f"{folder}: holds {name}, but this graph has no split {split!r}; remove the file "
                f"or give another folder"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder}: cannot be made ({error.strerror}); check the path") from error
    with ExitStack() as stack:
        for name, names in zip(LISTS, (graph.entities, graph.relations), strict=True):
            path = folder / name
            _check_names(names.names, path)
            listed = "".join([f"{name}\t{place}\n" for place, name in enumerate(names)])
            stack.enter_context(written(path)).write(f"{len(names)}\n{listed}".encode())
        for split, facts in graph.splits.items():
            file = stack.enter_context(written(folder / FILES[split]))
            file.write(b"%d\n" % len(facts))
            for part in facts.split(1 << 16):
                file.write("".join([f"{h}\t{t}\t{r}\n" for h, r, t in part.tolist()]).encode())


def _names(path: Path) -> tuple[list[str], Report]:
    """The names of a list in the order of their ids, and the account of its lines."""
    report, count = Report(str(path)), None
    found: dict[str, tuple[int, int]] = {}
    with opened(path, report) as file:
        for data in chunks(file, report, CHUNK):
            data = plain_lines(data)
            if count is None:
                first, _, data = data.partition(b"\n")
                count = _count(first, path, report)
            for raw in data.split(b"\n")[:-1]:
                report.lines += 1
                if not raw.strip(b" \t"):
                    report.blank += 1
                    continue
                name, place = _name(raw, path, report.lines)
                if name in found:
                    raise ValueError(
                        f"{path}: line {report.lines}: {name!r} stands already in line "
                        f"{found[name][1]}; keep one"
                    )
                found[name] = place, report.lines
    report.rows = _check_count(count, len(found), path)
    taken: dict[int, int] = {}
    for name, (place, line) in found.items():
        if place >= len(found):
            raise ValueError(
                f"{path}: line {line}: the id {place} of {name!r} is not below {len(found)}, the "
                f"number of names; ids are 0, 1, 2 and so on"
            )
        if place in taken:
            raise ValueError(
                f"{path}: line {line}: the id {place} of {name!r} is given already in line "
                f"{taken[place]}; ids are 0, 1, 2 and so on, each once"
            )
        taken[place] = line
    return sorted(found, key=lambda name: found[name][0]), report


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


def _check_count(count: int | None, found: int, path: Path) -> int:
    if count is None:
        raise ValueError(f"{path}: is empty; line 1 is the number of lines that follow")
    if count != found:
        raise ValueError(
            f"{path}: line 1: says that {count:,} lines follow, but {found:,} do; the file may be "
            f"cut off: get it again, or correct the number"
        )
    return found


def _fact_lines(data: bytes, report: Report) -> Sequence[int]:
    """The numbers of the lines that are facts; others go into the report."""
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
    check(names, path)
    remedy = "rename it, or write TSV, CSV, JSON lines or Parquet"
    for name in names:
        if "\n" in name:
            raise refusal(path, name, "a line feed, which an OpenKE list cannot", remedy)
        if name[-1] in " \t":
            problem = "a space or tab at its end, which an OpenKE list cannot"
            raise refusal(path, name, problem, remedy)


def _shown(raw: bytes) -> str:
    return repr(raw[:80].decode(errors="replace"))
