"""The demonstration: new facts, one per relation, most probable first; runs are never lost."""

from pathlib import Path
from typing import Any

import pytest

import mocme
from interrupts import Stop
from mocme.cli.demonstration import EXPERIMENTS, new_facts, trained
from mocme.core.console import TrainingDisplay
from mocme.data.load import load
from mocme.runs.config import Experiment
from mocme.runs.run import Run


def test_new_facts_are_new(tmp_path: Path) -> None:
    graph = load("atlas")
    settings = {"experts.embedding.training.epochs": 2, "experts.embedding.embedding_dim": 16}
    run = mocme.train(graph, EXPERIMENTS["structure only"], out=tmp_path / "r", settings=settings)
    predictions = new_facts(run.predictor(), 5)
    assert len(predictions) == 5
    known = {tuple(fact) for fact in graph.facts().tolist()}
    for item in predictions:
        ids = (
            graph.entities.id(item.head),
            graph.relations.id(item.relation),
            graph.entities.id(item.tail),
        )
        assert ids not in known
        assert item.head != item.tail
        assert item.probability is not None
        assert 0 < item.probability <= 1
    probabilities = [item.probability for item in predictions]
    assert probabilities == sorted(probabilities, reverse=True)
    assert len({item.relation for item in predictions}) == 5


SMALL = {"seed": 0, "experts.embedding.training.epochs": 2, "experts.embedding.embedding_dim": 4}


def test_a_run_in_the_folder_is_never_lost(tmp_path: Path) -> None:
    """A run holds decisions and additions: it is used as it is, resumed, or renamed."""
    graph, folder, lines = load("atlas"), tmp_path / "default", list[str]()
    small = Experiment.load("structure", SMALL)
    first = trained(graph, small, folder, "cpu", report=lines.append)
    (folder / "reviews.sqlite").write_text("decisions")
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = trained(graph, small, folder, "cpu", report=lines.append)
    assert again.path == first.path
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == files
    other = Experiment.load("structure", {**SMALL, "experts.embedding.training.epochs": 1})
    assert trained(graph, other, folder, "cpu", report=lines.append).finished
    assert (tmp_path / "default-1/reviews.sqlite").read_text() == "decisions"
    assert [text.split(str(folder))[1].split(",")[0] for text in lines] == [
        " is trained already",
        " held another training",
    ]


def test_a_stopped_demonstration_is_resumed(tmp_path: Path) -> None:
    graph, folder, lines = load("atlas"), tmp_path / "default", list[str]()
    small = Experiment.load(
        "structure", SMALL | {"experts.embedding.training.checkpoint_seconds": 0}
    )
    with pytest.raises(mocme.Interrupted):
        trained(graph, small, folder, "cpu", Stop(2), lines.append)
    assert not Run.open(folder).finished
    assert trained(graph, small, folder, "cpu", report=lines.append).finished
    assert "is resumed" in lines[0]


@pytest.mark.parametrize("rules", [None, {"support": 2}])
def test_a_training_of_two_stages_shows_the_current_one(
    rules: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = {
        "experts.embedding.training.epochs": 2,
        "experts.embedding.embedding_dim": 4,
    }
    if rules:
        settings["experts.rules"] = rules
    with TrainingDisplay("MoCME") as display:
        mocme.train("atlas", "structure", out=tmp_path / "r", settings=settings, observer=display)
    output = " ".join(capsys.readouterr().err.split())
    stages = ["MoCME, stage 1 of 2: embeddings, 2 epochs", "MoCME, stage 2 of 2: rules"]
    if not rules:
        assert "stage" not in output
        return
    lines = (stages[0], "epoch 2 of 2", stages[1], "rules 1")
    positions = [output.index(line) for line in lines]
    assert positions == sorted(positions)
