"""Probabilities: counted over all candidates, rising, near what is observed, kept in the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import mocme
from mocme.calibration.curves import LOWEST, Calibration, Curve, log_shares
from mocme.calibration.fit import (
    BINS,
    EDGES,
    Counts,
    Reliability,
    calibrate,
    centres,
    count,
    isotonic,
    logistic,
)
from mocme.cli import main
from mocme.data.graph import AnswerIndex
from mocme.experts.embedding import Embedding
from mocme.experts.embedding.model import EmbeddingModel
from mocme.runs.run import CALIBRATION, Run


def counts_of(chance: Callable[[np.ndarray], np.ndarray], size: int, seed: int = 0) -> Counts:
    """Candidates whose chance to be an answer is a function of their log share."""
    source = np.random.default_rng(seed)
    share = -source.exponential(4.0, size).clip(0, -LOWEST - 0.01)
    answers = source.random(size) < chance(share)
    place = ((share - LOWEST) * (BINS / -LOWEST)).astype(int).clip(0, BINS - 1)
    return Counts(np.bincount(place, minlength=BINS), np.bincount(place[answers], minlength=BINS))


def model_of(tiny: object) -> EmbeddingModel:
    settings = Embedding(embedding_dim=4, init_std=0.7)
    return EmbeddingModel(settings, tiny.facts(), tiny.features.dense, 0).eval()


def test_log_shares_are_those_of_the_softmax_of_what_competes() -> None:
    scores = torch.tensor([[1.0, 2.0, -torch.inf, 0.5], [0.0, 90.0, 0.0, 0.0]])
    competing = scores.clone()
    competing[0, 1] = -torch.inf
    shares = log_shares(scores, competing)
    assert float(shares[0, [0, 3]].exp().sum()) == pytest.approx(1)
    assert float(shares[0, 1]) == 0  # more than all that competes
    assert float(shares[0, 2]) == LOWEST
    assert shares[1].tolist() == [LOWEST, 0.0, LOWEST, LOWEST]
    alone = log_shares(scores[:1, 2:3])
    assert alone.tolist() == [[LOWEST]]


def test_counts_equal_a_loop_over_all_candidates(tiny_graph: Callable) -> None:
    tiny = tiny_graph(facts=50)
    model, graph = model_of(tiny), tiny.graph
    found = count(model, graph, 0.5)
    small = count(model, graph, 1e-9)  # a question at a time
    assert np.array_equal(found.all, small.all)
    assert np.array_equal(found.answers, small.answers)
    everyone = np.zeros((2 * graph.num_relations, BINS), np.int64)
    answers = np.zeros_like(everyone)
    asked, reflexive = AnswerIndex(graph.directed("valid")), set(graph.reflexive().tolist())
    train = {tuple(fact) for fact in graph.directed("train").tolist()}
    valid = {tuple(fact) for fact in graph.directed("valid").tolist()}
    for place in range(len(asked)):
        head, relation = int(asked.queries.head[place]), int(asked.queries.relation[place])
        scores = model.score(asked.queries[torch.tensor([place])])[0].tolist()
        free = {
            c: score
            for c, score in enumerate(scores)
            if (head, relation, c) in valid
            or (
                (head, relation, c) not in train
                and (c != head or relation % graph.num_relations in reflexive)
            )
        }
        total = float(torch.logsumexp(torch.tensor(list(free.values())), 0))
        for c, score in free.items():
            column = min(BINS - 1, int((max(LOWEST, score - total) - LOWEST) * (BINS / -LOWEST)))
            everyone[relation, column] += 1
            answers[relation, column] += (head, relation, c) in valid
    # A share on the border of two bins may fall into either.
    assert np.abs(np.cumsum(found.all.sum(0) - everyone, 1)).max() <= 1
    assert np.array_equal(found.all.sum((0, 2)), everyone.sum(1))
    assert np.array_equal(found.answers.sum((0, 2)), answers.sum(1))


@pytest.mark.parametrize("fit", [isotonic, logistic])
@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_a_curve_finds_the_chance_that_made_the_answers(fit: Callable, scale: float) -> None:
    def chance(share: np.ndarray) -> np.ndarray:
        return scale / (1 + np.exp(-(1.5 * share + 2)))

    curve = fit(counts_of(chance, 200_000))
    assert (np.diff(curve.y) >= 0).all()
    assert (np.diff(curve.x) > 0).all()
    shares = np.linspace(-6, -0.1, 50)
    if fit is logistic and scale < 1:
        return  # it has no such shape
    assert np.abs(curve(shares) - chance(shares)).max() < 0.05


def test_a_few_answers_promise_no_certainty() -> None:
    everyone, answers = np.zeros(BINS, int), np.zeros(BINS, int)
    everyone[10], everyone[-1], answers[-1] = 1000, 3, 3
    curve = isotonic(Counts(everyone, answers))
    assert curve(np.array([0.0]))[0] == pytest.approx(3 / 4)
    assert curve(np.array([LOWEST]))[0] == 0


def test_reliability_is_a_table_of_what_was_predicted_and_seen() -> None:
    table = Reliability.empty()
    everyone, answers = np.zeros(BINS, int), np.zeros(BINS, int)
    everyone[[5, 2000]], answers[2000] = (90, 10), 4
    chance = np.zeros(BINS)
    chance[2000] = 0.55
    table.add(chance, Counts(everyone, answers))
    record = table.record()
    rows = {row["from"]: row for row in record["bins"]}
    assert (rows[0.0]["count"], rows[0.5]["count"]) == (90, 10)
    assert (rows[0.5]["predicted"], rows[0.5]["observed"]) == (pytest.approx(0.55), 0.4)
    assert record["error"] == pytest.approx(1.5 / 100)
    assert record["error_of_likely"] == pytest.approx(0.15)
    assert [row["to"] for row in record["bins"]] == list(EDGES[1:])


def test_calibrating_improves_on_shares_and_survives_packing(tiny_graph: Callable) -> None:
    tiny = tiny_graph(entities=60, relations=2, facts=600, valid=150, test=2)
    found = calibrate(model_of(tiny), tiny.graph)
    record = found.record
    assert record["answers"] == len(tiny.graph.directed("valid"))
    assert record["after"]["error"] <= record["before"]["error"]
    assert sum(row["count"] for row in record["after"]["bins"]) == record["candidates"]
    again = Calibration.unpacked(*found.packed())
    assert again.record == record
    assert set(again.own) == set(found.own)
    shares = torch.tensor(centres())
    for relation in range(4):
        chances = found.probability(shares, relation)
        assert torch.equal(again.probability(shares, relation), chances)
        assert bool((chances.diff() >= 0).all())
        assert 0 <= float(chances[0]) <= float(chances[-1]) <= 1
    with pytest.raises(ValueError, match="a calibration of format 'x'"):
        Calibration.unpacked(found.packed()[0], {"format": "x"})


def test_each_relation_has_the_curve_that_predicts_best(
    tiny_graph: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two relations whose shares mean something else: pooling them would mislead."""
    tiny = tiny_graph(relations=1, facts=30)
    low = counts_of(lambda share: 0.02 * np.exp(share), 40_000)
    high = counts_of(lambda share: 0.9 * np.exp(share / 4), 40_000, 1)
    halves = [
        Counts(np.stack([low.all, high.all]), np.stack([low.answers, high.answers]))
        for _ in range(2)
    ]
    both = Counts(np.stack([h.all for h in halves]), np.stack([h.answers for h in halves]))
    monkeypatch.setattr("mocme.calibration.fit.count", lambda *_: both)
    found = calibrate(model_of(tiny), tiny.graph)
    assert set(found.own) == {0, 1}
    top = torch.tensor([-0.1])
    assert float(found.probability(top, 0)) < 0.05
    assert float(found.probability(top, 1)) > 0.7
    assert 0.05 < float(found.pooled(top.numpy())[0]) < 0.7


