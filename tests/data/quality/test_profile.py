"""Connected components are those of a naive union."""

from __future__ import annotations

import numpy as np
import pytest

from mocme.data.quality.profile import component_labels
from split_graphs import naive_components


@pytest.mark.parametrize("seed", range(10))
def test_components_are_those_of_a_naive_union(seed: int) -> None:
    draw = np.random.default_rng(seed)
    entities = 40
    facts = draw.integers(0, entities, (3 * seed, 3))
    assert component_labels(facts, entities).tolist() == naive_components(facts.tolist(), entities)


def test_components_of_hard_shapes() -> None:
    """A long path in a shuffled order, and a star whose centre has the largest id."""
    order = np.random.default_rng(0).permutation(5000)
    zeros = np.zeros(4999, np.int64)
    path = np.stack([order[:-1], zeros, order[1:]], 1)
    assert not component_labels(path, 5000).any()
    star = np.stack([np.full(4999, 4999), zeros, np.arange(4999)], 1)
    assert not component_labels(star, 5000).any()
    assert component_labels(path[:0], 3).tolist() == [0, 1, 2]
