"""A training that is killed while it begins can be begun again or resumed, as the message says."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mocme
from mocme.runs import train as training
from mocme.runs.run import Run
from mocme.runs.train import resume
from mocme.storage import RunError, RunFolder, RunLocked
from tiny_graphs import Tiny

EXPERIMENT = {
    "experts": [
        {
            "kind": "embedding",
            "embedding_dim": 4,
            "training": {"epochs": 1, "batch_size": 16},
        }
    ]
}


def killed(*_: Any) -> None:
    raise Kill


class Kill(BaseException):
    """Stands for a kill: no handler of exceptions continues after it."""


def killed_at(patch: pytest.MonkeyPatch, call: int) -> None:
    """Let every rename and every removal fail from the given call on."""
    calls = 0

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > call:
                raise Kill
            return function(*args, **kwargs)

        return counted

    patch.setattr(os, "replace", wrap(os.replace))
    # A killed process does not clean up either.
    patch.setattr(shutil, "rmtree", wrap(shutil.rmtree))


def kills(act: Callable[[], Any]) -> Iterator[int]:
    for call in range(400):
        with pytest.MonkeyPatch.context() as patch:
            killed_at(patch, call)
            try:
                act()
            except Kill:
                pass
            else:
                return
        yield call
    raise AssertionError("the action never succeeded")


def contents(run: Run) -> dict[str, Any]:
    """What a run holds by name of a file, except for its lock and the time of its creation."""
    paths = [p for p in run.path.rglob("*") if p.is_file() and p.suffix != ".sha256"]
    found: dict[str, Any] = {}
    for name in sorted(path.relative_to(run.path).as_posix() for path in paths):
        if name.endswith(".safetensors"):  # the order of its metadata differs from file to file
            tensors, metadata = run.folder.read_packed(name)
            values = {key: (tensor.dtype, tensor.tolist()) for key, tensor in tensors.items()}
            found[name] = (values, metadata)
        elif name == "run.json":
            found[name] = {k: v for k, v in run.folder.about.items() if k != "created"}
        elif name != "lock":
            found[name] = run.folder.read_text(name)
    return found


@pytest.fixture
def data(tiny_graph: Callable[..., Tiny], tiny_folder: Callable[..., Path], tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "data", tiny_graph(dense={}))


def test_a_training_killed_at_any_step_of_its_start_is_started_again_or_resumed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a kill loses nothing that was written
    graph = mocme.load(data)
    fit = training.fit_run
    monkeypatch.setattr(training, "fit_run", lambda run, *_: run)

    def start(out: Path) -> Run:
        return mocme.train(graph, EXPERIMENT, out=out, device="cpu")

    expected = contents(start(tmp_path / "whole"))
    seen = set()
    for call in kills(lambda: start(tmp_path / "next")):
        out = tmp_path / "next"
        if not (out / "run.json").exists():
            state, reason = "no run", "there is no run at|train one there"
        elif not (out / "config.toml").exists():
            state, reason = "begun", f"start it again .*--out {out}"
        else:
            state, reason = "saved", "is not empty; choose another --out, resume it"
        if state == "saved":
            with pytest.raises(RunError, match=reason):
                start(out)
            run = resume(out, device="cpu")
        else:
            with pytest.raises(RunError, match=reason):
                resume(out, device="cpu")
            run = start(out)
        assert contents(run) == expected, call
        if state not in seen:
            monkeypatch.setattr(training, "fit_run", fit)
            assert resume(out, device="cpu").finished
            assert not list(run.path.glob(".*"))
            monkeypatch.setattr(training, "fit_run", lambda run, *_: run)
        seen.add(state)
        shutil.rmtree(out)
    assert seen == {"no run", "begun", "saved"}


def test_a_start_with_other_inputs_leaves_nothing_of_the_killed_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "fit_run", lambda run, *_: run)
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_text", killed)
        with pytest.raises(Kill):
            mocme.train(data, EXPERIMENT, out=out, device="cpu")
    assert (out / "modalities" / "word.safetensors").exists()
    without = {**EXPERIMENT, "data": {"without": ["word"]}}
    run = mocme.train(data, without, out=out, device="cpu")
    assert not (out / "modalities" / "word.safetensors").exists()
    assert run.features(run.graph()).names == run.folder.about["modalities"]


def test_files_that_no_start_writes_are_never_removed(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "modalities").mkdir(parents=True)
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty"):
        mocme.train(data, EXPERIMENT, out=out, device="cpu")
    assert (out / "thesis.txt").read_text() == "mine"
    assert (out / "modalities").is_dir()


def test_of_two_trainings_that_start_in_one_folder_one_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "fit_run", lambda run, *_: run)
    save = training._save_inputs
    refused: list[str] = []

    def and_another(*arguments: Any) -> None:
        monkeypatch.setattr(training, "_save_inputs", save)
        with pytest.raises(RunLocked, match="another process is writing") as error:
            mocme.train(data, EXPERIMENT, out=tmp_path / "run", device="cpu")
        refused.append(str(error.value))
        save(*arguments)

    monkeypatch.setattr(training, "_save_inputs", and_another)
    mocme.train(data, EXPERIMENT, out=tmp_path / "run", device="cpu")
    assert len(refused) == 1
    assert Run.open(tmp_path / "run").graph().num_entities
