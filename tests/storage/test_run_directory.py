"""The directory of a run: writes are atomic, damage is detected, resuming is exact."""

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

from mocme import storage
from mocme.storage import (
    FORMAT_VERSION,
    Checkpoint,
    RunError,
    RunFolder,
    atomic_io,
    checkpoints,
    tensor_tree,
)
from mocme.storage.checkpoints import Checkpoints

KILL_SAVERS = Path(__file__).parents[2] / "scripts" / "kill_savers.py"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {"seed": 7})


def state(step: int) -> dict[str, Any]:
    return {"weight": torch.full((5,), float(step)), "loss": step / 3, "best": (step, None)}


def put(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def fill(run: RunFolder) -> None:
    """Write one file of each format, and two checkpoints after the first."""
    run.write_text("config.toml", "a = 1\n")
    run.write_json("metrics.json", {"mrr": 0.25})
    run.write_tensors("best.safetensors", {"w": torch.arange(6.0)})
    run.checkpoints.save(0, state(0), logs=["log.jsonl"])
    for step in (1, 2):
        run.append("log.jsonl", {"step": step})
        run.checkpoints.save(step, state(step), logs=["log.jsonl"])


READERS: dict[str, Callable[[RunFolder], Any]] = {
    "run.json": lambda run: RunFolder.open(run.path).about,
    "config.toml": lambda run: run.read_text("config.toml"),
    "metrics.json": lambda run: run.read_json("metrics.json"),
    "best.safetensors": lambda run: run.read_tensors("best.safetensors"),
}


# -- states of a training ------------------------------------------------------------------------


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree=nested)
def test_a_tree_survives_a_checkpoint(run: RunFolder, tree: Any) -> None:
    run.checkpoints.save(3, tree)
    loaded = run.checkpoints.load()
    assert loaded is not None
    assert loaded.step == 3
    assert same(loaded.state, tree)


def test_states_of_torch_survive_to_the_bit(run: RunFolder) -> None:
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
        "transposed": torch.arange(6).reshape(2, 3).T,
        "slice": torch.arange(9)[2:5],
    }
    run.checkpoints.save(0, tree)
    loaded = run.checkpoints.load()
    assert loaded is not None
    assert {"weight", "tied"} <= set(loaded.state["model"])
    assert same(loaded.state, tree)
    assert set(loaded.state["optimizer"]["state"]) == {0, 1}  # integer keys


# -- creating and opening ------------------------------------------------------------------------


def test_about_is_stored_and_updated(run: RunFolder) -> None:
    again = RunFolder.open(str(run.path))
    assert again.about["format"] == FORMAT_VERSION
    assert again.about["seed"] == 7
    assert again.about["created"].endswith("+00:00")
    again.update_about(status="finished", seed=8)
    assert run.about == {**again.about, "seed": 8, "status": "finished"}
    with pytest.raises(RunError, match="'format' is reserved"):
        run.update_about(format=FORMAT_VERSION + 1)
    assert run.about["format"] == FORMAT_VERSION


def test_create_needs_a_new_or_empty_folder(tmp_path: Path) -> None:
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


def test_of_two_processes_that_create_a_run_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = RunFolder.lock

    def delayed(run: RunFolder) -> AbstractContextManager[None]:
        monkeypatch.setattr(RunFolder, "lock", lock)
        RunFolder.create(run.path, {"by": "the faster"})
        return lock(run)

    monkeypatch.setattr(RunFolder, "lock", delayed)
    with pytest.raises(RunError, match="is not empty"):
        RunFolder.create(tmp_path / "run", {"by": "the slower"})
    assert RunFolder.open(tmp_path / "run").about["by"] == "the faster"


