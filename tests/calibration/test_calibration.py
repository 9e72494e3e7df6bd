"""Probabilities: fitted on all candidates, nondecreasing, near observed frequencies, stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import mocme
from mocme.calibration.curves import FEW, LOWEST, Calibration, Curve, log_shares
from mocme.calibration.fit import (
    BINS,
    EDGES,
    BinCounts,
    Reliability,
    bin_centres,
    calibrate,
    count_candidates,
    isotonic,
    logistic,
)
from mocme.cli import main
from mocme.data.graph import AnswerIndex, Queries, Vocabulary
from mocme.evaluation.ranking import NaNScoreError
from mocme.experts.embedding import Embedding
from mocme.experts.embedding.model import EmbeddingModel
from mocme.runs.run import CALIBRATION, Run


def random_counts(
    probability: Callable[[np.ndarray], np.ndarray], size: int, seed: int = 0
) -> BinCounts:
    """Candidates that are answers with a probability that is a function of their log share."""
    generator = np.random.default_rng(seed)
    shares = -generator.exponential(4.0, size).clip(0, -LOWEST - 0.01)
    is_answer = generator.random(size) < probability(shares)
    bins = ((shares - LOWEST) * (BINS / -LOWEST)).astype(int).clip(0, BINS - 1)
    return BinCounts(
        np.bincount(bins, minlength=BINS), np.bincount(bins[is_answer], minlength=BINS)
    )


def model_of(tiny: object) -> EmbeddingModel:
    settings = Embedding(embedding_dim=4, init_std=0.7)
    return EmbeddingModel(settings, tiny.facts(), tiny.features.dense, 0).eval()


def test_log_shares_are_those_of_the_softmax_of_what_competes() -> None:
    scores = torch.tensor([[1.0, 2.0, -torch.inf, 0.5], [0.0, 90.0, 0.0, 0.0]])
    competing = scores.clone()
    competing[0, 1] = -torch.inf
    shares = log_shares(scores, competing)
    assert float(shares[0, [0, 3]].exp().sum()) == pytest.approx(1)
    assert float(shares[0, 1]) == 0  # above the total of what competes
    assert float(shares[0, 2]) == LOWEST
    assert shares[1].tolist() == [LOWEST, 0.0, LOWEST, LOWEST]
    no_candidate = log_shares(scores[:1, 2:3])
    assert no_candidate.tolist() == [[LOWEST]]


def test_counts_equal_a_loop_over_all_candidates(tiny_graph: Callable) -> None:
    tiny = tiny_graph(facts=50)
    model, graph = model_of(tiny), tiny.graph
    counts = count_candidates(model, graph, 0.5)
    single = count_candidates(model, graph, 1e-9)  # a question at a time
    assert np.array_equal(counts.all, single.all)
    assert np.array_equal(counts.answers, single.answers)
    candidates = np.zeros((2 * graph.num_relations, BINS), np.int64)
    answers = np.zeros_like(candidates)
    questions, reflexive = AnswerIndex(graph.directed("valid")), set(graph.reflexive().tolist())
    train = {tuple(fact) for fact in graph.directed("train").tolist()}
    valid = {tuple(fact) for fact in graph.directed("valid").tolist()}
    for question in range(len(questions)):
        head, relation = (
            int(questions.queries.head[question]),
            int(questions.queries.relation[question]),
        )
        scores = model.score(questions.queries[torch.tensor([question])])[0].tolist()
        competing = {
            c: score
            for c, score in enumerate(scores)
            if (head, relation, c) in valid
            or (
                (head, relation, c) not in train
                and (c != head or relation % graph.num_relations in reflexive)
            )
        }
        total = float(torch.logsumexp(torch.tensor(list(competing.values())), 0))
        for c, score in competing.items():
            share = max(LOWEST, score - total)
            column = min(BINS - 1, int((share - LOWEST) * (BINS / -LOWEST)))
            candidates[relation, column] += 1
            answers[relation, column] += (head, relation, c) in valid
    # A share on the border of two bins may fall into either.
    assert np.abs(np.cumsum(counts.all.sum(0) - candidates, 1)).max() <= 1
    assert np.array_equal(counts.all.sum((0, 2)), candidates.sum(1))
    assert np.array_equal(counts.answers.sum((0, 2)), answers.sum(1))


@pytest.mark.parametrize("fit", [isotonic, logistic])
@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_a_curve_recovers_the_probability_of_its_answers(fit: Callable, scale: float) -> None:
    def probability(shares: np.ndarray) -> np.ndarray:
        return scale / (1 + np.exp(-(1.5 * shares + 2)))

    curve = fit(random_counts(probability, 200_000))
    assert (np.diff(curve.y) >= 0).all()
    assert (np.diff(curve.x) > 0).all()
    shares = np.linspace(-6, -0.1, 50)
    if fit is logistic and scale < 1:
        return  # the curve cannot have this shape
    assert np.abs(curve(shares) - probability(shares)).max() < 0.05


def test_a_step_of_a_few_answers_is_not_certain() -> None:
    candidates, answers = np.zeros(BINS, int), np.zeros(BINS, int)
    candidates[10], candidates[-1], answers[-1] = 1000, 3, 3
    curve = isotonic(BinCounts(candidates, answers))
    assert curve(np.array([0.0]))[0] == pytest.approx(3 / 4)
    assert curve(np.array([LOWEST]))[0] == 0


def test_reliability_is_a_table_of_predicted_and_observed_frequencies() -> None:
    table = Reliability.empty()
    candidates, answers = np.zeros(BINS, int), np.zeros(BINS, int)
    candidates[[5, 2000]], answers[2000] = (90, 10), 4
    predicted = np.zeros(BINS)
    predicted[2000] = 0.55
    table.add(predicted, BinCounts(candidates, answers))
    record = table.record()
    rows = {row["from"]: row for row in record["bins"]}
    assert (rows[0.0]["count"], rows[0.5]["count"]) == (90, 10)
    assert (rows[0.5]["predicted"], rows[0.5]["observed"]) == (pytest.approx(0.55), 0.4)
    assert record["error"] == pytest.approx(1.5 / 100)
    assert record["error_of_likely"] == pytest.approx(0.15)
    assert [row["to"] for row in record["bins"]] == list(EDGES[1:])


def test_calibration_improves_on_shares_and_survives_packing(tiny_graph: Callable) -> None:
    tiny = tiny_graph(entities=60, relations=2, facts=600, valid=150, test=2)
    calibration = calibrate(model_of(tiny), tiny.graph)
    record = calibration.record
    assert record["answers"] == len(tiny.graph.directed("valid"))
    assert record["after"]["error"] <= record["before"]["error"]
    assert sum(row["count"] for row in record["after"]["bins"]) == record["candidates"]
    unpacked = Calibration.unpacked(*calibration.packed())
    assert unpacked.record == record
    assert set(unpacked.by_relation) == set(calibration.by_relation)
    shares = torch.tensor(bin_centres())
    for relation in range(4):
        probabilities = calibration.probability(shares, relation)
        assert torch.equal(unpacked.probability(shares, relation), probabilities)
        assert bool((probabilities.diff() >= 0).all())
        assert 0 <= float(probabilities[0]) <= float(probabilities[-1]) <= 1
    with pytest.raises(ValueError, match="a calibration of format 'x'"):
        Calibration.unpacked(calibration.packed()[0], {"format": "x"})


def test_each_relation_has_the_curve_that_predicts_best(
    tiny_graph: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same share means different probabilities for two relations, so pooling misleads."""
    tiny = tiny_graph(relations=1, facts=30)
    low = random_counts(lambda shares: 0.02 * np.exp(shares), 40_000)
    high = random_counts(lambda shares: 0.9 * np.exp(shares / 4), 40_000, 1)
    # Two equal folds of both relations.
    counts = BinCounts(
        np.stack([np.stack([low.all, high.all])] * 2),
        np.stack([np.stack([low.answers, high.answers])] * 2),
    )
    monkeypatch.setattr("mocme.calibration.fit.count_candidates", lambda *_: counts)
    calibration = calibrate(model_of(tiny), tiny.graph)
    assert set(calibration.by_relation) == {0, 1}
    top = torch.tensor([-0.1])
    assert float(calibration.probability(top, 0)) < 0.05
    assert float(calibration.probability(top, 1)) > 0.7
    assert 0.05 < float(calibration.pooled(top.numpy())[0]) < 0.7


