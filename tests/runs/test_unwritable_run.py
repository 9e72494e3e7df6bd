"""Asking a run needs no writing: what cannot be kept is used, and one note says so."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import mocme
from mocme import cli
from mocme.prediction.schema import Question
from mocme.runs.run import Run
from mocme.storage import NotKept
from read_only import mounted_read_only, unwritable
from tiny_graphs import make_tiny, write_tiny

SETTINGS = {
    "experts.embedding.training.epochs": 1,
    "experts.embedding.embedding_dim": 4,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never asked."""
    folder = tmp_path_factory.mktemp("unwritable")
    data = write_tiny(folder / "data", make_tiny(valid=20))
    return mocme.train(data, "mocme", out=folder / "run", settings=SETTINGS, device="cpu").path


@pytest.fixture
def path(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def command(*arguments: object) -> list[str]:
    return [*map(str, arguments), "--json"]


def commands(path: Path) -> dict[str, list[str]]:
    """Every command that asks a run."""
    fact = ("--head", "e0", "--relation", "r0", "--tail", "e1")
    return {
        "predict": command("predict", path, "--head", "e0", "--relation", "r0"),
        "score": command("score", path, path.parent / "facts.tsv"),
        "explain": command("explain", path, *fact),
        "evaluate": command("evaluate", path),
        "calibrate": command("calibrate", path),
        "complete": command("complete", path, "--out", path.parent / "new.tsv"),
    }


def snapshot(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*")}


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
@pytest.mark.filterwarnings("default::mocme.storage.NotKept")
def test_every_command_answers_the_same_and_notes_what_is_not_kept(number: int, path: Path) -> None:
    (path.parent / "facts.tsv").write_text("e0\tr0\te1\n")
    before = snapshot(path)
    for name, arguments in commands(path).items():
        with unwritable(path, number):
            refused = CliRunner().invoke(cli.main, arguments)
        assert refused.exit_code == 0, (name, refused.output)
        notes = [line for line in refused.stderr.splitlines() if line.startswith("note: ")]
        kept = [line for line in notes if os.strerror(number) in line]
        assert kept, (name, notes)
        assert len(kept) == len(set(kept))
        assert all(str(path) in line and "copy of the run" in line for line in kept)
        assert snapshot(path) == before
        (path.parent / "new.tsv").unlink(missing_ok=True)
        if number == errno.EROFS and name in ("predict", "explain", "score"):
            copy = shutil.copytree(path, path.parent / f"copy-{name}")
            arguments[1] = str(copy)
            answered = CliRunner().invoke(cli.main, arguments)
            assert "note: " + str(copy) not in answered.stderr
            assert json.loads(answered.stdout) == json.loads(refused.stdout)


def test_an_evaluation_of_test_that_is_not_recorded_says_so(path: Path) -> None:
    run = Run.open(path)
    with unwritable(path), pytest.warns(NotKept) as warned:
        result = run.evaluate("test", "cpu")
    (message,) = [str(warning.message) for warning in warned]
    assert "this evaluation of the test split is not recorded" in message
    assert "mocme evaluate COPY --split test" in message
    assert result["evaluations_of_this_split"] == 1
    assert run.evaluations() == []
    assert run.evaluate("test", "cpu")["evaluations_of_this_split"] == 1


def test_python_answers_with_one_warning(path: Path) -> None:
    with unwritable(path), pytest.warns(NotKept, match="fitted probabilities") as warned:
        answers = mocme.open(path, device="cpu").tails("e0", "r0")
    assert len(warned) == 1
    assert answers[0].probability is not None


def test_errors_of_another_kind_are_raised(path: Path) -> None:
    with unwritable(path, errno.EIO), pytest.raises(OSError, match="Input/output"):
        mocme.open(path, device="cpu")


def test_what_is_kept_already_gives_no_warning(path: Path) -> None:
    first = mocme.open(path, device="cpu").explain("e0", "r0", "e1")
    with unwritable(path):
        assert str(mocme.open(path, device="cpu").explain("e0", "r0", "e1")) == str(first)


@pytest.mark.filterwarnings("default::mocme.storage.NotKept")
def test_a_run_on_a_read_only_mount_is_asked(path: Path) -> None:
    (path.parent / "facts.tsv").write_text("e0\tr0\te1\n")
    with mounted_read_only(path, path.parent / "mounted") as there:
        for name, arguments in commands(there).items():
            result = CliRunner().invoke(cli.main, arguments)
            assert result.exit_code == 0, (name, result.output)
            assert os.strerror(errno.EROFS) in result.stderr


# -- several processes -----------------------------------------------------------------------------


def asked_by(count: int, ask: Callable[[], Any]) -> list[Any]:
    """Let several processes do the same at the same time; returns what each found."""
    fork = multiprocessing.get_context("fork")
    barrier, answers = fork.Barrier(count), fork.Queue()

    def work() -> None:
        torch.set_num_threads(1)
        barrier.wait()
        try:
            answers.put(ask())
        except BaseException as error:
            answers.put(error)

    processes = [fork.Process(target=work) for _ in range(count)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return found


def test_processes_that_ask_a_run_for_the_first_time_do_not_break_each_other(path: Path) -> None:
    def ask() -> tuple[str, str]:
        predictor = mocme.open(path, device="cpu")
        answers = predictor.ask([Question(head="e0", relation="r0", k=5)])[0]
        return str(answers), str(predictor.explain("e0", "r0", "e1"))

    answers = asked_by(4, ask)
    assert len(set(answers)) == 1
    assert asked_by(1, ask)[0] == answers[0]
    assert not list(path.glob(".*"))


def test_evaluations_at_the_same_time_are_all_recorded(path: Path) -> None:
    def ask() -> int:
        number: int = Run.open(path).evaluate("valid", "cpu")["evaluations_of_this_split"]
        return number

    assert sorted(asked_by(4, ask)) == [1, 2, 3, 4]
    run = Run.open(path)
    numbers = [record["evaluations_of_this_split"] for record in run.evaluations()]
    assert numbers == [1, 2, 3, 4]
    stored = run.evaluation("valid")
    assert stored is not None
    assert stored["mrr"] == run.evaluations()[0]["mrr"]
    assert run.folder.read_tensors("ranks-valid.safetensors")
