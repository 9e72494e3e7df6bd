"""Folders whose files may be shown to others or copied for them.

Tables of a graph name files by path, and a graph can come from anyone: a path such as
``../../.ssh/id_rsa``, or a link, would give away a file that nobody meant to show. So files are
opened only beneath folders that the user named, after all links are resolved.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, final

# Opens a folder only to walk on from it, where the system can; it need not be readable then.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
# Never waits for the other end of a pipe, and never follows a link.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class NotAllowed(ValueError):
    """A path leads out of the allowed folders, or to something that is not a regular file."""


@final
class AllowedFolders:
    """Folders whose files may be read for others.

    Args:
        folders: existing folders; links in their own paths are resolved now.
        purpose: what may be done with their files, for messages.

    Raises:
        ValueError: one is not a folder.
    """

    def __init__(self, folders: Iterable[str | Path], purpose: str = "shown") -> None:
        roots = []
        for folder in folders:
            root = os.path.realpath(folder)
            if not os.path.isdir(root):
                raise ValueError(f"{folder}: is not a folder; name an existing one")
            roots.append(root)
        self.roots = tuple(dict.fromkeys(roots))
        self.outside_reason = f"lies outside of the folders whose files may be {purpose}"

    def holds(self, path: str | Path) -> bool:
        """Whether a path, with all links resolved, lies beneath one of the folders."""
        return self._root_of(os.path.realpath(path)) is not None

    def outside(self, paths: Iterable[str | Path]) -> list[str | Path]:
        """Those paths that `holds` is false of; each folder is resolved once."""
        folders: dict[str, bool] = {}
        outside: list[str | Path] = []
        for path in paths:
            folder, name = os.path.split(path)
            if name in ("", os.curdir, os.pardir) or os.path.islink(path):
                inside = self.holds(path)
            else:
                if folder not in folders:
                    folders[folder] = self.holds(folder)
                inside = folders[folder]
            if not inside:
                outside.append(path)
        return outside

    def check(self, path: str | Path) -> Path:
        """A path with all links resolved, to a regular file or a folder beneath the folders.

        Raises:
            NotAllowed: it leads elsewhere, or to a pipe or a device.
            OSError: there is nothing.
        """
        real = os.path.realpath(path, strict=True)
        if self._root_of(real) is None:
            raise NotAllowed(f"{path}: {self.outside_reason}")
        mode = os.stat(real, follow_symlinks=False).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise NotAllowed(f"{path}: is not a regular file")
        return Path(real)

    def open(self, path: str | Path) -> BinaryIO:
        """Open a regular file beneath one of the folders.

        The resolved path is walked from its folder without following links, so that a link that
        replaces a part of it after the check is refused.

        Raises:
            NotAllowed: the path leads elsewhere, or to something that is not a regular file.
            OSError: there is no such file, or it cannot be read.
        """
        real = os.path.realpath(path, strict=True)
        root = self._root_of(real)
        if root is None:
            raise NotAllowed(f"{path}: {self.outside_reason}")
        try:
            descriptor = _walk(root, os.path.relpath(real, root).split(os.sep))
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENOTDIR, errno.ENXIO):
                raise NotAllowed(f"{path}: is not a regular file, or was replaced") from error
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotAllowed(f"{path}: is not a regular file")
        return os.fdopen(descriptor, "rb")

    def _root_of(self, real: str) -> str | None:
        for root in self.roots:
            if real == root or real.startswith(root.rstrip(os.sep) + os.sep):
                return root
        return None


def _walk(root: str, parts: list[str]) -> int:
    """The descriptor of the file at the end of a path below a folder."""
    folder = os.open(root, _FOLDER)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            folder, outer = inner, folder
            os.close(outer)
        return os.open(parts[-1], _FILE, dir_fd=folder)
    finally:
        os.close(folder)
