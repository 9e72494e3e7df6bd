"""Bytes of a file or of standard input: decompressed, hashed and cut at line ends as they pass."""

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

# Bytes that are held at a time; a longer line is held whole.
CHUNK = 1 << 20
BOM = b"\xef\xbb\xbf"
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
COMPRESSED = (".gz", ".zst")


class _Hashed(io.RawIOBase):
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: io.RawIOBase | BufferedIOBase) -> None:
        self.file, self.total = file, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.file.readinto(buffer) or 0
        self.total.update(memoryview(buffer)[:count])
        return count


@contextmanager
def opened(path: str | Path, report: Report) -> Iterator[BufferedIOBase]:
    """The bytes of a file, of what it decompresses to (gzip, Zstandard), or of ``-``.

    Compression is told from the first bytes, not from the name. At the end, the report has the
    SHA-256 of the file as it is stored.

    Raises:
        ValueError: the file is absent, cannot be read, or ends within a compressed part.
    """
    try:
        source = sys.stdin.buffer if str(path) == "-" else Path(path).open("rb", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    hashed = _Hashed(source)  # type: ignore[arg-type]
    plain = io.BufferedReader(hashed, 1 << 20)
    try:
        yield _decompressed(plain)
        while plain.read(1 << 20):
            pass
        report.sha256 = hashed.total.hexdigest()
    except (EOFError, OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path}: cannot be read to its end ({reason})") from error
    finally:
        if source is not sys.stdin.buffer:
            source.close()


def _decompressed(plain: io.BufferedReader[Any]) -> BufferedIOBase:
    start = plain.peek(4)[:4]
    if start.startswith(GZIP):
        return gzip.GzipFile(fileobj=plain)
    if start.startswith(ZSTD):
        return io.BufferedReader(_Zstandard(plain), 1 << 20)
    return plain


class _Zstandard(io.RawIOBase):
    """The content of Zstandard frames, one after the other."""

    def __init__(self, plain: io.BufferedReader[Any]) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise ValueError(
                "Zstandard files need zstandard, which is not installed; "
                "pip install 'mocme[tables]'"
            ) from error
        self.plain, self.error = plain, zstandard.ZstdError
        self.make = zstandard.ZstdDecompressor().decompressobj
        self.frame, self.begun, self.ready = self.make(), False, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            data = self.frame.unused_data if self.frame.eof else b""
            data = data or self.plain.read(1 << 17)
            if self.frame.eof:
                self.frame, self.begun = self.make(), False
            if not data:
                if self.begun:
                    raise EOFError("it ends within a compressed part")
                return 0
            self.begun = True
            try:
                self.ready = self.frame.decompress(data)
            except self.error as error:
                raise OSError(f"damaged Zstandard data: {error}") from error
        count = min(len(buffer), len(self.ready))
        buffer[:count], self.ready = self.ready[:count], self.ready[count:]
        return count


def chunks(file: BufferedIOBase, report: Report, size: int = CHUNK) -> Iterator[bytes]:
    """The bytes of a file in pieces that end with a line; a byte order mark is dropped, noted."""
    held: list[bytes] = []
    started = False
    while data := file.read(size):
        if not started:
            while len(data) < len(BOM) and (more := file.read(len(BOM))):
                data += more
            report.bom, started = data.startswith(BOM), True
            data = data.removeprefix(BOM)
        cut = data.rfind(b"\n") + 1
        if cut:
            yield b"".join([*held, data[:cut]])
            held = [data[cut:]] if cut < len(data) else []
        else:
            held.append(data)
    if rest := b"".join(held):
        yield rest


def plain_lines(data: bytes) -> bytes:
    """Lines that end with LF, the last one too; they ended with LF, CRLF or the file."""
    # Looking for one byte takes a fiftieth of the time that looking for two does.
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    return data if data.endswith(b"\n") else data + b"\n"
