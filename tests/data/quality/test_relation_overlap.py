"""Symmetric relations are those that naive counting finds."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mocme.data.quality import relation_overlap as pairs


@given(st.integers(0, 99), st.integers(5, 25), st.floats(0, 1))
def test_what_is_taken_for_symmetric(seed: int, size: int, share: float) -> None:
    generator = random.Random(seed)
    node = range(6)
    choose = generator.choice
    drawn = ((choose(node), choose((0, 1)), choose(node)) for _ in range(size))
    facts = set(drawn)
    facts |= {(t, r, h) for h, r, t in sorted(facts) if generator.random() < share}
    found = pairs.symmetric(np.array(sorted(facts)), 6, 2)
    for relation in (0, 1):
        own = [(h, t) for h, r, t in facts if r == relation and h != t]
        turned = sum((t, h) in own for h, t in own)
        assert (relation in found) == (len(own) >= 10 and 2 * turned >= len(own))
    assert pairs.symmetric(np.empty((0, 3), np.int64), 6, 2) == frozenset()
