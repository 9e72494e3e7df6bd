"""The paired bootstrap: equal to a plain loop, and independent of its chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocme.benchmark import bootstrap


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=40), st.integers(0, 9))
def test_resampled_means_are_those_of_a_plain_loop(values: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    expected = []
    for _ in range(60):
        sample = [int(generator.integers(0, len(values), dtype=np.int32)) for _ in values]
        expected.append(sum(values[index] for index in sample) / len(values))
    means = bootstrap.resampled_means(np.array(values, float), 60, seed)
    assert means.tolist() == expected


def test_the_size_of_chunks_does_not_change_the_means(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(101.0)
    in_one_chunk = bootstrap.resampled_means(values, 500, 3)
    monkeypatch.setattr(bootstrap, "CHUNK", 1000)
    assert np.array_equal(bootstrap.resampled_means(values, 500, 3), in_one_chunk)


def test_a_difference_averages_over_seeds_first() -> None:
    first, second = np.array([[2, 4], [4, 4], [2, 8]]), np.array([[4, 20]])
    found = bootstrap.difference(first, second, 1000)
    each = [(1 + 0.5 + 1) / 3 - 0.5, (0.5 + 0.5 + 0.25) / 3 - 0.1]
    assert found.mean == pytest.approx(sum(each) / 2, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((min(each), max(each)), abs=1e-12)
    same = bootstrap.difference(first, first)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    swapped = bootstrap.difference(second, first, 1000)
    assert (swapped.mean, swapped.low, swapped.high) == pytest.approx(
        (-found.mean, -found.high, -found.low), abs=1e-12
    )
