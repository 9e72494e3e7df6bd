"""The folder of a run: nothing is half written, nothing damaged is read, resuming is exact."""

import functools
import importlib
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from test_tensor_tree import nested, same

from mocme import storage as runs
from mocme.storage import FORMAT_VERSION, Checkpoint, RunError, RunFolder
from mocme.storage import atomic_io as durable
from mocme.storage import run_directory as folders
from mocme.storage import tensor_tree as trees

KILL_SAVERS = Path(__file__).parents[2] / "scripts" / "kill_savers.py"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {"seed": 7})


def state(step: int) -> dict[str, Any]:
    return {"weight": torch.full((5,), float(step)), "loss": step / 3, "best": (step, None)}


def put(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def fill(run: RunFolder) -> None:
    """One file of each sort, and two checkpoints."""
    run.write_text("config.toml", "a = 1\n")
    run.write_json("metrics.json", {"mrr": 0.25})
    run.write_tensors("best.safetensors", {"w": torch.arange(6.0)})
    run.save_checkpoint(0, state(0), logs=["log.jsonl"])
    for step in (1, 2):
        run.append("log.jsonl", {"step": step})
        run.save_checkpoint(step, state(step), logs=["log.jsonl"])


READERS: dict[str, Callable[[RunFolder], Any]] = {
    "run.json": lambda run: RunFolder.open(run.path).about,
    "config.toml": lambda run: run.read_text("config.toml"),
    "metrics.json": lambda run: run.read_json("metrics.json"),
    "best.safetensors": lambda run: run.read_tensors("best.safetensors"),
}


# States


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree=nested)
def test_a_tree_comes_back_from_a_checkpoint(run: RunFolder, tree: Any) -> None:
    run.save_checkpoint(3, tree)
    loaded = run.load_checkpoint()
    assert loaded is not None
    assert loaded.step == 3
    assert same(loaded.state, tree)


def test_states_of_torch_come_back_to_the_bit(run: RunFolder) -> None:
    torch_state = torch.get_rng_state()
    model = torch.nn.Linear(3, 3)
    model.tied = model.weight  # two names for one memory
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    special = torch.tensor([float("nan"), -0.0, float("inf"), 1e-45])
    tree: dict[str, Any] = {
        "model": dict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "random": torch_state,
        "special": special,
        "turned": torch.arange(6).reshape(2, 3).T,
        "part": torch.arange(9)[2:5],
    }
    run.save_checkpoint(0, tree)
    loaded = run.load_checkpoint()
    assert loaded is not None
    assert {"weight", "tied"} <= set(loaded.state["model"])
    assert same(loaded.state, tree)
    assert set(loaded.state["optimizer"]["state"]) == {0, 1}  # keys that are integers


# Creating and opening


def test_about_is_kept_and_changed(run: RunFolder) -> None:
    again = RunFolder.open(str(run.path))
    assert again.about["format"] == FORMAT_VERSION
    assert again.about["seed"] == 7
    assert again.about["created"].endswith("+00:00")
    again.update_about(status="finished", seed=8)
    assert run.about == {**again.about, "seed": 8, "status": "finished"}
    with pytest.raises(RunError, match="'format' is the run's own"):
        run.update_about(format=2)
    assert run.about["format"] == FORMAT_VERSION


