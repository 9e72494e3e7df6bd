"""Reading images of every mode, compared with a naive reference; broken ones have a reason."""

from __future__ import annotations

import io
import re
import struct
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocme.core.extras import remedy
from mocme.encoders import image_io
from mocme.encoders.base import EncodingReport, UnusableItem
from mocme.encoders.image_io import ImageShape, fit_image, read_image

pytest.importorskip("PIL", reason="the extra image is not installed")
from PIL import Image

# Neither resized nor cropped: each pixel of the result is a pixel of the image.
SIDE = 32
SAME = ImageShape(SIDE, "stretch", SIDE)


def gradient(side: int = SIDE) -> np.ndarray:
    """A smooth RGB image without symmetry."""
    y, x = np.mgrid[0:side, 0:side] / (side - 1)
    colours = np.stack([x, y, (x + 2 * y) / 3], 2)
    return (255 * colours).round().astype(np.uint8)


def grey(side: int = SIDE) -> np.ndarray:
    return gradient(side)[:, :, 2]


def image_file(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    with io.BytesIO() as file:
        image.save(file, kind, **options)
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
    return image_file(Image.fromarray(bits)), as_rgb(bits * 255)


def mode_l() -> tuple[bytes, np.ndarray]:
    return image_file(Image.fromarray(grey())), as_rgb(grey())


def mode_la() -> tuple[bytes, np.ndarray]:
    channels = np.stack([grey(), opacity()], 2)
    return image_file(Image.fromarray(channels, "LA")), on_white(as_rgb(grey()), opacity())


def palette() -> tuple[Any, np.ndarray]:
    """An image with a palette of 16 colours, and its RGB values."""
    indexed = Image.fromarray(gradient()).quantize(16, method=Image.Quantize.MEDIANCUT)
    return indexed, np.asarray(indexed.convert("RGB"))


def mode_p() -> tuple[bytes, np.ndarray]:
    indexed, colours = palette()
    return image_file(indexed), colours


def mode_p_one_transparent() -> tuple[bytes, np.ndarray]:
    indexed, colours = palette()
    alpha = np.where(np.asarray(indexed) == 3, 0, 255)
    return image_file(indexed, transparency=3), on_white(colours, alpha)


def mode_p_all_transparencies() -> tuple[bytes, np.ndarray]:
    indexed, colours = palette()
    table = bytes(range(0, 256, 16))
    alpha = np.frombuffer(table, np.uint8)[np.asarray(indexed)]
    return image_file(indexed, transparency=table), on_white(colours, alpha)


def mode_rgb() -> tuple[bytes, np.ndarray]:
    return image_file(Image.fromarray(gradient())), gradient()


def mode_rgb_one_transparent() -> tuple[bytes, np.ndarray]:
    colours = gradient()
    alpha = np.full((SIDE, SIDE), 255)
    alpha[5, 7] = 0
    key = tuple(int(v) for v in colours[5, 7])
    return image_file(Image.fromarray(colours), transparency=key), on_white(colours, alpha)


def mode_l_one_transparent() -> tuple[bytes, np.ndarray]:
    alpha = np.where(grey() == grey()[5, 7], 0, 255)
    key = int(grey()[5, 7])
    return image_file(Image.fromarray(grey()), transparency=key), on_white(as_rgb(grey()), alpha)


def mode_rgba() -> tuple[bytes, np.ndarray]:
    rgba = np.dstack([gradient(), opacity()])
    return image_file(Image.fromarray(rgba)), on_white(gradient(), opacity())


def mode_rgba_webp() -> tuple[bytes, np.ndarray]:
    rgba = np.dstack([gradient(), opacity()])
    data = image_file(Image.fromarray(rgba), "WEBP", lossless=True, exact=True)
    return data, on_white(gradient(), opacity())


def mode_cmyk() -> tuple[bytes, np.ndarray]:
    ink = np.dstack([255 - gradient(), np.zeros((SIDE, SIDE), np.uint8)])
    return image_file(Image.fromarray(ink, "CMYK"), "TIFF"), gradient()


def mode_cmyk_jpeg() -> tuple[bytes, np.ndarray]:
    ink = np.dstack([255 - gradient(), np.zeros((SIDE, SIDE), np.uint8)])
    return image_file(Image.fromarray(ink, "CMYK"), "JPEG", quality=98), gradient()


def mode_ycbcr_jpeg() -> tuple[bytes, np.ndarray]:
    return image_file(Image.fromarray(gradient()), "JPEG", quality=98, subsampling=0), gradient()


def mode_ycbcr_tiff() -> tuple[bytes, np.ndarray]:
    return image_file(Image.fromarray(gradient()).convert("YCbCr"), "TIFF"), gradient()


def mode_lab() -> tuple[bytes, np.ndarray]:
    """CIE L*a*b*: lightness to luminance (CIE 15), and that to sRGB (IEC 61966-2-1)."""
    lab = np.stack([grey(), np.zeros_like(grey()), np.zeros_like(grey())], 2)
    data = image_file(Image.fromarray(lab, "LAB"), "TIFF")
    lightness = grey() / 255 * 100
    y = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    light = np.where(y > 0.0031308, 1.055 * y ** (1 / 2.4) - 0.055, 12.92 * y)
    return data, as_rgb(255 * light)


def deep() -> np.ndarray:
    return (grey().astype(np.uint16) << 8) + 77


def mode_i16_tiff() -> tuple[bytes, np.ndarray]:
    return image_file(Image.fromarray(deep()), "TIFF"), as_rgb(grey())


def mode_i16_png() -> tuple[bytes, np.ndarray]:
    return image_file(Image.fromarray(deep())), as_rgb(grey())


def mode_rgb16_png() -> tuple[bytes, np.ndarray]:
    """16 bits per channel, which Pillow does not write."""
    lines = gradient().astype(">u2") * 257
    rows = b"".join(b"\x00" + row.tobytes() for row in lines)
    return png(struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0), zlib.compress(rows)), gradient()


