"""No file of a run is read or written through a link, and only regular files are opened."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import mocme
from mocme import Run
from mocme.cli import main
from mocme.storage import RunError, RunFolder

SETTINGS = {
    "experts.embedding.embedding_dim": 4,
    "experts.embedding.training.epochs": 2,
    "experts.embedding.training.precision": "float32",
}


@pytest.fixture(scope="module")
def original(
    tiny_graph: Callable, tiny_folder: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tiny_folder(tmp_path_factory.mktemp("data"), tiny_graph())
    out = tmp_path_factory.mktemp("runs") / "run"
    run = mocme.train(folder, "structure", out=out, settings=SETTINGS, device="cpu")
    run.evaluate("valid", "cpu")
    run.predictor("cpu")
    return out


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "run"))


def use(path: Path) -> None:
    """Read every file of a run, and write a line, a checkpoint and the lock."""
    run = Run.open(path)
    run.predictor("cpu")
    run.log()
    run.evaluations()
    run.evaluation("valid")
    with run.folder.lock():
        run.folder.append("training.jsonl", {"expert": "x"})
        run.folder.checkpoints.load()


FILES = [
    *("run.json", "run.json.sha256", "config.toml", "names.json", "graph.safetensors"),
    *("experts/embedding.safetensors", "mixture.safetensors", "calibration.safetensors"),
    *("training.jsonl", "evaluations.jsonl", "evaluation-valid.json", "lock"),
    *("experts/embedding.safetensors.sha256", "mixture.safetensors.sha256"),
]


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_kind_is_refused(path: Path, name: str, kind: str) -> None:
    outside = path.parent / "outside"
    shutil.move(path / name, outside)
    before = outside.read_bytes()
    if kind == "link":
        (path / name).symlink_to(outside)
    elif kind == "fifo":
        os.mkfifo(path / name)
    else:
        (path / name).mkdir()
    with pytest.raises(RunError, match=Path(name).name.replace(".", r"\.")) as error:
        use(path)
    assert "\n" not in str(error.value)
    assert outside.read_bytes() == before


@pytest.mark.parametrize("name", ["experts", "checkpoints"])
def test_a_folder_that_is_a_link_is_refused(path: Path, name: str) -> None:
    outside = path.parent / "outside"
    shutil.move(path / name, outside)
    (path / name).symlink_to(outside)
    before = sorted(outside.rglob("*"))
    with pytest.raises(RunError, match=rf"{name} is a symbolic link.*cp -rL"):
        use(path)
    folder = RunFolder.open(path)
    writers = {
        "experts": lambda: folder.write_text("experts/new", "x"),
        "checkpoints": lambda: folder.checkpoints.save(10**6, {}),
    }
    with pytest.raises(RunError, match=rf"{name} is a symbolic link"):
        writers[name]()
    assert sorted(outside.rglob("*")) == before


def test_links_among_checkpoints_are_not_followed(path: Path) -> None:
    outside = path.parent / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    checkpoints = path / "checkpoints"
    (checkpoints / ".step-000000001.old").symlink_to(outside)
    (newest,) = sorted(checkpoints.glob("step-*"))[-1:]
    shutil.move(newest, path.parent / "moved")
    newest.symlink_to(path.parent / "moved")
    folder = RunFolder.open(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = folder.checkpoints.load()
    assert loaded is not None
    assert loaded.name != newest.name
    assert "is a symbolic link" in str(caught[0].message)
    newest.unlink()
    folder.checkpoints.save(10**6, {"a": 1})
    assert (outside / "mine").read_text() == "mine"


def test_the_folder_of_a_run_may_be_a_link(path: Path) -> None:
    (path.parent / "link").symlink_to(path)
    use(path.parent / "link")


def test_the_command_line_says_it_in_one_line(path: Path) -> None:
    (path / "mixture.safetensors").unlink()
    os.mkfifo(path / "mixture.safetensors")
    question = ["predict", str(path), "--head", "e1", "--relation", "r0", "--device", "cpu"]
    result = CliRunner().invoke(main, question)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1
    assert "mixture.safetensors is a FIFO" in result.output