def test_a_run_is_calibrated_once_and_kept(
    tiny_graph: Callable, tiny_folder: Callable, tmp_path: Path
) -> None:
    graph = mocme.load(tiny_folder(tmp_path / "data", tiny_graph(facts=50)))
    small = {
        "experts.embedding.embedding_dim": 4,
        "experts.embedding.training.epochs": 1,
        "experts.embedding.training.precision": "float32",
    }
    run = mocme.train(graph, "mocme", out=tmp_path / "run", settings=small, device="cpu")
    calls = []
    first = run.predictor("cpu", lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1] > 0
    assert run.folder.has(CALIBRATION)
    record = json.loads((run.path / "calibration.json").read_text())
    assert record["split"] == "valid"
    calls.clear()
    second = Run.open(run.path).predictor("cpu", lambda done, total: calls.append((done, total)))
    assert not calls
    chances = [[p.probability for p in c.tails("e0", "r0", k=5)] for c in (first, second)]
    assert chances[0] == chances[1]
    assert all(chance is not None and 0 <= chance <= 1 for chance in chances[0])


def test_a_graph_without_a_valid_split_has_no_probabilities(
    tiny_graph: Callable, tmp_path: Path
) -> None:
    tiny = tiny_graph(valid=0)
    with pytest.raises(ValueError, match="the graph has none; put a valid"):
        calibrate(model_of(tiny), tiny.graph)
    small = {
        "experts.embedding.embedding_dim": 4,
        "experts.embedding.training.epochs": 1,
        "experts.embedding.training.precision": "float32",
    }
    run = mocme.train(tiny.graph, "structure", out=tmp_path / "run", settings=small, device="cpu")
    predictor = run.predictor("cpu")
    found = predictor.tails("e0", "r0", k=3)
    assert [item.probability for item in found] == [None] * len(found)
    with pytest.raises(ValueError, match="this run has no probabilities"):
        predictor.tails("e0", "r0", min_probability=0.5)


def test_probabilities_of_a_handful_of_answers_are_said_to_mean_little(
    tiny_graph: Callable, tiny_folder: Callable, tmp_path: Path
) -> None:
    folder = tiny_folder(tmp_path / "data", tiny_graph(valid=4))
    settings = {"experts.embedding.training.epochs": 1, "experts.embedding.embedding_dim": 4}
    run = mocme.train(folder, "structure", out=tmp_path / "run", settings=settings, device="cpu")
    calibration = run.predictor("cpu").calibration
    assert calibration is not None
    assert calibration.weak.startswith("probabilities were fitted on 8 answers")
    asked = ["predict", str(run.path), "--head", "e0", "--relation", "r0", "--threads", "1"]
    told = CliRunner().invoke(main, asked)
    assert told.exit_code == 0, told.output
    assert "fitted on 8 answers of the valid split only" in told.stderr
    for answers in (30, 5000):
        assert Calibration(calibration.pooled, {}, {"answers": answers}).weak == ""


def test_curves_are_constant_beyond_their_ends() -> None:
    curve = Curve(np.array([-3.0, -1.0]), np.array([0.1, 0.5]))
    assert curve(np.array([-9.0, -2.0, 0.0])).tolist() == [0.1, pytest.approx(0.3), 0.5]
