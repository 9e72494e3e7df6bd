"""How often a candidate answers a relation, as an expert."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch

from mocme.data.answer_counts import AnswerCounts
from mocme.data.graph import Graph, Queries
from mocme.data.modality import Form
from mocme.experts.base import (
    ExpertSettings,
    Extension,
    FitTask,
    Packed,
    SparseExpert,
    SparseOdds,
)
from mocme.storage.tensor_schema import Field, check_tensors

MAX_ODDS = 1e30


@final
@dataclass(frozen=True, kw_only=True)
class Prior(ExpertSettings):
    """How often a candidate answers a relation in training.

    Args:
        smoothing: facts of each relation that are assumed besides those of the training, with other
            answers; above 0, so that no candidate is certain.
    """

    usable: ClassVar[tuple[Form, ...]] = ()
    sparse: ClassVar[bool] = True

    smoothing: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.smoothing < math.inf:
            raise ValueError(f"smoothing must be finite and above 0, not {self.smoothing}")

    def fit(self, task: FitTask) -> tuple[PriorExpert, dict[str, Any]]:
        counts = AnswerCounts.of(task.graph)
        return self._expert(counts, task), {"answers": len(counts.key)}

    def unpacked(self, packed: Packed, task: FitTask) -> PriorExpert:
        tensors, _ = packed
        graph = task.graph
        cells = 2 * graph.num_relations * graph.num_entities
        fields = {
            "key": Field(torch.int64, ("answers",), low=0, high=cells - 1, order="distinct"),
            "count": Field(torch.int64, ("answers",), low=1),
        }
        try:
            check_tensors(tensors, fields)
        except ValueError as error:
            raise ValueError(f"{task.name}: the counts do not fit this graph: {error}") from error
        counts = AnswerCounts.of(graph)
        if not all(torch.equal(tensors[name], getattr(counts, name)) for name in fields):
            raise ValueError(f"{task.name}: was fitted on other facts; fit it again on these")
        return self._expert(counts, task)

    def _expert(self, counts: AnswerCounts, task: FitTask) -> PriorExpert:
        return PriorExpert(task.name, counts, self.smoothing, task.graph)


@final
class PriorExpert(SparseExpert):
    """Evidence for the entities that answer the relation in training, whoever is asked about.

    Of n facts of a relation, c with an answer: P = c / (n + smoothing). An added entity never
    answers, since the counts stay those of the training.

    Args:
        name: of the expert.
        counts: of the training.
        smoothing: as of `Prior`.
        graph: names the relations.
    """

    def __init__(self, name: str, counts: AnswerCounts, smoothing: float, graph: Graph) -> None:
        self.name, self.reads = name, ("structure",)
        self.counts, self.smoothing, self.graph = counts, smoothing, graph
        relation = counts.key // max(1, counts.num_entities)
        self._answer = counts.key % max(1, counts.num_entities)
        facts, count = counts.facts[relation].double(), counts.count.double()
        # A bound keeps the odds finite in float32 where the smoothing is almost 0.
        self._odds = (count / (facts - count + smoothing)).clamp_max(MAX_ODDS).float()

    def odds(self, queries: Queries) -> SparseOdds:
        start = self.counts.offsets[queries.relation]
        number = self.counts.offsets[queries.relation + 1] - start
        row = torch.repeat_interleave(torch.arange(len(queries)), number)
        first = torch.cumsum(number, 0) - number
        pair = start[row] + torch.arange(len(row)) - first[row]
        return SparseOdds(row, self._answer[pair], self._odds[pair])

    def explain(self, head: int, relation: int, answer: int) -> Sequence[PriorReason]:
        """One reason with the whole of log(1 + odds); none where the expert is silent."""
        key = relation * self.counts.num_entities + answer
        pair = int(torch.searchsorted(self.counts.key, key))
        known = pair < len(self.counts.key) and int(self.counts.key[pair]) == key
        if not known or answer >= self.counts.num_entities:
            return ()
        links = self.graph.num_relations
        name = self.graph.relations[relation % links]
        if relation >= links:
            name = f"inverse of {name}"
        count, facts = int(self.counts.count[pair]), int(self.counts.facts[relation])
        share = math.log1p(float(self._odds[pair]))
        return (PriorReason(f"answers {name} in {count:,} of {facts:,} facts", share),)

    def extended(self, extension: Extension) -> PriorExpert:
        return PriorExpert(self.name, self.counts, self.smoothing, extension.graph)

    def packed(self) -> Packed:
        return {"key": self.counts.key, "count": self.counts.count}, {}


@final
@dataclass(frozen=True)
class PriorReason:
    """How often the answer is one in training.

    Attributes:
        name: with relation, count and number of facts.
        share: log(1 + odds).
    """

    name: str
    share: float
