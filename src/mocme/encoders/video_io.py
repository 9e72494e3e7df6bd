"""Read a few frames of video files, with a reason for files that cannot be used."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from mocme.encoders.base import EncodingReport, UnusableItem
from mocme.encoders.image_io import MAX_PIXELS, ImageShape, fit_image
from mocme.encoders.pretrained import extra

MAX_BYTES = 500_000_000
ENDINGS = (
    ".mp4", ".m4v", ".mov", ".3gp", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".ogv",
    ".wmv", ".flv",
)  # fmt: skip
# Supported containers. Playlists that name other files or addresses are not among them.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,ogg,asf,flv"


class FrameTimes(NamedTuple):
    """Presentation times of the frames that a file holds, in the stream's time base.

    Attributes:
        shown: of all frames, ascending.
        keys: of the key frames, where decoding can start, ascending.
    """

    shown: list[int]
    keys: list[int]


def read_frames(
    path: Path, frames: int, shape: ImageShape, report: EncodingReport | None = None
) -> list[UInt8[np.ndarray, "side side 3"]]:
    """Read evenly spaced frames of a video, in their order.

    The content decides the format. Of a broken video, the frames that can be decoded are used. The
    file is read piece by piece, never as a whole.

    Args:
        frames: number of frames; fewer are returned if the video has no more.
        report: counts videos with frames that cannot be decoded.

    Raises:
        UnusableItem: the file is not a video, has another format, or none of the frames can be
            decoded.
    """
    with extra("av", "video"):
        import av  # noqa: F401
    try:
        # Opened twice, because not every container can return to its beginning.
        with path.open("rb") as file, _open(file) as container:
            times = _frame_times(container, _video_stream(container))
        wanted = evenly_spaced(times.shown, frames)
        with path.open("rb") as file, _open(file) as container:
            images = list(_decode_at(container, _video_stream(container), times, wanted, shape))
    except UnusableItem:
        raise
    except Exception as error:  # decoders raise any exception for broken files
        raise UnusableItem(f"holds no video, or is broken ({_reason(error)})") from error
    if not images:
        raise UnusableItem("none of its frames can be decoded")
    if len(images) < len(wanted) and report is not None:
        report.count("videos with frames that cannot be decoded")
    return images


def _open(file: IO[bytes]) -> Any:
    import av

    # A file object and these options keep FFmpeg from opening other files or addresses.
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
    return av.open(file, container_options=options)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.partition("\n")[0][:120] or type(error).__name__


def _video_stream(container: Any) -> Any:
    if not container.streams.video:
        raise UnusableItem("holds no video stream")
    stream = container.streams.video[0]
    pixels = stream.codec_context.width * stream.codec_context.height
    if pixels > MAX_PIXELS:
        limit = MAX_PIXELS / 1e6
        raise UnusableItem(
            f"has frames of {pixels / 1e6:,.0f} megapixels; the limit is {limit:,.0f}"
        )
    # Several videos are decoded at the same time, each in one thread.
    stream.codec_context.thread_count = 1
    return stream


def _frame_times(container: Any, stream: Any) -> FrameTimes:
    """The times of all frames that the file holds, from its packets; nothing is decoded.

    The duration in the header is not used: it is wrong for a truncated file.
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
    except av.FFmpegError:  # the file ends here
        pass
    if not shown:
        raise UnusableItem("holds no frames")
    return FrameTimes(sorted(shown), sorted(keys))


def evenly_spaced(shown: Sequence[int], frames: int) -> list[int]:
    """The times of the frames that are shown in the middle of each of `frames` equal time spans.

    Args:
        shown: times of all frames, ascending.
    """
    first, last = shown[0], shown[-1]
    # The last frame is shown for the mean duration of a frame.
    duration = (last - first) * len(shown) / max(1, len(shown) - 1)
    indices = []
    for span in range(frames):
        middle = first + duration * (span + 0.5) / frames
        indices.append(max(0, bisect_right(shown, middle) - 1))
    return [shown[index] for index in sorted(set(indices))]


def _decode_at(
    container: Any, stream: Any, times: FrameTimes, wanted: Sequence[int], shape: ImageShape
) -> Iterator[UInt8[np.ndarray, "side side 3"]]:
    """The frames at some times, fitted to a shape; those that cannot be decoded are left out."""
    decoder = _decode_rest(container, stream)
    # The time that decoding has reached. It continues from there unless a key frame lies between
    # this time and the next wanted one.
    reached = times.keys[0] if times.keys else times.shown[0]
    seen = False
    for time in wanted:
        if seen and reached >= time:
            continue  # this frame was lost: decoding went beyond it
        keys = times.keys[: bisect_right(times.keys, time)]
        if keys and keys[-1] > reached:
            decoder = _seek(container, stream, keys, time) or decoder
        for frame in decoder:
            now = frame.dts if frame.pts is None else frame.pts
            if now is None:
                continue
            reached, seen = now, True
            if now >= time:
                yield _fit_frame(frame, shape)
                break


def _seek(container: Any, stream: Any, keys: Sequence[int], time: int) -> Iterator[Any] | None:
    """Decode from the last of some key frames on.

    Containers without an index may need an earlier key frame, so that the first decoded frame is
    not later than `time`.

    Returns:
        The frames; None if the container does not support seeking.
    """
    import av

    for start in dict.fromkeys([*keys[-1:], *keys[-2:-1], min(0, keys[0])]):
        try:
            container.seek(start, stream=stream)
        except av.FFmpegError:
            return None
        decoder = _decode_rest(container, stream)
        first = next(decoder, None)
        if first is not None and (first.pts or first.dts or 0) <= time:
            return chain([first], decoder)
    return iter(()) if first is None else chain([first], decoder)


def _decode_rest(container: Any, stream: Any) -> Iterator[Any]:
    """All frames from the current position on that can be decoded."""
    import av

    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:  # later packets may be intact
                continue
            yield from frames
    except av.FFmpegError:  # the file ends here
        return


def _fit_frame(frame: Any, shape: ImageShape) -> UInt8[np.ndarray, "side side 3"]:
    image = frame.to_image()
    # The rotation in which the video was recorded; both count counter-clockwise.
    if frame.rotation:
        image = image.rotate(frame.rotation, expand=True)
    return fit_image(image, shape)
