"""Symmetric relations are those that naive counting finds."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mocme.data.quality.relation_overlap import symmetric


@given(st.integers(0, 99), st.integers(5, 25), st.floats(0, 1))
def test_symmetric_relations_are_those_of_naive_counting(
    seed: int, size: int, share: float
) -> None:
    generator = random.Random(seed)
    node = range(6)
    choose = generator.choice
    drawn = ((choose(node), choose((0, 1)), choose(node)) for _ in range(size))
    facts = set(drawn)
    facts |= {(t, r, h) for h, r, t in sorted(facts) if generator.random() < share}
    relations = symmetric(np.array(sorted(facts)), 6, 2)
    for relation in (0, 1):
        links = [(h, t) for h, r, t in facts if r == relation and h != t]
        inverses = sum((t, h) in links for h, t in links)
        assert (relation in relations) == (len(links) >= 10 and 2 * inverses >= len(links))
    assert symmetric(np.empty((0, 3), np.int64), 6, 2) == frozenset()
