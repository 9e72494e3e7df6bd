"""Which relations an entity may have: whether it makes sense to ask a question at all."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mocme.data.graph import Graph


class RelationPrior:
    """How likely an entity is to have (another) fact of each directed relation.

    Where it has none yet: the largest confidence, over the directed relations it has, of "who has
    that one has this one too" among the entities of the graph's facts; of an entity without facts,
    the share of entities that have the relation. Where it has c answers already: how many of the
    entities with at least c have more. Both with one success and two trials added.
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
        """Of entities with one relation, the share that have another; rows are the condition."""
        from scipy.sparse import csr_matrix

        ones = np.ones(len(self._entity))
        shape = (len(self._start) - 1, self.width)
        has = csr_matrix((ones, (self._entity.numpy(), self._relation.numpy())), shape)
        both = torch.from_numpy((has.T @ has).toarray())
        return (both + 1) / (self._having.unsqueeze(1) + 2)

    def to(self, relation: int) -> Float[Tensor, " N"]:
        """For each entity, that it has a fact, or one more, of a directed relation."""
        size = len(self._start) - 1
        prior = float((self._having[relation] + 1) / (self._linked + 2))
        chance = torch.full((size,), -1.0, dtype=torch.float64)
        given = self._together[self._relation, relation]
        chance = chance.scatter_reduce(0, self._entity, given, "amax")
        chance[chance < 0] = prior
        here = self._relation == relation
        counts = self._count[here]
        ascending = counts.sort().values
        enough = len(counts) - torch.searchsorted(ascending, counts)
        more = len(counts) - torch.searchsorted(ascending, counts, right=True)
        chance[self._entity[here]] = (more + 1).double() / (enough + 2)
        return chance

    def of(self, entity: int) -> Float[Tensor, " R2"]:
        """For each directed relation, that the entity has a fact, or one more, of it."""
        own = slice(int(self._start[entity]), int(self._start[entity + 1]))
        has, counts = self._relation[own], self._count[own]
        if not len(has):
            return (self._having + 1) / (self._linked + 2)
        chance = self._together[has].amax(0)
        for relation, count in zip(has.tolist(), counts.tolist(), strict=True):
            others = self._count[self._relation == relation]
            more, enough = int((others > count).sum()), int((others >= count).sum())
            chance[relation] = (more + 1) / (enough + 2)
        return chance
