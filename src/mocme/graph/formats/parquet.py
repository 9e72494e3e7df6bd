"""Parquet with named columns of strings, read slice by slice.

In the report, a line is a row, counted from 1. Parquet keeps what it needs at its end, so it is
read from a file only, not from standard input; and it compresses by itself.

Known limit: a damaged file that claims absurd sizes can make polars end the whole process, for it
aborts where an allocation fails, and nothing here can catch that. Other damage is an error that
names the file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mocme.graph.formats.named import Cells, Wanted, places
from mocme.graph.formats.report import Block, Report
from mocme.graph.formats.streams import COMPRESSED
from mocme.graph.formats.writers import Row, batches, needs, written

# Rows that are held as a table at a time, and as Python strings. Getting at a slice may mean
# reading what stands in front of it, so that small ones would make it slow.
SLICE, TOGETHER = 1 << 19, 1 << 16


def facts(path: str | Path, report: Report, columns: Wanted = None) -> Iterator[Block]:
    """Facts of a file, block by block. Columns that are not asked for are not read.

    Args:
        columns: which columns hold them; by default found by their names, see `named.places`.

    Raises:
        ValueError: the file cannot be read, or has no such columns, or they are not of strings.
    """
    with needs("polars", "Parquet files"):
        import polars
    report.sha256 = _digest(path)
    with _named(path, polars):
        # As a plain path: a star, a tilde or an address in it mean nothing.
        table = polars.scan_parquet(os.path.abspath(path), glob=False, hive_partitioning=False)
        schema = table.collect_schema()
        names = schema.names()
        chosen = [names[place] for place in places(names, columns, str(path))]
        strict = not isinstance(columns, Cells)
        for name in chosen if strict else ():
            if not isinstance(schema[name], (polars.String, polars.Categorical, polars.Enum)):
                raise ValueError(
                    f"{path}: the column {name!r} holds {schema[name]}, not names; cast it to "
                    f"string first, as only you know how its values are to be written"
                )
        table = table.select(polars.col(name).cast(polars.String) for name in chosen)
        whole = table.select(polars.len()).collect().item()
        for start in range(0, whole, SLICE):
            for part in table.slice(start, SLICE).collect().iter_slices(TOGETHER):
                filled = part if strict else part.fill_null("")
                block = _block([filled[name].to_list() for name in chosen], chosen, report, strict)
                report.rows += len(block.lines)
                if block.lines:
                    yield block
        if report.lines != whole:
            raise ValueError(
                f"{path}: says that it has {whole:,} rows, but {report.lines:,} could be read; "
                f"export it again"
            )


def write(path: str | Path, found: Iterable[Row]) -> None:
    """Write rows with the columns head, relation and tail. Parquet holds every name.

    All rows are held until the last is there, for Parquet is written by column.

    Raises:
        ValueError: those of `writers.batches` and `writers.written`, and for the ending of a
            compression.
    """
    with needs("polars", "Parquet files"):
        import polars
    if Path(path).suffix.lower() in COMPRESSED:
        raise ValueError(f"{path}: Parquet compresses by itself; name it .parquet")
    schema = dict.fromkeys(("head", "relation", "tail"), polars.String)
    with written(path) as file:
        parts = [
            polars.DataFrame(batch, schema=schema, orient="row") for batch in batches(found, path)
        ]
        polars.concat([polars.DataFrame(schema=schema), *parts]).write_parquet(file)


def _digest(path: str | Path) -> str:
    """SHA-256 of a file that starts as Parquet does."""
    if str(path) == "-":
        raise ValueError("Parquet is not read from standard input; save it as a file first")
    try:
        with Path(path).open("rb") as file:
            if file.read(4) != b"PAR1":
                raise ValueError(
                    f"{path}: is no Parquet file; check its ending, and decompress it if it is "
                    f"compressed (Parquet compresses by itself)"
                )
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path") from error


@contextmanager
def _named(path: str | Path, polars: Any) -> Iterator[None]:
    """Turns what polars says of a file into an error that names it."""
    try:
        yield
    except BaseException as error:
        # A damaged file can end in a panic, which is neither a PolarsError nor an Exception.
        panic = type(error).__name__ == "PanicException"
        if not panic and not isinstance(error, (polars.exceptions.PolarsError, OSError)):
            raise
        reason = str(error).partition("\n")[0][:200]
        raise ValueError(
            f"{path}: cannot be read as Parquet ({reason}); export it again"
        ) from error


def _block(columns: list[list[Any]], names: list[str], report: Report, strict: bool) -> Block:
    """The rows of a slice without null or an empty name; the others go into the report."""
    first = report.lines + 1
    report.lines += len(columns[0])
    if not strict or all(map(all, columns)):
        return Block(tuple(columns), range(first, first + len(columns[0])))
    rows: list[tuple[str, ...]] = []
    numbers: list[int] = []
    for number, row in enumerate(zip(*columns, strict=True), first):
        if all(row):
            rows.append(row)
            numbers.append(number)
        elif None in row:
            report.reject(number, f"{names[row.index(None)]!r} is null", repr(row))
        else:
            report.reject(number, "an empty name", repr(row))
    return Block(tuple(map(list, zip(*rows, strict=True))) or ([], [], []), numbers)
