"""How likely a relation applies to an entity at all."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mocme.data.graph import Graph


class RelationPrior:
    """The share of similar entities that have a fact, or one more, of a directed relation.

    For an entity without a fact of the relation: the largest share, over the directed relations
    that it has, of entities with that relation that also have this one. For an entity without
    facts: the share of all entities that have the relation. For an entity with c answers: the share
    of entities with at least c answers that have more. One success and two trials are added to each
    (Laplace smoothing).
    """

    def __init__(self, graph: Graph) -> None:
        facts = graph.directed(*graph.splits)
        self.width = 2 * graph.num_relations
        key = facts[:, 0] * self.width + facts[:, 1]
        cells, count = torch.unique(key, return_counts=True)
        self._entity, self._relation = cells // self.width, cells % self.width
        self._count = count
        self._start = torch.searchsorted(self._entity, torch.arange(graph.num_entities + 1))
        self._having = torch.bincount(self._relation, minlength=self.width).double()
        self._linked = len(torch.unique(self._entity))
        self._together = self._pairs()

    def _pairs(self) -> Float[Tensor, "R2 R2"]:
        """Share of entities with one relation (row) that have another (column)."""
        from scipy.sparse import csr_matrix

        ones = np.ones(len(self._entity))
        shape = (len(self._start) - 1, self.width)
        has = csr_matrix((ones, (self._entity.numpy(), self._relation.numpy())), shape)
        both = torch.from_numpy((has.T @ has).toarray())
        return (both + 1) / (self._having.unsqueeze(1) + 2)

    def to(self, relation: int) -> Float[Tensor, " N"]:
        """For each entity, how likely it has a fact, or one more, of a directed relation."""
        size = len(self._start) - 1
        prior = float((self._having[relation] + 1) / (self._linked + 2))
        share = torch.full((size,), -1.0, dtype=torch.float64)
        conditional = self._together[self._relation, relation]
        share = share.scatter_reduce(0, self._entity, conditional, "amax")
        share[share < 0] = prior
        has_relation = self._relation == relation
        counts = self._count[has_relation]
        ascending = counts.sort().values
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
        share = self._together[has].amax(0)
        for relation, count in zip(has.tolist(), counts.tolist(), strict=True):
            others = self._count[self._relation == relation]
            more, enough = int((others > count).sum()), int((others >= count).sum())
            share[relation] = (more + 1) / (enough + 2)
        return share
