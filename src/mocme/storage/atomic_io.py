"""Files that outlive a crash: replaced at once, with a record of their sum; and logs."""

import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

TROUBLES = (TypeError, LookupError, ValueError, RuntimeError, SafetensorError)


class RunError(ValueError):
    """A run cannot be read or written as asked; the message names the file and a remedy."""


class RunLocked(RunError):
    """Another process, or another part of this one, is writing the run."""


def damaged(path: Path, why: str) -> RunError:
    """The error about a file that is not as it was written."""
    return RunError(f"{path} {why}; restore it from a copy of the run, or make the run again")


@contextmanager
def reported(path: Path, trouble: str) -> Iterator[None]:
    """Errors of the formats' libraries become RunErrors that name the file."""
    try:
        yield
    except TROUBLES as e:
        raise e if isinstance(e, RunError) else RunError(f"{path} {trouble}: {e!r}") from e


def sync(path: Path) -> None:
    """Make a file's content, or a folder's list of names, outlive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems cannot do it for folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recorded(path: Path) -> str | None:
    """The line for `path` in its record, if its content is one that the record knows."""
    record, line = path.with_name(f"{path.name}.sha256"), f"{digest(path)}  {path.name}\n"
    return line if record.exists() and line.encode() in record.read_bytes() else None


def replace(path: Path, fill: Callable[[Path], object]) -> None:
    """Put what `fill` writes in the place of `path`, at once; see `mocme.storage`."""
    # Always the same name, so that what a killed process left is swept by the next writer.
    room = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir()
    fresh, record = room / "content", room / "record"
    try:
        with reported(path, "cannot hold this"):
            fill(fresh)
        # The present content stays valid only if it was: damage must not become accepted here.
        present = recorded(path) if path.exists() else None
        record.write_bytes(f"{digest(fresh)}  {path.name}\n{present or ''}".encode())
        sync(fresh)
        sync(record)
        os.replace(record, path.with_name(f"{path.name}.sha256"))
        sync(path.parent)
        os.replace(fresh, path)
        sync(path.parent)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """To a fresh file; for one that may be there already see `replace`."""
    path.write_bytes((json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())


def whole_bytes(path: Path) -> int:
    """Bytes of a log up to the end of its last whole line; 0 if there is no such file."""
    if not path.exists() or not (size := path.stat().st_size):
        return 0
    with path.open("rb") as file:
        file.seek(size - 1)
        return size if file.read() == b"\n" else path.read_bytes().rfind(b"\n") + 1


def truncate(path: Path, size: int) -> None:
    """Shorten a log to so many bytes, if it is longer."""
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)
        sync(path)


def tail(head: bytes) -> bytes:
    """How a log's line ends that begins so: still one JSON object, checked to the byte."""
    return b'"_crc32": "%08x"}' % zlib.crc32(head)
