"""The media type of a picture, sound or video by its content.

The name of a file says nothing about its content, and what is sent to others must be what it is
said to be. Signatures are those of the formats' specifications.
"""

from __future__ import annotations

import re

# Bytes at the start of a file that are enough to recognise it.
HEAD_BYTES = 4096
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"fLaC", "audio/flac"),
    (b"FLV\x01", "video/x-flv"),
    (b"\x00\x00\x01\xba", "video/mpeg"),
    (b"\x00\x00\x01\xb3", "video/mpeg"),
    (b"0&\xb2u\x8ef\xcf\x11", "video/x-ms-asf"),
)
# Containers with the name of their format in bytes 8 to 11.
_CONTAINERS = {
    (b"RIFF", b"WEBP"): "image/webp",
    (b"RIFF", b"WAVE"): "audio/wav",
    (b"RIFF", b"AVI "): "video/x-msvideo",
    (b"FORM", b"AIFF"): "audio/aiff",
    (b"FORM", b"AIFC"): "audio/aiff",
}
# Brands of ISO media files that are not video.
_BRANDS = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heif",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"qt  ": "video/quicktime",
}
_SPACE_OR_COMMENT = rb"(?:\s|<!--.*?-->)*"
_SVG = re.compile(
    rb"(?:\xef\xbb\xbf)?"
    + _SPACE_OR_COMMENT
    + rb"(?:<\?xml[^>]*\?>)?"
    + _SPACE_OR_COMMENT
    # A document type with entity declarations is not recognised: no picture needs it.
    + rb"(?:<!DOCTYPE\s+svg[^>\[]*>)?"
    + _SPACE_OR_COMMENT
    + rb"<svg[\s>/]",
    re.DOTALL,
)


def media_type(head: bytes) -> str | None:
    """The media type of a file; None if it is no picture, sound or video of a known format.

    Args:
        head: the first `HEAD_BYTES` of the file, or all of it.
    """
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if (container := _CONTAINERS.get((head[:4], head[8:12]))) is not None:
        return container
    if head[4:8] == b"ftyp" and len(head) >= 12:
        return _BRANDS.get(head[8:12], "video/mp4")
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    if head.startswith(b"OggS\x00"):
        return "video/ogg" if b"\x80theora" in head[:64] else "audio/ogg"
    # A bitmap has the size of its second header in bytes 14 to 17.
    if head.startswith(b"BM") and head[14:18] in _BITMAP_HEADERS:
        return "image/bmp"
    # A tag has a version below 5 and a size of four bytes of seven bits.
    if head.startswith(b"ID3") and len(head) >= 10 and head[3] < 5 and max(head[6:10]) < 0x80:
        return "audio/mpeg"
    if head.startswith(b"\xff"):
        return _frame_type(head)
    return "image/svg+xml" if _SVG.match(head) else None


_BITMAP_HEADERS = [size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124)]


# kbit/s by index, of MPEG 1 and of the later versions; Hz by index, of MPEG 1.
_BITRATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_RATES = (44_100, 48_000, 32_000)


def _frame_type(head: bytes) -> str | None:
    """The type of a stream of MPEG audio frames without a header.

    The start of a frame is too short to tell: another one must follow where the first one ends.
    """
    for name, length_of in (("audio/aac", _adts_length), ("audio/mpeg", _layer_3_length)):
        length = length_of(head)
        if length and length_of(head[length:]):
            return name
    return None


def _adts_length(frame: bytes) -> int:
    """The bytes of an ADTS frame; 0 if it is none."""
    if len(frame) < 7 or frame[0] != 0xFF or frame[1] & 0xF6 != 0xF0:
        return 0
    return (frame[3] & 3) << 11 | frame[4] << 3 | frame[5] >> 5


def _layer_3_length(frame: bytes) -> int:
    """The bytes of a frame of MPEG audio, layer III; 0 if it is none."""
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:
        return 0
    # 3: MPEG 1, 2: MPEG 2 with half the rates, 0: MPEG 2.5 with a quarter.
    version, bitrate, rate = frame[1] >> 3 & 3, frame[2] >> 4, frame[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return 0
    hertz = _RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    kilobits = _BITRATES[version != 3][bitrate]
    return (144 if version == 3 else 72) * 1000 * kilobits // hertz + (frame[2] >> 1 & 1)
