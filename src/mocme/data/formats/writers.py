"""What writers share: a file that appears whole or not at all, and names that must be held exactly.

A writer takes rows (head, relation, tail) and writes every name byte for byte, so that reading
gives the same rows. A name that its format cannot hold ends the writing with an error that quotes
the name, before anything is replaced. Nothing is altered for the sake of another program: a cell
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

from mocme.data.formats.streams import COMPRESSED
from mocme.data.graph import Graph

Row = tuple[str, str, str]
# Rows that are checked and written at a time.
BATCH = 1 << 15


def rows(graph: Graph, split: str) -> Iterator[Row]:
    """The facts of a split by name, in their order."""
    yield from named(graph.splits[split], graph.entities.names, graph.relations.names)


def named(
    facts: Int[Tensor, "n 3"], entities: Sequence[str], relations: Sequence[str]
) -> Iterator[Row]:
    """Facts by name, in their order."""
    for part in facts.split(BATCH):
        for head, relation, tail in part.tolist():
            yield entities[head], relations[relation], entities[tail]


def batches(found: Iterable[Row], path: str | Path) -> Iterator[list[Row]]:
    """Rows in batches, each with names that some format can hold.

    Raises:
        ValueError: a name is empty, or holds half a surrogate pair, which is no character.
    """
    rest = iter(found)
    while batch := list(islice(rest, BATCH)):
        check(list(chain.from_iterable(batch)), path)
        yield batch


def check(names: Sequence[str], path: str | Path) -> None:
    """Whether there is a format that can hold each of these names.

    Raises:
        ValueError: a name is empty, or holds half a surrogate pair, which is no character.
    """
    if not all(names):
        raise ValueError(f"{path}: a name is empty, which no format can hold; name it")
    try:
        "".join(names).encode()
    except UnicodeEncodeError as error:
        name = next(name for name in names if any("\ud800" <= c <= "\udfff" for c in name))
        problem = "half a surrogate pair, which no text in UTF-8 can"
        raise refusal(path, name, problem) from error


def refusal(path: str | Path, name: str, problem: str, remedy: str = "rename it") -> ValueError:
    """The error about a name that a format cannot hold."""
    shown = repr(name) if len(name) <= 80 else f"{name[:80]!r}... ({len(name):,} characters)"
    return ValueError(f"{path}: the name {shown} holds {problem} hold; {remedy}")


@contextmanager
def written(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` at once when the block ends without error.

    It is compressed where the name ends in ``.gz`` or ``.zst``. With ``-`` it is standard output,
    plain, where what was written before an error stays written.

    Raises:
        ValueError: the file cannot be written there, or zstandard is not installed.
    """
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    # Through a link, the file it points to is replaced, not the link.
    whole = Path(os.path.realpath(path))
    if whole.exists() and not whole.is_file():
        raise ValueError(f"{path}: is no regular file; give the name of a file, or - for output")
    # Always the same name, so that what a killed process left is swept by the next writer.
    fresh = whole.with_name(f".{whole.name}.tmp")
    try:
        with fresh.open("wb") as plain:
            with _compressed(plain, Path(path).suffix.lower()) as file:
                yield file
            plain.flush()
            os.fsync(plain.fileno())
        os.replace(fresh, whole)
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be written ({error.strerror or error}); check the folder and its space"
        ) from error
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def _compressed(plain: BinaryIO, ending: str) -> Iterator[BinaryIO]:
    if ending not in COMPRESSED:
        yield plain
    elif ending == ".gz":
        # Neither name nor time, so that equal rows make equal files.
        with gzip.GzipFile(filename="", fileobj=plain, mode="wb", compresslevel=6, mtime=0) as file:
            yield file  # type: ignore[misc]
    else:
        with needs("zstandard", ".zst files"):
            import zstandard
        with zstandard.ZstdCompressor(level=3).stream_writer(plain, closefd=False) as file:
            yield file


@contextmanager
def needs(library: str, what: str) -> Iterator[None]:
    """Turns a missing library into an error that says how to install it."""
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"{what} need {library}, which is not installed; pip install 'mocme[tables]'"
        ) from error


def write_tsv(path: str | Path, found: Iterable[Row]) -> None:
    """Write rows as TSV (see `mocme.data.formats.tsv`).

    Raises:
        ValueError: a name holds a tab or a line feed, a tail ends with a carriage return, or the
            file would start with a byte order mark; and those of `batches` and `written`.
    """
    remedy = "write CSV, JSON lines or Parquet, which hold it, or rename it"
    with written(path) as file:
        start = True
        for batch in batches(found, path):
            if start and batch[0][0].startswith("\ufeff"):
                problem = "a byte order mark where the file starts, which TSV cannot"
                raise refusal(path, batch[0][0], problem, remedy)
            start = False
            text = "".join([f"{head}\t{relation}\t{tail}\n" for head, relation, tail in batch])
            whole = (2 * len(batch), len(batch), 0)
            if (text.count("\t"), text.count("\n"), text.count("\r\n")) != whole:
                raise refusal(path, *_not_tsv(batch), remedy)
            file.write(text.encode())


def _not_tsv(batch: Sequence[Row]) -> tuple[str, str]:
    """The first name that TSV cannot hold, and why."""
    for row in batch:
        for name in row:
            if "\t" in name or "\n" in name:
                return name, f"a {'tab' if chr(9) in name else 'line feed'}, which TSV cannot"
        if row[2].endswith("\r"):
            return row[2], "a carriage return at the end of a line, which TSV cannot"
    raise AssertionError("every name fits")
