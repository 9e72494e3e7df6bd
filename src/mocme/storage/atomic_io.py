"""Crash-safe files: atomic replacement, with a checksum next to each file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mocme.storage.errors import RESTORE, RunError
from mocme.storage.regular_files import open_regular

# What json, torch and safetensors raise for content that they cannot write or read.
FORMAT_ERRORS = (TypeError, LookupError, ValueError, RuntimeError, SafetensorError)

# Bytes of a .sha256 that are read: it has two lines.
MAX_CHECKSUMS = 4096


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
    # A fixed name, so that the next writer removes what a killed process left.
    workspace = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir()
    content, checksums = workspace / "content", workspace / "record"
    try:
        with as_run_errors(path, "cannot store this content"):
            write(content)
        # The present content stays valid only if it is valid: damage must not become accepted.
        present = valid_line(path) if path.exists() else None
        checksums.write_bytes(f"{digest(content)}  {path.name}\n{present or ''}".encode())
        sync(content)
        sync(checksums)
        os.replace(checksums, checksum_path(path))
        sync(path.parent)
        os.replace(content, path)
        sync(path.parent)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON to a new file; to replace an existing file, see `replace_file`."""
    path.write_bytes((json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())
