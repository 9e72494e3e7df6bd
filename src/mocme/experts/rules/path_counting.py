"""How many pairs a body connects, as far as it matters."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mocme.experts.rules.adjacency import PATHS, Adjacency


def connected(
    relations: Adjacency,
    first: Int[np.ndarray, " n"],
    second: Int[np.ndarray, " n"],
    enough: Float[np.ndarray, " n"],
    paths: float,
    step: Callable[[float], None],
) -> Float[np.ndarray, " n"]:
    """Distinct pairs (h, t), h != t, that each body connects; infinity where there are too many.

    A body and the same walked backwards connect as many, so that one of them is multiplied out.

    Args:
        enough: more pairs than this are too many.
        paths: a body with more paths is not multiplied out if so many pairs would be too many.
    """
    sizes = np.diff(relations.edges.indptr[_ends(relations)])
    first, second = _forwards(relations, first, second, sizes)
    codes, place = np.unique(first * (len(relations) + 1) + second + 1, return_inverse=True)
    most = np.zeros(len(codes))
    np.maximum.at(most, place, enough)
    first, second = codes // (len(relations) + 1), codes % (len(relations) + 1) - 1
    count = np.where(second < 0, sizes[first], np.inf).astype(np.float64)
    long = np.flatnonzero(second >= 0)
    # One second relation after the other: its degrees are spread out once.
    order = long[np.lexsort((first[long], second[long]))]
    counter = _Counter(relations, paths)
    for done, body in enumerate(order):
        count[body] = counter(int(first[body]), int(second[body]), float(most[body]))
        if done % 64 == 0:
            step(done / len(order))
    step(1.0)
    return count[place]


def _ends(relations: Adjacency) -> Int[np.ndarray, " K1"]:
    starts = np.arange(len(relations) + 1) * relations.num_entities
    return np.searchsorted(relations.keys, starts)


def _forwards(
    relations: Adjacency, first: np.ndarray, second: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of a body and the same backwards, that with the smaller first relation."""
    long = second >= 0
    start = np.where(long, relations.inverse[second], first)
    end = np.where(long, relations.inverse[first], -1)
    sooner = np.where(
        sizes[start] == sizes[first],
        start * len(relations) + end < first * len(relations) + second,
        sizes[start] < sizes[first],
    )
    return np.where(sooner, start, first), np.where(sooner, end, second)


class _Counter:
    """Counts pairs of one body after the other."""

    def __init__(self, relations: Adjacency, paths: float) -> None:
        self.size, self.paths = relations.num_entities, paths
        # As many matrices are kept as take some 130 MB for their row pointers.
        kept = max(8, (1 << 25) // max(1, self.size))
        self.matrix: Callable[[int], Any] = lru_cache(kept)(relations.matrix)
        # Relation, its out-degrees, and its matrix.
        self.second: tuple[int, Any, Any] = (-1, None, None)

    def __call__(self, first: int, second: int, enough: float) -> float:
        left = self.matrix(first)
        if self.second[0] != second:
            right = self.matrix(second)
            self.second = (second, np.diff(right.indptr).astype(np.int64), right)
        _, degree, right = self.second
        reach = degree[left.indices]
        heads = np.flatnonzero(np.diff(left.indptr))
        if not len(heads):
            return 0.0
        # A head surely reaches what its best middle alone leads to, except itself.
        surely = int(np.maximum(np.maximum.reduceat(reach, left.indptr[heads]) - 1, 0).sum())
        total = int(reach.sum())
        if surely > enough or (total > self.paths and total > enough):
            return float("inf")
        return float(self._multiply(left, right, heads, reach))

    def _multiply(self, left: Any, right: Any, heads: np.ndarray, reach: np.ndarray) -> int:
        if int(reach.sum()) <= PATHS:
            return _away(left @ right, 0)
        before = np.concatenate([[0], reach.cumsum()])[left.indptr]
        count = first = 0
        while first < self.size:
            stop = int(np.searchsorted(before, before[first] + PATHS, "right")) - 1
            stop = min(self.size, max(first + 1, stop))
            count += _away(left[first:stop] @ right, first)
            first = stop
        return count


def _away(product: Any, first: int) -> int:
    """How many entries are off the diagonal, which begins at column `first`."""
    return int(product.nnz) - int(np.count_nonzero(product.diagonal(first)))
