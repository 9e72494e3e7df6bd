"""Archives from elsewhere: nothing of them leaves its folder, and none fills the disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn, cast

LIMIT_BYTES = 1 << 30
LIMIT_RATIO = 100.0
LIMIT_FILES = 10_000
# Up to here no ratio is suspicious: a short text of one letter packs a thousandfold.
SMALL = 1 << 20
PIECE = 1 << 16
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
    archive: Path
    packed: int
    bytes: int
    ratio: float
    files: int

    def check(self, unpacked: int) -> None:
        """Refuse what has become too much; counted as it comes, whatever the archive says."""
        if unpacked > self.bytes:
            _refuse(self.archive, f"holds more than the {self.bytes:,} bytes that are allowed")
        if unpacked > max(SMALL, self.ratio * self.packed):
            _refuse(self.archive, f"unpacks to more than {self.ratio:g} times its own size")


def is_archive(path: str | Path) -> bool:
    """Whether a file's name says that it is an archive."""
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

    Only files and folders are unpacked, with plain permissions; an archive that holds anything
    else, or a name that leads out of `folder`, is refused as a whole. The folder appears when
    everything is unpacked, and not at all otherwise.

    Args:
        folder: must not exist.
        limit_bytes: of all content together, and of the stream that a tar archive is.
        limit_ratio: of that to the archive's own size, from 1 MiB on.
        limit_files: files and folders.

    Returns:
        The names of the files, in their order.

    Raises:
        ValueError: the archive is damaged or refused, with the reason; or `folder` exists.
    """
    archive, folder = Path(archive), Path(folder)
    if os.path.lexists(folder):
        raise ValueError(f"{folder}: exists; remove it or unpack {archive.name} elsewhere")
    try:
        limits = _Limits(archive, archive.stat().st_size, limit_bytes, limit_ratio, limit_files)
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ValueError(f"{archive}: cannot be unpacked ({error.strerror})") from error
    try:
        with archive.open("rb") as file:
            names = _unpack(file, fresh, limits)
        fresh.chmod(0o755)
        os.rename(fresh, folder)
        return names
    except _DAMAGE as error:
        raise ValueError(
            f"{archive}: cannot be unpacked ({error}); delete it and download it again"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


class _Entry(NamedTuple):
    """A member of an archive: what it is called, what it is, and how to read it."""

    name: str
    folder: bool
    size: int
    opened: Callable[[], BufferedIOBase]


def _unpack(file: BinaryIO, fresh: Path, limits: _Limits) -> list[str]:
    start = file.read(264)
    file.seek(0)
    names: list[str] = []
    total = 0
    members = _zip(file, limits) if start[:2] == b"PK" else _tar(file, start, limits)
    with closing(members):
        for count, entry in enumerate(members, 1):
            if count > limits.files:
                _refuse(limits.archive, f"holds more than {limits.files:,} files")
            parts = _inside(entry.name, limits.archive)
            try:
                written = _write(entry, fresh.joinpath(*parts), total, limits)
            except (FileExistsError, NotADirectoryError):
                _refuse(limits.archive, f"holds two things under the name {entry.name!r}")
            if not entry.folder:
                total += written
                names.append("/".join(parts))
    return names


def _write(entry: _Entry, target: Path, before: int, limits: _Limits) -> int:
    """Put a member where it belongs; returns its bytes."""
    if entry.folder:
        target.mkdir(parents=True, exist_ok=True)
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    # Never over a file that is there: two members of one name would hide one of them.
    with entry.opened() as source, target.open("xb") as sink:
        while data := source.read(PIECE):
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
            # As it stands in the archive: the library cuts a name at a zero byte.
            name = member.orig_filename
            opened = cast("Callable[[], BufferedIOBase]", partial(members.open, member))
            yield _Entry(name, member.is_dir(), member.file_size, opened)


def _tar(file: BinaryIO, start: bytes, limits: _Limits) -> Generator[_Entry]:
    with _decompressed(file, start, limits) as plain:
        counted = _Counted(plain, limits)
        with tarfile.open(fileobj=cast("BinaryIO", counted), mode="r|") as members:
            for member in members:
                if not (member.isreg() or member.isdir()) or member.issparse():
                    _refuse(limits.archive, f"holds {member.name!r}, a link, device or sparse file")
                opened = cast("Callable[[], BufferedIOBase]", partial(members.extractfile, member))
                yield _Entry(member.name, member.isdir(), member.size, opened)
        # To the end, so that its checksum is compared too.
        while counted.read(PIECE):
            pass


class _Counted:
    """A stream that ends with an error where it has become too long."""

    def __init__(self, plain: Any, limits: _Limits) -> None:
        self.plain, self.limits, self.count = plain, limits, 0

    def read(self, size: int) -> bytes:
        data: bytes = self.plain.read(size)
        self.count += len(data)
        # The headers of a tar archive need room beside what it holds.
        self.limits.check(self.count - 1024 * self.limits.files)
        return data


@contextmanager
def _decompressed(file: BinaryIO, start: bytes, limits: _Limits) -> Iterator[Any]:
    """The content of a tar archive, told by its first bytes."""
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
        try:
            import zstandard
        except ImportError as error:
            raise ValueError(
                f"{limits.archive}: is compressed by Zstandard; to read it, "
                f"pip install 'mocme[tables]'"
            ) from error
        try:
            with zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as plain:
                yield plain
        except zstandard.ZstdError as error:
            raise OSError(f"damaged Zstandard data: {error}") from error
    elif start[257:262] == b"ustar":
        yield file
    else:
        _refuse(limits.archive, "is neither a zip nor a tar archive")


def _inside(name: str, archive: Path) -> list[str]:
    """The parts of a member's name.

    Raises:
        ValueError: it could lead out of the folder, here or on another system.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    try:
        name.encode()
        odd = any(ord(c) < 32 or c == "\x7f" for c in name)
    except UnicodeEncodeError:
        odd = True
    if odd or "\\" in name or name.startswith("/") or ".." in parts:
        _refuse(archive, f"holds {name!r}, a name that could lead out of its folder")
    if any(re.match(r"[A-Za-z]:", part) for part in parts):
        _refuse(archive, f"holds {name!r}, a name with a drive in it")
    return parts


def _refuse(archive: Path, why: str) -> NoReturn:
    raise ValueError(f"{archive}: {why}; nothing of it was unpacked, check where it comes from")
