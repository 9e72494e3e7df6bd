"""Byte streams of files and standard input: decompressed, decoded, hashed and cut at line ends.

Only regular files and standard input are read, piece by piece. A line has a limit, so what a file
costs does not depend on how well it was compressed or on what it claims to be.
"""

from __future__ import annotations

import codecs
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

import numpy as np

from mocme.core.extras import extra
from mocme.core.files import marked_encoding, open_regular
from mocme.data.formats.report import Report

# Bytes that are held at a time; a longer line is held completely, up to the limit of a line.
CHUNK = 1 << 20
LONGEST_LINE = 1 << 24
# Bytes at the start of a text in which an encoding without a byte order mark is looked for.
SAMPLE = 1 << 12
# Bytes of a Zstandard file that are decompressed at a time. Four bytes can stand for 128 KiB.
PIECE = 1 << 11
# A compressed file may unpack to `MOST_TIMES` its size, and to `ALWAYS` bytes in any case. Facts
# rarely exceed 40 times; a megabyte of zeros becomes a gigabyte.
MOST_TIMES, ALWAYS = 200, 1 << 28
BOM = b"\xef\xbb\xbf"
TAB, LINE_FEED = 9, 10
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
COMPRESSED = (".gz", ".zst")


class _HashingReader(io.RawIOBase):
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: io.RawIOBase | BufferedIOBase) -> None:
        self.file, self.sha256, self.count = file, hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.file.readinto(buffer) or 0
        self.sha256.update(memoryview(buffer)[:count])
        self.count += count
        return count


class _BoundedReader(io.RawIOBase):
    """Decompressed content, refused where it is far larger than the file.

    Raises:
        OSError: on reading, beyond `ALWAYS` bytes and `MOST_TIMES` the bytes read of the file.
    """

    def __init__(self, content: BufferedIOBase, stored: _HashingReader) -> None:
        self.content, self.stored, self.count = content, stored, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.content.readinto(buffer)
        self.count += count
        if self.count > max(ALWAYS, MOST_TIMES * self.stored.count):
            raise OSError(
                f"it unpacks to more than {MOST_TIMES} times its size; if that is right, "
                f"decompress it first"
            )
        return count


@contextmanager
def open_stream(path: str | Path, report: Report) -> Iterator[BufferedIOBase]:
    """The text of a file in UTF-8, decompressed if it is gzip or Zstandard; or of standard input.

    Standard input is ``-``. Compression is detected by the first bytes, not by the name. UTF-16 and
    UTF-32 are read if there is a byte order mark. On exit, the rest of the file is read and the
    report gets the SHA-256 of the file as stored.

    Raises:
        ValueError: the file is absent, not a regular file, cannot be read, ends within a compressed
            frame, or seems to be UTF-16 or UTF-32 without a byte order mark.
    """
    source = sys.stdin.buffer if str(path) == "-" else open_regular(path)
    hashing = _HashingReader(source)  # type: ignore[arg-type]
    stored = io.BufferedReader(hashing, 1 << 20)
    try:
        content: io.BufferedReader[Any] | gzip.GzipFile = _decompressed(stored)
        if content is not stored:
            content = io.BufferedReader(_BoundedReader(content, hashing), 1 << 20)
        yield _decoded(content, report)
        while stored.read(1 << 20):
            pass
        report.sha256 = hashing.sha256.hexdigest()
    except (EOFError, OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path}: cannot be read to its end ({reason})") from error
    finally:
        if source is not sys.stdin.buffer:
            source.close()


def _decompressed(stored: io.BufferedReader[Any]) -> io.BufferedReader[Any] | gzip.GzipFile:
    start = stored.peek(4)[:4]
    if start.startswith(GZIP):
        return gzip.GzipFile(fileobj=stored)
    if start.startswith(ZSTD):
        return io.BufferedReader(_ZstandardReader(stored), 1 << 20)
    return stored


class _ZstandardReader(io.RawIOBase):
    """The content of consecutive Zstandard frames."""

    def __init__(self, stored: io.BufferedReader[Any]) -> None:
        with extra("zstandard", "tables", "Zstandard files need"):
            import zstandard
        self.stored, self.error = stored, zstandard.ZstdError
        self.new_frame = zstandard.ZstdDecompressor().decompressobj
        self.frame, self.started, self.ready = self.new_frame(), False, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size, filled = len(buffer), 0
        while filled < size:
            if not self.ready:
                self.ready = memoryview(self._next())
                if not self.ready:
                    break
            part = self.ready[: size - filled]
            buffer[filled : filled + len(part)] = part
            self.ready = self.ready[len(part) :]
            filled += len(part)
        return filled

    def _next(self) -> bytes:
        """The next bytes of the content; none at its end."""
        while True:
            # Bytes after the end of a frame belong to the next frame.
            data = self.frame.unused_data if self.frame.eof else b""
            data = data or self.stored.read(PIECE)
            if self.frame.eof:
                self.frame, self.started = self.new_frame(), False
            if not data:
                if self.started:
                    raise EOFError("it ends within a compressed part")
                return b""
            self.started = True
            try:
                if content := self.frame.decompress(data):
                    return content
            except self.error as error:
                raise OSError(f"damaged Zstandard data: {error}") from error


