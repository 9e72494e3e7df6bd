"""Video files to a few of their frames, whatever they are, and a reason where they are nothing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from mocme.encoders.base import EncodingReport, UnusableItem
from mocme.encoders.image_io import PIXELS, ImageShape, shaped
from mocme.encoders.pretrained import extra

BYTES = 500_000_000
ENDINGS = (
    ".mp4", ".m4v", ".mov", ".3gp", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".ogv",
    ".wmv", ".flv",
)  # fmt: skip
# The containers that are read. Not among them are lists that name other files or addresses.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,ogg,asf,flv"


class Times(NamedTuple):
    """When something is seen, in the stream's own units.

    Attributes:
        shown: of all frames that the file holds, ascending.
        keys: of those at which decoding can start, ascending.
    """

    shown: list[int]
    keys: list[int]


def read_frames(
    path: Path, frames: int, shape: ImageShape, outcome: EncodingReport | None = None
) -> list[UInt8[np.ndarray, "side side 3"]]:
    """Frames of a video that are evenly spaced in time, in their order.

    The format is told from the content. Of a broken video those frames count that can be decoded.
    The file is read piece by piece and never held as a whole.

    Args:
        frames: so many, or fewer where it has no more.
        outcome: counts what was special.

    Raises:
        Unusable: it is no video, of another format, or not one of the frames can be decoded.
    """
    with extra("av", "video"):
        import av  # noqa: F401
    try:
        # Opened twice: not every container leads back to its beginning.
        with path.open("rb") as file, _opened(file) as container:
            times = _times(container, _stream(container))
        wanted = spread(times.shown, frames)
        with path.open("rb") as file, _opened(file) as container:
            found = list(_decoded(container, _stream(container), times, wanted, shape))
    except UnusableItem:
        raise
    except Exception as error:  # decoders of broken files fail in any way
        raise UnusableItem(f"is no video, or is broken ({_reason(error)})") from error
    if not found:
        raise UnusableItem("not one of its frames can be decoded")
    if len(found) < len(wanted) and outcome is not None:
        outcome.count("videos of which not all frames could be decoded")
    return found


def _opened(file: IO[bytes]) -> Any:
    import av

    # A file object and these options keep FFmpeg from opening anything else.
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
    return av.open(file, container_options=options)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.partition("\n")[0][:120] or type(error).__name__


def _stream(container: Any) -> Any:
    if not container.streams.video:
        raise UnusableItem("holds no video")
    stream = container.streams.video[0]
    pixels = stream.codec_context.width * stream.codec_context.height
    if pixels > PIXELS:
        limit = f"{PIXELS / 1e6:,.0f}"
        raise UnusableItem(f"has frames of {pixels / 1e6:,.0f} megapixels; the limit is {limit}")
    # Several videos are decoded at a time, each by one thread.
    stream.codec_context.thread_count = 1
    return stream


def _times(container: Any, stream: Any) -> Times:
    """When the frames that the file holds are seen; nothing is decoded for it.

    What the header says of the length is not asked: of a truncated file it is not true.
    """
    import av

    shown, keys = [], []
    try:
        for packet in container.demux(stream):
            time = packet.dts if packet.pts is None else packet.pts
            if time is None or not packet.size:
                continue
            shown.append(time)
            if packet.is_keyframe:
                keys.append(time)
    except av.FFmpegError:  # the rest is missing
        pass
    if not shown:
        raise UnusableItem("holds no frames")
    return Times(sorted(shown), sorted(keys))


def spread(shown: Sequence[int], frames: int) -> list[int]:
    """Of ascending times of frames, those that are seen in the middle of equal parts of time."""
    first, last = shown[0], shown[-1]
    # The last frame is seen for as long as a frame is in the mean.
    whole = (last - first) * len(shown) / max(1, len(shown) - 1)
    places = []
    for part in range(frames):
        middle = first + whole * (part + 0.5) / frames
        places.append(max(0, bisect_right(shown, middle) - 1))
    return [shown[place] for place in sorted(set(places))]


def _decoded(
    container: Any, stream: Any, times: Times, wanted: Sequence[int], shape: ImageShape
) -> Iterator[UInt8[np.ndarray, "side side 3"]]:
    """The frames of some times, shaped; those that cannot be decoded are left out."""
    decoder = _frames(container, stream)
    # Up to which time decoding has come; without a key frame since then it has to go on.
    reached = times.keys[0] if times.keys else times.shown[0]
    seen = False
    for time in wanted:
        if seen and reached >= time:
            continue  # it was lost, for decoding went beyond it
        keys = times.keys[: bisect_right(times.keys, time)]
        if keys and keys[-1] > reached:
            decoder = _from(container, stream, keys, time) or decoder
        for frame in decoder:
            now = frame.dts if frame.pts is None else frame.pts
            if now is None:
                continue
            reached, seen = now, True
            if now >= time:
                yield _picture(frame, shape)
                break


def _from(container: Any, stream: Any, keys: Sequence[int], time: int) -> Iterator[Any] | None:
    """Frames from the last of the keys on; containers without an index may need an earlier one.

    Returns:
        None where the container cannot be sought in.
    """
    import av

    for start in dict.fromkeys([*keys[-1:], *keys[-2:-1], min(0, keys[0])]):
        try:
            container.seek(start, stream=stream)
        except av.FFmpegError:
            return None
        decoder = _frames(container, stream)
        first = next(decoder, None)
        if first is not None and (first.pts or first.dts or 0) <= time:
            return chain([first], decoder)
    return iter(()) if first is None else chain([first], decoder)


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Whatever can be decoded from here on."""
    import av

    try:
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.FFmpegError:  # this one is broken, a later one may not be
                continue
            yield from decoded
    except av.FFmpegError:  # the rest is missing
        return


def _picture(frame: Any, shape: ImageShape) -> UInt8[np.ndarray, "side side 3"]:
    picture = frame.to_image()
    # Telephones write how they were held; both count counter-clockwise.
    if frame.rotation:
        picture = picture.rotate(frame.rotation, expand=True)
    return shaped(picture, shape)
