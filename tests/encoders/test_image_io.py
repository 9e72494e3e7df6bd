"""Pictures of every kind against a naive reference; broken ones have a reason, and end nothing."""

from __future__ import annotations

import builtins
import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocme.encoders import image_io as pictures
from mocme.encoders.base import EncodingReport, UnusableItem
from mocme.encoders.image_io import ImageShape, read_picture, shaped

pytest.importorskip("PIL", reason="the extra image is not installed")
from PIL import Image

# All of a picture, a pixel of the result being one of the picture: what is compared is its colours.
SIDE = 32
SAME = ImageShape(SIDE, "stretch", SIDE)


def gradient(side: int = SIDE) -> np.ndarray:
    """An RGB picture that is smooth, and has no symmetry."""
    y, x = np.mgrid[0:side, 0:side] / (side - 1)
    colours = np.stack([x, y, (x + 2 * y) / 3], 2)
    return (255 * colours).round().astype(np.uint8)


def grey(side: int = SIDE) -> np.ndarray:
    return gradient(side)[:, :, 2]


def written(picture: Any, kind: str = "PNG", **more: Any) -> bytes:
    with io.BytesIO() as file:
        picture.save(file, kind, **more)
        return file.getvalue()


def as_rgb(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, 2)


def on_white(colours: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    share = opacity[:, :, None] / 255
    return colours * share + 255 * (1 - share)


def opacity() -> np.ndarray:
    return np.ascontiguousarray(grey().T[::-1])


def mode_1() -> tuple[bytes, np.ndarray]:
    bits = grey() > 127
    return written(Image.fromarray(bits)), as_rgb(bits * 255)


def mode_l() -> tuple[bytes, np.ndarray]:
    return written(Image.fromarray(grey())), as_rgb(grey())


def mode_la() -> tuple[bytes, np.ndarray]:
    both = np.stack([grey(), opacity()], 2)
    return written(Image.fromarray(both, "LA")), on_white(as_rgb(grey()), opacity())


def few() -> tuple[Any, np.ndarray]:
    """A palette of 16 colours, and the picture in full."""
    indexed = Image.fromarray(gradient()).quantize(16, method=Image.Quantize.MEDIANCUT)
    return indexed, np.asarray(indexed.convert("RGB"))


def mode_p() -> tuple[bytes, np.ndarray]:
    indexed, colours = few()
    return written(indexed), colours


def mode_p_one_transparent() -> tuple[bytes, np.ndarray]:
    indexed, colours = few()
    there = np.where(np.asarray(indexed) == 3, 0, 255)
    return written(indexed, transparency=3), on_white(colours, there)


def mode_p_all_transparencies() -> tuple[bytes, np.ndarray]:
    indexed, colours = few()
    table = bytes(range(0, 256, 16))
    there = np.frombuffer(table, np.uint8)[np.asarray(indexed)]
    return written(indexed, transparency=table), on_white(colours, there)


def mode_rgb() -> tuple[bytes, np.ndarray]:
    return written(Image.fromarray(gradient())), gradient()


def mode_rgb_one_transparent() -> tuple[bytes, np.ndarray]:
    colours = gradient()
    there = np.full((SIDE, SIDE), 255)
    there[5, 7] = 0
    key = tuple(int(v) for v in colours[5, 7])
    return written(Image.fromarray(colours), transparency=key), on_white(colours, there)


def mode_l_one_transparent() -> tuple[bytes, np.ndarray]:
    there = np.where(grey() == grey()[5, 7], 0, 255)
    key = int(grey()[5, 7])
    return written(Image.fromarray(grey()), transparency=key), on_white(as_rgb(grey()), there)


def mode_rgba() -> tuple[bytes, np.ndarray]:
    whole = np.dstack([gradient(), opacity()])
    return written(Image.fromarray(whole)), on_white(gradient(), opacity())


def mode_rgba_webp() -> tuple[bytes, np.ndarray]:
    whole = np.dstack([gradient(), opacity()])
    data = written(Image.fromarray(whole), "WEBP", lossless=True, exact=True)
    return data, on_white(gradient(), opacity())


def mode_cmyk() -> tuple[bytes, np.ndarray]:
    ink = np.dstack([255 - gradient(), np.zeros((SIDE, SIDE), np.uint8)])
    return written(Image.fromarray(ink, "CMYK"), "TIFF"), gradient()


def mode_cmyk_jpeg() -> tuple[bytes, np.ndarray]:
    ink = np.dstack([255 - gradient(), np.zeros((SIDE, SIDE), np.uint8)])
    return written(Image.fromarray(ink, "CMYK"), "JPEG", quality=98), gradient()


def mode_ycbcr_jpeg() -> tuple[bytes, np.ndarray]:
    return written(Image.fromarray(gradient()), "JPEG", quality=98, subsampling=0), gradient()


def mode_ycbcr_tiff() -> tuple[bytes, np.ndarray]:
    return written(Image.fromarray(gradient()).convert("YCbCr"), "TIFF"), gradient()


def mode_lab() -> tuple[bytes, np.ndarray]:
    """CIE L*a*b*: lightness to luminance (CIE 15), and that to sRGB (IEC 61966-2-1)."""
    lab = np.stack([grey(), np.zeros_like(grey()), np.zeros_like(grey())], 2)
    data = written(Image.fromarray(lab, "LAB"), "TIFF")
    lightness = grey() / 255 * 100
    y = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    light = np.where(y > 0.0031308, 1.055 * y ** (1 / 2.4) - 0.055, 12.92 * y)
    return data, as_rgb(255 * light)


def deep() -> np.ndarray:
    return (grey().astype(np.uint16) << 8) + 77


def mode_i16_tiff() -> tuple[bytes, np.ndarray]:
    return written(Image.fromarray(deep()), "TIFF"), as_rgb(grey())


def mode_i16_png() -> tuple[bytes, np.ndarray]:
    return written(Image.fromarray(deep())), as_rgb(grey())


def mode_rgb16_png() -> tuple[bytes, np.ndarray]:
    """Sixteen bits a colour, which Pillow does not write."""
    lines = gradient().astype(">u2") * 257
    rows = b"".join(b"\x00" + row.tobytes() for row in lines)
    return png(struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0), zlib.compress(rows)), gradient()