def mode_i() -> tuple[bytes, np.ndarray]:
    """32 bits, scaled by the range of the image."""
    values = grey().astype(np.int32) * 1000
    return image_file(Image.fromarray(values), "TIFF"), as_rgb(grey())


def mode_f() -> tuple[bytes, np.ndarray]:
    values = grey().astype(np.float32)
    return image_file(Image.fromarray(values), "TIFF"), as_rgb(grey())


def other() -> Any:
    return Image.fromarray(255 - gradient())


def animated_gif() -> tuple[bytes, np.ndarray]:
    indexed, colours = palette()
    return image_file(indexed, "GIF", save_all=True, append_images=[other()]), colours


def animated_webp() -> tuple[bytes, np.ndarray]:
    first = Image.fromarray(gradient())
    options = {"save_all": True, "append_images": [other()], "lossless": True}
    return image_file(first, "WEBP", **options), gradient()


def animated_png() -> tuple[bytes, np.ndarray]:
    first = Image.fromarray(gradient())
    return image_file(first, "PNG", save_all=True, append_images=[other()]), gradient()


def bmp() -> tuple[bytes, np.ndarray]:
    return image_file(Image.fromarray(gradient()), "BMP"), gradient()


def ppm() -> tuple[bytes, np.ndarray]:
    return image_file(Image.fromarray(gradient()), "PPM"), gradient()


def interlaced_gif() -> tuple[bytes, np.ndarray]:
    indexed, colours = palette()
    return image_file(indexed, "GIF", interlace=1), colours


GOOD = [
    mode_1, mode_l, mode_la, mode_p, mode_p_one_transparent, mode_p_all_transparencies, mode_rgb,
    mode_rgb_one_transparent, mode_l_one_transparent, mode_rgba, mode_rgba_webp, mode_cmyk,
    mode_cmyk_jpeg, mode_ycbcr_jpeg, mode_ycbcr_tiff, mode_lab, mode_i16_tiff, mode_i16_png,
    mode_rgb16_png, mode_i, mode_f, animated_gif, animated_webp, animated_png, bmp, ppm,
    interlaced_gif,
]  # fmt: skip


@pytest.mark.parametrize("kind", GOOD, ids=lambda kind: kind.__name__)
def test_every_mode_is_read_as_rgb(kind: Callable[[], tuple[bytes, np.ndarray]]) -> None:
    data, expected = kind()
    report = EncodingReport("it", "image")
    pixels = read_image(data, SAME, report)
    assert (pixels.shape, pixels.dtype) == ((SIDE, SIDE, 3), np.uint8)
    difference = np.abs(pixels.astype(float) - expected)
    lossy = "jpeg" in kind.__name__ or "ycbcr" in kind.__name__
    assert difference.max() <= (12 if lossy else 2.5)
    assert difference.mean() <= (3 if lossy else 0.6)
    counts = {"animations, of which the first frame is used": 1}
    assert report.counts == (counts if "animated" in kind.__name__ else {})


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_rotated_as_its_metadata_says(orientation: int) -> None:
    upright = gradient()
    # The stored image that the metadata turns into the upright one.
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
    data = image_file(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    np.testing.assert_array_equal(read_image(data, SAME), upright)


# -- broken ones -----------------------------------------------------------------------------------


def png(header: bytes, data: bytes) -> bytes:
    """A PNG file with this header and data, and with correct checksums."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def png_of(width: int, height: int) -> bytes:
    return png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), zlib.compress(b"\0" * 100))


def noise(kind: str) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    return image_file(Image.fromarray(values), kind)


def flipped() -> bytes:
    """A PNG with changed bytes."""
    data = bytearray(noise("PNG"))
    for index in range(1000, 1100):
        data[index] ^= 0x55
    return bytes(data)


def gif_of(width: int, height: int) -> bytes:
    """A GIF that declares a size, and holds hardly any data."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)
    image = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)
    return screen + image + b"\x02\x02\x44\x01\x00;"


