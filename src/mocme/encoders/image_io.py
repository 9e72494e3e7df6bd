"""Read image files as RGB arrays of one size, with a reason for files that cannot be used."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from mocme.encoders.image_structure import check_structure
from mocme.encoders.items import UnusableItem, check_size, extra

# Limits of a file.
MAX_BYTES = 20_000_000
MAX_PIXELS = 50_000_000
# Supported formats. Formats whose decoding runs a program (EPS) are not among them.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
ENDINGS = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif",
)  # fmt: skip
# An image of more pixels takes hundreds of megabytes while it is decoded: one at a time.
LARGE = 8_000_000
_LARGE_LOCK = threading.Lock()


@runtime_checkable
class Counts(Protocol):
    """Counts what was done to images; an `EncodingReport`."""

    def count(self, description: str, number: int = 1) -> None:
        """Add to one of the counts."""


@dataclass(frozen=True)
class ImageShape:
    """The size of a network's input images, and how an image is brought to it.

    Attributes:
        side: height and width in pixels.
        fit: ``crop`` resizes the shorter side to `before` pixels and takes the middle `side` pixels
            of both sides; ``stretch`` resizes both sides to `before` pixels and takes the middle;
            ``whole`` shows the whole image on a square of the grey value `ground`.
        before: at least `side`.
        resample: Pillow's name of the resampling filter, in lower case.

    Raises:
        ValueError: `before` is less than `side`.
    """

    side: int = 224
    fit: Literal["crop", "whole", "stretch"] = "crop"
    before: int = 256
    ground: int = 127
    resample: str = "bicubic"

    def __post_init__(self) -> None:
        if self.fit != "whole" and not 0 < self.side <= self.before:
            raise ValueError(f"{self.side} pixels cannot be cut from {self.before}")

    def describe(self) -> str:
        """A description for the identity of an encoder."""
        how = {
            "crop": f"from the middle of {self.before}",
            "whole": f"whole on {self.ground}",
            "stretch": f"from the middle of {self.before}, stretched",
        }[self.fit]
        return f"{self.side} px, {how}, {self.resample}"

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of an image to take: left, top, right, bottom, in pixels of the image.

        Its corners are where whole pixels of the resized image begin. Resizing this box gives the
        same as resizing the image and then cutting, except for rounding.
        """
        across = down = self.before
        if self.fit == "crop":
            across = max(self.before, int(self.before * width / height))
            down = max(self.before, int(self.before * height / width))
        x, y = width / across, height / down
        left, top = (across - self.side) // 2 * x, (down - self.side) // 2 * y
        right, bottom = left + self.side * x, top + self.side * y
        return left, top, min(float(width), right), min(float(height), bottom)


def read_image(
    data: bytes, shape: ImageShape, report: Counts | None = None
) -> UInt8[np.ndarray, "side side 3"]:
    """Read an image as RGB in one size.

    The content decides the format. An animation is represented by its first frame. The image is
    rotated as its metadata says, transparency becomes white, and 16 bits become 8.

    Args:
        report: counts animations.

    Raises:
        UnusableItem: the data is not an image, is broken or too large, or has another format; with
            the reason.
    """
    with extra("pillow", "image"):
        from PIL import Image, UnidentifiedImageError
    if not data:
        raise UnusableItem("an empty file")
    check_size(len(data), MAX_BYTES)
    check_structure(data)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            pixels = image.width * image.height
            _check_pixels(pixels)
            if getattr(image, "is_animated", False) and report is not None:
                report.count("animations, of which the first frame is used")
            if pixels <= LARGE:
                return fit_image(image, shape)
            with _LARGE_LOCK:
                return fit_image(image, shape)
    except UnusableItem:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableItem(_too_large("far more")) from error
    except UnidentifiedImageError as error:
        raise UnusableItem("holds no picture of a known format") from error
    except Exception as error:  # decoders raise any exception for broken files
        reason = str(error).partition("\n")[0][:120] or type(error).__name__
        raise UnusableItem(f"is broken ({reason})") from error


def _check_pixels(pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise UnusableItem(_too_large(f"{pixels / 1e6:,.0f}"))
    if not pixels:
        raise UnusableItem("has no pixels")


def _too_large(count: str) -> str:
    limit = MAX_PIXELS / 1e6
    return f"has {count} megapixels; the limit is {limit:,.0f}"


def fit_image(image: Any, shape: ImageShape) -> UInt8[np.ndarray, "side side 3"]:
    """Bring an opened Pillow image to RGB and to one size."""
    from PIL import Image, ImageOps

    # A JPEG can be decoded at 1/2 or 1/4 of its size, which takes a quarter of the time. At least
    # twice the needed size is kept, so that the final reduction uses the filter that is asked for.
    wanted = 2 * (shape.side if shape.fit == "whole" else shape.before)
    image.draft(None, (wanted, wanted))
    image.load()
    image = _to_rgb(ImageOps.exif_transpose(image))
    resample = Image.Resampling[shape.resample.upper()]
    width, height = image.size
    side = (shape.side, shape.side)
    if shape.fit != "whole":
        box = shape.box(width, height)
        return np.asarray(image.resize(side, resample, box=box, reducing_gap=3.0))
    scale = shape.side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    result = Image.new("RGB", side, (shape.ground,) * 3)
    corner = ((shape.side - size[0]) // 2, (shape.side - size[1]) // 2)
    result.paste(image.resize(size, resample, reducing_gap=3.0), corner)
    return np.asarray(result)


def _to_rgb(image: Any) -> Any:
    """Convert any mode of Pillow to RGB."""
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        # Values of 32 bits have no fixed range: those beyond 0 .. 255 are scaled by the image's.
        low, high = min(0.0, np.nanmin(values)), max(255.0, np.nanmax(values))
        scaled = (np.nan_to_num(values) - low) * (255 / (high - low))
        return Image.fromarray(scaled.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(background, image).convert("RGB")
    return image.convert("RGB")