def test_open_explains_what_is_wrong(tmp_path: Path, run: RunFolder) -> None:
    with pytest.raises(RunError, match="there is no run at"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(RunError, match=r"is not a run, it has no run\.json"):
        RunFolder.open(tmp_path)
    for about, message in [
        ({"format": FORMAT_VERSION + 1}, f"run format {FORMAT_VERSION + 1}; upgrade"),
        ({"format": 1, "data": "g"}, "written by mocme 0.1.*train it again: .* --data g --out"),
        ({"format": "1"}, "no format version"),
        ({"format": True}, "no format version"),
        ({}, "no format version"),
        ([], "no format version"),
    ]:
        text = json.dumps(about)
        atomic_io.replace_file(run.path / "run.json", functools.partial(put, text.encode()))
        with pytest.raises(RunError, match=message):
            RunFolder.open(run.path)


# -- files ---------------------------------------------------------------------------------------


def test_files_survive(run: RunFolder) -> None:
    text = "one\r\ntwo\rthree\n\néΩ \u2028 \ufeff"
    run.write_text("notes/config.toml", text)
    assert run.read_text("notes/config.toml") == text
    value = {"é": [1, 2.5, None, True, "x"], "none": {}, "inf": math.inf}
    run.write_json("metrics.json", value)
    assert run.read_json("metrics.json") == value
    tensors = {
        "b/c": torch.ones(2, 3, dtype=torch.bfloat16).T,
        "a": torch.tensor(3),
        "": torch.ones(0),
    }
    run.write_tensors("modalities/text.safetensors", tensors, {"encoder": "é"})
    assert same(run.read_tensors("modalities/text.safetensors"), dict(sorted(tensors.items())))
    assert run.tensors_metadata("modalities/text.safetensors") == {"encoder": "é"}
    run.write_tensors("none.safetensors", {})
    assert run.read_tensors("none.safetensors") == {}
    assert run.tensors_metadata("none.safetensors") == {}
    assert run.has("metrics.json")
    assert not run.has("other.json")


def test_loaded_tensors_do_not_change_with_the_file(run: RunFolder) -> None:
    run.write_tensors("w.safetensors", {"w": torch.zeros(8)})
    read = run.read_tensors("w.safetensors")
    with (run.path / "w.safetensors").open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\xff" * 8)
    assert read["w"].tolist() == [0.0] * 8


def test_files_have_the_default_permissions(run: RunFolder, tmp_path: Path) -> None:
    fill(run)
    (tmp_path / "new").touch()
    modes = {path.stat().st_mode for path in run.path.rglob("*") if path.is_file()}
    assert modes == {(tmp_path / "new").stat().st_mode}


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
def test_unsupported_content_leaves_the_run_unchanged(
    run: RunFolder, write: Callable[[RunFolder], None]
) -> None:
    before = sorted(run.path.rglob("*"))
    with pytest.raises(RunError, match=r"run/file cannot store this"):
        write(run)
    assert sorted(run.path.rglob("*")) == before


def test_an_unsupported_state_leaves_the_checkpoints_unchanged(run: RunFolder) -> None:
    run.checkpoints.save(1, state(1))
    for bad in (object(), torch.ones(1, dtype=torch.complex128)):
        with pytest.raises(RunError, match="step-000000002 cannot store this state"):
            run.checkpoints.save(2, {"x": bad})
        loaded = run.checkpoints.load()
        assert loaded is not None
        assert same(loaded.state, state(1))
    run.checkpoints.save(2, state(2))
    assert sorted(os.listdir(run.path / "checkpoints")) == ["step-000000001", "step-000000002"]


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "a/b/c", "a//b", "a/", "/a", ".hidden",
     "a/.b", "a\\b", "a\0b", "a\nb", "\ud800", "x" * 300, "run.json.sha256", "lock", "lock/x",
     "checkpoints/x", "checkpoints", "out/x"],
)  # fmt: skip
def test_names_that_leave_the_run_or_are_reserved_are_refused(
    run: RunFolder, tmp_path: Path, name: str
) -> None:
    (tmp_path / "outside").mkdir()
    (run.path / "out").symlink_to(tmp_path / "outside")
    for act in (
        lambda: run.write_text(name, "x"),
        lambda: run.read_text(name),
        lambda: run.append(name, {}),
        lambda: run.has(name),
        lambda: run.checkpoints.save(1, {}, logs=[name]),
    ):
        with pytest.raises(RunError, match="leaves the run"):
            act()
    assert os.listdir(tmp_path / "outside") == []
    assert run.checkpoints.load() is None