BROKEN = {
    "truncated.jpg": (lambda: noise("JPEG")[:9000], "broken.*truncated"),
    "truncated.png": (lambda: noise("PNG")[:60000], "broken"),
    "truncated.webp": (lambda: noise("WEBP")[:9000], "broken|no picture"),
    "text.png": (lambda: b"This is a text, whatever its name says.\n" * 50, "no picture"),
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
def test_an_unusable_image_has_a_reason(name: str) -> None:
    content, reason = BROKEN[name]
    with pytest.raises(UnusableItem, match=reason) as caught:
        read_image(content(), ImageShape())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@given(st.binary(max_size=400), st.integers(0, 8000))
def test_any_bytes_are_an_image_or_have_a_reason(junk: bytes, position: int) -> None:
    data = noise_png()
    start, end = data[:position], data[position:]
    for content in (junk, start + junk + end, start + junk):
        with suppress(UnusableItem):
            assert read_image(content, SAME).shape == (SIDE, SIDE, 3)


def noise_png() -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    return image_file(Image.fromarray(values))


# -- sizes -----------------------------------------------------------------------------------------


def natural(width: int, height: int) -> Any:
    values = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    "shape", [ImageShape(), ImageShape(fit="whole"), ImageShape(fit="stretch")]
)
@pytest.mark.parametrize("size", [(2400, 1600), (900, 1900), (3000, 3000)])
def test_decoding_a_jpeg_at_reduced_size_hardly_changes_it(
    shape: ImageShape, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = image_file(natural(*size), "JPEG", quality=90)
    drafted = read_image(data, shape).astype(float)
    monkeypatch.setattr(Image.Image, "draft", lambda self, mode, size: None)
    from PIL import JpegImagePlugin

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", lambda self, mode, size: None)
    full = read_image(data, shape).astype(float)
    assert np.abs(drafted - full).mean() < 1
    assert np.abs(drafted - full).max() < 12


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2), (224, 224), (20000, 2)])
@pytest.mark.parametrize("fit", ["crop", "whole", "stretch"])
def test_images_of_any_size_are_fitted(size: tuple[int, int], fit: Any) -> None:
    image = Image.new("RGB", size, (200, 100, 50))
    pixels = fit_image(image, ImageShape(fit=fit))
    assert pixels.shape == (224, 224, 3)
    inside = (pixels == (200, 100, 50)).all(2)
    if fit == "whole":
        assert inside.any()
        assert (pixels[~inside] == 127).all()
    else:
        assert inside.all()


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from(["crop", "stretch"]))
def test_the_box_is_in_the_middle(width: int, height: int, fit: Any) -> None:
    shape = ImageShape(224, fit, 256)
    left, top, right, bottom = shape.box(width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    # Rounding to whole pixels shifts it by at most half a pixel of the resized image.
    step = max(width, height) / 256 if fit == "stretch" else min(width, height) / 256
    assert abs(left - (width - right)) <= 1.01 * step
    assert abs(top - (height - bottom)) <= 1.01 * step
    if fit == "crop":
        assert right - left == pytest.approx(0.875 * min(width, height), rel=0.01)
        assert bottom - top == pytest.approx(0.875 * min(width, height), rel=0.01)


def test_crop_takes_the_middle() -> None:
    stripe = np.zeros((100, 300, 3), np.uint8)
    stripe[:, 100:200] = 255
    assert (fit_image(Image.fromarray(stripe), ImageShape(64, "crop", 80)) == 255).all()


def test_a_side_above_the_resized_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot be cut"):
        ImageShape(256, "crop", 224)


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ValueError, match=re.escape(remedy("image"))):
        read_image(b"x", ImageShape())


def test_a_large_image_is_read_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_io, "LARGE", 10)
    pixels = read_image(image_file(Image.fromarray(gradient())), SAME)
    np.testing.assert_array_equal(pixels, gradient())
