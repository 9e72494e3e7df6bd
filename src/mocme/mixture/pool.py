"""The pool of a query: the best candidates of every expert, and what the experts say of them.

Ranks, shares, entropies and thresholds leave out the training answers of a query and entities that
were added after the training, and nothing else: neither other answers of the split that is ranked,
nor what a caller filters. A training answer or an added entity gets the rank that it would have.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mocme.data.graph import Queries
from mocme.experts.base import DenseExpert, Expert, SparseExpert
from mocme.mixture.fact_index import FactIndex
from mocme.mixture.weight_search import Weight

# What is told of each dense and of each sparse expert about a candidate.
DENSE = ("log_share", "gap", "reciprocal_rank", "entropy", "complementarity")
SPARSE = ("gain", "spoken", "gap", "reciprocal_rank", "reached", "complementarity")
# Of the gain that is told, log(1 + sharpness * odds); the weights of the sum change no feature.
SHARPNESS = 30.0
# What is told of the candidate and the query.
CONTEXT = ("times", "share", "degree", "head_degree", "known", "facts", "inverse")


def feature_names(experts: Sequence[Expert]) -> list[str]:
    """Names of the features of a pool of these experts, in order."""
    names = [
        f"{expert.name}: {feature}"
        for expert in experts
        for feature in (SPARSE if isinstance(expert, SparseExpert) else DENSE)
    ]
    return [*names, *CONTEXT]


@final
@dataclass(frozen=True, eq=False)
class Pool:
    """Candidates of B queries, n in all.

    Attributes:
        row: which query, ascending.
        column: which candidate, ascending within a query.
        member: whether a candidate is among the best of each expert.
        rivals: whether it competes: it was trained, and is no training answer.
        features: of each candidate, in the order of `feature_names`.
        outside: log share of every entity in the sum of the experts, at most 0: the score of what
            is not in the pool.
    """

    row: Int[np.ndarray, " n"]
    column: Int[np.ndarray, " n"]
    member: Bool[np.ndarray, "n E"]
    rivals: Bool[np.ndarray, " n"]
    features: Float[np.ndarray, "n F"]
    outside: Float[Tensor, "B N"]


def make_pool(
    experts: Sequence[Expert],
    weights: Mapping[str, Weight],
    facts: FactIndex,
    queries: Queries,
    size: int,
) -> Pool:
    """The pool of each query.

    Args:
        experts: E of them.
        weights: of each expert in the sum, by name.
        facts: that the experts were fitted on.
        queries: B of them.
        size: k, how many candidates each expert brings.
    """
    queries = queries.to("cpu")
    competing = np.ones((len(queries), facts.trained), bool)
    known_row, known_column = (part.numpy() for part in facts.known(queries))
    trained = known_column < facts.trained
    competing[known_row[trained], known_column[trained]] = False
    answers = [_answers(expert, weights[expert.name], facts, queries) for expert in experts]
    total = torch.zeros(len(queries), facts.num_entities)
    for answer in answers:
        answer.add_to(total)
    views = [answer.view(competing, size) for answer in answers]
    keys = np.unique(np.concatenate([view.keys for view in views]))
    row, column = np.divmod(keys, facts.num_entities)
    member = np.stack([np.isin(keys, view.keys, assume_unique=True) for view in views], 1)
    # The sum over those that compete; where nobody does, nothing is left out.
    left = total[:, : facts.trained].masked_fill(torch.from_numpy(~competing), -torch.inf)
    mass = torch.logsumexp(left, 1, keepdim=True)
    mass.masked_fill_(mass.isneginf(), 0.0)
    rivals = (column < facts.trained) & competing[row, np.minimum(column, facts.trained - 1)]
    overlap = complementarity(member, row, rivals)
    blocks = [
        np.concatenate([view.describe(row, column), overlap[row, i, None]], 1)
        for i, view in enumerate(views)
    ]
    # Answers that were added later are not counted, so that adding them changes no score.
    blocks.append(_context(facts, queries, row, column, known_row[trained]))
    outside = total.sub_(mass).clamp_(max=0.0)
    features = np.concatenate(blocks, 1, dtype=np.float32)
    return Pool(row, column, member, rivals, features, outside)


def _context(
    facts: FactIndex,
    queries: Queries,
    row: Int[np.ndarray, " n"],
    column: Int[np.ndarray, " n"],
    known_row: Int[np.ndarray, " m"],
) -> Float[np.ndarray, "n 7"]:
    head, relation = queries.head.numpy()[row], queries.relation.numpy()[row]
    counts, pairs = facts.counts, (torch.from_numpy(relation), torch.from_numpy(column))
    times = counts.of_answers(*pairs).numpy()
    of_relation = counts.facts.numpy()[relation]
    known = np.bincount(known_row, minlength=len(queries))[row]
    degree = facts.degree.numpy()
    return np.stack(
        [
            np.log1p(times),
            times / np.maximum(of_relation, 1),
            np.log1p(degree[column]),
            np.log1p(degree[head]),
            np.log1p(known),
            np.log1p(of_relation),
            (relation >= facts.num_relations).astype(np.float64),
        ],
        1,
    )


def complementarity(
    member: Bool[np.ndarray, "n E"], row: Int[np.ndarray, " n"], rivals: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, "B E"]:
    """Mean over the other speaking experts f of 1 - |T_e & T_f| / |T_e|; 0 where e is alone.

    Args:
        member: whether a candidate is among the best of each expert.
        row: its query, ascending.
        rivals: whether it competes; the others are not in T.
    """
    count, size = int(row[-1]) + 1 if len(row) else 0, member.shape[1]
    best = member & rivals[:, None]
    both = np.zeros((count, size, size))
    for e in range(size):
        for f in range(e, size):
            both[:, e, f] = both[:, f, e] = np.bincount(row, best[:, e] & best[:, f], count)
    own = np.einsum("bee->be", both)
    speaks = own > 0
    missed = np.where(speaks[:, None, :], 1 - both / np.maximum(own, 1)[:, :, None], 0.0)
    missed = missed.sum(2)  # of itself, an expert misses nothing
    others = speaks.sum(1, keepdims=True) - speaks
    mean: Float[np.ndarray, "B E"] = missed / np.maximum(others, 1)
    return np.where(speaks, mean, 0.0)


# -- what an expert says ---------------------------------------------------------------------


def _answers(
    expert: Expert, weight: Weight, facts: FactIndex, queries: Queries
) -> _DenseAnswers | _SparseAnswers:
    with torch.no_grad():
        if isinstance(expert, SparseExpert):
            row, column, odds = (p.cpu() for p in expert.odds(queries.to(expert.device)))
            order = torch.argsort(row * facts.num_entities + column)
            row, column, odds = row[order], column[order], odds[order].double()
            return _SparseAnswers(weight, facts.num_entities, row, column, odds)
        assert isinstance(expert, DenseExpert)
        return _DenseAnswers(weight, expert.score(queries.to(expert.device)).float().cpu())


@dataclass(frozen=True, eq=False)
class _DenseAnswers:
    weight: Weight
    scores: Float[Tensor, "B N"]

    def add_to(self, total: Float[Tensor, "B N"]) -> None:
        total.add_(self.scores, alpha=self.weight.strength)

    def view(self, competing: Bool[np.ndarray, "B N0"], size: int) -> _DenseView:
        return _DenseView.of(self.scores.numpy(), competing, size)


@dataclass(frozen=True, eq=False)
class _SparseAnswers:
    weight: Weight
    num_entities: int
    row: Int[Tensor, " n"]
    column: Int[Tensor, " n"]
    odds: Float[Tensor, " n"]

    def add_to(self, total: Float[Tensor, "B N"]) -> None:
        total[self.row, self.column] += self.weight.gain(self.odds).to(total)

    def view(self, competing: Bool[np.ndarray, "B N0"], size: int) -> _SparseView:
        gain = torch.log1p(SHARPNESS * self.odds).numpy()
        row, column = self.row.numpy(), self.column.numpy()
        return _SparseView.of(row, column, gain, self.num_entities, competing, size)


@dataclass(frozen=True, eq=False)
class _DenseView:
    """Scores of B queries by the candidates that compete.

    Attributes:
        ordered: scores of those that compete, ascending; -inf for all others.
        keys: row * N + column of the best, ties by id, and of others that would be among them.
        total: log of the sum of exponentials.
        entropy: of the shares, in nats.
    """

    scores: Float[np.ndarray, "B N"]
    ordered: Float[np.ndarray, "B N0"]
    keys: Int[np.ndarray, " m"]
    total: Float[np.ndarray, " B"]
    entropy: Float[np.ndarray, " B"]

    @staticmethod
    def of(
        scores: Float[np.ndarray, "B N"], competing: Bool[np.ndarray, "B N0"], size: int
    ) -> _DenseView:
        trained = competing.shape[1]
        masked = np.where(competing, scores[:, :trained], -np.inf).astype(np.float32)
        ordered = np.sort(masked, 1)
        best = ordered[:, -1:]
        best = np.where(np.isneginf(best), 0.0, best).astype(np.float32)
        exponential = np.exp(ordered - best)
        mass = exponential.sum(1)
        # Where the exponential is 0, the score may be -inf, and the product would be NaN.
        mean = (exponential * np.maximum(ordered - best, -200.0)).sum(1)
        safe = np.maximum(mass, 1e-30)
        keys = _best_keys(scores, masked, ordered, min(size, trained))
        total = (best[:, 0] + np.log(safe)).astype(np.float32)
        return _DenseView(scores, ordered, keys, total, np.log(safe) - mean / safe)

    def describe(
        self, row: Int[np.ndarray, " n"], column: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n 4"]:
        score = self.scores[row, column]
        above = _above(self.ordered, row, score)
        best = self.ordered[row, -1]
        best = np.where(np.isneginf(best), score, best)
        log_share = score - self.total[row]
        return np.stack([log_share, score - best, 1 / (1 + above), self.entropy[row]], 1)


def _best_keys(
    scores: Float[np.ndarray, "B N"],
    masked: Float[np.ndarray, "B N0"],
    ordered: Float[np.ndarray, "B N0"],
    size: int,
) -> Int[np.ndarray, " m"]:
    least = ordered[:, -size][:, None]
    chosen = (scores >= least) & ~np.isneginf(scores)
    # Candidates beyond those that compete follow the threshold; those that compete are `size`.
    best = (masked >= least) & ~np.isneginf(masked)
    for index in np.flatnonzero(best.sum(1) > size):
        keep = np.argsort(-masked[index], kind="stable")[:size]
        dropped = best[index].copy()
        dropped[keep] = False
        chosen[index, : masked.shape[1]] &= ~dropped
    row, column = chosen.nonzero()
    keys: Int[np.ndarray, " m"] = row * scores.shape[1] + column
    return keys


def _above(
    ordered: Float[np.ndarray, "B M"],
    row: Int[np.ndarray, " n"],
    value: Float[np.ndarray, " n"],
) -> Int[np.ndarray, " n"]:
    """How many of a row are above a value; `row` ascends."""
    above = np.empty(len(row), np.int64)
    start = np.searchsorted(row, np.arange(len(ordered) + 1))
    for index, (first, last) in enumerate(itertools.pairwise(start)):
        part = slice(first, last)
        above[part] = ordered.shape[1] - np.searchsorted(ordered[index], value[part], "right")
    return above


@dataclass(frozen=True, eq=False)
class _SparseView:
    """Evidence of B queries by the candidates that compete.

    Attributes:
        key: row * N + column of all with evidence, ascending.
        gain: of each.
        above: how many that compete have more evidence.
        keys: of the best, ties by id, and of others that would be among them.
        best, reached: the largest gain of a query, and how many compete.
    """

    key: Int[np.ndarray, " n"]
    num_entities: int
    gain: Float[np.ndarray, " n"]
    above: Int[np.ndarray, " n"]
    keys: Int[np.ndarray, " m"]
    best: Float[np.ndarray, " B"]
    reached: Float[np.ndarray, " B"]

    @staticmethod
    def of(
        row: Int[np.ndarray, " n"],
        column: Int[np.ndarray, " n"],
        gain: Float[np.ndarray, " n"],
        num_entities: int,
        competing: Bool[np.ndarray, "B N0"],
        size: int,
    ) -> _SparseView:
        count, trained = competing.shape
        competes = (column < trained) & competing[row, np.minimum(column, trained - 1)]
        start = np.searchsorted(row, np.arange(count + 1))
        above, chosen = np.zeros(len(row), np.int64), np.zeros(len(row), bool)
        best, reached = np.zeros(count), np.zeros(count)
        for index, (first, last) in enumerate(itertools.pairwise(start)):
            part = slice(first, last)
            gains, among = gain[part], competes[part]
            ordered = np.sort(gains[among])
            reached[index] = len(ordered)
            best[index] = ordered[-1] if len(ordered) else 0.0
            above[part] = len(ordered) - np.searchsorted(ordered, gains, "right")
            keep = above[part] < size
            # Of those that compete, the first by id where the last places are shared.
            order = np.argsort(-gains[among], kind="stable")[size:]
            keep[np.flatnonzero(among)[order]] = False
            chosen[part] = keep
        key = row * num_entities + column
        return _SparseView(key, num_entities, gain, above, key[chosen], best, reached)

    def describe(
        self, row: Int[np.ndarray, " n"], column: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n 5"]:
        key = row * self.num_entities + column
        spoken, at = np.zeros(len(key), bool), np.zeros(len(key), np.int64)
        if len(self.key):
            at = np.minimum(np.searchsorted(self.key, key), len(self.key) - 1)
            spoken = self.key[at] == key
        gain = np.where(spoken, self.gain[at], 0.0) if len(self.key) else np.zeros(len(key))
        rank = np.where(spoken, 1 / (1 + self.above[at]), 0.0) if len(self.key) else gain
        return np.stack([gain, spoken, gain - self.best[row], rank, np.log1p(self.reached)[row]], 1)