def test_a_run_is_calibrated_once_and_stores_the_result(
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
    expected, stored = (
        [item.probability for item in predictor.tails("e0", "r0", k=5)]
        for predictor in (first, second)
    )
    assert stored == expected
    assert all(probability is not None and 0 <= probability <= 1 for probability in expected)


def test_a_graph_without_a_valid_split_has_no_probabilities(
    tiny_graph: Callable, tmp_path: Path
) -> None:
    tiny = tiny_graph(valid=0)
    with pytest.raises(ValueError, match="graph has none; put a valid"):
        calibrate(model_of(tiny), tiny.graph)
    small = {
        "experts.embedding.embedding_dim": 4,
        "experts.embedding.training.epochs": 1,
        "experts.embedding.training.precision": "float32",
    }
    run = mocme.train(tiny.graph, "structure", out=tmp_path / "run", settings=small, device="cpu")
    predictor = run.predictor("cpu")
    predictions = predictor.tails("e0", "r0", k=3)
    assert [item.probability for item in predictions] == [None] * len(predictions)
    with pytest.raises(ValueError, match="this run has no probabilities"):
        predictor.tails("e0", "r0", min_probability=0.5)


def test_valid_facts_that_were_trained_on_have_no_part_in_probabilities(
    tiny_graph: Callable, tmp_path: Path
) -> None:
    graph = tiny_graph(valid=30).graph
    train, valid = graph.facts("train"), graph.facts("valid")
    small = {
        "experts.embedding.embedding_dim": 4,
        "experts.embedding.training.epochs": 1,
        "experts.embedding.training.precision": "float32",
        "data.only": [],
    }
    leaky = replace(graph, splits={"train": train, "valid": torch.cat([valid, train[:20]])})
    run = mocme.train(leaky, "structure", out=tmp_path / "leaky", settings=small, device="cpu")
    assert any("20 of " in note and "training facts too" in note for note in run.about["notes"])
    assert run.calibrate("cpu").record["answers"] == 2 * len(valid)
    known = replace(graph, splits={"train": train, "valid": train[:20]})
    run = mocme.train(known, "structure", out=tmp_path / "known", settings=small, device="cpu")
    assert run.predictor("cpu").tails("e0", "r0", k=3)[0].probability is None
    with pytest.raises(ValueError, match="facts of the valid split that are not in train"):
        run.calibrate("cpu")


def test_a_note_says_that_probabilities_of_a_few_answers_are_unreliable(
    tiny_graph: Callable, tiny_folder: Callable, tmp_path: Path
) -> None:
    folder = tiny_folder(tmp_path / "data", tiny_graph(valid=4))
    settings = {"experts.embedding.training.epochs": 1, "experts.embedding.embedding_dim": 4}
    run = mocme.train(folder, "structure", out=tmp_path / "run", settings=settings, device="cpu")
    calibration = run.predictor("cpu").calibration
    assert calibration is not None
    assert calibration.weak.startswith("probabilities were fitted on 8 answers")
    command = ["predict", str(run.path), "--head", "e0", "--relation", "r0", "--threads", "1"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "fitted on 8 answers of the valid split only" in result.stderr
    for answers in (30, 5000):
        assert Calibration(calibration.pooled, {}, {"answers": answers}).weak == ""


def test_curves_are_constant_beyond_their_ends() -> None:
    curve = Curve(np.array([-3.0, -1.0]), np.array([0.1, 0.5]))
    assert curve(np.array([-9.0, -2.0, 0.0])).tolist() == [0.1, pytest.approx(0.3), 0.5]


def test_memory_follows_the_held_out_answers_and_not_the_number_of_relations(
    tiny_graph: Callable,
) -> None:
    """A table of bins for each of 20,000 relations would take 2 GB."""
    tiny = tiny_graph(entities=60, relations=2, facts=600, valid=150, test=2)
    counts = count_candidates(model_of(tiny), tiny.graph, 0.5)
    names = [*tiny.graph.relations, *(f"rare {number}" for number in range(20_000))]
    ids = torch.tensor([0, 20_001])
    splits = {
        split: torch.stack([facts[:, 0], ids[facts[:, 1]], facts[:, 2]], 1)
        for split, facts in tiny.graph.splits.items()
    }
    many = replace(tiny.graph, relations=Vocabulary(names, "relation"), splits=splits)

    class Narrow:
        """The model, asked by the ids of the small graph."""

        device = torch.device("cpu")

        def score(self, queries: Queries) -> torch.Tensor:
            relation = queries.relation
            back, last = relation >= len(names), relation % len(names) > 0
            return model_of(tiny).score(Queries(queries.head, 2 * back.long() + last.long()))

    shared = count_candidates(Narrow(), many, 0.5, None, FEW)
    assert shared.all.nbytes + shared.answers.nbytes < 1e6
    fitted = calibrate(Narrow(), many)
    before = calibrate(model_of(tiny), tiny.graph)
    assert counts.all.shape[1] == 4
    assert fitted.record == before.record
    ids_of = {0: 0, 1: 20_001, 2: 20_002, 3: 40_003}
    assert {ids_of[r]: tuple(c.y) for r, c in before.by_relation.items()} == {
        r: tuple(c.y) for r, c in fitted.by_relation.items()
    }


def test_relations_with_few_answers_share_their_counts(tiny_graph: Callable) -> None:
    tiny = tiny_graph(relations=3, facts=60, valid=40)
    single = count_candidates(model_of(tiny), tiny.graph, 0.5)
    number = torch.bincount(tiny.graph.directed("valid")[:, 1], minlength=6)
    least = int(number.sort().values[3])
    shared = count_candidates(model_of(tiny), tiny.graph, 0.5, None, least)
    own = list(shared.relations or ())
    rest = [relation for relation in range(6) if relation not in own]
    assert own == (number >= least).nonzero().flatten().tolist()
    assert rest
    for ours, theirs in ((shared.all, single.all), (shared.answers, single.answers)):
        assert np.array_equal(ours[:, :-1], theirs[:, own])
        assert np.array_equal(ours[:, -1], theirs[:, rest].sum(1))


def test_scores_that_are_nan_have_no_probability(tiny_graph: Callable) -> None:
    class Broken:
        device = torch.device("cpu")

        def score(self, queries: Queries) -> torch.Tensor:
            return torch.full((len(queries.head), 40), torch.nan)

    tiny = tiny_graph(entities=40, facts=50)
    with pytest.raises(NaNScoreError, match="scores are NaN"):
        calibrate(Broken(), tiny.graph)