def mode_i() -> tuple[bytes, np.ndarray]:
    """32 bits: its own range is what is shown."""
    values = grey().astype(np.int32) * 1000
    return written(Image.fromarray(values), "TIFF"), as_rgb(grey())


def mode_f() -> tuple[bytes, np.ndarray]:
    values = grey().astype(np.float32)
    return written(Image.fromarray(values), "TIFF"), as_rgb(grey())


def other() -> Any:
    return Image.fromarray(255 - gradient())


def animated_gif() -> tuple[bytes, np.ndarray]:
    indexed, colours = few()
    return written(indexed, "GIF", save_all=True, append_images=[other()]), colours


def animated_webp() -> tuple[bytes, np.ndarray]:
    first = Image.fromarray(gradient())
    more = {"save_all": True, "append_images": [other()], "lossless": True}
    return written(first, "WEBP", **more), gradient()


def animated_png() -> tuple[bytes, np.ndarray]:
    first = Image.fromarray(gradient())
    return written(first, "PNG", save_all=True, append_images=[other()]), gradient()


def bmp() -> tuple[bytes, np.ndarray]:
    return written(Image.fromarray(gradient()), "BMP"), gradient()


def ppm() -> tuple[bytes, np.ndarray]:
    return written(Image.fromarray(gradient()), "PPM"), gradient()


def interlaced_gif() -> tuple[bytes, np.ndarray]:
    indexed, colours = few()
    return written(indexed, "GIF", interlace=1), colours


GOOD = [
    mode_1, mode_l, mode_la, mode_p, mode_p_one_transparent, mode_p_all_transparencies, mode_rgb,
    mode_rgb_one_transparent, mode_l_one_transparent, mode_rgba, mode_rgba_webp, mode_cmyk,
    mode_cmyk_jpeg, mode_ycbcr_jpeg, mode_ycbcr_tiff, mode_lab, mode_i16_tiff, mode_i16_png,
    mode_rgb16_png, mode_i, mode_f, animated_gif, animated_webp, animated_png, bmp, ppm,
    interlaced_gif,
]  # fmt: skip


@pytest.mark.parametrize("kind", GOOD, ids=lambda kind: kind.__name__)
def test_colours(kind: Callable[[], tuple[bytes, np.ndarray]]) -> None:
    data, expected = kind()
    outcome = EncodingReport("it", "image")
    found = read_picture(data, SAME, outcome)
    assert (found.shape, found.dtype) == ((SIDE, SIDE, 3), np.uint8)
    difference = np.abs(found.astype(float) - expected)
    lossy = "jpeg" in kind.__name__ or "ycbcr" in kind.__name__
    assert difference.max() <= (12 if lossy else 2.5)
    assert difference.mean() <= (3 if lossy else 0.6)
    animations = (
        {}
        if "animated" not in kind.__name__
        else {"animations, of which the first frame counts": 1}
    )
    assert outcome.counts == animations


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_as_its_metadata_says(orientation: int) -> None:
    upright = gradient()
    # How the camera stored it, such that the metadata leads back.
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = written(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    np.testing.assert_array_equal(read_picture(data, SAME), upright)


# -- broken ones -----------------------------------------------------------------------------------


def png(header: bytes, data: bytes) -> bytes:
    """A PNG file of these contents, with correct checksums."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def png_of(width: int, height: int) -> bytes:
    return png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), zlib.compress(b"\0" * 100))


def noise(kind: str) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    return written(Image.fromarray(values), kind)


def flipped() -> bytes:
    """A PNG whose pixels were changed on the way."""
    data = bytearray(noise("PNG"))
    for place in range(1000, 1100):
        data[place] ^= 0x55
    return bytes(data)


def gif_of(width: int, height: int) -> bytes:
    """A GIF that says how large it is, and holds next to nothing."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)
    image = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)
    return screen + image + b"\x02\x02\x44\x01\x00;"


