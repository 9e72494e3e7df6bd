"""Crash-safe files: atomic replacement, with a checksum next to each file."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mocme.core.notices import Notice
from mocme.storage.errors import RESTORE, RunError, RunLocked, RunReplaced
from mocme.storage.regular_files import open_regular
from mocme.storage.workspace import workspace

# What json, torch and safetensors raise for content that they cannot write or read.
FORMAT_ERRORS = (TypeError, LookupError, ValueError, RuntimeError, SafetensorError)
# What a medium that is read-only, full, or of another user answers to a writer.
NOT_WRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT})
# What a file system without such locks answers, as NFS does for locks on folders.
_NO_LOCKS = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP})
# A writer holds the lock of a folder for the time of two renames and a few flushes.
_LOCK_SECONDS, _LOCK_PAUSE = 60.0, 0.002

# Bytes of a .sha256 that are read: it has two lines.
MAX_CHECKSUMS = 4096


class NotKept(Notice):
    """A result is used but could not be stored; the message gives the reason and a remedy."""


@contextmanager
def kept_if_possible(what: str, remedy: str) -> Iterator[None]:
    """Warn, instead of failing, where a result cannot be stored.

    The warning `NotKept` is given where the medium is read-only or full or belongs to another user,
    another process does not stop writing, or the run was replaced. All other errors are raised.

    Args:
        what: the result, as the begin of the message.
        remedy: what to do to keep it, as the end of the message.
    """
    try:
        yield
    except (OSError, RunLocked, RunReplaced) as error:
        if isinstance(error, OSError) and error.errno not in NOT_WRITABLE:
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        # The level of the caller's caller, behind the two frames of the context manager.
        warnings.warn(f"{what} ({reason}); {remedy}", NotKept, stacklevel=4)


def damage_error(path: Path, why: str) -> RunError:
    """Return the error for a file whose content is not what was written."""
    return RunError(f"{path} {why}; {RESTORE}")


@contextmanager
def as_run_errors(path: Path, problem: str) -> Iterator[None]:
    """Turn errors of the format libraries into a `RunError` that names the file."""
    try:
        yield
    except FORMAT_ERRORS as e:
        raise e if isinstance(e, RunError) else RunError(f"{path} {problem}: {e!r}") from e


def sync(path: Path) -> None:
    """Flush a file's content, or a directory's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems do not support it for directories
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def digest(path: Path) -> str:
    """Return the SHA-256 of the content of a regular file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum_path(path: Path) -> Path:
    """Return the path of the file with the checksum of `path`."""
    return path.with_name(f"{path.name}.sha256")


def valid_line(path: Path) -> str | None:
    """Return the line with the file's checksum, or None if its .sha256 lacks that line."""
    try:
        with open_regular(checksum_path(path)) as file:
            lines = file.read(MAX_CHECKSUMS)
    except FileNotFoundError:
        return None
    line = f"{digest(path)}  {path.name}\n"
    return line if line.encode() in lines else None


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Replace a file atomically by what `write` writes; see `mocme.storage`.

    Raises:
        RunError: `write` raised an error about the content.
    """
    with workspace(path) as folder:
        content, checksums = folder / "content", folder / "record"
        with as_run_errors(path, "cannot store this content"):
            write(content)
        line = f"{digest(content)}  {path.name}\n"
        sync(content)
        # Another writer must not come between the two renames: its record would lack this content.
        with directory_lock(path.parent):
            # The present content stays valid only if it is valid: damage must not become accepted.
            present = valid_line(path) if path.exists() else None
            checksums.write_bytes(f"{line}{present or ''}".encode())
            sync(checksums)
            os.replace(checksums, checksum_path(path))
            sync(path.parent)
            os.replace(content, path)
            sync(path.parent)


@contextmanager
def directory_lock(folder: Path) -> Iterator[None]:
    """Hold the exclusive lock on a directory's list of names, for a moment.

    Raises:
        RunLocked: another process holds it for a minute.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        acquire_lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def acquire_lock(descriptor: int, path: Path) -> None:
    """Wait for the exclusive lock on an open file or directory; closing it releases the lock.

    On a file system without such locks this does nothing.

    Raises:
        RunLocked: another process holds it for a minute.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise RunLocked(
                    f"another process has been writing {path} for {_LOCK_SECONDS:g} s; end it, "
                    f"then try again"
                ) from None
            time.sleep(_LOCK_PAUSE)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return


def write_json(path: Path, value: Any) -> None:
    """Write JSON to a new file; to replace an existing file, see `replace_file`."""
    path.write_bytes((json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())
