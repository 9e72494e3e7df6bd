"""What the demonstration promises: new facts that are new, one a relation, surest first."""

from pathlib import Path
from typing import Any

import pytest

import mocme
from interrupts import Stop
from mocme.cli.demo import EXPERIMENTS, new_facts, trained
from mocme.core.console import TrainingDisplay
from mocme.data.load import load
from mocme.runs.config import Experiment
from mocme.runs.run import Run


def test_new_facts_are_new(tmp_path: Path) -> None:
    graph = load("atlas")
    settings = {"experts.embedding.training.epochs": 2, "experts.embedding.embedding_dim": 16}
    run = mocme.train(graph, EXPERIMENTS["structure only"], out=tmp_path / "r", settings=settings)
    found = new_facts(run.predictor(), 5)
    assert len(found) == 5
    known = {tuple(fact) for fact in graph.facts().tolist()}
    for item in found:
        ids = (
            graph.entities.id(item.head),
            graph.relations.id(item.relation),
            graph.entities.id(item.tail),
        )
        assert ids not in known
        assert item.head != item.tail
        assert item.probability is not None
        assert 0 < item.probability <= 1
    chances = [item.probability for item in found]
    assert chances == sorted(chances, reverse=True)
    assert len({item.relation for item in found}) == 5


SMALL = {"seed": 0, "experts.embedding.training.epochs": 2, "experts.embedding.embedding_dim": 4}


def test_what_a_folder_holds_is_never_lost(tmp_path: Path) -> None:
    """Decisions and additions lie in a run: it is taken as it is, gone on with, or kept aside."""
    graph, folder, told = load("atlas"), tmp_path / "default", list[str]()
    small = Experiment.load("structure", SMALL)
    first = trained(graph, small, folder, "cpu", tell=told.append)
    (folder / "reviews.sqlite").write_text("decisions")
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = trained(graph, small, folder, "cpu", tell=told.append)
    assert again.path == first.path
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == files
    other = Experiment.load("structure", {**SMALL, "experts.embedding.training.epochs": 1})
    assert trained(graph, other, folder, "cpu", tell=told.append).finished
    assert (tmp_path / "default-1/reviews.sqlite").read_text() == "decisions"
    assert [text.split(str(folder))[1].split(",")[0] for text in told] == [
        " is trained already",
        " held is another training",
    ]


def test_a_demonstration_that_was_stopped_goes_on(tmp_path: Path) -> None:
    graph, folder, told = load("atlas"), tmp_path / "default", list[str]()
    small = Experiment.load(
        "structure", SMALL | {"experts.embedding.training.checkpoint_seconds": 0}
    )
    with pytest.raises(mocme.Interrupted):
        trained(graph, small, folder, "cpu", Stop(2), told.append)
    assert not Run.open(folder).finished
    assert trained(graph, small, folder, "cpu", tell=told.append).finished
    assert "goes on" in told[0]


@pytest.mark.parametrize("patterns", [None, {"support": 2}])
def test_a_training_of_two_stages_says_which_it_is_in(
    patterns: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = {
        "experts.embedding.training.epochs": 2,
        "experts.embedding.embedding_dim": 4,
    }
    if patterns:
        settings["experts.rules"] = patterns
    with TrainingDisplay("MoCME") as live:
        mocme.train("atlas", "structure", out=tmp_path / "r", settings=settings, observer=live)
    told = " ".join(capsys.readouterr().err.split())
    stages = ["MoCME, stage 1 of 2: vectors, 2 passes", "MoCME, stage 2 of 2: patterns"]
    if not patterns:
        assert "stage" not in told
        return
    places = [told.index(part) for part in (stages[0], "pass 2 of 2", stages[1], "patterns 1")]
    assert places == sorted(places)
