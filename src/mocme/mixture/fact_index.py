"""What a mixture knows of the facts that its experts were fitted on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from mocme.data.answer_counts import AnswerCounts
from mocme.data.graph import AnswerIndex, Graph, Queries


@final
@dataclass(frozen=True, eq=False)
class FactIndex:
    """Training facts of the experts, in both directions, and counts of them.

    Entities that were added later are not in the counts of others, so that scores of trained
    entities keep their bits.

    Attributes:
        answers: training answers of each query, added facts included.
        counts: how often the trained entities answer each directed relation.
        num_entities: N, added entities included; the trained ones come first.
        num_relations: R; directed relations from R on are inverse ones.
        degree: (N,) facts of each entity.
    """

    answers: AnswerIndex
    counts: AnswerCounts
    num_entities: int
    num_relations: int
    degree: Int[Tensor, " N"]

    @property
    def trained(self) -> int:
        """N0, the number of entities that the experts were fitted on."""
        return self.counts.num_entities

    @staticmethod
    def of(graph: Graph) -> FactIndex:
        """The training facts of a graph."""
        facts, size = graph.directed("train"), graph.num_entities
        degree = torch.bincount(facts[:, 0], minlength=size)
        return FactIndex(
            AnswerIndex(facts), AnswerCounts.of(graph), size, graph.num_relations, degree
        )

    def extended(self, graph: Graph) -> FactIndex:
        """The same facts and those of entities that were added behind the trained ones."""
        facts, size = graph.directed("train"), graph.num_entities
        degree = torch.bincount(facts[:, 0], minlength=size)
        degree[: self.trained] = self.degree[: self.trained]
        return replace(self, answers=AnswerIndex(facts), num_entities=size, degree=degree)

    def known(self, queries: Queries) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Training answers of queries, as pairs (position in `queries`, answer)."""
        return self.answers.lookup(queries.to("cpu"))
