"""Number of entity pairs that a rule body connects, counted only as far as it decides something."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mocme.experts.rules.adjacency import PATHS_PER_CHUNK, Adjacency

# Called with the share of the work that is done.
ShareCallback = Callable[[float], None]
# Row pointers of all cached matrices, in entries: 128 MiB of int32.
CACHED_POINTERS = 1 << 25


def count_pairs(
    relations: Adjacency,
    first: Int[np.ndarray, " n"],
    second: Int[np.ndarray, " n"],
    limits: Float[np.ndarray, " n"],
    max_paths: float,
    progress: ShareCallback,
) -> Float[np.ndarray, " n"]:
    """Distinct pairs (h, t), h != t, that each body connects; infinity where there are too many.

    Args:
        first, second: relations of each body; second is -1 for a body of one relation.
        limits: more pairs than this are too many, by body.
        max_paths: a body with more paths is not multiplied out if that many pairs would be too
            many.
    """
    sizes = np.diff(relations.edges.indptr[_relation_starts(relations)])
    first, second = _canonical_direction(relations, first, second, sizes)
    # Bodies of several head relations, and a body and its reverse, share one count, made with the
    # most generous of their limits.
    base = len(relations) + 1
    codes, index = np.unique(first * base + second + 1, return_inverse=True)
    shared_limits = np.zeros(len(codes))
    np.maximum.at(shared_limits, index, limits)
    first, second = codes // base, codes % base - 1
    counts = np.where(second < 0, sizes[first], np.inf).astype(np.float64)
    composed = np.flatnonzero(second >= 0)
    # Ordered by the second relation, so that its matrix and degrees are made once.
    order = composed[np.lexsort((first[composed], second[composed]))]
    counter = _PairCounter(relations, max_paths)
    for done, body in enumerate(order):
        counts[body] = counter(int(first[body]), int(second[body]), float(shared_limits[body]))
        if done % 64 == 0:
            progress(done / len(order))
    progress(1.0)
    return counts[index]


def _relation_starts(relations: Adjacency) -> Int[np.ndarray, " K1"]:
    starts = np.arange(len(relations) + 1) * relations.num_entities
    return np.searchsorted(relations.keys, starts)


def _canonical_direction(
    relations: Adjacency, first: np.ndarray, second: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each body and its reverse, the one whose first relation has fewer edges.

    Both connect the same number of pairs. Ties go to the smaller relation ids.
    """
    composed = second >= 0
    reversed_first = np.where(composed, relations.inverse[second], first)
    reversed_second = np.where(composed, relations.inverse[first], -1)
    reverse = np.where(
        sizes[reversed_first] == sizes[first],
        reversed_first * len(relations) + reversed_second < first * len(relations) + second,
        sizes[reversed_first] < sizes[first],
    )
    return np.where(reverse, reversed_first, first), np.where(reverse, reversed_second, second)


class _PairCounter:
    """Counts the pairs of one body of two relations at a time."""

    def __init__(self, relations: Adjacency, max_paths: float) -> None:
        self.size, self.max_paths = relations.num_entities, max_paths
        # Each matrix has N + 1 row pointers, however few edges it has.
        maxsize = max(8, CACHED_POINTERS // max(1, self.size))
        self.matrix: Callable[[int], Any] = lru_cache(maxsize)(relations.matrix)
        # The last second relation: its id, out-degrees (N,) and matrix.
        self.second: tuple[int, Any, Any] = (-1, None, None)

    def __call__(self, first: int, second: int, limit: float) -> float:
        """Distinct pairs of the body (first, second); infinity where there are too many."""
        left = self.matrix(first)
        if self.second[0] != second:
            right = self.matrix(second)
            self.second = (second, np.diff(right.indptr).astype(np.int64), right)
        _, degree, right = self.second
        # Paths that begin with each edge (h, x) of the first relation: the out-degree of x.
        reach = degree[left.indices]
        heads = np.flatnonzero(np.diff(left.indptr))
        if not len(heads):
            return 0.0
        # Two bounds that take no product. Below: a head reaches at least the tails of its best
        # middle entity, except itself. Above: there are no more pairs than paths.
        at_least = int(np.maximum(np.maximum.reduceat(reach, left.indptr[heads]) - 1, 0).sum())
        paths = int(reach.sum())
        if at_least > limit or (paths > self.max_paths and paths > limit):
            return float("inf")
        return float(self._multiply(left, right, reach))

    def _multiply(self, left: Any, right: Any, reach: np.ndarray) -> int:
        """Nonzeros of left @ right off the diagonal, in blocks of rows that bound the memory."""
        if int(reach.sum()) <= PATHS_PER_CHUNK:
            return _count_off_diagonal(left @ right, 0)
        # Paths of all heads before each head: (N + 1,).
        before = np.concatenate([[0], reach.cumsum()])[left.indptr]
        count = first = 0
        while first < self.size:
            stop = int(np.searchsorted(before, before[first] + PATHS_PER_CHUNK, "right")) - 1
            stop = min(self.size, max(first + 1, stop))
            count += _count_off_diagonal(left[first:stop] @ right, first)
            first = stop
        return count


def _count_off_diagonal(product: Any, first: int) -> int:
    """Entries off the diagonal of a block of rows, of which the first is row `first`."""
    return int(product.nnz) - int(np.count_nonzero(product.diagonal(first)))
