"""Uploaded pictures are decoded in a process that is ended when one takes too much."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_helpers import picture

from mocme.core.deadline import Stopped
from mocme.encoders import image_worker
from mocme.encoders.items import UnusableItem
from mocme.serving.picture_process import PictureProcess

# A program that answers that it is ready, reads one picture and does not answer.
STUCK = "import sys; w = sys.stdout.buffer; w.write(bytes(8)); w.flush(); sys.stdin.buffer.read()"


@pytest.fixture
def process() -> Iterator[PictureProcess]:
    made = PictureProcess(60.0, 1 << 30)
    yield made
    made.close()


def pid(process: PictureProcess) -> int:
    assert process._running is not None
    return process._running._process.pid


def test_one_process_tries_all_pictures(process: PictureProcess) -> None:
    process.check(picture())
    first = pid(process)
    with pytest.raises(UnusableItem, match="no picture"):
        process.check(b"no picture")
    with pytest.raises(UnusableItem, match="is broken"):
        process.check(picture()[:-40])
    process.check(picture(size=(3_000, 2_000)))
    assert pid(process) == first
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    process.check(picture())


def test_a_process_that_died_is_replaced(process: PictureProcess) -> None:
    process.check(picture())
    first = pid(process)
    os.kill(first, 9)
    while not process._running.ended:  # type: ignore[union-attr]
        threading.Event().wait(0.01)
    process.check(picture())
    assert pid(process) != first


def stuck(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Replace the worker by a program that never answers."""
    package = folder / "mocme" / "encoders"
    package.mkdir(parents=True)
    for init in (package.parent / "__init__.py", package / "__init__.py"):
        init.touch()
    (package / "image_worker.py").write_text(STUCK)
    monkeypatch.setattr("mocme.serving.picture_process._package_folder", lambda: str(folder))


def test_a_picture_that_takes_too_long_ends_its_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stuck(monkeypatch, tmp_path)
    process = PictureProcess(0.2, 1 << 30)
    for data in (picture(), picture() + bytes(1 << 20)):
        with pytest.raises(UnusableItem, match="takes more than 0"):
            process.check(data)
        assert process._running is None


def test_decoding_stops_when_nobody_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stuck(monkeypatch, tmp_path)
    process = PictureProcess(1e6, 1 << 30)

    def check() -> None:
        if process._running is not None and process._running.ready:
            raise Stopped

    with pytest.raises(Stopped):
        process.check(picture(), check)
    assert process._running is None


def test_the_memory_of_the_process_is_limited() -> None:
    process = PictureProcess(60.0, 20_000_000)
    try:
        process.check(picture())
        with pytest.raises(UnusableItem, match=r"MemoryError|more than|broken"):
            process.check(picture(size=(4_000, 3_000)))
        process.check(picture())
    finally:
        process.close()


def test_the_process_gets_no_secret(
    monkeypatch: pytest.MonkeyPatch, process: PictureProcess
) -> None:
    monkeypatch.setenv("MOCME_TOKEN", "a-long-enough-secret")
    process.check(picture())
    assert b"MOCME_TOKEN" not in Path(f"/proc/{pid(process)}/environ").read_bytes()


def test_the_worker_imports_no_torch() -> None:
    """Otherwise it would take seconds to start and hundreds of megabytes."""
    source = Path(image_worker.__file__).parent
    for name in ("image_worker.py", "image_io.py", "image_structure.py", "items.py"):
        assert "import torch" not in (source / name).read_text()
