"""Byte streams of files and standard input: decompressed, hashed and cut at line ends."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from mocme.data.formats.report import Report

# Bytes that are held at a time; a longer line is held completely.
CHUNK = 1 << 20
BOM = b"\xef\xbb\xbf"
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
COMPRESSED = (".gz", ".zst")


class _HashingReader(io.RawIOBase):
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: io.RawIOBase | BufferedIOBase) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.file.readinto(buffer) or 0
        self.sha256.update(memoryview(buffer)[:count])
        return count


@contextmanager
def open_stream(path: str | Path, report: Report) -> Iterator[BufferedIOBase]:
    """The bytes of a file, decompressed if it is gzip or Zstandard, or of standard input (``-``).

    Compression is detected by the first bytes, not by the name. On exit, the rest of the file is
    read and the report gets the SHA-256 of the file as stored.

    Raises:
        ValueError: the file is absent, cannot be read, or ends within a compressed frame.
    """
    try:
        source = sys.stdin.buffer if str(path) == "-" else Path(path).open("rb", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    hashing = _HashingReader(source)  # type: ignore[arg-type]
    stored = io.BufferedReader(hashing, 1 << 20)
    try:
        yield _decompressed(stored)
        while stored.read(1 << 20):
            pass
        report.sha256 = hashing.sha256.hexdigest()
    except (EOFError, OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path}: cannot be read to its end ({reason})") from error
    finally:
        if source is not sys.stdin.buffer:
            source.close()


def _decompressed(stored: io.BufferedReader[Any]) -> BufferedIOBase:
    start = stored.peek(4)[:4]
    if start.startswith(GZIP):
        return gzip.GzipFile(fileobj=stored)
    if start.startswith(ZSTD):
        return io.BufferedReader(_ZstandardReader(stored), 1 << 20)
    return stored


class _ZstandardReader(io.RawIOBase):
    """The content of consecutive Zstandard frames."""

    def __init__(self, stored: io.BufferedReader[Any]) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise ValueError(
                "Zstandard files need zstandard, which is not installed; "
                "pip install 'mocme[tables]'"
            ) from error
        self.stored, self.error = stored, zstandard.ZstdError
        self.new_frame = zstandard.ZstdDecompressor().decompressobj
        self.frame, self.started, self.ready = self.new_frame(), False, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            # Bytes after the end of a frame belong to the next frame.
            data = self.frame.unused_data if self.frame.eof else b""
            data = data or self.stored.read(1 << 17)
            if self.frame.eof:
                self.frame, self.started = self.new_frame(), False
            if not data:
                if self.started:
                    raise EOFError("it ends within a compressed part")
                return 0
            self.started = True
            try:
                self.ready = self.frame.decompress(data)
            except self.error as error:
                raise OSError(f"damaged Zstandard data: {error}") from error
        count = min(len(buffer), len(self.ready))
        buffer[:count], self.ready = self.ready[:count], self.ready[count:]
        return count


def line_chunks(file: BufferedIOBase, report: Report, size: int = CHUNK) -> Iterator[bytes]:
    """The bytes of a file in chunks that end with a line.

    A byte order mark is dropped and recorded in the report.

    Args:
        size: bytes per read; a chunk is longer if a line is.
    """
    pending: list[bytes] = []
    started = False
    while data := file.read(size):
        if not started:
            # A pipe may give fewer bytes than a byte order mark has.
            while len(data) < len(BOM) and (more := file.read(len(BOM))):
                data += more
            report.bom, started = data.startswith(BOM), True
            data = data.removeprefix(BOM)
        cut = data.rfind(b"\n") + 1
        if cut:
            yield b"".join([*pending, data[:cut]])
            pending = [data[cut:]] if cut < len(data) else []
        else:
            pending.append(data)
    if last := b"".join(pending):
        yield last


def normalize_line_ends(data: bytes) -> bytes:
    """Whole lines with LF instead of CRLF, and with LF after the last line."""
    # A search for one byte is 50 times as fast as a search for two.
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    return data if data.endswith(b"\n") else data + b"\n"
