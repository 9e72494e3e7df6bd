"""A zip archive as a small store of files: atomic updates, reproducible bytes.

Members are sorted by name, dated alike and compressed alike, so that equal content gives an equal
file (for one version of zlib). Any zip tool can list, extract and delete members.
"""

from __future__ import annotations

import fcntl
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mocme.storage.atomic_io import sync
from mocme.storage.workspace import workspace

DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can hold
UNIX, REGULAR_FILE = 3, 0o100644 << 16
# Bytes of a member and of all, unpacked; a million questions have ranks of 8 MB. A small archive
# from elsewhere could unpack to any size.
MEMBER_BYTES, ARCHIVE_BYTES = 1 << 26, 1 << 30
DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)


class ResultError(ValueError):
    """A result is unreadable or does not match; the message names the file and the remedy."""


@dataclass(frozen=True)
class ResultArchive:
    """The archive at `path`; a missing or an empty file is an archive without members."""

    path: Path

    def names(self) -> list[str]:
        """Names of all members, in ascending order.

        Raises:
            ResultError: the archive is damaged.
        """
        return sorted(self._read_all())

    def read(self, name: str) -> bytes | None:
        """Content of a member, or None if there is no such member.

        Raises:
            ResultError: the archive is damaged.
        """
        with self._opened() as archive:
            if archive is None or name not in archive.namelist():
                return None
            return archive.read(name)

    def update(self, edit: Callable[[dict[str, bytes]], object]) -> None:
        """Let `edit` change the members in place, and replace the file.

        Other processes wait for their turn, so that no update is lost. After a crash or a power
        failure the file holds either all changes or none.

        Raises:
            ResultError: the archive is damaged; it stays as it is.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            members = self._read_all()
            edit(members)
            with workspace(self.path) as folder:
                temporary = folder / "content"
                temporary.write_bytes(_packed(members))
                sync(temporary)
                # The new file has a lock of its own: from here on, the next writer may be at work.
                os.replace(temporary, self.path)
                sync(self.path.parent)

    def _read_all(self) -> dict[str, bytes]:
        with self._opened() as archive:
            return {} if archive is None else {n: archive.read(n) for n in archive.namelist()}

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile | None]:
        try:
            if not self._exists():
                yield None
                return
            with zipfile.ZipFile(self.path) as archive:
                sizes = [member.file_size for member in archive.infolist()]
                if max(sizes, default=0) > MEMBER_BYTES or sum(sizes) > ARCHIVE_BYTES:
                    raise ValueError(
                        f"it unpacks to more than {MEMBER_BYTES >> 20:,} MiB a member, or "
                        f"{ARCHIVE_BYTES >> 20:,} MiB"
                    )
                yield archive
        except DAMAGES as error:
            raise ResultError(
                f"{self.path} is damaged ({error}); restore it from a copy, or delete it and run "
                f"the benchmark again"
            ) from error

    def _exists(self) -> bool:
        """Whether there is a file with content.

        Raises:
            ResultError: there is a folder, a pipe or a device.
        """
        if not self.path.exists():
            return False
        if not self.path.is_file():
            raise ResultError(f"{self.path}: is no regular file; remove it, or change results")
        return self.path.stat().st_size > 0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the file that is at `path`.

        A writer replaces the file, and with it the lock: who waited for the old one starts again.
        """
        while True:
            self._exists()
            with self.path.open("ab") as file:  # an empty file, if there was none
                fcntl.flock(file, fcntl.LOCK_EX)
                if self._is_at_path(file):
                    yield
                    return

    def _is_at_path(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False


def _packed(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, DATE)
            # Both depend on the platform by default.
            info.create_system, info.external_attr = UNIX, REGULAR_FILE
            archive.writestr(info, members[name], zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue()
