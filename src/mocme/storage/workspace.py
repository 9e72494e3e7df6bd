"""Temporary folders that belong to one writer, next to what they will replace."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

# A longer name is replaced by its digest, because names of files have at most 255 bytes.
_MAX_NAME_BYTES = 200
_TOKEN_BYTES = 8


@contextmanager
def workspace(target: Path) -> Iterator[Path]:
    """Yield an empty folder next to `target` that only this writer uses; it is removed at the end.

    Its name is random and it is created exclusively, so writers of one target do not meet and
    nothing that lies there is followed or overwritten. The writer holds a lock on it. The folder
    of a killed process has no lock any more, and the next writer of the same target removes it.

    Raises:
        OSError: the folder of `target` cannot be written.
    """
    remove_leftovers(target)
    folder, descriptor = _create(target)
    try:
        yield folder
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:  # the lock ends with the folder, or with the attempt to remove it
            os.close(descriptor)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which becomes `path` if the block ends without an error.

    The folder appears with all its content at once. Of several processes that make one folder at
    the same time, the first to finish makes it, and the others raise an error.

    Raises:
        ValueError: `path` is a file or a folder with content, another process is making it, or it
            cannot be written.
    """
    # A link to an empty folder stays; the folder is replaced.
    target = Path(os.path.realpath(path))
    with ExitStack() as stack:
        with as_write_errors(path):
            if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
                raise _used(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(target)
            _refuse_if_in_use(path, target)
            content = stack.enter_context(workspace(target)) / "content"
            content.mkdir()
        yield content
        with as_write_errors(path):
            try:
                os.rename(content, target)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise _used(path) from error
                raise


def _refuse_if_in_use(path: Path, target: Path) -> None:
    for name in os.listdir(target.parent):
        if is_workspace(name, target.name):
            raise ValueError(
                f"{path}: another process is writing this folder; wait for it, or give another "
                f"folder (if there is no such process, remove {target.parent / name})"
            )


def _used(path: Path) -> ValueError:
    return ValueError(f"{path}: already exists; remove it or give another folder")


@contextmanager
def as_write_errors(path: str | Path) -> Iterator[None]:
    """Turn errors of the system into an error for the user that what is at `path` is not written.

    Raises:
        ValueError: with the reason and a remedy.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be written ({error.strerror or error}); check the folder and its space"
        ) from error


def is_workspace(name: str, target: str) -> bool:
    """Return whether a file name is that of a workspace of the file or folder named `target`."""
    # Without a token: the fixed name of version 0.1.
    token = rf"(\.[0-9a-f]{{{2 * _TOKEN_BYTES}}})?"
    return bool(re.fullmatch(rf"\.{re.escape(_stem(target))}{token}\.tmp", name, re.DOTALL))


def remove_leftovers(target: Path) -> None:
    """Remove what killed writers of `target` left; workspaces in use stay."""
    try:
        names = os.listdir(target.parent)
    except OSError:  # the folder is missing, or may be written but not listed
        return
    for name in names:
        if name.endswith(".tmp") and is_workspace(name, target.name):
            _remove_unlocked(target.parent / name)


def remove_all_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder, whatever they wrote."""
    for name in os.listdir(folder):
        if re.fullmatch(rf"\..*\.[0-9a-f]{{{2 * _TOKEN_BYTES}}}\.tmp", name, re.DOTALL):
            _remove_unlocked(folder / name)


def _stem(name: str) -> str:
    encoded = os.fsencode(name)
    is_short = len(encoded) <= _MAX_NAME_BYTES
    return name if is_short else hashlib.sha256(encoded).hexdigest()[:32]


def _create(target: Path) -> tuple[Path, int]:
    """Create a workspace; return it and the descriptor that holds its lock."""
    while True:
        token = os.urandom(_TOKEN_BYTES).hex()
        folder = target.with_name(f".{_stem(target.name)}.{token}.tmp")
        os.mkdir(folder, 0o700)
        # Another writer may take the folder for a leftover before it is locked; then take a new
        # one.
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.lstat(folder)):
                return folder, descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except OSError:  # a file system without locks for folders: leftovers stay there
            return folder, descriptor
        os.close(descriptor)


def _remove_unlocked(path: Path) -> None:
    """Remove a workspace of this user, unless its writer holds the lock."""
    try:
        # Neither a link is followed nor a pipe waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(status.st_mode):
            shutil.rmtree(path, ignore_errors=True)
        elif stat.S_ISREG(status.st_mode):
            path.unlink(missing_ok=True)
    except OSError:  # in use, or on a file system without locks
        return
    finally:
        os.close(descriptor)