def _decoded(content: io.BufferedReader[Any] | gzip.GzipFile, report: Report) -> BufferedIOBase:
    """A text as UTF-8; `report` gets its encoding if that is another.

    Raises:
        ValueError: it seems to be UTF-16 or UTF-32, but does not say so.
    """
    start = content.peek(SAMPLE)[:SAMPLE]
    mark, encoding = marked_encoding(start)
    if encoding.startswith(("utf-16", "utf-32")):
        content.read(len(mark))
        report.encoding = encoding
        return io.BufferedReader(_TranscodingReader(content, encoding), 1 << 20)
    if not mark and b"\0" in start and (encoding := _unmarked_encoding(start)):
        raise ValueError(
            f"{report.path}: seems to be {encoding} without a byte order mark; convert it: "
            f"iconv -f {encoding} -t UTF-8 FILE > NEW"
        )
    return content


def _unmarked_encoding(start: bytes) -> str:
    """UTF-16 or UTF-32 by its zero bytes, with the order of bytes; empty if it is neither.

    The tabs, commas and line ends of such a text, and most letters of many languages, are units
    with zeros in all bytes but one. UTF-8 has zeros only where there is a null character.
    """
    size = len(start) // 4 * 4
    if not size:
        return ""
    data = np.frombuffer(start[:size], np.uint8)
    ends = int(np.isin(data, (TAB, LINE_FEED)).sum())
    for width in (4, 2):
        for order, name in (("<", "LE"), (">", "BE")):
            units = np.frombuffer(start[:size], f"{order}u{width}")
            # All zeros are where this encoding has them, and they are many.
            high = slice(1, None) if order == "<" else slice(None, -1)
            zeros = int((data.reshape(-1, width)[:, high] == 0).sum())
            if zeros < size / 10 or zeros != int((data == 0).sum()):
                continue
            unit_ends = int(np.isin(units, (TAB, LINE_FEED)).sum())
            is_ascii = float(((units > 0) & (units < 0x80)).mean())
            if (unit_ends and 2 * unit_ends >= ends) or is_ascii > 0.9:
                return f"UTF-{8 * width}{name}"
    return ""


class _TranscodingReader(io.RawIOBase):
    """A text in UTF-16 or UTF-32 as UTF-8; half a surrogate pair stays, as invalid UTF-8."""

    def __init__(self, content: io.BufferedReader[Any] | gzip.GzipFile, encoding: str) -> None:
        self.content, self.encoding, self.ready = content, encoding, b""
        self.decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            data = self.content.read(1 << 16)
            try:
                text = self.decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                raise OSError(f"not valid {self.encoding.upper()}: {error.reason}") from error
            if not data:
                return 0
            self.ready = text.encode(errors="surrogatepass")
        count = min(len(buffer), len(self.ready))
        buffer[:count], self.ready = self.ready[:count], self.ready[count:]
        return count


def line_chunks(file: BufferedIOBase, report: Report, size: int = CHUNK) -> Iterator[bytes]:
    """The bytes of a file in chunks that end with a line.

    A byte order mark is dropped and recorded in the report.

    Args:
        size: bytes per read; a chunk is longer if a line is.

    Raises:
        ValueError: a line is longer than `LONGEST_LINE`.
    """
    pending: list[bytes] = []
    length = 0
    started = False
    while data := file.read(min(size, LONGEST_LINE)):
        if not started:
            # A pipe may give fewer bytes than a byte order mark has.
            while len(data) < len(BOM) and (more := file.read(len(BOM))):
                data += more
            report.bom, started = data.startswith(BOM), True
            data = data.removeprefix(BOM)
        cut = data.rfind(b"\n") + 1
        if cut:
            length = len(data) - cut
            yield b"".join([*pending, data[:cut]])
            pending = [data[cut:]] if length else []
        else:
            length += len(data)
            pending.append(data)
        if length > LONGEST_LINE:
            raise ValueError(
                f"{report.path}: line {report.lines + 1}: is longer than {LONGEST_LINE >> 20} MiB; "
                f"check that it is the right file, or divide the line"
            )
    if last := b"".join(pending):
        yield last


def normalize_line_ends(data: bytes) -> bytes:
    """Whole lines with LF instead of CRLF, and with LF after the last line."""
    # A search for one byte is 50 times as fast as a search for two.
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    return data if data.endswith(b"\n") else data + b"\n"