def test_create_takes_a_new_or_empty_folder_only(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    RunFolder.create(tmp_path / "empty", {})
    RunFolder.create(tmp_path / "deep" / "er", {})
    (tmp_path / "file").write_text("mine")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("mine")
    for name in ("empty", "file", "used"):
        with pytest.raises(RunError, match=rf"{name} is not empty; choose another --out"):
            RunFolder.create(tmp_path / name, {})
    assert os.listdir(tmp_path / "used") == ["thesis.txt"]


def test_of_two_that_create_a_run_at_once_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = RunFolder.lock

    def late(run: RunFolder) -> AbstractContextManager[None]:
        monkeypatch.setattr(RunFolder, "lock", lock)
        RunFolder.create(run.path, {"by": "the quicker"})
        return lock(run)

    monkeypatch.setattr(RunFolder, "lock", late)
    with pytest.raises(RunError, match="is not empty"):
        RunFolder.create(tmp_path / "run", {"by": "the slower"})
    assert RunFolder.open(tmp_path / "run").about["by"] == "the quicker"


def test_open_says_what_is_wrong(tmp_path: Path, run: RunFolder) -> None:
    with pytest.raises(RunError, match="there is no run at"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(RunError, match=r"is not a run, it has no run\.json"):
        RunFolder.open(tmp_path)
    for about, message in [
        ({"format": FORMAT_VERSION + 1}, f"run format {FORMAT_VERSION + 1}; upgrade"),
        ({"format": "1"}, "no format version"),
        ({"format": True}, "no format version"),
        ({}, "no format version"),
        ([], "no format version"),
    ]:
        text = json.dumps(about)
        durable.replace(run.path / "run.json", functools.partial(put, text.encode()))
        with pytest.raises(RunError, match=message):
            RunFolder.open(run.path)


# Files


def test_files_come_back(run: RunFolder) -> None:
    text = "one\r\ntwo\rthree\n\néΩ \u2028 \ufeff"
    run.write_text("notes/config.toml", text)
    assert run.read_text("notes/config.toml") == text
    value = {"é": [1, 2.5, None, True, "x"], "none": {}, "inf": math.inf}
    run.write_json("metrics.json", value)
    assert run.read_json("metrics.json") == value
    held = {
        "b/c": torch.ones(2, 3, dtype=torch.bfloat16).T,
        "a": torch.tensor(3),
        "": torch.ones(0),
    }
    run.write_tensors("modalities/text.safetensors", held, {"encoder": "é"})
    assert same(run.read_tensors("modalities/text.safetensors"), dict(sorted(held.items())))
    assert run.tensors_metadata("modalities/text.safetensors") == {"encoder": "é"}
    run.write_tensors("none.safetensors", {})
    assert run.read_tensors("none.safetensors") == {}
    assert run.tensors_metadata("none.safetensors") == {}
    assert run.has("metrics.json")
    assert not run.has("other.json")


def test_tensors_read_do_not_change_with_the_file(run: RunFolder) -> None:
    run.write_tensors("w.safetensors", {"w": torch.zeros(8)})
    read = run.read_tensors("w.safetensors")
    with (run.path / "w.safetensors").open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\xff" * 8)
    assert read["w"].tolist() == [0.0] * 8


def test_files_have_the_permissions_of_any_new_file(run: RunFolder, tmp_path: Path) -> None:
    fill(run)
    (tmp_path / "any").touch()
    modes = {path.stat().st_mode for path in run.path.rglob("*") if path.is_file()}
    assert modes == {(tmp_path / "any").stat().st_mode}


@pytest.mark.parametrize(
    "write",
    [
        lambda run: run.write_json("file", {"x": torch.ones(1)}),
        lambda run: run.write_json("file", "\ud800"),
        lambda run: run.write_text("file", "\ud800"),
        lambda run: run.write_tensors("file", {"x": torch.eye(2).to_sparse()}),
        lambda run: run.write_tensors("file", {"x": torch.ones(1, dtype=torch.complex128)}),
        lambda run: run.write_tensors("file", {"__metadata__": torch.ones(1)}),
        lambda run: run.write_tensors("file", {"x": torch.ones(1)}, {"a": 1}),
        lambda run: run.append("file", {"x": torch.ones(1)}),
        lambda run: run.append("file", {"_crc32": 1}),
    ],
)
def test_content_that_a_file_cannot_hold_leaves_the_run_as_it_was(
    run: RunFolder, write: Callable[[RunFolder], None]
) -> None:
    before = sorted(run.path.rglob("*"))
    with pytest.raises(RunError, match=r"run/file cannot hold"):
        write(run)
    assert sorted(run.path.rglob("*")) == before


def test_a_state_that_cannot_be_held_leaves_the_checkpoints_as_they_were(run: RunFolder) -> None:
    run.save_checkpoint(1, state(1))
    for bad in (object(), torch.ones(1, dtype=torch.complex128)):
        with pytest.raises(RunError, match="step-000000002 cannot hold this state"):
            run.save_checkpoint(2, {"x": bad})
        loaded = run.load_checkpoint()
        assert loaded is not None
        assert same(loaded.state, state(1))
    run.save_checkpoint(2, state(2))
    assert sorted(os.listdir(run.path / "checkpoints")) == ["step-000000001", "step-000000002"]


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "a/b/c", "a//b", "a/", "/a", ".hidden",
     "a/.b", "a\\b", "a\0b", "a\nb", "\ud800", "x" * 300, "run.json.sha256", "lock", "lock/x",
     "checkpoints/x", "checkpoints", "out/x"],
)  # fmt: skip
def test_names_that_leave_the_run_or_are_its_own_are_refused(
    run: RunFolder, tmp_path: Path, name: str
) -> None:
    (tmp_path / "outside").mkdir()
    (run.path / "out").symlink_to(tmp_path / "outside")
    for act in (
        lambda: run.write_text(name, "x"),
        lambda: run.read_text(name),
        lambda: run.append(name, {}),
        lambda: run.has(name),
        lambda: run.save_checkpoint(1, {}, logs=[name]),
    ):
        with pytest.raises(RunError, match="leaves the run"):
            act()
    assert os.listdir(tmp_path / "outside") == []
    assert run.load_checkpoint() is None