def test_run_json_cannot_be_written_as_a_file(run: RunFolder) -> None:
    assert run.has("run.json")
    with pytest.raises(RunError, match="reserved"):
        run.write_json("run.json", {})
    assert run.about["seed"] == 7


def test_long_and_non_latin_names_work(run: RunFolder) -> None:
    name = "é" * 60 + "/" + "🐪" * 60
    run.write_text(name, "x")
    assert run.read_text(name) == "x"


# -- damage --------------------------------------------------------------------------------------


def damages(content: bytes) -> Iterator[bytes]:
    """Yield truncations to several lengths, and changes of single bytes."""
    for length in {0, 1, len(content) // 2, len(content) - 1}:
        yield content[:length]
    for position in {0, len(content) // 3, len(content) // 2, len(content) - 1}:
        for flip in (1, 0x20, 0xFF):
            changed = bytes([content[position] ^ flip])
            yield content[:position] + changed + content[position + 1 :]


@pytest.mark.parametrize("name", READERS)
def test_damage_of_a_file_or_its_checksum_is_detected(run: RunFolder, name: str) -> None:
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


def test_the_remedy_for_an_intended_change_works(run: RunFolder) -> None:
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
def test_a_damaged_checkpoint_is_skipped_with_a_warning(run: RunFolder, name: str) -> None:
    fill(run)
    path = run.path / "checkpoints" / "step-000000002" / name
    for damaged in damages(path.read_bytes()):
        path.write_bytes(damaged)
        with pytest.warns(
            UserWarning, match=r"step-000000002 is damaged .* step-000000001, is used"
        ):
            loaded = run.checkpoints.load()
        assert loaded is not None
        assert same(loaded.state, state(1))
    path.unlink()
    with pytest.warns(UserWarning, match=r"step-000000002 is damaged"):
        assert run.checkpoints.load() is not None


def test_a_renamed_checkpoint_is_damaged(run: RunFolder) -> None:
    fill(run)
    folder = run.path / "checkpoints"
    (folder / "step-000000002").rename(folder / "step-000000009")
    with pytest.warns(UserWarning, match="it was renamed, and contains step 2"):
        loaded = run.checkpoints.load()
    assert loaded is not None
    assert loaded.step == 1


def test_only_damaged_checkpoints_are_an_error_but_no_checkpoint_is_not(run: RunFolder) -> None:
    assert run.checkpoints.load() is None
    fill(run)
    for path in (run.path / "checkpoints").rglob("manifest.json"):
        path.write_bytes(b"{}")
    with pytest.raises(RunError, match=r"no intact checkpoint: .*000002 .*000001 .*restore"):
        run.checkpoints.load()


def test_a_damaged_line_is_an_error_and_an_incomplete_last_line_a_warning(run: RunFolder) -> None:
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
    for position in range(len(content) - 1):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        line = 1 + content[:position].count(b"\n")
        with pytest.raises(RunError, match=rf"log.jsonl is damaged in line {line}\b"):
            run.records("log.jsonl")
    start = content.rindex(b"\n", 0, -1) + 1
    for length in range(start + 1, len(content)):
        path.write_bytes(content[:length])
        with pytest.warns(UserWarning, match="last line of .*log.jsonl is torn"):
            assert run.records("log.jsonl") == records[:2]
    run.append("log.jsonl", {"after": 1})  # removes the incomplete line
    assert run.records("log.jsonl") == [*records[:2], {"after": 1}]
    with pytest.raises(RunError, match=r"none.jsonl is missing"):
        run.records("none.jsonl")


# -- checkpoints ---------------------------------------------------------------------------------


def test_the_newest_two_are_kept(run: RunFolder) -> None:
    for step in (0, 1, 5, 1_000_000_000):
        run.checkpoints.save(step, state(step))
        loaded = run.checkpoints.load()
        assert loaded is not None
        assert loaded.step == step
    folder = run.path / "checkpoints"
    assert sorted(os.listdir(folder)) == ["step-000000005", "step-1000000000"]
    run.checkpoints.save(1_000_000_001, state(0), keep=1)
    assert os.listdir(folder) == ["step-1000000001"]
    for step, keep in ((-1, 1), (2_000_000_000, 0)):
        with pytest.raises(ValueError, match="0 or more"):
            run.checkpoints.save(step, {}, keep=keep)


def test_a_step_can_be_saved_again_but_not_an_earlier_one(run: RunFolder) -> None:
    for number in range(12):
        run.checkpoints.save(4, {"number": number})
    loaded = run.checkpoints.load()
    assert loaded is not None
    assert (loaded.step, loaded.state) == (4, {"number": 11})
    with pytest.raises(RunError, match=r"step-000000004\.12 is later than 3; resume it"):
        run.checkpoints.save(3, {})


def test_leftovers_of_killed_writers_are_removed_but_foreign_files_are_not(run: RunFolder) -> None:
    run.checkpoints.save(1, state(1))
    folder = run.path / "checkpoints"
    shutil.copytree(folder / "step-000000001", folder / ".step-000000002.new")
    shutil.copytree(folder / "step-000000001", folder / ".step-000000000.old")
    (folder / "notes").mkdir()
    (folder / ".DS_Store").touch()
    run.checkpoints.save(2, state(2))
    assert sorted(os.listdir(folder)) == [
        ".DS_Store", "notes", "step-000000001", "step-000000002"
    ]  # fmt: skip


def test_loading_changes_no_file(run: RunFolder) -> None:
    fill(run)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    RunFolder.open(run.path).checkpoints.load()
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_a_reader_finds_the_newer_checkpoint_that_replaced_its_own(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(run)
    read = checkpoints.read_checkpoint

    def slow(folder: Path) -> Checkpoint:
        monkeypatch.setattr(checkpoints, "read_checkpoint", read)
        for step in (3, 4):
            run.checkpoints.save(step, state(step))
        return read(folder)

    monkeypatch.setattr(checkpoints, "read_checkpoint", slow)
    loaded = run.checkpoints.load()
    assert loaded is not None
    assert loaded.step == 4


def test_a_file_may_be_replaced_while_it_is_read(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write_text("a", "0")
    digest = atomic_io.digest

    def slow(path: Path) -> str:
        checksum = digest(path)
        monkeypatch.setattr(atomic_io, "digest", digest)
        for text in "12":  # the second one removes the checksum from the .sha256 file
            run.write_text("a", text)
        return checksum

    monkeypatch.setattr(atomic_io, "digest", slow)
    assert run.read_text("a") == "2"


# -- rewinding -----------------------------------------------------------------------------------


def train(run: RunFolder, steps: int, dies_at: int | None = None) -> None:
    """Run a loop that logs twice per step and saves a checkpoint at even steps."""
    checkpoint = run.checkpoints.load()
    if checkpoint is None:
        run.checkpoints.save(0, {"sum": 0}, logs=["a.jsonl", "b.jsonl"])
        checkpoint = run.checkpoints.load()
    assert checkpoint is not None
    run.checkpoints.rewind(checkpoint)
    total = checkpoint.state["sum"]
    for step in range(checkpoint.step + 1, steps + 1):
        total += step
        run.append("a.jsonl", {"step": step, "sum": total})
        if step == dies_at:
            return
        run.append("b.jsonl", {"step": step})
        if step % 2 == 0:
            run.checkpoints.save(step, {"sum": total}, logs=["a.jsonl", "b.jsonl"])


@pytest.mark.parametrize("dies_at", range(1, 7))
def test_logs_of_a_resumed_run_equal_those_of_an_uninterrupted_one(
    tmp_path: Path, dies_at: int
) -> None:
    uninterrupted, resumed = (RunFolder.create(tmp_path / name, {}) for name in ("a", "b"))
    train(uninterrupted, 6)
    train(resumed, 6, dies_at)
    with (resumed.path / "a.jsonl").open("ab") as file:
        file.write(b'{"torn": ')
    train(resumed, 6)
    for name in ("a.jsonl", "b.jsonl"):
        assert (resumed.path / name).read_bytes() == (uninterrupted.path / name).read_bytes()


def test_an_incomplete_line_does_not_count_in_the_size_of_a_log(run: RunFolder) -> None:
    run.checkpoints.save(0, {}, logs=["log.jsonl"])
    run.append("log.jsonl", {"step": 1})
    size = (run.path / "log.jsonl").stat().st_size
    with (run.path / "log.jsonl").open("ab") as file:
        file.write(b'{"torn": ')
    run.checkpoints.save(1, {}, logs=["log.jsonl"])
    loaded = run.checkpoints.load()
    assert loaded is not None
    assert loaded.logs == {"log.jsonl": size}


def test_a_log_cannot_begin_before_the_first_checkpoint(run: RunFolder) -> None:
    with (run.path / "log.jsonl").open("wb") as file:
        file.write(b'{"torn": ')
    run.checkpoints.save(0, {}, logs=["log.jsonl"])  # no line yet
    shutil.rmtree(run.path / "checkpoints")
    run.append("log.jsonl", {"step": 1})  # then the process is killed, and the next one starts anew
    assert run.checkpoints.load() is None
    for step in (0, 1):  # a checkpoint with this line would keep it in addition to the new one
        with pytest.raises(RunError, match=r"checkpoints has no checkpoint, although log.jsonl"):
            run.checkpoints.save(step, {}, logs=["other.jsonl", "log.jsonl"])
    assert run.checkpoints.load() is None
    os.unlink(run.path / "log.jsonl")
    run.checkpoints.save(0, {}, logs=["log.jsonl"])
    run.append("log.jsonl", {"step": 1})
    loaded = run.checkpoints.load()
    assert loaded is not None
    run.checkpoints.rewind(loaded)
    assert run.records("log.jsonl") == []


@pytest.mark.parametrize(
    ("owner", "dies_in"),
    [
        (Checkpoints, "save"),
        (RunFolder, "append"),
        (RunFolder, "write_json"),
        (RunFolder, "write_tensors"),
    ],
)
@pytest.mark.parametrize("earlier", [0, 1, 2])
def test_the_writer_of_the_script_may_die_in_any_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, dies_in: str, earlier: int
) -> None:
    monkeypatch.syspath_prepend(KILL_SAVERS.parent)
    kill_savers = importlib.import_module("kill_savers")
    run = RunFolder.create(tmp_path / "run", {})
    for _ in range(3):  # one writer after the other
        calls = 0
        method = getattr(owner, dies_in)

        def dying(*args: Any, method: Any = method, **kwargs: Any) -> None:
            nonlocal calls
            calls += 1
            if calls > earlier:
                raise Crash(dies_in)
            method(*args, **kwargs)

        with monkeypatch.context() as patch, Path(os.devnull).open("wb") as pipe:
            patch.setattr(owner, dies_in, dying)
            with pytest.raises(Crash):
                kill_savers.save_for_ever(run.path, pipe.fileno())
        kill_savers.check(run.path, 0)


def test_rewinding_removes_later_damaged_checkpoints(run: RunFolder) -> None:
    fill(run)
    (run.path / "checkpoints" / "step-000000002" / "state.json").write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"):
        loaded = run.checkpoints.load()
    assert loaded is not None
    with pytest.raises(RunError, match="is later than 1"):
        run.checkpoints.save(1, state(1))
    run.checkpoints.rewind(loaded)
    assert run.records("log.jsonl") == [{"step": 1}]
    assert os.listdir(run.path / "checkpoints") == ["step-000000001"]
    run.checkpoints.save(2, state(2))
    assert run.checkpoints.load() is not None  # without a warning


def test_rewinding_refuses_lost_lines_and_foreign_checkpoints(run: RunFolder) -> None:
    fill(run)
    loaded = run.checkpoints.load()
    assert loaded is not None
    with pytest.raises(RunError, match="has no checkpoint ''"):
        run.checkpoints.rewind(Checkpoint(2, {}))
    path = run.path / "log.jsonl"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(RunError, match=r"log.jsonl is shorter than the \d+ bytes"):
        run.checkpoints.rewind(loaded)
    path.unlink()
    with pytest.raises(RunError, match=r"log.jsonl is shorter"):
        run.checkpoints.rewind(loaded)


# -- crashes -------------------------------------------------------------------------------------


class Crash(BaseException):
    """Stands for a kill: no handler of exceptions continues to write after it."""


def crash_at(patch: pytest.MonkeyPatch, call: int) -> list[str]:
    """Let all calls that change files fail from the given call on; return the calls."""
    calls: list[str] = []

    def wrap(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            if len(calls) > call:
                raise Crash(name)
            return function(*args, **kwargs)

        return counted

    for owner, names in [
        (os, ["replace", "rename", "fsync", "truncate"]),
        (shutil, ["rmtree"]),
        (Path, ["mkdir", "write_bytes", "write_text", "touch"]),
        (tensor_tree, ["save_file"]),
    ]:
        for name in names:
            patch.setattr(owner, name, wrap(name, getattr(owner, name)))
    return calls


def crashes(act: Callable[[], Any]) -> Iterator[int]:
    """Repeat an action that dies one call later each time, until it succeeds."""
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
    raise AssertionError("the action never succeeded")


def test_a_crash_at_any_call_leaves_the_old_or_the_new_file(run: RunFolder) -> None:
    run.write_text("a", "0")
    contents = set()
    for call in crashes(lambda: run.write_text("a", "new")):
        contents.add(run.read_text("a"))
        if run.read_text("a") == "new":
            run.write_text("a", str(call))
    assert "new" in contents
    assert len(contents) > 1
    assert run.read_text("a") == "new"
    assert not list(run.path.glob(".*"))


def test_a_crash_at_any_call_of_create_leaves_a_run_or_none(tmp_path: Path) -> None:
    outcomes = set()
    for call in crashes(lambda: RunFolder.create(tmp_path / "run", {"seed": 1})):
        exists = (tmp_path / "run" / "run.json").exists()
        outcomes.add(exists)
        if exists:
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
        run.checkpoints.save(step, {"new": torch.ones(3)}, logs=["log.jsonl"])

    fill(run)
    for _ in crashes(act):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = RunFolder.open(run.path).checkpoints.load()
        assert loaded is not None
        is_new = same(loaded.state, {"new": torch.ones(3)})
        assert is_new or same(loaded.state, state(2))
        outcomes.add(is_new)
        if is_new:
            shutil.rmtree(run.path / "checkpoints")
            os.unlink(run.path / "log.jsonl")
            fill(run)
    assert outcomes == {True, False}
    assert not list((run.path / "checkpoints").glob(".*"))


def test_rewind_can_be_repeated_after_a_crash_at_any_call(run: RunFolder) -> None:
    fill(run)
    (run.path / "checkpoints" / "step-000000002" / "state.json").write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"):
        loaded = run.checkpoints.load()
    assert loaded is not None
    count = 0
    for _ in crashes(lambda: run.checkpoints.rewind(loaded)):
        count += 1
    assert count >= 3
    assert run.records("log.jsonl") == [{"step": 1}]
    assert os.listdir(run.path / "checkpoints") == ["step-000000001"]


def test_everything_is_synced_before_it_gets_its_name(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    moved: list[Path] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def remember(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def check(source: Path, target: Path, move: Callable[..., None]) -> None:
        if not target.name.startswith("."):  # such a name is given before removal
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


# -- locks ---------------------------------------------------------------------------------------


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
    environment = {**os.environ, "PYTHONPATH": str(Path(storage.__file__).parents[2])}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_killed_writer_frees_the_lock_and_the_run_stays_readable() -> None:
    result = script(str(KILL_SAVERS), "--kills", "20")
    assert result.stdout.endswith("20 kills, 0 unreadable\n"), result.stderr
    assert result.returncode == 0


def test_the_script_detects_a_writer_that_is_not_atomic() -> None:
    result = script(str(KILL_SAVERS), "--kills", "12", "--careless")
    assert result.returncode == 1
    assert "altered" in result.stderr or "damaged" in result.stderr, result.stderr


def test_a_pickle_is_not_loaded(run: RunFolder, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    run.write_tensors("w.safetensors", {"w": torch.ones(1)})
    atomic_io.replace_file(run.path / "w.safetensors", functools.partial(put, pickle.dumps(Bomb())))
    with pytest.raises(RunError, match="cannot be read as tensors"):
        run.read_tensors("w.safetensors")
    with pytest.raises(RunError, match="cannot be read as tensors"):
        run.tensors_metadata("w.safetensors")
    assert not (tmp_path / "exploded").exists()
