"""Support, connected pairs and confidence against naive counts, and the bounds on rules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_rules import (
    all_bodies,
    columns,
    edges_of,
    graphs,
    ignore_progress,
    make_adjacency,
    mine_all,
    naive_paths,
    naive_supports,
    random_facts,
)

from mocme.experts.rules import path_counting, rule_mining
from mocme.experts.rules.path_counting import count_pairs
from mocme.experts.rules.rule_mining import count_supports


@given(graphs(), st.sampled_from([1, 3, 1 << 22]))
def test_support_equals_the_naive_count(graph: Any, paths_per_chunk: int) -> None:
    adjacency = make_adjacency(*graph)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rule_mining, "PATHS_PER_CHUNK", paths_per_chunk)
        bodies = count_supports(adjacency, 10**6, 0, ignore_progress)
    expected = {k: n for k, n in naive_supports(adjacency).items() if k[0] < adjacency.num_links}
    rows = columns(bodies, "relation", "first", "second", "support")
    assert {row[:3]: row[3] for row in rows} == expected


@given(graphs())
def test_mined_rules_have_naive_counts_in_both_directions(graph: Any) -> None:
    adjacency = make_adjacency(*graph)
    edges = edges_of(adjacency)
    names = ("relation", "first", "second", "support", "confidence")
    rows = columns(mine_all(adjacency), *names)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    expected = naive_supports(adjacency)
    assert {row[:3]: row[3] for row in rows} == expected
    for link, first, second, support, confidence in rows:
        pairs = len(naive_paths(edges, (first, second)))
        assert confidence == support / (pairs + 5)
        back = rule_mining.reverse_bodies(adjacency, np.array([first]), np.array([second]))
        mirrored = (int(adjacency.inverse[link]), int(back[0][0]), int(back[1][0]))
        assert expected[mirrored] == support


@given(graphs(), st.floats(0.01, 0.6), st.integers(1, 4), st.integers(1, 5))
def test_bounds_keep_the_rules_that_a_full_list_would(
    graph: Any, confidence: float, support: int, most: int
) -> None:
    adjacency = make_adjacency(*graph)
    names = ("relation", "first", "second", "support", "confidence")
    full = columns(mine_all(adjacency), *names)
    bounded = mine_all(adjacency, confidence=confidence, support=support, most=most)
    kept = columns(bounded, *names)
    for link in range(adjacency.num_links):
        able = [r for r in full if r[0] == link and r[3] >= support and r[4] >= confidence]
        able.sort(key=lambda row: (-row[4] * min(1, row[3] / 10), row[1], row[2]))
        assert [row for row in kept if row[0] == link] == able[:most]
    half = len(kept) // 2
    assert [row[3:] for row in kept[:half]] == [row[3:] for row in kept[half:]]


@given(graphs(), st.sampled_from([1, 4, 1 << 22]))
def test_pairs_are_counted_in_blocks(graph: Any, paths_per_chunk: int) -> None:
    adjacency = make_adjacency(*graph)
    bodies = all_bodies(adjacency)
    first, second = np.array(bodies).T
    edges = edges_of(adjacency)
    expected = [len(naive_paths(edges, body)) for body in bodies]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(path_counting, "PATHS_PER_CHUNK", paths_per_chunk)
        no_limit = np.full(len(first), np.inf)
        pairs = count_pairs(adjacency, first, second, no_limit, 1e9, ignore_progress)
    assert pairs.tolist() == expected
    # A body is given up only if it really has too many pairs.
    limits = np.full(len(first), 2.0)
    limited = count_pairs(adjacency, first, second, limits, 1e9, ignore_progress)
    assert all(a == b or (math.isinf(a) and b > 2) for a, b in zip(limited, expected, strict=True))


def test_too_many_paths_are_not_multiplied_out() -> None:
    facts = [(h, 0, 6) for h in range(5)] + [(6, 0, t) for t in range(7, 12)]
    adjacency = make_adjacency(facts, 1, 12)
    body = np.array([0]), np.array([0])
    given_up = count_pairs(adjacency, *body, np.array([20.0]), 10.0, ignore_progress)
    assert np.isinf(given_up).all()
    counted = count_pairs(adjacency, *body, np.array([25.0]), 10.0, ignore_progress)
    assert counted.tolist() == [25]


def test_sampled_neighbours_lower_support_only() -> None:
    adjacency = make_adjacency(random_facts(6, 20, 2, 300), 2, 20)
    names = ("relation", "first", "second", "support")
    full, sampled = (
        {row[:3]: row[3] for row in columns(bodies, *names)}
        for bodies in (count_supports(adjacency, degree, 0, ignore_progress) for degree in (100, 4))
    )
    assert all(full[key] >= count for key, count in sampled.items())
    assert 0 < sum(sampled.values()) < sum(full.values())
