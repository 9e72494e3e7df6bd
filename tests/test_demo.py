"""What the demonstration promises: new facts that are new, one a relation, surest first."""

from pathlib import Path

import mocme
from mocme.demo import EXPERIMENTS, _cleared, new_facts
from mocme.graph.loading import load


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
