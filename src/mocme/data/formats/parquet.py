"""Parquet with named columns of strings, read and written piece by piece.

In the report, a line is a row, counted from 1. Parquet keeps what it needs at its end, so standard
input is put into a file first; and it compresses by itself.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from mocme.data.formats.coded import of_arrow
from mocme.data.formats.named import CellColumns, Wanted, places
from mocme.data.formats.report import Block, Report
from mocme.data.formats.streams import COMPRESSED
from mocme.data.formats.writers import Row, batches, needs, written

# Rows of names that are read at a time, and of other cells, which may be long texts.
NAMES, CELLS = 1 << 18, 1 << 14
# Bytes of a column that are fetched at a time; without it, it would be held whole.
BUFFER = 1 << 20
# Batches that are written as one group of rows; so many are held.
GROUP = 4


def facts(path: str | Path, report: Report, columns: Wanted = None) -> Iterator[Block]:
    """Facts of a file, block by block. Columns that are not asked for are not read.

    Args:
        columns: which columns hold them; by default found by their names, see `named.places`.

    Raises:
        ValueError: the file cannot be read, or has no such columns, or they are not of strings.
    """
    with needs("pyarrow", "Parquet files"):
        import pyarrow
        import pyarrow.parquet
    strict = not isinstance(columns, CellColumns)
    # As a plain path: a star, a tilde or an address in it mean nothing.
    with _file(path, report) as real, _named(path, pyarrow), pyarrow.OSFile(real) as opened:
        # Unless told otherwise, all columns of a group of rows would be fetched at once.
        file = pyarrow.parquet.ParquetFile(
            opened, buffer_size=BUFFER, pre_buffer=False, arrow_extensions_enabled=False
        )
        schema = file.schema_arrow
        chosen = [schema.names[place] for place in places(schema.names, columns, str(path))]
        for name in chosen:
            _check(schema.field(name), strict, path, pyarrow)
        size = NAMES if strict else CELLS
        for batch in file.iter_batches(size, columns=chosen, use_threads=False):
            found = [_strings(batch.column(name), pyarrow) for name in chosen]
            block = _block(found, chosen, report, strict)
            report.rows += len(block.lines)
            if block.lines:
                yield block
        if report.lines != file.metadata.num_rows:
            raise ValueError(
                f"{path}: says that it has {file.metadata.num_rows:,} rows, but {report.lines:,} "
                f"could be read; export it again"
            )


def write(path: str | Path, found: Iterable[Row]) -> None:
    """Write rows with the columns head, relation and tail. Parquet holds every name.

    Raises:
        ValueError: those of `writers.batches` and `writers.written`, and for the ending of a
            compression.
    """
    with needs("pyarrow", "Parquet files"):
        import pyarrow
        import pyarrow.parquet
    if Path(path).suffix.lower() in COMPRESSED:
        raise ValueError(f"{path}: Parquet compresses by itself; name it .parquet")
    schema = pyarrow.schema([(name, pyarrow.string()) for name in ("head", "relation", "tail")])
    with (
        written(path) as file,
        pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        parts = (
            pyarrow.record_batch([pyarrow.array(c) for c in zip(*batch, strict=True)], schema)
            for batch in batches(found, path)
        )
        while group := list(islice(parts, GROUP)):
            writer.write_table(pyarrow.Table.from_batches(group))


@contextmanager
def _file(path: str | Path, report: Report) -> Iterator[str]:
    """Where the bytes lie, which start as those of Parquet do; their SHA-256 is in the report.

    Raises:
        ValueError: they cannot be read, or start otherwise.
    """
    with ExitStack() as stack:
        try:
            if str(path) == "-":
                file: IO[bytes] = stack.enter_context(NamedTemporaryFile(suffix=".parquet"))
                shutil.copyfileobj(sys.stdin.buffer, file)
                file.seek(0)
            else:
                file = stack.enter_context(Path(path).open("rb"))
            if file.read(4) != b"PAR1":
                raise ValueError(
                    f"{path}: is no Parquet file; check its ending, and decompress it if it is "
                    f"compressed (Parquet compresses by itself)"
                )
            file.seek(0)
            report.sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        except OSError as error:
            reason = f"cannot be read ({error.strerror}); check the path"
            raise ValueError(f"{path}: {reason}") from error
        yield file.name


@contextmanager
def _named(path: str | Path, pyarrow: Any) -> Iterator[None]:
    """Turns what pyarrow says of a file into an error that names it."""
    try:
        yield
    except (pyarrow.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise ValueError(
            f"{path}: cannot be read as Parquet ({reason}); export it again"
        ) from error


def _check(field: Any, strict: bool, path: str | Path, pyarrow: Any) -> None:
    """Whether a column holds strings; where it need not hold names, what can be written as one."""
    kind = field.type.value_type if pyarrow.types.is_dictionary(field.type) else field.type
    known = pyarrow.types
    if known.is_string(kind) or known.is_large_string(kind) or known.is_string_view(kind):
        return
    if not strict and not known.is_nested(kind):
        return
    remedy = "cast it to string first, as only you know how its values are to be written"
    if known.is_nested(kind):
        remedy = "write a row for each value (lists are taken from JSON lines only)"
    raise ValueError(f"{path}: the column {field.name!r} holds {field.type}, not names; {remedy}")


def _strings(column: Any, pyarrow: Any) -> Any:
    """A column as an array of strings, of which neither length nor encoding has been looked at."""
    if pyarrow.types.is_dictionary(column.type):
        # Unlike a cast, this looks whether the indices, which are the file's, are within bounds.
        column = column.dictionary.take(column.indices)
    return column.cast(pyarrow.large_string())


def _block(columns: Sequence[Any], names: Sequence[str], report: Report, strict: bool) -> Block:
    """The rows of some arrays without null or an empty name; the others go into the report."""
    first = report.lines + 1
    report.lines += len(columns[0])
    whole = [_whole(column, strict) for column in columns]
    texts = tuple(column for column in whole if column is not None)
    if len(texts) == len(columns):
        return Block(texts, range(first, report.lines + 1))
    rows: list[tuple[str, ...]] = []
    numbers: list[int] = []
    cells = [column.cast("large_binary").to_pylist() for column in columns]
    for number, row in enumerate(zip(*cells, strict=True), first):
        try:
            names_of_row = tuple([(cell or b"").decode() for cell in row])
        except UnicodeDecodeError:
            report.reject(number, "not valid UTF-8", repr(row))
            continue
        if strict and None in row:
            report.reject(number, f"{names[row.index(None)]!r} is null", repr(names_of_row))
        elif strict and not all(names_of_row):
            report.reject(number, "an empty name", repr(names_of_row))
        else:
            rows.append(names_of_row)
            numbers.append(number)
    return Block(tuple(map(list, zip(*rows, strict=True))) or ([],) * len(names), numbers)


def _whole(column: Any, strict: bool) -> Sequence[str] | None:
    """The cells of an array that are all text, and, where `strict`, names; None if some are not."""
    try:
        column.validate(full=True)
    except ValueError:
        return None
    if column.null_count:
        return None
    if not strict:
        cells: list[str] = column.to_numpy(zero_copy_only=False).tolist()
        return cells
    coded = of_arrow(column)
    return coded if all(coded.names) else None
