"""Parquet with named columns of strings, read and written in pieces.

In the report, a line is a row, counted from 1. Parquet stores its metadata at the end, so standard
input is copied to a file first. Parquet has a compression of its own.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from mocme.core.extras import extra
from mocme.core.files import open_regular
from mocme.data.formats.base import Format
from mocme.data.formats.coded import from_arrow
from mocme.data.formats.columns import CellColumns, Columns, column_indices
from mocme.data.formats.report import Block, Report
from mocme.data.formats.streams import COMPRESSED
from mocme.data.formats.writers import Row, atomic_file, batches

# Rows per block of names, and of other cells, which may be long texts.
NAME_ROWS, CELL_ROWS = 1 << 18, 1 << 14
# Bytes of a column that are fetched at a time; without a limit, a column chunk is held completely.
BUFFER = 1 << 20
# Batches per row group; a row group is held in memory.
GROUP = 4


def facts(path: str | Path, report: Report, columns: Columns = None) -> Iterator[Block]:
    """Facts of a file, block by block. Other columns are not read.

    Args:
        columns: which columns are read; see `columns.column_indices` for the default.

    Raises:
        ValueError: the file cannot be read, or lacks the columns, or they are not strings.
    """
    with extra("pyarrow", "tables", "Parquet files need"):
        import pyarrow
        import pyarrow.parquet
    strict = not isinstance(columns, CellColumns)
    # OSFile takes a plain path: a star, a tilde or an address in it has no special meaning.
    with _checked(path, report) as real, _readable(path, pyarrow), pyarrow.OSFile(real) as opened:
        # By default, all columns of a row group would be fetched at once.
        file = pyarrow.parquet.ParquetFile(
            opened, buffer_size=BUFFER, pre_buffer=False, arrow_extensions_enabled=False
        )
        schema = file.schema_arrow
        chosen = [schema.names[index] for index in column_indices(schema.names, columns, str(path))]
        for name in chosen:
            _check_type(schema.field(name), strict, path, pyarrow)
        size = NAME_ROWS if strict else CELL_ROWS
        for batch in file.iter_batches(size, columns=chosen, use_threads=False):
            arrays = [_strings(batch.column(name), pyarrow) for name in chosen]
            block = _block(arrays, chosen, report, strict)
            report.rows += len(block.lines)
            if block.lines:
                yield block
        if report.lines != file.metadata.num_rows:
            raise ValueError(
                f"{path}: its metadata says {file.metadata.num_rows:,} rows, but {report.lines:,} "
                f"could be read; export it again"
            )


def write(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows with the columns head, relation and tail. Parquet holds every name.

    Raises:
        ValueError: the name of the file has the ending of a compression; see also
            `writers.batches` and `writers.written`.
    """
    with extra("pyarrow", "tables", "Parquet files need"):
        import pyarrow
        import pyarrow.parquet
    if Path(path).suffix.lower() in COMPRESSED:
        raise ValueError(f"{path}: Parquet compresses by itself; name it .parquet")
    schema = pyarrow.schema([(name, pyarrow.string()) for name in ("head", "relation", "tail")])
    with (
        atomic_file(path) as file,
        pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        record_batches = (
            pyarrow.record_batch([pyarrow.array(c) for c in zip(*batch, strict=True)], schema)
            for batch in batches(rows, path)
        )
        while group := list(islice(record_batches, GROUP)):
            writer.write_table(pyarrow.Table.from_batches(group))


@contextmanager
def _checked(path: str | Path, report: Report) -> Iterator[str]:
    """The path of a file that starts as Parquet does; the report gets its SHA-256.

    Raises:
        ValueError: the file cannot be read, or starts otherwise.
    """
    with ExitStack() as stack:
        try:
            if str(path) == "-":
                file: IO[bytes] = stack.enter_context(NamedTemporaryFile(suffix=".parquet"))
                shutil.copyfileobj(sys.stdin.buffer, file)
                file.seek(0)
            else:
                file = stack.enter_context(io.BufferedReader(open_regular(path)))
            if file.read(4) != b"PAR1":
                raise ValueError(
                    f"{path}: is not a Parquet file; check its ending, and decompress it if it is "
                    f"compressed (Parquet compresses by itself)"
                )
            file.seek(0)
            report.sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        except OSError as error:
            reason = f"cannot be read ({error.strerror}); check the path"
            raise ValueError(f"{path}: {reason}") from error
        yield file.name if str(path) == "-" else str(path)


@contextmanager
def _readable(path: str | Path, pyarrow: Any) -> Iterator[None]:
    """Turn an error of pyarrow into one that names the file."""
    try:
        yield
    except (pyarrow.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise ValueError(
            f"{path}: cannot be read as Parquet ({reason}); export it again"
        ) from error


def _check_type(field: Any, strict: bool, path: str | Path, pyarrow: Any) -> None:
    """Refuse a column that does not hold strings, or without `strict`, that has nested values."""
    kind = field.type.value_type if pyarrow.types.is_dictionary(field.type) else field.type
    types = pyarrow.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return
    if not strict and not types.is_nested(kind):
        return
    remedy = "cast it to string first, because only you know how its values are to be written"
    if types.is_nested(kind):
        remedy = "write a row for each value (lists are read from JSON lines only)"
    raise ValueError(f"{path}: the column {field.name!r} holds {field.type}, not names; {remedy}")


def _strings(column: Any, pyarrow: Any) -> Any:
    """A column as an array of strings, whose offsets and encoding are not validated yet."""
    if pyarrow.types.is_dictionary(column.type):
        # Unlike a cast, `take` checks that the indices, which come from the file, are in range.
        column = column.dictionary.take(column.indices)
    return column.cast(pyarrow.large_string())


def _block(columns: Sequence[Any], names: Sequence[str], report: Report, strict: bool) -> Block:
    """The rows of some arrays without nulls and empty names; the others go into the report."""
    first = report.lines + 1
    report.lines += len(columns[0])
    complete = [_complete(column, strict) for column in columns]
    texts = tuple(column for column in complete if column is not None)
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


def _complete(column: Any, strict: bool) -> Sequence[str] | None:
    """The cells of an array if all are text, and with `strict`, not empty; otherwise None."""
    try:
        column.validate(full=True)
    except ValueError:
        return None
    if column.null_count:
        return None
    if not strict:
        cells: list[str] = column.to_numpy(zero_copy_only=False).tolist()
        return cells
    coded = from_arrow(column)
    return coded if all(coded.names) else None


FORMAT = Format(name="Parquet", endings=(".parquet",), facts=facts, write=write, cells=facts)
