"""Unpack untrusted archives: no file leaves the target folder, and size is limited."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn, cast

from mocme.core.extras import extra
from mocme.storage.workspace import new_folder

LIMIT_BYTES = 1 << 30
LIMIT_RATIO = 100.0
LIMIT_FILES = 10_000
# Up to this size no ratio is suspicious: a short text of one letter compresses 1000:1.
SMALL = 1 << 20
CHUNK = 1 << 16
ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
_DAMAGE = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    NotImplementedError,
    UnicodeError,
    struct.error,
)


class _Limits(NamedTuple):
    """Limits of one archive; `packed` is its own size in bytes."""

    archive: Path
    packed: int
    bytes: int
    ratio: float
    files: int

    def check(self, unpacked: int) -> None:
        """Refuse too much content, by the bytes unpacked so far.

        The sizes that the archive states are not trusted.
        """
        if unpacked > self.bytes:
            _refuse(self.archive, f"holds more than the {self.bytes:,} bytes that are allowed")
        if unpacked > max(SMALL, self.ratio * self.packed):
            _refuse(self.archive, f"unpacks to more than {self.ratio:g} times its own size")


def is_archive(path: str | Path) -> bool:
    """Whether a file's name has the ending of an archive."""
    return str(path).lower().endswith(ENDINGS)


def unpack(
    archive: str | Path,
    folder: str | Path,
    *,
    limit_bytes: int = LIMIT_BYTES,
    limit_ratio: float = LIMIT_RATIO,
    limit_files: int = LIMIT_FILES,
) -> list[str]:
    """Unpack a zip or tar archive (also .gz, .xz, .bz2, .zst) into a new folder.

    Only files and folders are unpacked, with default permissions. An archive with anything else,
    or with a name that leads out of `folder`, is refused as a whole. The folder appears when
    everything is unpacked, and not at all otherwise.

    Args:
        folder: must not exist.
        limit_bytes: maximum size of all content together, and of a tar stream.
        limit_ratio: maximum ratio of that to the archive's own size, for more than 1 MiB.
        limit_files: maximum number of files and folders.

    Returns:
        The names of the files, in the order of the archive.

    Raises:
        ValueError: the archive is damaged or refused, with the reason; or `folder` exists.
    """
    archive, folder = Path(archive), Path(folder)
    if os.path.lexists(folder):
        raise ValueError(f"{folder}: exists; remove it or unpack {archive.name} elsewhere")
    try:
        limits = _Limits(archive, archive.stat().st_size, limit_bytes, limit_ratio, limit_files)
    except OSError as error:
        raise ValueError(f"{archive}: cannot be unpacked ({error.strerror})") from error
    with new_folder(folder) as temporary:
        try:
            with archive.open("rb") as file:
                return _unpack(file, temporary, limits)
        except _DAMAGE as error:
            raise ValueError(
                f"{archive}: cannot be unpacked ({error}); delete it and download it again"
            ) from error


class _Entry(NamedTuple):
    """A member of an archive; `open` gives its content, `size` is what the archive states."""

    name: str
    is_folder: bool
    size: int
    open: Callable[[], BufferedIOBase]


def _unpack(file: BinaryIO, folder: Path, limits: _Limits) -> list[str]:
    # Long enough for the magic bytes of tar at offset 257.
    start = file.read(264)
    file.seek(0)
    names: list[str] = []
    total = 0
    members = _zip(file, limits) if start[:2] == b"PK" else _tar(file, start, limits)
    with closing(members):
        for count, entry in enumerate(members, 1):
            if count > limits.files:
                _refuse(limits.archive, f"holds more than {limits.files:,} files")
            parts = _safe_parts(entry.name, limits.archive)
            try:
                size = _write(entry, folder.joinpath(*parts), total, limits)
            except (FileExistsError, NotADirectoryError):
                _refuse(limits.archive, f"holds two members named {entry.name!r}")
            if not entry.is_folder:
                total += size
                names.append("/".join(parts))
    return names


