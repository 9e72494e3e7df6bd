"""Sounds and videos on the page, in a real browser: they play, and broken ones are told."""

from __future__ import annotations

import struct
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# The module skips, saying why, where there is no browser.
from test_page import OPTIONS, TOKEN, Site, Visit, axe_api, browser, serving, visit

import mocme

__all__ = ["browser", "visit"]  # fixtures

av = pytest.importorskip("av", reason="the extra video is not installed")
pytest.importorskip("soundfile", reason="the extra audio is not installed")
NAMES = [f"place {number}" for number in range(12)]
# True once a medium knows how long it is, and has something to show.
LOADED = "() => { const m = document.querySelector('%s'); return m && m.readyState >= 2; }"


def tone(path: Path, seconds: float) -> None:
    """A sound of 440 Hz."""
    wavered = np.sin(2 * np.pi * 440 * np.arange(int(16000 * seconds)) / 16000) * 16000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(struct.pack(f"<{len(wavered)}h", *wavered.astype(int)))


def film(path: Path, frames: int) -> None:
    """Ten frames a second, from black to white."""
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
    """Trained with sounds and videos of some entities; one of each is damaged afterwards."""
    folder = tmp_path_factory.mktemp("media")
    facts = [f"{a}\tnear\t{b}" for a, b in zip(NAMES, NAMES[1:] + NAMES[:1], strict=True)]
    (folder / "train.tsv").write_text("\n".join(facts[:9]) + "\n")
    (folder / "valid.tsv").write_text("\n".join(facts[9:]) + "\n")
    for kind in ("sound", "film"):
        (folder / kind).mkdir()
    for name in NAMES[:4]:
        tone(folder / "sound" / f"{name}.wav", seconds=2)
        film(folder / "film" / f"{name}.webm", frames=30)
    tables = {k: {"kind": v, "paths": [k]} for k, v in (("sound", "audio"), ("film", "video"))}
    mocme.encode(folder, tables)
    settings = {"experts.embedding.training.epochs": 1, "experts.embedding.embedding_dim": 8}
    made = mocme.train(folder, "mocme", out=folder / "run", settings=settings)
    (folder / "sound" / "place 1.wav").write_bytes(b"RIFF, and then nothing of the sort")
    (folder / "film" / "place 1.webm").write_bytes(b"no film")
    return made


@pytest.fixture(scope="module")
def site(run: mocme.Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving([run], tmp_path_factory.mktemp("reviews") / "reviews.sqlite") as found:
        yield found


def test_sounds_and_videos_play_and_can_be_moved_about_in(visit: Callable[..., Visit]) -> None:
    made = visit()
    page = made.go("#/entity/place 0")
    made.holds(LOADED % "audio")
    made.holds(LOADED % "video")
    sound, shown = made.see(".entity-side audio"), made.see(".entity-side video")
    assert sound.evaluate("node => node.duration") == pytest.approx(2, abs=0.1)
    assert shown.evaluate("node => node.duration") == pytest.approx(3, abs=0.2)
    assert shown.evaluate("node => node.videoWidth") == 64
    shown.evaluate("node => { node.currentTime = 2; }")
    made.holds("() => !document.querySelector('video').seeking")
    assert shown.evaluate("node => node.currentTime") == pytest.approx(2, abs=0.2)
    assert {sound.get_attribute("aria-label"), shown.get_attribute("aria-label")} == {
        "place 0, sound",
        "place 0, video",
    }
    found = axe_api.Axe().run(page, options=OPTIONS)
    assert found.violations_count == 0, found.generate_report()


def test_a_damaged_file_is_told_where_it_would_be(visit: Callable[..., Visit]) -> None:
    made = visit(refusals=True)
    page = made.go("#/entity/place 1")
    made.until(lambda: page.locator(".entity-side .hint", has_text="cannot be shown").count() == 2)
    assert page.locator("audio, video").count() == 0


def test_behind_a_token_they_play_too(
    visit: Callable[..., Visit], run: mocme.Run, tmp_path: Path
) -> None:
    with serving([run], tmp_path / "reviews.sqlite", token=TOKEN) as guarded:
        made = visit(guarded, refusals=True)
        made.page.goto(guarded.url + "#/entity/place 2")
        made.see("dialog input").fill(TOKEN)
        made.page.keyboard.press("Enter")
        made.holds(LOADED % "audio")
        made.holds(LOADED % "video")
        address: Any = made.see("video").get_attribute("src")
        assert address.startswith("blob:")
