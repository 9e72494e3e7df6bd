"""Several writers of one target: none fails, none follows what lies there, none leaves anything."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mocme.storage import NotKept, RunFolder, RunLocked, atomic_io, kept_if_possible
from mocme.storage.workspace import is_workspace, new_folder, remove_leftovers, workspace

WRITERS, ROUNDS = 4, 25
FORK = multiprocessing.get_context("fork")


def together(work: Callable[[int], None], count: int = WRITERS) -> list[int | None]:
    """Run a function in several processes at the same time; return their exit codes."""
    barrier = FORK.Barrier(count)

    def started(number: int) -> None:
        barrier.wait()
        work(number)

    processes = [FORK.Process(target=started, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {})


@pytest.fixture
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.usefixtures("fast_disk")
def test_writers_of_one_file_never_fail_and_readers_never_see_damage(run: RunFolder) -> None:
    run.write_tensors("w.safetensors", {"w": torch.zeros(3)}, {"by": "0"})
    reader = RunFolder.open(run.path)

    def work(number: int) -> None:
        for _ in range(ROUNDS):
            if number:
                value = torch.full((3,), float(number))
                run.write_tensors("w.safetensors", {"w": value}, {"by": str(number)})
            else:
                tensors, metadata = reader.read_packed("w.safetensors")
                assert tensors["w"].tolist() == [float(metadata["by"])] * 3

    assert together(work) == [0] * WRITERS
    tensors, metadata = run.read_packed("w.safetensors")
    assert tensors["w"].tolist() == [float(metadata["by"])] * 3
    assert sorted(os.listdir(run.path)) == [
        "lock", "run.json", "run.json.sha256", "w.safetensors", "w.safetensors.sha256",
    ]  # fmt: skip


@pytest.mark.usefixtures("fast_disk")
def test_a_file_that_is_removed_and_written_at_the_same_time_is_never_damaged(
    run: RunFolder,
) -> None:
    def work(number: int) -> None:
        for _ in range(ROUNDS):
            if number % 2:
                run.remove("a.json")
            else:
                run.write_json("a.json", number)

    assert together(work) == [0] * WRITERS
    if run.has("a.json"):
        assert run.read_json("a.json") in range(WRITERS)


@pytest.mark.usefixtures("fast_disk")
def test_lines_of_several_processes_stay_whole_and_count_each_other(run: RunFolder) -> None:
    def work(number: int) -> None:
        for _ in range(ROUNDS):
            run.append("log.jsonl", lambda earlier: {"n": len(earlier), "text": "x" * 500})

    assert together(work) == [0] * WRITERS
    lines = run.records("log.jsonl")
    assert [line["n"] for line in lines] == list(range(WRITERS * ROUNDS))


def test_a_lock_that_is_never_released_is_an_error(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_io, "_LOCK_SECONDS", 0.01)
    with atomic_io.directory_lock(run.path), pytest.raises(RunLocked, match="end it, then try"):
        run.write_text("a", "x")


def test_what_a_killed_writer_left_is_removed_and_what_is_in_use_stays(tmp_path: Path) -> None:
    target = tmp_path / "file"

    def killed(_: int) -> None:
        with workspace(target) as folder:
            (folder / "half").write_text("x")
            os._exit(0)

    with workspace(target) as in_use:
        assert together(killed, 1) == [0]
        assert len(os.listdir(tmp_path)) == 2
        (tmp_path / ".file.tmp").mkdir()  # as version 0.1 names it
        (tmp_path / ".file.x.tmp").mkdir()
        (tmp_path / ".other.0123456789abcdef.tmp").mkdir()
        remove_leftovers(target)
        assert sorted(os.listdir(tmp_path)) == sorted(
            [".file.x.tmp", ".other.0123456789abcdef.tmp", in_use.name]
        )
    assert not in_use.exists()


def test_the_writer_of_a_run_removes_all_leftovers(run: RunFolder) -> None:
    leftover = run.path / ".a.json.0123456789abcdef.tmp"
    leftover.mkdir()
    with workspace(run.path / "b") as in_use, run.lock():
        assert not leftover.exists()
        assert in_use.exists()


def test_links_and_pipes_under_such_a_name_are_neither_followed_nor_removed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis").write_text("mine")
    run = RunFolder.create(tmp_path / "run", {})
    for number, name in enumerate((".a.tmp", ".a.0123456789abcdef.tmp")):
        (run.path / name).symlink_to(outside)
        os.mkfifo(run.path / f".a.000000000000000{number}.tmp")
    run.write_text("a", "content")
    assert run.read_text("a") == "content"
    assert (outside / "thesis").read_text() == "mine"
    assert os.listdir(outside) == ["thesis"]


@pytest.mark.parametrize("name", ["x" * 255, "🐪" * 60, "a\nb", "a.*"])
def test_every_name_has_a_workspace(tmp_path: Path, name: str) -> None:
    with workspace(tmp_path / name) as folder:
        assert folder.is_dir()
        assert is_workspace(folder.name, name)
        assert not is_workspace(folder.name, "other")


def test_of_writers_of_one_folder_exactly_one_wins(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def work(number: int) -> None:
        try:
            with new_folder(target) as folder:
                for name in "ab":
                    (folder / name).write_text(str(number))
        except ValueError as error:
            reasons = ("another process is writing this folder", "already exists; remove it")
            assert any(reason in str(error) for reason in reasons)  # noqa: PT017
            os._exit(3)

    assert sorted(map(str, together(work))) == ["0", *["3"] * (WRITERS - 1)]
    assert (target / "a").read_text() == (target / "b").read_text()
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()  # an empty folder is replaced
    with pytest.raises(IsADirectoryError), new_folder(target) as folder:
        folder.write_text("not a file")
    assert os.listdir(target) == []
    with new_folder(target) as folder:
        (folder / "a").write_text("x")
        with pytest.raises(ValueError, match="another process is writing"), new_folder(target):
            pass
    assert os.listdir(target) == ["a"]
    with pytest.raises(ValueError, match="already exists; remove it or give another"):
        new_folder(target).__enter__()


@pytest.mark.parametrize(
    "number", [errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT]
)
def test_what_cannot_be_kept_gives_a_warning(number: int) -> None:
    with (
        pytest.warns(NotKept, match=rf"^it \({os.strerror(number)}\); do that$"),
        kept_if_possible("it", "do that"),
    ):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), ValueError("wrong")])
def test_other_errors_are_not_hidden(error: Any) -> None:
    with pytest.raises(type(error)), kept_if_possible("it", "do that"):
        raise error
