"""Results that were fitted to a model are used and written with that model only."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import mocme
from mocme.evaluation.ranking import rank_split
from mocme.explanation.context import FAITHFULNESS
from mocme.inductive.store import FILE, Addition, Additions
from mocme.runs.run import CALIBRATION, Run
from mocme.storage import NotKept, RunError, RunFolder, RunReplaced
from tiny_graphs import make_tiny, write_tiny

SETTINGS = {
    "experts.embedding.training.epochs": 1,
    "experts.embedding.embedding_dim": 4,
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs on one graph that differ in their seed, and were never asked."""
    folder = tmp_path_factory.mktemp("identity")
    data = write_tiny(folder / "data", make_tiny(valid=20))
    first, second = (
        mocme.train(
            data, "mocme", out=folder / str(seed), settings=SETTINGS, seed=seed, device="cpu"
        )
        for seed in (0, 1)
    )
    return first.path, second.path


@pytest.fixture
def path(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(pair[0], tmp_path / "run"))


@pytest.fixture
def other(pair: tuple[Path, Path]) -> Path:
    return pair[1]


def replace_run(path: Path, other: Path) -> None:
    """Delete a run and put another one in its place."""
    shutil.rmtree(path)
    shutil.copytree(other, path)


def test_the_digest_tells_models_apart_and_not_copies(path: Path, other: Path) -> None:
    model, different = Run.open(path).folder.model, Run.open(other).folder.model
    assert model is not None
    assert different is not None
    assert len(model) == 64
    assert model != different
    shutil.move(path, path.with_name("moved"))
    assert Run.open(path.with_name("moved")).folder.model == model


def test_equal_trainings_have_one_digest(path: Path, tmp_path: Path) -> None:
    run = Run.open(path)
    again = mocme.train(
        str(run.folder.about["data"]), "mocme", out=tmp_path / "again", settings=SETTINGS
    )
    assert again.folder.model == run.folder.model


def test_an_entity_is_never_added_to_a_run_that_was_replaced(path: Path, other: Path) -> None:
    run = Run.open(path)
    loaded = run.loaded("cpu")
    (added,) = run.add_all([mocme.NewEntity("new", [("new", "r0", "e1")])], loaded=loaded)
    assert added.name == "new"
    replace_run(path, other)
    for act in (
        lambda: run.add_all([mocme.NewEntity("more", [("more", "r0", "e1")])], loaded=loaded),
        lambda: run.remove("new", loaded=loaded),
        loaded.additions,
    ):
        with pytest.raises(RunReplaced, match=r"was replaced since it was opened.*open it again"):
            act()
    assert not (path / FILE).exists()
    shutil.rmtree(path)
    with pytest.raises(RunReplaced, match="is not there any more"):
        run.remove("new", loaded=loaded)
    assert not path.exists()


def test_a_run_that_is_replaced_while_an_entity_is_fitted_gets_nothing(
    path: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(path)
    loaded = run.loaded("cpu")

    def related(_: object, items: list[Addition]) -> Additions:
        replace_run(path, other)
        return Additions(items)

    monkeypatch.setattr("mocme.runs.stored_changes.related", related)
    with pytest.raises(RunReplaced):
        run.add_all([mocme.NewEntity("new", [("new", "r0", "e1")])], loaded=loaded)
    assert not (path / FILE).exists()


def test_additions_of_another_model_are_refused(path: Path, other: Path) -> None:
    run = Run.open(path)
    run.add("new", [("new", "r0", "e1")], device="cpu")
    files = [path / FILE, path / f"{FILE}.sha256"]
    kept = [file.read_bytes() for file in files]
    replace_run(path, other)
    for file, content in zip(files, kept, strict=True):
        file.write_bytes(content)
    with pytest.raises(RunError, match=f"{FILE}: was fitted to another model .*delete {FILE}"):
        mocme.open(path, device="cpu")
    for file in files:
        file.unlink()
    assert mocme.open(path, device="cpu").tails("e0", "r0")


def test_probabilities_and_faithfulness_of_another_model_are_measured_again(
    path: Path, other: Path, tmp_path: Path
) -> None:
    Run.open(path).evaluate("valid", "cpu")
    mocme.open(path, device="cpu").explain("e0", "r0", "e1")
    names = (CALIBRATION, FAITHFULNESS, "evaluation-valid.json")
    files = [path / f"{name}{ending}" for name in names for ending in ("", ".sha256")]
    kept = [file.read_bytes() for file in files]
    replace_run(path, other)
    expected = str(mocme.open(path, device="cpu").explain("e0", "r0", "e1"))
    for file, content in zip(files, kept, strict=True):
        file.write_bytes(content)
    run = Run.open(path)
    assert not run.calibrated
    assert run.evaluation("valid") is None
    assert str(mocme.open(path, device="cpu").explain("e0", "r0", "e1")) == expected
    assert run.calibrated
    assert run.folder.read_json(FAITHFULNESS)["model"] == run.folder.model


def test_results_of_a_model_that_was_replaced_meanwhile_are_not_stored(
    path: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(path)
    predictor = run.predictor("cpu")
    replace_run(path, other)
    with pytest.warns(NotKept, match="was replaced since it was opened"):
        predictor.explain("e0", "r0", "e1")
    assert not (path / FAITHFULNESS).exists()

    def ranked(*arguments: object) -> object:
        replace_run(path, other)
        return rank_split(*arguments)  # type: ignore[arg-type]

    first = Run.open(path)
    other = path.with_name("third")
    shutil.copytree(path, other)
    RunFolder.open(other).update_about(model="0" * 64)
    monkeypatch.setattr("mocme.runs.run.rank_split", ranked)
    with pytest.warns(NotKept, match="evaluation of the valid split is not recorded .*replaced"):
        assert first.evaluate("valid", "cpu")["mrr"] > 0
    assert Run.open(path).evaluations() == []
