"""Picture files to arrays of one size, whatever they are, and a reason where they are nothing."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from mocme.encoders.base import EncodingReport, UnusableItem
from mocme.encoders.pretrained import extra

BYTES, PIXELS = 20_000_000, 50_000_000
# What a picture may be. Not among them are formats that run a program to be read (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
ENDINGS = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif",
)  # fmt: skip
# A large picture takes hundreds of megabytes while it is read: only one at a time.
LARGE = 8_000_000
_LARGE_ONE = threading.Lock()


@dataclass(frozen=True)
class ImageShape:
    """What a network wants its pictures to look like.

    Attributes:
        side: height and width.
        fit: ``crop``: the shorter side becomes `before` pixels, of which the middle `side` are
            taken, and as many of the longer one; ``stretch``: the same, but both sides become
            `before` pixels; ``whole``: all of the picture on a square that is `ground` elsewhere.
        before: at least `side`.
        resample: as Pillow calls it, in small letters.

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

    def described(self) -> str:
        """In words, for the identity of an encoder."""
        how = {
            "crop": f"from the middle of {self.before}",
            "whole": f"whole on {self.ground}",
            "stretch": f"from the middle of {self.before}, stretched",
        }[self.fit]
        return f"{self.side} px, {how}, {self.resample}"

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of a picture that is taken: left, top, right, bottom, in its own pixels.

        Its corners lie where whole pixels of the resized picture begin, as they do for those who
        first resize and then cut; the result is the same but for rounding.
        """
        across = down = self.before
        if self.fit == "crop":
            across = max(self.before, int(self.before * width / height))
            down = max(self.before, int(self.before * height / width))
        x, y = width / across, height / down
        left, top = (across - self.side) // 2 * x, (down - self.side) // 2 * y
        right, bottom = left + self.side * x, top + self.side * y
        return left, top, min(float(width), right), min(float(height), bottom)


def read_picture(
    data: bytes, shape: ImageShape, outcome: EncodingReport | None = None
) -> UInt8[np.ndarray, "side side 3"]:
    """A picture as RGB of one size.

    The format is told from the content. Of an animation the first frame counts. It is turned as its
    metadata says, transparency becomes white, and 16 bits become 8.

    Args:
        outcome: counts what was special.

    Raises:
        Unusable: it is no picture, broken, too large, or of another format; with the reason.
    """
    with extra("pillow", "image"):
        from PIL import Image, UnidentifiedImageError
    if not data:
        raise UnusableItem("an empty file")
    if len(data) > BYTES:
        raise UnusableItem(f"has {len(data) / 1e6:,.1f} MB; the limit is {BYTES / 1e6:,.0f} MB")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            pixels = picture.width * picture.height
            _check_size(pixels)
            if getattr(picture, "is_animated", False) and outcome is not None:
                outcome.count("animations, of which the first frame counts")
            if pixels <= LARGE:
                return shaped(picture, shape)
            with _LARGE_ONE:
                return shaped(picture, shape)
    except UnusableItem:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableItem(_too_many("far more")) from error
    except UnidentifiedImageError as error:
        raise UnusableItem("is no picture of a known format") from error
    except Exception as error:  # decoders of broken files fail in any way
        reason = str(error).partition("\n")[0][:120] or type(error).__name__
        raise UnusableItem(f"is broken ({reason})") from error


def _check_size(pixels: int) -> None:
    if pixels > PIXELS:
        raise UnusableItem(_too_many(f"{pixels / 1e6:,.0f}"))
    if not pixels:
        raise UnusableItem("has no pixels")


def _too_many(count: str) -> str:
    return f"has {count} megapixels; the limit is {PIXELS / 1e6:,.0f}"


def shaped(picture: Any, shape: ImageShape) -> UInt8[np.ndarray, "side side 3"]:
    """An opened picture as RGB of one size."""
    from PIL import Image, ImageOps

    # A JPEG can be read at half or a quarter of its size: a quarter of the time. Twice what is
    # needed stays, so that the rest of the reduction is done well.
    wanted = 2 * (shape.side if shape.fit == "whole" else shape.before)
    picture.draft(None, (wanted, wanted))
    picture.load()
    picture = _colours(ImageOps.exif_transpose(picture))
    resample = Image.Resampling[shape.resample.upper()]
    width, height = picture.size
    side = (shape.side, shape.side)
    if shape.fit != "whole":
        box = shape.box(width, height)
        return np.asarray(picture.resize(side, resample, box=box, reducing_gap=3.0))
    scale = shape.side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    result = Image.new("RGB", side, (shape.ground,) * 3)
    corner = ((shape.side - size[0]) // 2, (shape.side - size[1]) // 2)
    result.paste(picture.resize(size, resample, reducing_gap=3.0), corner)
    return np.asarray(result)


def _colours(picture: Any) -> Any:
    """RGB from whatever mode."""
    from PIL import Image

    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        values = np.asarray(picture, dtype=np.float64)
        # 32 bits hold anything; what is beyond 8 bits is brought into them by its own range.
        low, high = min(0.0, np.nanmin(values)), max(255.0, np.nanmax(values))
        scaled = (np.nan_to_num(values) - low) * (255 / (high - low))
        return Image.fromarray(scaled.clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(paper, picture).convert("RGB")
    return picture.convert("RGB")
