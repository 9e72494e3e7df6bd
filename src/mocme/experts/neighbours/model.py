"""The nearest entities that have a relation, and what they answer.

For a query (h, r, ?), the k most similar entities h' != h with a training fact (h', r, t) weigh
w proportional to exp(sharpness * similarity), 1 in all. P(t) is the sum of w over those with
(h', r, t). The similarity is the mean of those in the modalities that both entities have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.graph import AnswerIndex, Graph, Queries
from mocme.data.modality import Features
from mocme.experts.neighbours.similarity import Space, extended_spaces, spaces_of

# Similarities of a block of queries that are held at a time. With their keys and masks they take at
# most 32 bytes each (128 MiB), or those of a single query if a relation has more heads than this.
CELLS = 1 << 22
# Similarities are rounded to 2^-20, because the last bits of a product depend on the other queries
# of a batch; entities with equal content are then equally similar, and the lower id is nearer.
GRID = 1 << 20
# Queries between two reports of progress.
QUERIES = 256


class Nearest(NamedTuple):
    """The at most k nearest entities of B queries, nearest first.

    Attributes:
        pair: which pair of relation and head of the training; -1 where there are fewer than k.
        similarity: 0 where there is none.
    """

    pair: Int[Tensor, "B k"]
    similarity: Float[Tensor, "B k"]


@final
@dataclass(frozen=True, eq=False)
class NeighbourModel:
    """Entities of the training that have a relation, and what they answer.

    Attributes:
        spaces: modalities to compare by, by name.
        k: neighbours of a query.
        index: training facts of both directions. Neighbours are heads of its queries, also where
            the graph has added entities.
        answers: (Q, N) CSR with a 1 for each answer of a query of `index`, by added entities too.
    """

    spaces: Mapping[str, Space]
    k: int
    index: AnswerIndex
    answers: Any

    @staticmethod
    def of(graph: Graph, features: Features, k: int) -> NeighbourModel:
        """The model of a graph of the training."""
        index = graph.answers("train")
        return NeighbourModel(spaces_of(features), k, index, _answers(index, graph))

    def extended(self, graph: Graph, features: Features) -> NeighbourModel:
        """The model with added entities: they have neighbours, and are answers, but no neighbours.

        The neighbours of entities of the training thus stay as they were, and so do their weights.
        """
        spaces = extended_spaces(dict(self.spaces), features)
        return replace(self, spaces=spaces, answers=_answers(self.index, graph))

    def nearest(self, queries: Queries) -> Nearest:
        """The neighbours of queries."""
        pair = torch.full((len(queries), self.k), -1)
        similarity = torch.zeros(len(queries), self.k, dtype=torch.float64)
        for relation in torch.unique(queries.relation).tolist():
            pool = self._pool(relation)
            size = pool.stop - pool.start
            asked = (queries.relation == relation).nonzero().flatten()
            # Without a pool the relation has no facts, and there are no neighbours.
            for block in asked.split(max(1, CELLS // size)) if size else ():
                found = self._nearest_in(queries.head[block], pool)
                width = found.pair.shape[1]
                pair[block, :width] = found.pair
                similarity[block, :width] = found.similarity
        return Nearest(pair, similarity)

    def _pool(self, relation: int) -> slice:
        """The queries of `index` with a relation, ascending by head."""
        wanted = torch.tensor([relation, relation + 1])
        start, stop = torch.searchsorted(self.index.queries.relation, wanted).tolist()
        return slice(start, stop)

    def _nearest_in(self, heads: Int[Tensor, " B"], pool: slice) -> Nearest:
        """The nearest of a pool, equally similar ones by id."""
        candidates = self.index.queries.head[pool]
        size = len(candidates)
        total = torch.zeros(len(heads), size)
        shared = torch.zeros(len(heads), size, dtype=torch.uint8)
        for space in self.spaces.values():
            values, has_head, has_candidate = space.similarities(heads, candidates)
            total += values
            shared += has_head[:, None] & has_candidate
        shared[heads[:, None] == candidates] = 0  # an entity is never its own neighbour
        total /= shared.clamp(min=1)
        # One integer orders by similarity, then id.
        key = (total * GRID).round_().long().mul_(size).add_(torch.arange(size - 1, -1, -1))
        none = torch.iinfo(torch.int64).min
        best = key.masked_fill_(shared == 0, none).topk(min(self.k, size), dim=1).values
        grid = torch.div(best, size, rounding_mode="floor")
        pair = pool.start + size - 1 - (best - grid * size)
        missing = best == none
        return Nearest(
            pair.masked_fill(missing, -1), (grid.double() / GRID).masked_fill(missing, 0.0)
        )

    def weights(self, nearest: Nearest, sharpness: float) -> Float[Tensor, "B k"]:
        """Weights of neighbours: of each query they sum to 1, or are 0 without a neighbour."""
        # The first is the nearest, so that no exponent is above 0.
        exponent = sharpness * (nearest.similarity - nearest.similarity[:, :1])
        weights = torch.where(nearest.pair >= 0, exponent.exp(), 0.0)
        return (weights / weights.sum(1, keepdim=True).clamp_min(1.0)).float()

    def chances(self, nearest: Nearest, sharpness: float) -> Any:
        """P of the candidates that a neighbour answers with, as a (B, N) CSR matrix (float32)."""
        from scipy.sparse import csr_matrix

        weights = self.weights(nearest, sharpness)
        known = weights > 0  # a far neighbour may weigh nothing in float32
        starts = np.concatenate([[0], known.sum(1).numpy().cumsum()])
        parts = (weights[known].numpy(), nearest.pair[known].numpy(), starts)
        return csr_matrix(parts, (len(known), self.answers.shape[0])) @ self.answers

    def answering(self, pair: int, answer: int) -> bool:
        """Whether the head of a pair has an answer."""
        row = slice(self.answers.indptr[pair], self.answers.indptr[pair + 1])
        return answer in self.answers.indices[row]


def reciprocal_ranks(
    model: NeighbourModel,
    facts: Int[Tensor, "n 3"],
    sharpness: tuple[float, ...],
    progress: Callable[[int, int], None],
) -> Float[Tensor, " s"]:
    """Mean reciprocal rank of directed training facts, for each sharpness, by leave-one-out.

    An entity is never its own neighbour, so a fact is predicted from the facts of other entities.
    Other answers of its query in training are left out of the ranking. An answer without evidence
    counts 0.

    Args:
        progress: receives (facts done, facts in all).
    """
    total = torch.zeros(len(sharpness), dtype=torch.float64)
    for start in range(0, len(facts), QUERIES):
        head, relation, tail = facts[start : start + QUERIES].unbind(1)
        queries = Queries(head, relation)
        nearest = model.nearest(queries)
        row, answer = model.index.lookup(queries)
        other = answer != tail[row]
        hidden = (row[other].numpy(), answer[other].numpy())
        for position, value in enumerate(sharpness):
            ranks = _reciprocal_ranks(model.chances(nearest, value), tail.numpy(), hidden)
            total[position] += float(ranks.sum())
        progress(start + len(head), len(facts))
    return total / max(1, len(facts))


def _reciprocal_ranks(
    chances: Any, answer: np.ndarray, hidden: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Reciprocal ranks of the answers of a (B, N) CSR matrix; ties count their mean."""
    from scipy.sparse import csr_matrix

    rows = np.arange(len(answer))
    mask = csr_matrix((np.ones(len(hidden[0]), np.float32), hidden), chances.shape)
    ranked = (chances - chances.multiply(mask)).tocoo()
    own = np.asarray(chances[rows, answer.copy()]).ravel()  # scipy wants an array of its own
    above = np.bincount(ranked.row[ranked.data > own[ranked.row]], minlength=len(answer))
    equal = np.bincount(ranked.row[ranked.data == own[ranked.row]], minlength=len(answer))
    ranks = above + (equal + 1) / 2
    return np.where(own > 0, 1 / ranks, 0.0)


def facts_digest(graph: Graph) -> str:
    """SHA-256 of the training facts and the numbers of entities and relations."""
    total = hashlib.sha256(f"{graph.num_entities} {graph.num_relations} ".encode())
    total.update(graph.facts("train").numpy().tobytes())
    return total.hexdigest()


def _answers(index: AnswerIndex, graph: Graph) -> Any:
    """A CSR matrix with a row for each query of an index, and a 1 for each answer of a graph."""
    from scipy.sparse import csr_matrix

    row, answer = graph.answers("train").lookup(index.queries)
    counts = torch.bincount(row, minlength=len(index)).numpy()
    starts = np.concatenate([[0], counts.cumsum()])
    ones = np.ones(len(answer), np.float32)
    return csr_matrix((ones, answer.numpy(), starts), (len(index), graph.num_entities))
