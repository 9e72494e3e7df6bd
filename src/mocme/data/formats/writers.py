"""What writers share: atomic files, and names that must be stored exactly.

A writer takes rows (head, relation, tail) and writes every name byte for byte, so that reading
gives the same rows. A name that its format cannot hold ends the writing with an error that quotes
the name, before anything is replaced. Nothing is changed for the sake of another program: a cell
that a spreadsheet would run as a formula (``=1+1``) is written as it is.
"""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from jaxtyping import Int
from torch import Tensor

from mocme.core.extras import extra
from mocme.data.formats.streams import COMPRESSED
from mocme.data.graph import Graph
from mocme.data.names import shown
from mocme.storage.workspace import as_write_errors, workspace

Row = tuple[str, str, str]
# Rows that are checked and written at a time.
BATCH = 1 << 15


def fact_rows(graph: Graph, split: str) -> Iterator[Row]:
    """The facts of a split by name, in their order."""
    yield from named_facts(graph.splits[split], graph.entities.names, graph.relations.names)


def named_facts(
    facts: Int[Tensor, "n 3"], entities: Sequence[str], relations: Sequence[str]
) -> Iterator[Row]:
    """Facts by name, in their order."""
    for part in facts.split(BATCH):
        for head, relation, tail in part.tolist():
            yield entities[head], relations[relation], entities[tail]


def batches(facts: Iterable[Row], path: str | Path) -> Iterator[list[Row]]:
    """Rows in batches of `BATCH`, after `check_names` of their names.

    Raises:
        ValueError: a name is empty or contains half a surrogate pair.
    """
    iterator = iter(facts)
    while batch := list(islice(iterator, BATCH)):
        check_names(list(chain.from_iterable(batch)), path)
        yield batch


def check_names(names: Sequence[str], path: str | Path) -> None:
    """Check that names are neither empty nor invalid Unicode, which no format can hold.

    Raises:
        ValueError: a name is empty or contains half a surrogate pair, which is not a character.
    """
    if not all(names):
        raise ValueError(f"{path}: a name is empty, which no format can hold; name it")
    try:
        "".join(names).encode()
    except UnicodeEncodeError as error:
        name = next(name for name in names if any("\ud800" <= c <= "\udfff" for c in name))
        problem = "half a surrogate pair, which no text in UTF-8 can"
        raise name_error(path, name, problem) from error


def name_error(path: str | Path, name: str, problem: str, remedy: str = "rename it") -> ValueError:
    """The error about a name that a format cannot hold.

    Args:
        problem: ends with "which ... cannot", to which "hold" is added.
    """
    return ValueError(f"{path}: the name {shown(name)} holds {problem} hold; {remedy}")


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write, which replaces `path` atomically if the block ends without an error.

    It is compressed if the name ends with ``.gz`` or ``.zst``. ``-`` is standard output, which is
    not compressed and keeps what was written before an error.

    Raises:
        ValueError: the file cannot be written, or zstandard is not installed.
    """
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    # The target of a symbolic link is replaced, not the link.
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise ValueError(f"{path}: is not a regular file; give the name of a file, or - for output")
    with as_write_errors(path), workspace(target) as folder:
        temporary = folder / "content"
        with temporary.open("xb") as stored:
            with _compressed(stored, Path(path).suffix.lower()) as file:
                yield file
            stored.flush()
            os.fsync(stored.fileno())
        os.replace(temporary, target)


@contextmanager
def _compressed(stored: BinaryIO, suffix: str) -> Iterator[BinaryIO]:
    if suffix not in COMPRESSED:
        yield stored
    elif suffix == ".gz":
        # Without a name and a time in the header, equal rows make equal files.
        with gzip.GzipFile(
            filename="", fileobj=stored, mode="wb", compresslevel=6, mtime=0
        ) as file:
            yield file  # type: ignore[misc]
    else:
        with extra("zstandard", "tables", ".zst files need"):
            import zstandard
        with zstandard.ZstdCompressor(level=3).stream_writer(stored, closefd=False) as file:
            yield file


def write_names(path: str | Path, names: Iterable[str]) -> None:
    """Write a list of names, one per line; the number of a line is an id.

    Raises:
        ValueError: the file cannot be written.
    """
    with atomic_file(path) as file:
        file.write("".join(f"{name}\n" for name in names).encode())
