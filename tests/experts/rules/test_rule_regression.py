"""The design counts every pair that a body connects, and the regression is at its minimum."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_rules import (
    columns,
    edges_of,
    graphs,
    make_adjacency,
    mine_all,
    naive_paths,
    random_facts,
    rules_of,
)

from mocme.experts.rules import rule_regression
from mocme.experts.rules.adjacency import Adjacency
from mocme.experts.rules.rule_mining import RuleBodies
from mocme.experts.rules.rule_regression import build_design, regress


def naive_rows(
    adjacency: Adjacency, link: int, bodies: RuleBodies
) -> dict[tuple[int, int], list[float]]:
    """Features of each (h, t) that a body connects, heads of training facts only."""
    edges = edges_of(adjacency)
    heads = {h for h, _ in edges[link]}
    counts = [naive_paths(edges, body) for body in columns(bodies, "first", "second")]
    pairs = {pair for paths in counts for pair in paths if pair[0] in heads}
    return {pair: [math.log2(1 + paths[pair]) for paths in counts] for pair in pairs}


@given(graphs(), st.sampled_from([1, 20, 1 << 22]))
def test_the_design_counts_every_pair(graph: Any, cells_per_block: int) -> None:
    adjacency = make_adjacency(*graph)
    bodies, edges = mine_all(adjacency), edges_of(adjacency)
    for link in range(2 * adjacency.num_links):
        rules = rules_of(bodies, link)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rule_regression, "CELLS_PER_BLOCK", cells_per_block)
            design = build_design(adjacency, link, rules, 0)
        counts: Counter[tuple[float, ...]] = Counter()
        positives: Counter[tuple[float, ...]] = Counter()
        for pair, row in naive_rows(adjacency, link, rules).items():
            counts[tuple(row)] += 1
            positives[tuple(row)] += pair in edges[link]
        rows = [tuple(row) for row in design.features.toarray().tolist()]
        assert dict(zip(rows, design.counts.tolist(), strict=True)) == counts
        assert dict(zip(rows, design.positives.tolist(), strict=True)) == dict(positives)


def test_heads_are_sampled_where_paths_are_too_many() -> None:
    adjacency = make_adjacency(random_facts(0), 3, 60)
    rules = rules_of(mine_all(adjacency), 0)
    full = build_design(adjacency, 0, rules, 0)
    sampled, again = (build_design(adjacency, 0, rules, 0, max_paths=2000) for _ in range(2))
    assert 0 < sampled.counts.sum() < full.counts.sum() / 3
    assert (sampled.features != again.features).nnz == 0
    # At least one head, however many paths it has.
    assert build_design(adjacency, 0, rules, 0, max_paths=1).counts.sum() > 0


def test_the_regression_is_at_its_minimum() -> None:
    adjacency = make_adjacency(random_facts(1), 3, 60)
    design = build_design(adjacency, 0, rules_of(mine_all(adjacency, support=3), 0), 0)
    weight, bias = regress(design, 1.0)

    def loss(weight: np.ndarray, bias: float) -> float:
        logit = design.features @ weight + bias
        log_loss = design.counts @ np.logaddexp(0, logit) - design.positives @ logit
        return float(log_loss + 0.5 * weight @ weight)

    minimum = loss(weight, bias)
    generator = np.random.default_rng(0)
    for _ in range(20):
        assert loss(weight + 0.02 * generator.standard_normal(len(weight)), bias) > minimum
    assert loss(weight, bias + 0.02) > minimum < loss(weight, bias - 0.02)