def _write(entry: _Entry, target: Path, before: int, limits: _Limits) -> int:
    """Write a member; return its size.

    Args:
        before: bytes unpacked so far.
    """
    if entry.is_folder:
        target.mkdir(parents=True, exist_ok=True)
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    # An existing file is never overwritten: of two members with one name, one would be lost.
    with entry.open() as source, target.open("xb") as sink:
        while data := source.read(CHUNK):
            written += len(data)
            limits.check(before + written)
            sink.write(data)
    if written != entry.size:
        raise EOFError(f"{entry.name!r} has {written:,} of the {entry.size:,} bytes it states")
    return written


def _zip(file: BinaryIO, limits: _Limits) -> Generator[_Entry]:
    with zipfile.ZipFile(file) as members:
        for member in members.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                _refuse(limits.archive, f"holds {member.filename!r}, a link or a device")
            if member.flag_bits & 1:
                _refuse(limits.archive, f"holds {member.filename!r}, which needs a password")
            # The name as stored: zipfile cuts `filename` at a null byte.
            name = member.orig_filename
            open_member = cast("Callable[[], BufferedIOBase]", partial(members.open, member))
            yield _Entry(name, member.is_dir(), member.file_size, open_member)


def _tar(file: BinaryIO, start: bytes, limits: _Limits) -> Generator[_Entry]:
    with _decompressed(file, start, limits) as plain:
        limited = _LimitedReader(plain, limits)
        with tarfile.open(fileobj=cast("BinaryIO", limited), mode="r|") as members:
            for member in members:
                if not (member.isreg() or member.isdir()) or member.issparse():
                    _refuse(limits.archive, f"holds {member.name!r}, a link, device or sparse file")
                open_member = cast(
                    "Callable[[], BufferedIOBase]", partial(members.extractfile, member)
                )
                yield _Entry(member.name, member.isdir(), member.size, open_member)
        # The rest is read, because the checksum of the compression is at the end.
        while limited.read(CHUNK):
            pass


class _LimitedReader:
    """A stream that raises an error when it exceeds the limits."""

    def __init__(self, plain: Any, limits: _Limits) -> None:
        self.plain, self.limits, self.count = plain, limits, 0

    def read(self, size: int) -> bytes:
        data: bytes = self.plain.read(size)
        self.count += len(data)
        # Allows 1 KiB per file for the headers of a tar archive.
        self.limits.check(self.count - 1024 * self.limits.files)
        return data


@contextmanager
def _decompressed(file: BinaryIO, start: bytes, limits: _Limits) -> Iterator[Any]:
    """The tar stream of an archive, whose compression its first bytes show."""
    if start.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=file) as plain:
            yield plain
    elif start.startswith(b"\xfd7zXZ\x00"):
        with lzma.LZMAFile(file) as plain:
            yield plain
    elif start.startswith(b"BZh"):
        with bz2.BZ2File(file) as plain:
            yield plain
    elif start.startswith(b"\x28\xb5\x2f\xfd"):
        with extra("zstandard", "tables", f"{limits.archive}: Zstandard files need"):
            import zstandard
        try:
            with zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as plain:
                yield plain
        except zstandard.ZstdError as error:
            raise OSError(f"damaged Zstandard data: {error}") from error
    elif start[257:262] == b"ustar":
        yield file
    else:
        _refuse(limits.archive, "is neither a zip nor a tar archive")


def _safe_parts(name: str, archive: Path) -> list[str]:
    """The parts of a member's name.

    Raises:
        ValueError: it could lead out of the folder, on this or another operating system.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    try:
        name.encode()
        has_control = any(ord(c) < 32 or c == "\x7f" for c in name)
    except UnicodeEncodeError:
        has_control = True
    if has_control or "\\" in name or name.startswith("/") or ".." in parts:
        _refuse(archive, f"holds {name!r}, a name that could lead out of its folder")
    if any(re.match(r"[A-Za-z]:", part) for part in parts):
        _refuse(archive, f"holds {name!r}, a name with a drive letter")
    return parts


def _refuse(archive: Path, why: str) -> NoReturn:
    raise ValueError(f"{archive}: {why}; nothing was unpacked; check where the archive is from")
