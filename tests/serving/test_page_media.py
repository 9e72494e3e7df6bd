"""Sounds and videos on the page, in a real browser: they play, and damaged ones are reported."""

from __future__ import annotations

import struct
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_helpers import OPTIONS, TOKEN, Site, Visit, axe_api, serving

import mocme

av = pytest.importorskip("av", reason="the extra video is not installed")
pytest.importorskip("soundfile", reason="the extra audio is not installed")
NAMES = [f"place {number}" for number in range(12)]
# True once a media element can play.
LOADED = "() => { const m = document.querySelector('%s'); return m && m.readyState >= 2; }"


def tone(path: Path, seconds: float) -> None:
    """Write a sound of 440 Hz."""
    samples = np.sin(2 * np.pi * 440 * np.arange(int(16000 * seconds)) / 16000) * 16000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples.astype(int)))


def video(path: Path, frames: int) -> None:
    """Write a video of ten frames a second, from black to white."""
    if "libvpx" not in av.codecs_available:
        pytest.skip("this build of FFmpeg does not write VP8")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in np.arange(frames) * 255 // frames:
            picture = np.full((48, 64, 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> mocme.Run:
    """A run with sounds and videos of some entities, of which one each is damaged afterwards."""
    folder = tmp_path_factory.mktemp("media")
    facts = [f"{a}\tnear\t{b}" for a, b in zip(NAMES, NAMES[1:] + NAMES[:1], strict=True)]
    (folder / "train.tsv").write_text("\n".join(facts[:9]) + "\n")
    (folder / "valid.tsv").write_text("\n".join(facts[9:]) + "\n")
    for kind in ("sound", "video"):
        (folder / kind).mkdir()
    for name in NAMES[:4]:
        tone(folder / "sound" / f"{name}.wav", seconds=2)
        video(folder / "video" / f"{name}.webm", frames=30)
    tables = {k: {"kind": v, "paths": [k]} for k, v in (("sound", "audio"), ("video", "video"))}
    mocme.encode(folder, tables)
    settings = {"experts.embedding.training.epochs": 1, "experts.embedding.embedding_dim": 8}
    trained = mocme.train(folder, "mocme", out=folder / "run", settings=settings)
    (folder / "sound" / "place 1.wav").write_bytes(b"RIFF, followed by something else")
    (folder / "video" / "place 1.webm").write_bytes(b"no video")
    return trained


@pytest.fixture(scope="module")
def site(run: mocme.Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving([run], tmp_path_factory.mktemp("reviews") / "reviews.sqlite") as running:
        yield running


def test_sounds_and_videos_play_and_seek(open_visit: Callable[..., Visit]) -> None:
    visit = open_visit()
    page = visit.go("#/entity/place 0")
    visit.wait_for(LOADED % "audio")
    visit.wait_for(LOADED % "video")
    sound, video_element = visit.see(".entity-side audio"), visit.see(".entity-side video")
    assert sound.evaluate("node => node.duration") == pytest.approx(2, abs=0.1)
    assert video_element.evaluate("node => node.duration") == pytest.approx(3, abs=0.2)
    assert video_element.evaluate("node => node.videoWidth") == 64
    video_element.evaluate("node => { node.currentTime = 2; }")
    visit.wait_for("() => !document.querySelector('video').seeking")
    assert video_element.evaluate("node => node.currentTime") == pytest.approx(2, abs=0.2)
    assert {sound.get_attribute("aria-label"), video_element.get_attribute("aria-label")} == {
        "place 0, sound",
        "place 0, video",
    }
    result = axe_api.Axe().run(page, options=OPTIONS)
    assert result.violations_count == 0, result.generate_report()


def test_a_damaged_file_is_reported_in_its_place(open_visit: Callable[..., Visit]) -> None:
    visit = open_visit(refusals=True)
    page = visit.go("#/entity/place 1")
    visit.wait_until(
        lambda: page.locator(".entity-side .hint", has_text="cannot be shown").count() == 2
    )
    assert page.locator("audio, video").count() == 0


def test_media_play_on_a_server_with_a_token(
    open_visit: Callable[..., Visit], run: mocme.Run, tmp_path: Path
) -> None:
    with serving([run], tmp_path / "reviews.sqlite", token=TOKEN) as guarded:
        visit = open_visit(guarded, refusals=True)
        visit.page.goto(guarded.url + "#/entity/place 2")
        visit.see("dialog input").fill(TOKEN)
        visit.page.keyboard.press("Enter")
        visit.wait_for(LOADED % "audio")
        visit.wait_for(LOADED % "video")
        source: Any = visit.see("video").get_attribute("src")
        assert source.startswith("blob:")
