"""Image files with far more parts than images have are refused before they are decoded."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocme.encoders import image_structure
from mocme.encoders.image_io import ImageShape, read_image
from mocme.encoders.image_structure import MAX_FRAMES, MAX_PARTS, MAX_SCANS, check_structure
from mocme.encoders.items import UnusableItem

pytest.importorskip("PIL", reason="the extra image is not installed")
from PIL import Image


def saved(kind: str, size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(noise).save(file, kind, **options)
        return file.getvalue()


def scans(count: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    data = saved("JPEG", size, progressive=True, quality=5)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (count - data.count(b"\xff\xda") + 1) + b"\xff\xd9"


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def test_scans_of_a_jpeg_are_bounded() -> None:
    check_structure(scans(MAX_SCANS))
    with pytest.raises(UnusableItem, match="more scans"):
        check_structure(scans(MAX_SCANS + 1))
    with pytest.raises(UnusableItem, match="more scans"):
        read_image(scans(MAX_SCANS + 1), ImageShape())


def test_scans_of_a_large_jpeg_are_bounded_by_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_structure, "MAX_SCANNED", 64 * 48 * 20)
    check_structure(scans(20))
    with pytest.raises(UnusableItem, match="more scans"):
        check_structure(scans(21))
    check_structure(scans(40, (32, 24)))


def test_scans_are_counted_in_the_image_alone() -> None:
    """Not in a preview in its metadata, and not in what follows it."""
    many = b"\xff\xda\x00\x02" * 200
    plain = saved("JPEG")
    preview = b"\xff\xe1" + struct.pack(">H", len(many) + 2) + many
    assert scans(10).count(b"\xff\xda") == 10
    check_structure(plain[:2] + preview + plain[2:])
    check_structure(plain + many)
    check_structure(plain[:2] + b"\xff" * 9 + plain[2:])  # fill bytes


@pytest.mark.parametrize("restart", [0, 1])
def test_ordinary_jpegs_pass(restart: int) -> None:
    for options in ({}, {"progressive": True}, {"quality": 100, "subsampling": 0}):
        data = saved("JPEG", (200, 150), restart_marker_blocks=restart, **options)
        read_image(data, ImageShape())


def test_parts_of_a_png_are_bounded() -> None:
    data = saved("PNG")
    head, rest = data[:33], data[33:]
    check_structure(head + chunk(b"tEXt", b"a\0b") * 1_000 + rest)
    with pytest.raises(UnusableItem, match="parts"):
        check_structure(head + chunk(b"prVt") * MAX_PARTS + rest)
    with pytest.raises(UnusableItem, match="frames"):
        check_structure(head + chunk(b"fcTL") * (MAX_FRAMES + 1) + rest)


def test_parts_of_a_gif_are_bounded() -> None:
    frames = [Image.new("L", (8, 8), n * 20) for n in range(9)]
    data = saved("GIF", save_all=True, append_images=frames)
    read_image(data, ImageShape())
    start = data.index(b"!\xf9")
    comment = b"!\xfe" + b"\x01a" * (MAX_PARTS + 1) + b"\0"
    with pytest.raises(UnusableItem, match="parts"):
        check_structure(data[:start] + comment + data[start:])
    frame = data[data.index(b",") : data.index(b"\0!", data.index(b",")) + 1]
    with pytest.raises(UnusableItem, match="frames"):
        check_structure(data[:start] + b",\0\0\0\0\1\0\1\0\0\2\0" * (MAX_FRAMES + 1) + frame)


def test_frames_of_a_webp_and_a_tiff_are_bounded() -> None:
    frames = [Image.new("RGB", (64, 48), (n, 0, 0)) for n in range(5)]
    for kind in ("WEBP", "TIFF"):
        read_image(saved(kind, save_all=True, append_images=frames), ImageShape())
    frame = b"ANMF" + struct.pack("<I", 2) + b"ab"
    body = b"WEBP" + frame * (MAX_FRAMES + 1)
    with pytest.raises(UnusableItem, match="frames"):
        check_structure(b"RIFF" + struct.pack("<I", len(body)) + body)
    # A directory that is its own successor.
    for order, start in (("<", b"II*\0"), (">", b"MM\0*")):
        with pytest.raises(UnusableItem, match="frames"):
            check_structure(start + struct.pack(order + "IHI", 8, 0, 8))
    for order, start in (("<", b"II+\0\x08\0\0\0"), (">", b"MM\0+\0\x08\0\0")):
        with pytest.raises(UnusableItem, match="frames"):
            check_structure(start + struct.pack(order + "QQQ", 16, 0, 16))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
@given(cut=st.integers(0, 200), position=st.integers(0, 5_000), junk=st.binary(max_size=9))
def test_broken_files_are_left_to_the_decoder(
    kind: str, cut: int, position: int, junk: bytes
) -> None:
    data = saved(kind, (16, 12))
    place = position % len(data)
    check_structure(data[:place] + junk + data[place + len(junk) :])
    check_structure(data[:cut])
