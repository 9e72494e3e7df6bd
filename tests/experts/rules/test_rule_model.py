"""Fitted rules: P by its formula, planted rules, shares, scores, packing and settings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from naive_rules import columns, edges_of, graphs, make_adjacency, naive_paths, random_facts

from mixtures import mixture_of
from mocme.data.graph import Queries
from mocme.experts.rules import Rules
from mocme.experts.rules.adjacency import Adjacency
from mocme.experts.rules.rule_model import RuleModel
from mocme.mixture.weight_search import Weight


@given(graphs())
def test_chances_equal_the_formula(graph: Any) -> None:
    adjacency = make_adjacency(*graph)
    size = adjacency.num_entities
    rules = RuleModel.fit(adjacency, Rules(support=1, confidence=0.01))
    questions = np.arange(size * 2 * adjacency.num_links)
    head, link = np.divmod(questions, 2 * adjacency.num_links)
    chances = rules.chances(Queries(torch.from_numpy(head), torch.from_numpy(link)))
    edges = edges_of(adjacency)
    expected = np.zeros((len(head), size))
    logits: dict[tuple[int, int], float] = {}
    counts = [naive_paths(edges, body) for body in columns(rules.bodies, "first", "second")]
    for row, (h, r) in enumerate(zip(head, link, strict=True)):
        for rule, paths in enumerate(counts):
            if rules.bodies.relation[rule] == r:
                for (start, t), count in paths.items():
                    if start == h:
                        share = rules.weight[rule] * math.log2(1 + count)
                        logits[row, t] = logits.get((row, t), rules.bias[r]) + share
    for cell, logit in logits.items():
        expected[cell] = 1 / (1 + math.exp(-logit))
    assert chances.shape == expected.shape
    assert chances.dtype == np.float32
    assert set(zip(*chances.nonzero(), strict=True)) == set(logits)
    np.testing.assert_allclose(chances.toarray(), expected, rtol=1e-5)


def test_no_fact_is_its_own_evidence() -> None:
    # With its loops, r0 then r0 would lead from 0 to 1 over the fact (0, r0, 1) itself.
    facts = [(h, 0, h + 1) for h in range(0, 20, 2)] + [(h, 0, h) for h in range(20)]
    rules = RuleModel.fit(make_adjacency(facts, 1, 20), Rules(support=1))
    assert len(rules.bodies) == 0


def planted_rules(seed: int = 0) -> tuple[Adjacency, list[tuple[int, int]]]:
    """r2 = r0 then r1; r3 = inverse of r0; a mention implies r4.

    Returns:
        The adjacency, and some facts of r2 that are not in it.
    """
    generator = np.random.default_rng(seed)
    first = [(h, int(generator.integers(30, 60))) for h in range(30)]
    second = [(x, int(generator.integers(60, 90))) for x in range(30, 60)]
    tail_of = dict(second)
    composed = [(h, tail_of[x]) for h, x in first]
    mentions = [(h, int(generator.integers(60, 90))) for h in range(30)]
    facts = [(h, 0, x) for h, x in first] + [(x, 1, t) for x, t in second]
    facts += [(h, 2, t) for h, t in composed[5:]] + [(x, 3, h) for h, x in first]
    facts += [(h, 4, t) for h, t in mentions[3:]]
    noise = random_facts(seed, 90, 5, 60)
    return make_adjacency(facts + noise, 5, 90, {"mentions": mentions}), composed[:5]


def test_planted_rules_are_found() -> None:
    adjacency, held_out = planted_rules()
    rules = RuleModel.fit(adjacency, Rules())
    planted = {2: (0, 1), 3: (5, -1), 4: (10, -1)}
    for link, body in planted.items():
        of_link = rules.bodies.relation == link
        best = int(np.argmax(np.where(of_link, rules.weight, -np.inf)))
        assert (rules.bodies.first[best], rules.bodies.second[best]) == body
    for head, tail in held_out:
        row = rules.chances(Queries(torch.tensor([head]), torch.tensor([2]))).toarray()[0]
        assert row.argmax() == tail
        assert rules.reasons(head, 2, tail)[0].name == "r0, then r1"


def test_shares_sum_to_the_log_odds() -> None:
    mentions = [(h, (7 * h) % 60) for h in range(60)]
    adjacency = make_adjacency(random_facts(2), 3, 60, {"mentions": mentions})
    rules = RuleModel.fit(adjacency, Rules(support=2))
    row = rules.chances(Queries(torch.tensor([3]), torch.tensor([4]))).tocoo()
    assert row.nnz > 10
    for answer, chance in zip(row.col.tolist(), row.data.tolist(), strict=True):
        reasons = rules.reasons(3, 4, answer)
        shares = [reason.share for reason in reasons]
        assert shares == sorted(shares, reverse=True)
        assert all(r.share == r.weight * math.log2(1 + r.count) for r in reasons)
        expected = math.log(chance / (1 - chance)) - rules.bias[4]
        assert sum(shares) == pytest.approx(expected, abs=1e-4)
    assert rules.reasons(3, 4, 3) == []


def test_odds_equal_the_formula() -> None:
    adjacency, _ = planted_rules()
    rules = RuleModel.fit(adjacency, Rules(ridge=1e-4))
    queries = Queries(torch.arange(40), torch.arange(40) % 10)
    chances = torch.from_numpy(rules.chances(queries).toarray()).double().clamp(max=0.99)
    assert float(chances.max()) == pytest.approx(0.99)
    row, column, odds = rules.odds(queries)
    expected = (chances / (1 - chances))[row, column]
    torch.testing.assert_close(odds.double(), expected, rtol=1e-5, atol=1e-6)
    assert len(torch.unique(row * 90 + column)) == len(row) == int((chances > 0).sum())
    # A sum adds strength * log(1 + sharpness * odds), and nothing where the rules are silent.
    dense = torch.zeros(40, 90, dtype=torch.float64)
    dense[row, column] = 0.5 * torch.log1p(3.0 * expected)
    scores = mixture_of(rules=rules, weight=Weight(0.5, 3.0)).score(queries)
    torch.testing.assert_close(scores.double(), dense, rtol=1e-5, atol=1e-6)
    assert not mixture_of(rules=rules, weight=Weight(0.0, 1.0)).score(queries).any()


@pytest.mark.parametrize("facts", [[], [(0, 0, 1), (2, 1, 3)]])
def test_scores_do_not_change_without_rules(facts: list[tuple[int, int, int]]) -> None:
    rules = RuleModel.fit(make_adjacency(facts, 2, 4), Rules())
    queries = Queries(torch.tensor([0, 1, 2]), torch.tensor([0, 3, 1]))
    assert rules.chances(queries).nnz == 0
    assert rules.reasons(0, 0, 1) == []
    assert all(len(part) == 0 for part in rules.odds(queries))
    assert not mixture_of(rules=rules).score(queries).any()
    assert rules.chances(Queries(torch.empty(0).long(), torch.empty(0).long())).shape == (0, 4)


def test_a_second_fit_gives_the_same_bits_and_packing_keeps_them() -> None:
    adjacency = make_adjacency(random_facts(3), 3, 60)
    settings = Rules(support=2, degree=5)
    rules, refitted = RuleModel.fit(adjacency, settings), RuleModel.fit(adjacency, settings)
    assert len(rules.bodies)
    tensors, metadata = rules.packed()
    again, _ = refitted.packed()
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
    restored = RuleModel.unpacked(tensors, metadata, adjacency)
    queries = Queries(torch.arange(60), torch.arange(60) % 6)
    assert (restored.chances(queries) != rules.chances(queries)).nnz == 0
    with pytest.raises(ValueError, match="other facts or pairs"):
        RuleModel.unpacked(tensors, metadata, make_adjacency(random_facts(4), 3, 60))
    with pytest.raises(ValueError, match="format 'x'"):
        RuleModel.unpacked(tensors, {**metadata, "format": "x"}, adjacency)


def test_blocks_of_questions_do_not_change_the_result() -> None:
    adjacency = make_adjacency(random_facts(5), 3, 60)
    rules = RuleModel.fit(adjacency, Rules(support=2))
    queries = Queries(torch.arange(60), torch.arange(60) % 6)
    together = rules.chances(queries)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mocme.experts.rules.rule_model.CELLS_PER_BLOCK", 1)
        assert (rules.chances(queries) != together).nnz == 0


def test_progress_is_reported_until_the_end() -> None:
    calls: list[tuple[int, int]] = []
    adjacency = make_adjacency(random_facts(7), 3, 60)
    RuleModel.fit(adjacency, Rules(), lambda *step: calls.append(step))
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1] == 12
    assert len({total for _, total in calls}) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"support": 0}, "support must be at least 1, not 0"),
        ({"most": 0}, "most must be at least 1"),
        ({"degree": 0}, "degree must be at least 1"),
        ({"paths": float("nan")}, "paths must be at least 1"),
        ({"confidence": 0.0}, "confidence must be within"),
        ({"confidence": 1.5}, "confidence must be within"),
        ({"ridge": 0.0}, "ridge must be finite and above 0"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rules(**settings)
