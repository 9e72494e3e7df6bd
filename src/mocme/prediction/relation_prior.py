"""How likely a relation applies to an entity at all."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.graph import Graph

# Cells of a block of shares, one relation by all others.
_CELLS = 2**22


class RelationPrior:
    """The share of similar entities that have a fact, or one more, of a directed relation.

    For an entity without a fact of the relation: the largest share, over the directed relations
    that it has, of entities with that relation that also have this one. For an entity without
    facts: the share of all entities that have the relation. For an entity with c answers: the share
    of entities with at least c answers that have more. One success and two trials are added to each
    (Laplace smoothing).

    Shares are computed for the relations that are asked for: a table of all pairs of relations
    would take 320 GB for 100,000 relations.
    """

    def __init__(self, graph: Graph) -> None:
        from scipy.sparse import csr_matrix

        facts = graph.directed(*graph.splits)
        self.width = 2 * graph.num_relations
        key = facts[:, 0] * self.width + facts[:, 1]
        cells, count = torch.unique(key, return_counts=True)
        self._entity, self._relation = cells // self.width, cells % self.width
        self._count = count
        self._start = torch.searchsorted(self._entity, torch.arange(graph.num_entities + 1))
        self._having = torch.bincount(self._relation, minlength=self.width).double()
        self._linked = len(torch.unique(self._entity))
        # Counts by relation, ascending, one after the other.
        order = np.lexsort((count.numpy(), self._relation.numpy()))
        self._sorted_counts = count[torch.from_numpy(order)]
        self._ends = torch.bincount(self._relation, minlength=self.width).cumsum(0)
        shape = (graph.num_entities, self.width)
        ones = np.ones(len(cells))
        self._has = csr_matrix((ones, (self._entity.numpy(), self._relation.numpy())), shape)
        self._having_it = self._has.tocsc()

    def _together(self, relations: Int[Tensor, " n"]) -> Float[Tensor, "n R2"]:
        """For each of these relations (rows), how many entities have it and another (columns)."""
        both = (self._having_it[:, relations.numpy()].T @ self._has).toarray()
        return torch.from_numpy(both)

    def _counts_of(self, relation: int) -> Int[Tensor, " n"]:
        """Answers of each entity that has a relation, ascending."""
        end = int(self._ends[relation])
        counts: Int[Tensor, " n"] = self._sorted_counts[end - int(self._having[relation]) : end]
        return counts

    def to(self, relation: int) -> Float[Tensor, " N"]:
        """For each entity, how likely it has a fact, or one more, of a directed relation."""
        size = len(self._start) - 1
        prior = float((self._having[relation] + 1) / (self._linked + 2))
        share = torch.full((size,), -1.0, dtype=torch.float64)
        both = self._together(torch.tensor([relation]))[0]
        conditional = ((both + 1) / (self._having + 2))[self._relation]
        share = share.scatter_reduce(0, self._entity, conditional, "amax")
        share[share < 0] = prior
        has_relation = self._relation == relation
        counts = self._count[has_relation]
        ascending = self._counts_of(relation)
        enough = len(counts) - torch.searchsorted(ascending, counts)
        more = len(counts) - torch.searchsorted(ascending, counts, right=True)
        share[self._entity[has_relation]] = (more + 1).double() / (enough + 2)
        return share

    def of(self, entity: int) -> Float[Tensor, " R2"]:
        """For each directed relation, how likely the entity has a fact, or one more, of it."""
        rows = slice(int(self._start[entity]), int(self._start[entity + 1]))
        has, counts = self._relation[rows], self._count[rows]
        if not len(has):
            return (self._having + 1) / (self._linked + 2)
        share = torch.zeros(self.width, dtype=torch.float64)
        for part in has.split(max(1, _CELLS // self.width)):
            shares = (self._together(part) + 1) / (self._having[part].unsqueeze(1) + 2)
            share = torch.maximum(share, shares.amax(0))
        for relation, count in zip(has.tolist(), counts, strict=True):
            ascending = self._counts_of(relation)
            more = len(ascending) - int(torch.searchsorted(ascending, count, right=True))
            enough = len(ascending) - int(torch.searchsorted(ascending, count))
            share[relation] = (more + 1) / (enough + 2)
        return share
