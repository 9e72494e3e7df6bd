"""Bounds on the structure of image files, checked before anything is decoded.

A small file may ask for any amount of work: a progressive JPEG decodes all its pixels once per
scan, and the parts of other formats are read one by one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from mocme.encoders.items import UnusableItem

# Scans of a JPEG. Encoders write about 10 into a progressive file.
MAX_SCANS = 64
# Pixels times scans. 50 megapixels of 20 scans.
MAX_SCANNED = 1_000_000_000
# Chunks, blocks or segments of a file, and images in it, of which the first is used.
MAX_PARTS = 50_000
MAX_FRAMES = 10_000

# A marker of a JPEG between two segments, or the first one after the data of a scan: there, FF is
# followed by 0 or the number of a restart.
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_AFTER_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def check_structure(data: bytes) -> None:
    """Refuse an image file with far more parts than images have.

    Raises:
        UnusableItem: it has too many scans, parts or frames.
    """
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_count(data, _png_chunks(data), b"fcTL")
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        _check_count(data, _webp_chunks(data), b"ANMF")
    elif data.startswith((b"GIF87a", b"GIF89a")):
        _check_count(data, _gif_blocks(data), b",")
    elif data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        _check_count(data, _tiff_directories(data), b"IFD")


def _check_count(data: bytes, parts: Iterator[bytes], frame: bytes) -> None:
    """Count parts, and those among them that begin a frame."""
    frames = 0
    for count, part in enumerate(parts, 1):
        frames += part == frame
        if frames > MAX_FRAMES:
            raise UnusableItem(f"has more than {MAX_FRAMES:,} frames")
        if count > MAX_PARTS:
            raise UnusableItem(f"has more than {MAX_PARTS:,} parts")


def _check_jpeg(data: bytes) -> None:
    scans, pixels, position = 0, 1, 2
    pattern = _MARKER
    for _ in range(MAX_PARTS):
        found = pattern.search(data, position)
        if found is None or found[1] == b"\xd9":  # the end of the image
            return
        marker, position = found[1][0], found.end()
        pattern = _MARKER
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # no segment
            continue
        if marker == 0xDA:
            scans, pattern = scans + 1, _AFTER_SCAN
        length = int.from_bytes(data[position : position + 2], "big")
        if marker in _SIZES:
            pixels = max(1, *_product(data[position + 3 : position + 7]))
        if scans > MAX_SCANS or scans * pixels > MAX_SCANNED:
            raise UnusableItem(
                f"has more scans than decoding is allowed for; at most {MAX_SCANS}, and "
                f"{MAX_SCANNED / 1e6:,.0f} megapixels in all of them"
            )
        position += max(2, length)
    raise UnusableItem(f"has more than {MAX_PARTS:,} parts")


def _product(sides: bytes) -> tuple[int]:
    """Return the product of two numbers of 16 bits; 0 where they are cut off."""
    height, width = struct.unpack(">HH", sides) if len(sides) == 4 else (0, 0)
    return (height * width,)


def _png_chunks(data: bytes) -> Iterator[bytes]:
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind
        position += 12 + length


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        yield kind
        position += 8 + length + length % 2


def _gif_blocks(data: bytes) -> Iterator[bytes]:
    """Yield b"," for each image, b"!" for each extension, and b"" for each block of their data."""
    position = 13 + _colours(data[10:11])
    while position < len(data):
        kind = data[position : position + 1]
        yield kind
        if kind == b",":
            position += 11 + _colours(data[position + 9 : position + 10])
        elif kind == b"!":
            position += 2
        else:  # the end, or bytes that are skipped one by one
            position += 1
            continue
        while length := int.from_bytes(data[position : position + 1], "big"):
            # The data of an image is decoded at once; that of an extension is joined.
            if kind == b"!":
                yield b""
            position += 1 + length
        position += 1


def _colours(packed: bytes) -> int:
    """Return the size in bytes of the colour table that a flag announces."""
    flags = int.from_bytes(packed, "big")
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _tiff_directories(data: bytes) -> Iterator[bytes]:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4].strip(b"\0") == b"+"
    offset, counts, size = ("Q", "Q", 20) if big else ("I", "H", 12)
    try:
        (position,) = struct.unpack_from(order + offset, data, 8 if big else 4)
        while position:
            yield b"IFD"
            (count,) = struct.unpack_from(order + counts, data, position)
            next_one = position + struct.calcsize(counts) + count * size
            (position,) = struct.unpack_from(order + offset, data, next_one)
    except (struct.error, OverflowError):  # cut off: the decoder says so
        return
