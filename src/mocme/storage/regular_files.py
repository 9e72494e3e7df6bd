"""Opening the files of a run: regular files only, and never through a link.

A run may come from elsewhere. A link in it could lead to any file of its reader, and a FIFO or a
device would stall whoever opens it. Only the folder of the run itself may be a link, because its
user names it.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from mocme.storage.errors import RunError

# A FIFO is opened without waiting for its other end, so that it can be recognised and refused.
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_COPY = "a run holds its files themselves; copy it with: cp -rL RUN COPY"


def check_parts(root: Path, *parts: str) -> None:
    """Refuse links below `root`: in `root`/a/b, a and b. Parts that do not exist are allowed.

    Raises:
        RunError: a part is a symbolic link.
    """
    path = root
    for part in parts:
        path = path / part
        try:
            mode = os.lstat(path).st_mode
        except OSError:  # it does not exist, or cannot be reached: opening it says so
            return
        if stat.S_ISLNK(mode):
            raise _link_error(path)


def is_regular(path: Path) -> bool:
    """Return whether there is a regular file.

    Raises:
        RunError: there is something else at the path.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    _check_mode(path, mode)
    return True


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    Raises:
        RunError: it is a link, FIFO, device or directory.
        OSError: it does not exist or cannot be read.
    """
    return os.fdopen(open_descriptor(path, os.O_RDONLY), "rb")


def read_regular(path: Path) -> bytes:
    """Read a regular file; see `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def open_descriptor(path: Path, flags: int, mode: int = 0o666) -> int:
    """`os.open` of a regular file.

    Raises:
        RunError: it is a link, FIFO, device or directory.
        OSError: it cannot be opened.
    """
    try:
        # A device may act when it is opened, so what is there already is looked at first.
        _check_mode(path, os.lstat(path).st_mode)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    try:
        descriptor = os.open(path, flags | _SAFELY, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _link_error(path) from None
        if error.errno in (errno.ENXIO, errno.EISDIR):
            raise _kind_error(path, "no file") from None
        raise
    try:
        _check_mode(path, os.fstat(descriptor).st_mode)
    except RunError:
        os.close(descriptor)
        raise
    return descriptor


def _check_mode(path: Path, mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise _link_error(path)
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        raise _kind_error(path, kinds.get(stat.S_IFMT(mode), "a device"))


def _link_error(path: Path) -> RunError:
    return RunError(f"{path} is a symbolic link, and so leaves the run; {_COPY}")


def _kind_error(path: Path, kind: str) -> RunError:
    return RunError(
        f"{path} is {kind} where a file is expected; remove it, or restore the run from a copy"
    )