def test_run_json_is_written_by_its_own_methods_only(run: RunFolder) -> None:
    assert run.has("run.json")
    with pytest.raises(RunError, match="reserved"):
        run.write_json("run.json", {})
    assert run.about["seed"] == 7


def test_long_and_foreign_names_work(run: RunFolder) -> None:
    name = "é" * 60 + "/" + "🐪" * 60
    run.write_text(name, "x")
    assert run.read_text(name) == "x"


# Damage


def damages(content: bytes) -> Iterator[bytes]:
    """Truncations to several lengths, and flipped bytes here and there."""
    for length in {0, 1, len(content) // 2, len(content) - 1}:
        yield content[:length]
    for place in {0, len(content) // 3, len(content) // 2, len(content) - 1}:
        for flip in (1, 0x20, 0xFF):
            yield content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :]


@pytest.mark.parametrize("name", READERS)
def test_damage_of_a_file_or_its_record_is_detected(run: RunFolder, name: str) -> None:
    fill(run)
    READERS[name](run)
    for path in (run.path / name, run.path / f"{name}.sha256"):
        content = path.read_bytes()
        for damaged in damages(content):
            path.write_bytes(damaged)
            with pytest.raises(RunError, match=rf"run/{name} or its .* altered .* restore it"):
                READERS[name](run)
        path.unlink()
        with pytest.raises(RunError, match=name):
            READERS[name](run)
        path.write_bytes(content)
    READERS[name](run)


def test_the_remedy_for_a_change_on_purpose_works(run: RunFolder) -> None:
    fill(run)
    (run.path / "config.toml").write_text("a = 2\n")
    with pytest.raises(RunError, match=r"sha256sum config.toml > config.toml.sha256"):
        run.read_text("config.toml")
    command = "sha256sum config.toml > config.toml.sha256"
    subprocess.run(["sh", "-c", command], cwd=run.path, check=True)
    assert run.read_text("config.toml") == "a = 2\n"


def test_replacing_a_damaged_file_does_not_make_the_damage_valid(run: RunFolder) -> None:
    run.write_text("a", "old")
    (run.path / "a").write_text("bad")
    still_bad = 0
    for _ in crashes(lambda: run.write_text("a", "new")):
        if (run.path / "a").read_text() == "bad":
            still_bad += 1
            with pytest.raises(RunError, match="altered"):
                run.read_text("a")
    assert still_bad > 5
    assert run.read_text("a") == "new"


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(run: RunFolder, name: str) -> None:
    fill(run)
    path = run.path / "checkpoints" / "step-000000002" / name
    for damaged in damages(path.read_bytes()):
        path.write_bytes(damaged)
        with pytest.warns(
            UserWarning, match=r"step-000000002 is damaged .* step-000000001, is used"
        ):
            loaded = run.load_checkpoint()
        assert loaded is not None
        assert same(loaded.state, state(1))
    path.unlink()
    with pytest.warns(UserWarning, match=r"step-000000002 is damaged"):
        assert run.load_checkpoint() is not None


def test_a_renamed_checkpoint_is_damaged(run: RunFolder) -> None:
    fill(run)
    folder = run.path / "checkpoints"
    (folder / "step-000000002").rename(folder / "step-000000009")
    with pytest.warns(UserWarning, match="it was renamed, and holds step 2"):
        loaded = run.load_checkpoint()
    assert loaded is not None
    assert loaded.step == 1


def test_no_intact_checkpoint_is_an_error_and_none_is_none(run: RunFolder) -> None:
    assert run.load_checkpoint() is None
    fill(run)
    for path in (run.path / "checkpoints").rglob("manifest.json"):
        path.write_bytes(b"{}")
    with pytest.raises(RunError, match=r"no intact checkpoint: .*000002 .*000001 .*restore"):
        run.load_checkpoint()


def test_a_damaged_line_is_an_error_and_a_torn_last_one_a_warning(run: RunFolder) -> None:
    records: list[dict[str, Any]] = [{"step": 1, "loss": 0.5}, {}, {"a": {"b": [1]}, "é": "\u2028"}]
    for record in records:
        run.append("log.jsonl", record)
    path = run.path / "log.jsonl"
    content = path.read_bytes()
    assert run.records("log.jsonl") == records
    assert [json.loads(line) for line in content.splitlines()] == [
        {**record, "_crc32": json.loads(line)["_crc32"]}
        for record, line in zip(records, content.splitlines(), strict=True)
    ]
    for place in range(len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        line = 1 + content[:place].count(b"\n")
        with pytest.raises(RunError, match=rf"log.jsonl is damaged in line {line}\b"):
            run.records("log.jsonl")
    start = content.rindex(b"\n", 0, -1) + 1
    for length in range(start + 1, len(content)):
        path.write_bytes(content[:length])
        with pytest.warns(UserWarning, match="last line of .*log.jsonl is torn"):
            assert run.records("log.jsonl") == records[:2]
    run.append("log.jsonl", {"after": 1})  # the torn line is gone
    assert run.records("log.jsonl") == [*records[:2], {"after": 1}]
    with pytest.raises(RunError, match=r"none.jsonl is missing"):
        run.records("none.jsonl")


# Checkpoints


def test_the_newest_two_are_kept(run: RunFolder) -> None:
    for step in (0, 1, 5, 1_000_000_000):
        run.save_checkpoint(step, state(step))
        loaded = run.load_checkpoint()
        assert loaded is not None
        assert loaded.step == step
    folder = run.path / "checkpoints"
    assert sorted(os.listdir(folder)) == ["step-000000005", "step-1000000000"]
    run.save_checkpoint(1_000_000_001, state(0), keep=1)
    assert os.listdir(folder) == ["step-1000000001"]
    for step, keep in ((-1, 1), (2_000_000_000, 0)):
        with pytest.raises(ValueError, match="0 or more"):
            run.save_checkpoint(step, {}, keep=keep)


def test_a_step_can_be_saved_again_but_not_an_earlier_one(run: RunFolder) -> None:
    for number in range(12):
        run.save_checkpoint(4, {"number": number})
    loaded = run.load_checkpoint()
    assert loaded is not None
    assert (loaded.step, loaded.state) == (4, {"number": 11})
    with pytest.raises(RunError, match=r"step-000000004\.12 is later than 3; resume it"):
        run.save_checkpoint(3, {})


def test_leftovers_of_killed_savers_are_removed_and_strange_files_are_not(run: RunFolder) -> None:
    run.save_checkpoint(1, state(1))
    folder = run.path / "checkpoints"
    shutil.copytree(folder / "step-000000001", folder / ".step-000000002.new")
    shutil.copytree(folder / "step-000000001", folder / ".step-000000000.old")
    (folder / "notes").mkdir()
    (folder / ".DS_Store").touch()
    run.save_checkpoint(2, state(2))
    assert sorted(os.listdir(folder)) == [
        ".DS_Store", "notes", "step-000000001", "step-000000002"
    ]  # fmt: skip


def test_loading_changes_nothing(run: RunFolder) -> None:
    fill(run)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    RunFolder.open(run.path).load_checkpoint()
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_a_reader_follows_a_writer_that_removes_what_it_reads(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(run)
    read = folders.read_checkpoint

    def slow(folder: Path) -> Checkpoint:
        monkeypatch.setattr(folders, "read_checkpoint", read)
        for step in (3, 4):
            run.save_checkpoint(step, state(step))
        return read(folder)

    monkeypatch.setattr(folders, "read_checkpoint", slow)
    loaded = run.load_checkpoint()
    assert loaded is not None
    assert loaded.step == 4


def test_a_reader_bears_a_replacement_while_it_reads(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write_text("a", "0")
    digest = durable.digest

    def slow(path: Path) -> str:
        found = digest(path)
        monkeypatch.setattr(durable, "digest", digest)
        for text in "12":  # after two the sum just taken is in the record no more
            run.write_text("a", text)
        return found

    monkeypatch.setattr(durable, "digest", slow)
    assert run.read_text("a") == "2"


# Rewinding


def train(run: RunFolder, steps: int, dies_at: int | None = None) -> None:
    """A loop that logs twice a step and saves at even ones."""
    checkpoint = run.load_checkpoint()
    if checkpoint is None:
        run.save_checkpoint(0, {"sum": 0}, logs=["a.jsonl", "b.jsonl"])
        checkpoint = run.load_checkpoint()
    assert checkpoint is not None
    run.rewind(checkpoint)
    total = checkpoint.state["sum"]
    for step in range(checkpoint.step + 1, steps + 1):
        total += step
        run.append("a.jsonl", {"step": step, "sum": total})
        if step == dies_at:
            return
        run.append("b.jsonl", {"step": step})
        if step % 2 == 0:
            run.save_checkpoint(step, {"sum": total}, logs=["a.jsonl", "b.jsonl"])


@pytest.mark.parametrize("dies_at", range(1, 7))
def test_logs_of_a_resumed_run_equal_those_of_an_uninterrupted_one(
    tmp_path: Path, dies_at: int
) -> None:
    whole, resumed = (RunFolder.create(tmp_path / name, {}) for name in ("whole", "resumed"))
    train(whole, 6)
    train(resumed, 6, dies_at)
    with (resumed.path / "a.jsonl").open("ab") as file:
        file.write(b'{"torn": ')
    train(resumed, 6)
    for name in ("a.jsonl", "b.jsonl"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_a_torn_line_is_not_remembered_as_part_of_a_log(run: RunFolder) -> None:
    run.save_checkpoint(0, {}, logs=["log.jsonl"])
    run.append("log.jsonl", {"step": 1})
    size = (run.path / "log.jsonl").stat().st_size
    with (run.path / "log.jsonl").open("ab") as file:
        file.write(b'{"torn": ')
    run.save_checkpoint(1, {}, logs=["log.jsonl"])
    loaded = run.load_checkpoint()
    assert loaded is not None
    assert loaded.logs == {"log.jsonl": size}


def test_lines_of_before_the_first_checkpoint_are_no_part_of_a_resumed_log(run: RunFolder) -> None:
    with (run.path / "log.jsonl").open("wb") as file:
        file.write(b'{"torn": ')
    run.save_checkpoint(0, {}, logs=["log.jsonl"])  # no line yet
    shutil.rmtree(run.path / "checkpoints")
    run.append("log.jsonl", {"step": 1})  # and the process is killed; the next one starts again
    assert run.load_checkpoint() is None
    for step in (0, 1):  # to remember the line would keep it beside the one that is logged now
        with pytest.raises(RunError, match=r"checkpoints holds no checkpoint, though log.jsonl"):
            run.save_checkpoint(step, {}, logs=["other.jsonl", "log.jsonl"])
    assert run.load_checkpoint() is None
    os.unlink(run.path / "log.jsonl")
    run.save_checkpoint(0, {}, logs=["log.jsonl"])
    run.append("log.jsonl", {"step": 1})
    loaded = run.load_checkpoint()
    assert loaded is not None
    run.rewind(loaded)
    assert run.records("log.jsonl") == []


@pytest.mark.parametrize("dies_in", ["save_checkpoint", "append", "write_json", "write_tensors"])
@pytest.mark.parametrize("earlier", [0, 1, 2])
def test_the_writer_of_the_script_may_die_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_in: str, earlier: int
) -> None:
    monkeypatch.syspath_prepend(KILL_SAVERS.parent)
    kill_savers = importlib.import_module("kill_savers")
    run = RunFolder.create(tmp_path / "run", {})
    for _ in range(3):  # writers, one after the other
        calls = 0
        method = getattr(RunFolder, dies_in)

        def dying(*args: Any, method: Any = method, **kwargs: Any) -> None:
            nonlocal calls
            calls += 1
            if calls > earlier:
                raise Crash(dies_in)
            method(*args, **kwargs)

        with monkeypatch.context() as patch, Path(os.devnull).open("wb") as told:
            patch.setattr(RunFolder, dies_in, dying)
            with pytest.raises(Crash):
                kill_savers.save_for_ever(run.path, told.fileno())
        kill_savers.check(run.path, 0)


def test_rewinding_removes_later_damaged_checkpoints(run: RunFolder) -> None:
    fill(run)
    (run.path / "checkpoints" / "step-000000002" / "state.json").write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"):
        loaded = run.load_checkpoint()
    assert loaded is not None
    with pytest.raises(RunError, match="is later than 1"):
        run.save_checkpoint(1, state(1))
    run.rewind(loaded)
    assert run.records("log.jsonl") == [{"step": 1}]
    assert os.listdir(run.path / "checkpoints") == ["step-000000001"]
    run.save_checkpoint(2, state(2))
    assert run.load_checkpoint() is not None  # and warns of nothing


def test_rewinding_refuses_lost_lines_and_foreign_checkpoints(run: RunFolder) -> None:
    fill(run)
    loaded = run.load_checkpoint()
    assert loaded is not None
    with pytest.raises(RunError, match="has no checkpoint ''"):
        run.rewind(Checkpoint(2, {}))
    path = run.path / "log.jsonl"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(RunError, match=r"log.jsonl is shorter than the \d+ bytes"):
        run.rewind(loaded)
    path.unlink()
    with pytest.raises(RunError, match=r"log.jsonl is shorter"):
        run.rewind(loaded)


# Crashes


class Crash(BaseException):
    """As final as a kill: after it, nothing reaches the disk."""


def crash_at(patch: pytest.MonkeyPatch, call: int) -> list[str]:
    """Let the given call of those that change a folder fail, and all later ones."""
    made: list[str] = []

    def wrap(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            made.append(name)
            if len(made) > call:
                raise Crash(name)
            return function(*args, **kwargs)

        return counted

    for place, names in [
        (os, ["replace", "rename", "fsync", "truncate"]),
        (shutil, ["rmtree"]),
        (Path, ["mkdir", "write_bytes", "write_text", "touch"]),
        (trees, ["save_file"]),
    ]:
        for name in names:
            patch.setattr(place, name, wrap(name, getattr(place, name)))
    return made


def crashes(act: Callable[[], Any]) -> Iterator[int]:
    """Repeat an action, dying one call later each time, until it comes through."""
    for call in range(200):
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, call)
            try:
                act()
            except Crash:
                pass
            else:
                return
        yield call
    raise AssertionError("the action never came through")


def test_a_crash_at_any_call_leaves_the_old_or_the_new_file(run: RunFolder) -> None:
    run.write_text("a", "0")
    seen = set()
    for call in crashes(lambda: run.write_text("a", "new")):
        seen.add(run.read_text("a"))
        if run.read_text("a") == "new":
            run.write_text("a", str(call))
    assert "new" in seen
    assert len(seen) > 1
    assert run.read_text("a") == "new"
    assert not list(run.path.glob(".*"))


def test_a_crash_at_any_call_of_create_leaves_a_run_or_a_place_for_one(tmp_path: Path) -> None:
    outcomes = set()
    for call in crashes(lambda: RunFolder.create(tmp_path / "run", {"seed": 1})):
        made = (tmp_path / "run" / "run.json").exists()
        outcomes.add(made)
        if made:
            assert RunFolder.open(tmp_path / "run").about["seed"] == 1
            shutil.rmtree(tmp_path / "run")
        assert call < 100
    assert outcomes == {True, False}
    assert RunFolder.open(tmp_path / "run").about["seed"] == 1


@pytest.mark.parametrize("step", [2, 3])
def test_a_crash_at_any_call_leaves_the_old_or_the_new_checkpoint(
    run: RunFolder, step: int
) -> None:
    outcomes = set()

    def act() -> None:
        run.save_checkpoint(step, {"new": torch.ones(3)}, logs=["log.jsonl"])

    fill(run)
    for _ in crashes(act):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = RunFolder.open(run.path).load_checkpoint()
        assert loaded is not None
        new = same(loaded.state, {"new": torch.ones(3)})
        assert new or same(loaded.state, state(2))
        outcomes.add(new)
        if new:
            shutil.rmtree(run.path / "checkpoints")
            os.unlink(run.path / "log.jsonl")
            fill(run)
    assert outcomes == {True, False}
    assert not list((run.path / "checkpoints").glob(".*"))


def test_a_crash_at_any_call_of_rewind_can_be_rewound(run: RunFolder) -> None:
    fill(run)
    (run.path / "checkpoints" / "step-000000002" / "state.json").write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"):
        loaded = run.load_checkpoint()
    assert loaded is not None
    count = 0
    for _ in crashes(lambda: run.rewind(loaded)):
        count += 1
    assert count >= 3
    assert run.records("log.jsonl") == [{"step": 1}]
    assert os.listdir(run.path / "checkpoints") == ["step-000000001"]


def test_everything_is_on_the_disk_before_it_gets_its_name(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    moved: list[Path] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def remember(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def check(source: Path, target: Path, move: Callable[..., None]) -> None:
        if not target.name.startswith("."):  # else it is being removed
            for path in (source, *source.rglob("*")):
                assert path.stat().st_ino in synced, f"{path} is not synced"
            moved.append(target)
            synced.discard(target.parent.stat().st_ino)
        move(source, target)

    monkeypatch.setattr(os, "fsync", remember)
    monkeypatch.setattr(os, "replace", lambda a, b: check(a, b, replace))
    monkeypatch.setattr(os, "rename", lambda a, b: check(a, b, rename))
    fill(run)
    run.write_text("config.toml", "b = 2\n")
    assert len(moved) == 11
    for path in moved:
        assert path.parent.stat().st_ino in synced, f"the folder of {path} is not synced"
    assert (run.path / "log.jsonl").stat().st_ino in synced


# Locks


def test_one_writer_at_a_time(run: RunFolder) -> None:
    other = RunFolder.open(run.path)
    with run.lock():
        with pytest.raises(RunError, match=r"another process is writing this run: .*run"):
            other.lock().__enter__()
        assert other.about == run.about  # reading needs no lock
    with other.lock():
        pass
    with pytest.raises(BlockingIOError, match="of the body"), run.lock():
        raise BlockingIOError("of the body")
    with run.lock():
        pass


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(runs.__file__).parents[2])}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_killed_writer_frees_the_lock_and_the_run_stays_readable() -> None:
    done = script(str(KILL_SAVERS), "--kills", "20")
    assert done.stdout.endswith("20 kills, 0 unreadable\n"), done.stderr
    assert done.returncode == 0


def test_the_script_notices_a_writer_that_is_not_atomic() -> None:
    done = script(str(KILL_SAVERS), "--kills", "12", "--careless")
    assert done.returncode == 1
    assert "altered" in done.stderr or "damaged" in done.stderr, done.stderr


def test_a_pickle_is_not_opened(run: RunFolder, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    run.write_tensors("w.safetensors", {"w": torch.ones(1)})
    durable.replace(run.path / "w.safetensors", functools.partial(put, pickle.dumps(Bomb())))
    with pytest.raises(RunError, match="cannot be read as tensors"):
        run.read_tensors("w.safetensors")
    with pytest.raises(RunError, match="cannot be read as tensors"):
        run.tensors_metadata("w.safetensors")
    assert not (tmp_path / "exploded").exists()
