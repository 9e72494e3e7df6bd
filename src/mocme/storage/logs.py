"""Append-only logs: one JSON object per line, each with a CRC-32 as its last key."""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mocme.core.text_formats import parse_json
from mocme.storage.atomic_io import acquire_lock, as_run_errors, damage_error, sync
from mocme.storage.errors import refuse_invalid
from mocme.storage.regular_files import is_regular, open_regular, read_regular

Record: TypeAlias = Mapping[str, Any]


def append_record(
    path: Path, record: Record | Callable[[Sequence[dict[str, Any]]], Record]
) -> None:
    """Append a line to a log; it is on disk when this returns.

    Several processes may append to one log: each line stays whole.

    Args:
        record: the line, or a function that makes it from the present lines; no other process
            appends in between.

    Raises:
        RunError: JSON cannot represent the record, or it has the reserved key ``_crc32``.
    """
    line = None if callable(record) else _encoded(path, record)
    is_new = not path.exists()
    with path.open("ab") as file:
        acquire_lock(file.fileno(), path)
        # Otherwise the new line would continue a line that a crash cut short.
        truncate(path, complete_size(path))
        if callable(record):
            line = _encoded(path, record(read_records(path)))
        assert line is not None
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync(path.parent)


def _encoded(path: Path, record: Record) -> bytes:
    with as_run_errors(path, "cannot store this record as JSON"):
        if "_crc32" in record:
            raise ValueError("the key _crc32 is reserved")
        # The JSON of the record up to the checksum, whose length is fixed.
        prefix = json.dumps({**record, "_crc32": "01234567"}).encode()[: -len(_crc_suffix(b""))]
    return prefix + _crc_suffix(prefix) + b"\n"


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a log; an incomplete last line, as after a crash, gives a warning.

    Raises:
        RunError: the log is missing, or a line is damaged; the message has its number.
    """
    if not is_regular(path):
        raise damage_error(path, "is missing")
    records = []
    *lines, torn = read_regular(path).split(b"\n")
    for number, line in enumerate(lines, start=1):
        prefix = line[: -len(_crc_suffix(b""))]
        if prefix + _crc_suffix(prefix) != line:
            raise damage_error(path, f"is damaged in line {number}")
        with refuse_invalid(path):
            records.append(_record(line, number))
    if torn:
        # The level of the caller of `RunFolder.records`.
        warnings.warn(f"the last line of {path} is torn, and left out", stacklevel=3)
    return records


def complete_size(path: Path) -> int:
    """Return the size of a log up to the end of its last complete line; 0 if there is no file."""
    if not is_regular(path) or not (size := path.stat().st_size):
        return 0
    with open_regular(path) as file:
        file.seek(size - 1)
        return size if file.read() == b"\n" else read_regular(path).rfind(b"\n") + 1


def truncate(path: Path, size: int) -> None:
    """Truncate a log to `size` bytes, if it is longer."""
    if is_regular(path) and path.stat().st_size > size:
        os.truncate(path, size)
        sync(path)


def _record(line: bytes, number: int) -> dict[str, Any]:
    """Parse a line of a log.

    Raises:
        ValueError: it is not a JSON object; the message has its number.
    """
    try:
        record = parse_json(line, finite=False)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"line {number} is not a JSON object")
    return {key: value for key, value in record.items() if key != "_crc32"}


def _crc_suffix(prefix: bytes) -> bytes:
    """Return the end of a line that begins with `prefix`: the last key, with the CRC-32."""
    return b'"_crc32": "%08x"}' % zlib.crc32(prefix)
