"""Weights of the bodies of a relation: logistic regression over all pairs that they connect.

Lao, Mitchell, Cohen: Random Walk Inference and Learning in A Large Scale Knowledge Base, EMNLP
2011, weigh paths so (by the chances of random walks; here by numbers of paths).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Real

from mocme.experts.rules.adjacency import Adjacency, Walks, csr
from mocme.experts.rules.rule_mining import RuleBodies

# Paths of one relation that enter its regression: beyond, heads are drawn.
MOST = 20_000_000
# Pairs (head, candidate) that are looked at together.
CELLS = 1 << 22


@dataclass(frozen=True, eq=False)
class Design:
    """What the regression sees: u distinct rows of features, each of them many times.

    Attributes:
        features: log2(1 + number of paths) by body, (u, bodies).
        number: how many pairs have this row.
        true: how many of these are facts.
    """

    features: Any
    number: Float[np.ndarray, " u"]
    true: Float[np.ndarray, " u"]


def strengths(paths: Real[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The feature of a number of paths: its logarithm, 1 for a single path."""
    return np.log2(1 + paths.astype(np.float64))


def design(
    relations: Adjacency, link: int, bodies: RuleBodies, seed: int, most: int = MOST
) -> Design:
    """The pairs that any body of `link` connects to the heads of its training facts.

    Most pairs look alike (one path over one body), so that equal rows are counted, not kept. Heads
    come in random order; where their paths exceed `most`, those that come last are left out.
    """
    head, tail = relations.pairs(link)
    heads = np.unique(head)
    order = np.random.default_rng([seed, link]).permutation(len(heads))
    width = max(1, CELLS // relations.num_entities)
    left, blocks = most, []
    for start in range(0, len(heads), width):
        block = heads[np.sort(order[start : start + width])]
        found, used = _block(relations, bodies, block, (head, tail), left, start == 0)
        blocks.append(found)
        left -= used
        if left <= 0:
            break
    return _merged(blocks, len(bodies))


_Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _block(
    relations: Adjacency,
    bodies: RuleBodies,
    heads: Int[np.ndarray, " n"],
    facts: tuple[np.ndarray, np.ndarray],
    left: int,
    forced: bool,
) -> tuple[_Rows, int]:
    """Distinct rows of the pairs of some heads, and how many paths they took.

    Returns:
        (hash, number, true) by row; (row, body, paths) by entry.
    """
    count, size = len(bodies), relations.num_entities
    walks = Walks.of(
        relations,
        np.repeat(heads, count),
        np.tile(bodies.first, len(heads)),
        np.tile(bodies.second, len(heads)),
    )
    by_head = np.bincount(walks.walk // count, walks.paths, len(heads)).cumsum()
    kept = max(int(np.searchsorted(by_head, left, "right")), int(forced))
    full = kept >= len(heads)
    if not full:
        walks, heads = walks.take(int(np.searchsorted(walks.walk, kept * count))), heads[:kept]
    hashes = np.zeros(len(heads) * size, np.uint64)
    entries = []
    for walk, end, paths in walks.made():
        cell = walk // count * size + end
        body = walk % count
        np.add.at(hashes, cell, _mixed(body, paths))
        entries.append((cell.astype(np.int32), body.astype(np.int32), paths))
    used = int(by_head[-1]) if full and len(heads) else left
    return _distinct(hashes, entries, _cells(heads, facts, size)), used


def _cells(heads: np.ndarray, facts: tuple[np.ndarray, np.ndarray], size: int) -> np.ndarray:
    """Cells (place of head, tail) that are facts; heads ascend."""
    head, tail = facts
    if not len(heads):
        return np.empty(0, np.int64)
    place = np.minimum(np.searchsorted(heads, head), len(heads) - 1)
    own = heads[place] == head
    cells: np.ndarray = place[own] * size + tail[own]
    return cells


def _mixed(body: np.ndarray, paths: np.ndarray) -> np.ndarray:
    """A hash of (body, paths) that no sum of few others equals (splitmix64)."""
    value = (body.astype(np.uint64) << np.uint64(32)) + paths.astype(np.uint64)
    value *= np.uint64(0x9E3779B97F4A7C15)
    value ^= value >> np.uint64(30)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    value *= np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    return value


def _distinct(hashes: np.ndarray, entries: list[Any], facts: np.ndarray) -> _Rows:
    """Distinct rows of cells by the hash of their entries (0: a cell without any)."""
    cells = np.flatnonzero(hashes)
    unique, first, number = np.unique(hashes[cells], return_index=True, return_counts=True)
    facts = facts[hashes[facts] != 0]
    true = np.bincount(np.searchsorted(unique, hashes[facts]), minlength=len(unique))
    row_of = np.full(len(hashes), -1, np.int32)
    row_of[cells[first]] = np.arange(len(unique))
    kept = []
    for cell, body, paths in entries:
        row = row_of[cell]
        there = row >= 0
        kept.append((row[there], body[there], paths[there]))
    kept.append((np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32)))
    row, body, paths = (np.concatenate(column) for column in zip(*kept, strict=True))
    return unique, number, true, row, body, paths


def _merged(blocks: list[_Rows], bodies: int) -> Design:
    """The rows of all blocks, equal ones as one."""
    sizes = np.array([len(block[0]) for block in blocks], np.int64)
    shift = np.cumsum(sizes) - sizes
    hashes = np.concatenate([block[0] for block in blocks] or [np.empty(0, np.uint64)])
    unique, first, place = np.unique(hashes, return_index=True, return_inverse=True)
    number, true = np.zeros(len(unique)), np.zeros(len(unique))
    rows, columns, values = [], [], []
    for begin, (own, count, facts, row, body, paths) in zip(shift, blocks, strict=True):
        here = place[begin : begin + len(own)]
        number[here] += count
        true[here] += facts
        kept = first[here[row]] == row + begin
        rows.append(here[row[kept]])
        columns.append(body[kept])
        values.append(strengths(paths[kept]))
    shape = (len(unique), bodies)
    if not rows:
        return Design(csr(shape, shape), number, true)
    parts = (np.concatenate(rows), np.concatenate(columns))
    return Design(csr((np.concatenate(values), parts), shape), number, true)


def regress(seen: Design, ridge: float) -> tuple[Float[np.ndarray, " bodies"], float]:
    """Weights and bias of the logistic regression: sum of log losses + ridge / 2 |weights|^2."""
    # Loading it costs a quarter of a second, which only a fit should pay.
    from scipy import optimize

    features, number, true = seen.features, seen.number, seen.true
    turned = features.T.tocsr()
    width = features.shape[1]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = values[:width], values[width]
        logit = features @ weight + bias
        total = number @ np.logaddexp(0, logit) - true @ logit + ridge / 2 * weight @ weight
        slope = number / (1 + np.exp(-np.clip(logit, -500, 500))) - true
        return float(total), np.append(turned @ slope + ridge * weight, slope.sum())

    start = np.zeros(width + 1)
    start[width] = -3.0
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return found[:width], float(found[width])