BROKEN = {
    "truncated.jpg": (lambda: noise("JPEG")[:9000], "broken.*truncated"),
    "truncated.png": (lambda: noise("PNG")[:60000], "broken"),
    "truncated.webp": (lambda: noise("WEBP")[:9000], "broken|no picture"),
    "text.png": (lambda: b"This is a text that somebody called a picture.\n" * 50, "no picture"),
    "page.jpg": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", "no picture"),
    "vector.svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no picture"),
    "empty.png": (lambda: b"", "an empty file"),
    "heavy.png": (lambda: b"\x89PNG" + bytes(20_000_001), "has 20.0 MB; the limit is 20 MB"),
    "wide.png": (lambda: png_of(10_000, 5_001), "has 50 megapixels; the limit is 50"),
    "huge.png": (lambda: png_of(60_000, 60_000), "megapixels; the limit is 50"),
    "absurd.png": (lambda: png_of(2**31 - 1, 2**31 - 1), "megapixels|broken|no picture"),
    "flipped.png": (flipped, "broken"),
    "short.png": (lambda: png_of(100, 100), "broken"),
    "zero.png": (lambda: png_of(0, 10), "no picture|broken|no pixels"),
    "zero.gif": (lambda: gif_of(0, 0), "no picture|broken|no pixels"),
    "absurd.gif": (lambda: gif_of(65535, 65535), "megapixels"),
    "program.eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
    "header.jpg": (lambda: noise("JPEG")[:20], "no picture|broken"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_ones_have_a_reason(name: str) -> None:
    content, reason = BROKEN[name]
    with pytest.raises(UnusableItem, match=reason) as caught:
        read_picture(content(), ImageShape())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@given(st.binary(max_size=400), st.integers(0, 8000))
def test_whatever_bytes_are_a_picture_or_have_a_reason(junk: bytes, place: int) -> None:
    data = noise_png()
    for content in (junk, data[:place] + junk + data[place:], data[:place] + junk):
        with suppress(UnusableItem):
            assert read_picture(content, SAME).shape == (SIDE, SIDE, 3)


def noise_png() -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    return written(Image.fromarray(values))


# -- sizes -----------------------------------------------------------------------------------------


def natural(width: int, height: int) -> Any:
    values = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    "shape", [ImageShape(), ImageShape(fit="whole"), ImageShape(fit="stretch")]
)
@pytest.mark.parametrize("size", [(2400, 1600), (900, 1900), (3000, 3000)])
def test_a_jpeg_that_is_read_small_looks_the_same(
    shape: ImageShape, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = written(natural(*size), "JPEG", quality=90)
    drafted = read_picture(data, shape).astype(float)
    monkeypatch.setattr(Image.Image, "draft", lambda self, mode, size: None)
    from PIL import JpegImagePlugin

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", lambda self, mode, size: None)
    full = read_picture(data, shape).astype(float)
    assert np.abs(drafted - full).mean() < 1
    assert np.abs(drafted - full).max() < 12


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2), (224, 224), (20000, 2)])
@pytest.mark.parametrize("fit", ["crop", "whole", "stretch"])
def test_whatever_size(size: tuple[int, int], fit: Any) -> None:
    picture = Image.new("RGB", size, (200, 100, 50))
    found = shaped(picture, ImageShape(fit=fit))
    assert found.shape == (224, 224, 3)
    inside = (found == (200, 100, 50)).all(2)
    if fit == "whole":
        assert inside.any()
        assert (found[~inside] == 127).all()
    else:
        assert inside.all()


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from(["crop", "stretch"]))
def test_a_box_lies_in_the_middle(width: int, height: int, fit: Any) -> None:
    shape = ImageShape(224, fit, 256)
    left, top, right, bottom = shape.box(width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    # Half a pixel of the resized picture is all that whole pixels cost.
    step = max(width, height) / 256 if fit == "stretch" else min(width, height) / 256
    assert abs(left - (width - right)) <= 1.01 * step
    assert abs(top - (height - bottom)) <= 1.01 * step
    if fit == "crop":
        assert right - left == pytest.approx(0.875 * min(width, height), rel=0.01)
        assert bottom - top == pytest.approx(0.875 * min(width, height), rel=0.01)


def test_crop_takes_the_middle() -> None:
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, 100:200] = 255
    assert (shaped(Image.fromarray(picture), ImageShape(64, "crop", 80)) == 255).all()


def test_a_cut_of_more_than_there_is_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be cut"):
        ImageShape(256, "crop", 224)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "PIL":
            raise ImportError("No module named 'PIL'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r'pip install "mocme\[image\]"'):
        read_picture(b"x", ImageShape())


def test_large_ones_are_read_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "LARGE", 10)
    found = read_picture(written(Image.fromarray(gradient())), SAME)
    np.testing.assert_array_equal(found, gradient())
