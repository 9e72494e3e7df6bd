"""Weights of the rules of a head relation: logistic regression over all pairs their bodies connect.

Lao, Mitchell, Cohen: Random Walk Inference and Learning in A Large Scale Knowledge Base, EMNLP
2011. They weight paths by the probabilities of random walks; here a feature is a number of paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
from jaxtyping import Float, Int, Real, UInt64

from mocme.experts.rules.adjacency import Adjacency, Walks, csr
from mocme.experts.rules.rule_mining import RuleBodies

# Paths of one head relation that enter its regression. Beyond that, heads are sampled.
MAX_PATHS = 20_000_000
# Cells (head, candidate) processed at once. Bounds the dense buffers of a block of heads.
CELLS_PER_BLOCK = 1 << 22


@final
@dataclass(frozen=True, eq=False)
class Design:
    """Input of the regression: u distinct rows of features, each standing for many pairs.

    Attributes:
        features: (u, bodies) CSR matrix of log2(1 + number of paths).
        counts: how many pairs have this row.
        positives: how many of these are facts.
    """

    features: Any
    counts: Float[np.ndarray, " u"]
    positives: Float[np.ndarray, " u"]


class _DistinctRows(NamedTuple):
    """Distinct rows of a block of heads: three columns by row, then the entries of the rows.

    Attributes:
        hashes: of each row, ascending.
        counts, positives: as in `Design`.
        row, body, paths: of each entry: its row, the column, and the number of paths.
    """

    hashes: UInt64[np.ndarray, " u"]
    counts: Int[np.ndarray, " u"]
    positives: Int[np.ndarray, " u"]
    row: Int[np.ndarray, " e"]
    body: Int[np.ndarray, " e"]
    paths: Float[np.ndarray, " e"]


def path_features(paths: Real[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """log2(1 + number of paths): 1 for a single path, whose log odds then are the weight itself.

    The number of paths ranks better than whether there is one (docs/learned.md). The logarithm
    keeps bodies over hubs, which have thousands of paths, on the scale of the others.
    """
    return np.log2(1 + paths.astype(np.float64))


def build_design(
    relations: Adjacency, link: int, bodies: RuleBodies, seed: int, max_paths: int = MAX_PATHS
) -> Design:
    """The pairs (h, t) that any body of `link` connects, for the heads h of its training facts.

    Pairs without any path are left out: the model gives them no P. Heads come in random order. When
    their paths exceed `max_paths`, the remaining heads are left out; at least one is used.
    """
    head, tail = relations.pairs(link)
    heads = np.unique(head)
    # Seeded by the link, so that the sample of one link does not depend on how others were fitted.
    order = np.random.default_rng([seed, link]).permutation(len(heads))
    heads_per_block = max(1, CELLS_PER_BLOCK // relations.num_entities)
    budget, blocks = max_paths, []
    for start in range(0, len(heads), heads_per_block):
        # Ascending, because `_fact_cells` looks heads up by binary search.
        block_heads = heads[np.sort(order[start : start + heads_per_block])]
        rows, used = _block_rows(relations, bodies, block_heads, (head, tail), budget, start == 0)
        blocks.append(rows)
        budget -= used
        if budget <= 0:
            break
    return _merge(blocks, len(bodies))


def _block_rows(
    relations: Adjacency,
    bodies: RuleBodies,
    heads: Int[np.ndarray, " n"],
    facts: tuple[np.ndarray, np.ndarray],
    budget: int,
    at_least_one: bool,
) -> tuple[_DistinctRows, int]:
    """Distinct rows of the pairs of some heads, and how many paths of the budget they took.

    Most pairs look alike (one path over one body), so equal rows are counted, not kept. Rows are
    compared by a hash, the sum of the hashes of their entries. It accumulates in one buffer of
    n * N cells, in whatever order the paths are enumerated.
    """
    count, size = len(bodies), relations.num_entities
    # One walk for each (head, body), so that walk // count is the head and walk % count the body.
    walks = Walks.of(
        relations,
        np.repeat(heads, count),
        np.tile(bodies.first, len(heads)),
        np.tile(bodies.second, len(heads)),
    )
    # Whole heads are kept or dropped: with a part of its paths, a pair would have a wrong row.
    paths_so_far = np.bincount(walks.walk // count, walks.paths, len(heads)).cumsum()
    kept = max(int(np.searchsorted(paths_so_far, budget, "right")), int(at_least_one))
    fits = kept >= len(heads)
    if not fits:
        walks, heads = walks.take(int(np.searchsorted(walks.walk, kept * count))), heads[:kept]
    hashes = np.zeros(len(heads) * size, np.uint64)
    entries = []
    for walk, end, paths in walks.endpoints():
        cell = walk // count * size + end
        body = walk % count
        # A cell occurs once for each body, so it gets each hash once. uint64 wraps around.
        np.add.at(hashes, cell, _hash(body, paths))
        entries.append((cell.astype(np.int32), body.astype(np.int32), paths))
    used = int(paths_so_far[-1]) if fits and len(heads) else budget
    return _distinct_rows(hashes, entries, _fact_cells(heads, facts, size)), used


def _fact_cells(
    heads: np.ndarray, facts: tuple[np.ndarray, np.ndarray], size: int
) -> Int[np.ndarray, " f"]:
    """Cells (position in the ascending `heads`, tail) of those facts whose head is among them."""
    head, tail = facts
    if not len(heads):
        return np.empty(0, np.int64)
    position = np.minimum(np.searchsorted(heads, head), len(heads) - 1)
    exists = heads[position] == head
    cells: np.ndarray = position[exists] * size + tail[exists]
    return cells


def _hash(body: np.ndarray, paths: np.ndarray) -> UInt64[np.ndarray, " n"]:
    """A 64-bit hash of (body, paths), the finalizer of splitmix64.

    Sums of hashes identify rows, so different entries must not have equal sums. Sums of the plain
    codes do: (body 1, 3 paths) is as much as (body 1, 1 path) and (body 0, 2 paths). With mixed
    bits, equal sums are as improbable as for random 64-bit numbers.
    """
    value = (body.astype(np.uint64) << np.uint64(32)) + paths.astype(np.uint64)
    value *= np.uint64(0x9E3779B97F4A7C15)
    value ^= value >> np.uint64(30)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    value *= np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    return value


def _distinct_rows(
    hashes: UInt64[np.ndarray, " cells"],
    entries: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    facts: Int[np.ndarray, " f"],
) -> _DistinctRows:
    """Group cells by the hash of their entries; 0 is a cell without any.

    Args:
        entries: (cell, body, paths), in chunks.
        facts: cells that are facts.
    """
    cells = np.flatnonzero(hashes)
    unique, first, counts = np.unique(hashes[cells], return_index=True, return_counts=True)
    # A fact that no body connects is in no row.
    facts = facts[hashes[facts] != 0]
    positives = np.bincount(np.searchsorted(unique, hashes[facts]), minlength=len(unique))
    # The entries of one cell of each group describe its row; all others are dropped.
    row_of_cell = np.full(len(hashes), -1, np.int32)
    row_of_cell[cells[first]] = np.arange(len(unique))
    kept = [(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))]
    for cell, body, paths in entries:
        row = row_of_cell[cell]
        described = row >= 0
        kept.append((row[described], body[described], paths[described]))
    row, body, paths = (np.concatenate(column) for column in zip(*kept, strict=True))
    return _DistinctRows(unique, counts, positives, row, body, paths)


def _merge(blocks: Sequence[_DistinctRows], num_bodies: int) -> Design:
    """The rows of all blocks, with equal rows merged."""
    if not blocks:
        shape = (0, num_bodies)
        return Design(csr(shape, shape), np.zeros(0), np.zeros(0))
    sizes = np.array([len(block.hashes) for block in blocks], np.int64)
    offsets = np.cumsum(sizes) - sizes
    hashes = np.concatenate([block.hashes for block in blocks])
    unique, first, merged_row = np.unique(hashes, return_index=True, return_inverse=True)
    counts, positives = np.zeros(len(unique)), np.zeros(len(unique))
    rows, columns, values = [], [], []
    for offset, block in zip(offsets, blocks, strict=True):
        target = merged_row[offset : offset + len(block.hashes)]
        # Hashes are distinct within a block, so that += meets no index twice.
        counts[target] += block.counts
        positives[target] += block.positives
        # Of equal rows the first describes all.
        described = first[target[block.row]] == block.row + offset
        rows.append(target[block.row[described]])
        columns.append(block.body[described])
        values.append(path_features(block.paths[described]))
    coordinates = (np.concatenate(rows), np.concatenate(columns))
    features = csr((np.concatenate(values), coordinates), (len(unique), num_bodies))
    return Design(features, counts, positives)


def regress(design: Design, ridge: float) -> tuple[Float[np.ndarray, " bodies"], float]:
    """Weights w and bias b of the logistic regression.

    They minimise sum over pairs of log(1 + e^z) - y z, with z = features @ w + b, plus
    ridge / 2 |w|^2. The bias is not penalised: it is the log odds of a pair with weak evidence, and
    differs by orders of magnitude between relations.

    The problem is convex, so the optimum does not depend on the start. L-BFGS is deterministic, has
    a stopping rule, and takes one product with the features and one with their transpose a step; a
    Newton step would also have to form the (bodies, bodies) matrix of second derivatives.
    """
    # Importing scipy.optimize takes a quarter of a second, so it is deferred until a fit.
    from scipy import optimize

    features, counts, positives = design.features, design.counts, design.positives
    transposed = features.T.tocsr()
    num_bodies = features.shape[1]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = values[:num_bodies], values[num_bodies]
        logit = features @ weight + bias
        # Equal rows are one term, weighted by how many pairs it stands for.
        total = counts @ np.logaddexp(0, logit) - positives @ logit + ridge / 2 * weight @ weight
        slope = counts / (1 + np.exp(-np.clip(logit, -500, 500))) - positives
        return float(total), np.append(transposed @ slope + ridge * weight, slope.sum())

    start = np.zeros(num_bodies + 1)
    # Few pairs are facts: begin at a probability of 5 % instead of 50 %.
    start[num_bodies] = -3.0
    solution = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return solution.x[:num_bodies], float(solution.x[num_bodies])
