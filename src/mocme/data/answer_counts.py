"""How often entities answer relations in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from mocme.data.graph import Graph


@final
@dataclass(frozen=True, eq=False)
class AnswerCounts:
    """How many training facts of each directed relation have each answer.

    Attributes:
        key: relation * N + answer of each pair that occurs, ascending.
        count: facts of each pair.
        offsets: (2R + 1,) where the pairs of each relation begin.
        facts: (2R,) facts of each relation.
    """

    num_entities: int
    key: Int[Tensor, " n"]
    count: Int[Tensor, " n"]
    offsets: Int[Tensor, " offsets"]
    facts: Int[Tensor, " R2"]

    @staticmethod
    def of(graph: Graph) -> AnswerCounts:
        """Count the distinct training facts of a graph."""
        _, relation, answer = graph.directed("train").unbind(1)
        size, links = graph.num_entities, 2 * graph.num_relations
        key, count = torch.unique(relation * size + answer, return_counts=True)
        offsets = torch.searchsorted(key, torch.arange(links + 1) * size)
        return AnswerCounts(size, key, count, offsets, torch.bincount(relation, minlength=links))

    def of_answers(
        self, relation: Int[Tensor, " n"], entity: Int[Tensor, " n"]
    ) -> Int[Tensor, " n"]:
        """How many facts of directed relations have these answers; 0 for added entities."""
        if not len(self.key):
            return torch.zeros_like(entity)
        key = relation * self.num_entities + entity
        at = torch.searchsorted(self.key, key).clamp_(max=len(self.key) - 1)
        found = (self.key[at] == key) & (entity < self.num_entities)
        return torch.where(found, self.count[at], 0)
