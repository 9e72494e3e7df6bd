"""What the demonstration promises: new facts that are new, one a relation, surest first."""

from pathlib import Path
from typing import Any

import pytest

import mocme
from mocme.demo import EXPERIMENTS, _cleared, new_facts
from mocme.graph.loading import load
from mocme.terminal import Live


def test_new_facts_are_new(tmp_path: Path) -> None:
    graph = load("atlas")
    settings = {"training.passes": 2, "model.width": 16}
    run = mocme.train(graph, EXPERIMENTS["structure only"], out=tmp_path / "r", settings=settings)
    found = new_facts(run.completer(), 5)
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


def test_decisions_outlive_the_run_that_they_were_made_on(tmp_path: Path) -> None:
    folder = tmp_path / "default"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    for name in ("reviews.sqlite", "reviews.sqlite-wal"):
        (folder / name).write_text(name)
    kept = _cleared(folder)
    assert not folder.exists()
    assert sorted(file.name for file in kept) == ["reviews.sqlite", "reviews.sqlite-wal"]
    assert all(file.read_text() == file.name for file in kept)
    assert _cleared(folder) == []


@pytest.mark.parametrize("patterns", [None, {"support": 2}])
def test_a_training_of_two_stages_says_which_it_is_in(
    patterns: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = {"training.passes": 2, "model.width": 4}
    if patterns:
        settings["model.patterns"] = patterns
    with Live("MoCME") as live:
        mocme.train("atlas", "structure", out=tmp_path / "r", settings=settings, watch=live)
    told = " ".join(capsys.readouterr().err.split())
    stages = ["MoCME, stage 1 of 2: vectors, 2 passes", "MoCME, stage 2 of 2: patterns"]
    if not patterns:
        assert "stage" not in told
        return
    places = [told.index(part) for part in (stages[0], "pass 2 of 2", stages[1], "patterns 1")]
    assert places == sorted(places)
