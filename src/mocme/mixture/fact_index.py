"""What a mixture knows of the facts that its experts were fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.graph import AnswerIndex, Graph, Queries


@final
@dataclass(frozen=True, eq=False)
class FactIndex:
    """Training facts of the experts, in both directions, and counts of them.

    Entities that were added later are not in the counts of others, so that scores of trained
    entities keep their bits.

    Attributes:
        answers: training answers of each query, added facts included.
        trained: N0, the number of entities that the experts were fitted on; their ids come first.
        num_entities: N, added entities included.
        num_relations: R; directed relations from R on are inverse ones.
        degree: (N,) facts of each entity, in float64.
        facts_of: (2R,) facts of each directed relation.
        key, count: how often an entity answers a directed relation, by relation * N0 + entity.
    """

    answers: AnswerIndex
    trained: int
    num_entities: int
    num_relations: int
    degree: Float[Tensor, " N"]
    facts_of: Float[Tensor, " R2"]
    key: Int[Tensor, " m"]
    count: Float[Tensor, " m"]

    @staticmethod
    def of(graph: Graph) -> FactIndex:
        """The training facts of a graph."""
        facts, size = graph.directed("train"), graph.num_entities
        key, count = torch.unique(facts[:, 1] * size + facts[:, 2], return_counts=True)
        return FactIndex(
            AnswerIndex(facts),
            size,
            size,
            graph.num_relations,
            torch.bincount(facts[:, 0], minlength=size).double(),
            torch.bincount(facts[:, 1], minlength=2 * graph.num_relations).double(),
            key,
            count.double(),
        )

    def extended(self, graph: Graph) -> FactIndex:
        """The same facts and those of entities that were added behind the trained ones."""
        facts, size = graph.directed("train"), graph.num_entities
        degree = torch.bincount(facts[:, 0], minlength=size).double()
        degree[: self.trained] = self.degree[: self.trained]
        return FactIndex(
            AnswerIndex(facts),
            self.trained,
            size,
            self.num_relations,
            degree,
            self.facts_of,
            self.key,
            self.count,
        )

    def known(self, queries: Queries) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Training answers of queries, as pairs (position in `queries`, answer)."""
        return self.answers.lookup(queries.to("cpu"))

    def times(self, relation: Int[Tensor, " n"], entity: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """How often entities answer directed relations; 0 for added entities."""
        if not len(self.key):
            return torch.zeros(len(entity), dtype=torch.float64)
        key = relation * self.trained + entity
        at = torch.searchsorted(self.key, key).clamp_(max=len(self.key) - 1)
        found = (self.key[at] == key) & (entity < self.trained)
        return torch.where(found, self.count[at], 0.0)
