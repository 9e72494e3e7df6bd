"""Neighbours as an expert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from mocme.data.graph import Queries, Vocabulary
from mocme.experts.base import Extension, Packed, SparseExpert, SparseOdds
from mocme.experts.neighbours.model import NeighbourModel

# Upper bound of P (odds of 99), so that no answer counts as certain.
MAX_P = 0.99


@final
@dataclass(frozen=True)
class NeighbourShare:
    """A neighbour that has the answer.

    Attributes:
        name: of the neighbour.
        weight: among the neighbours of the query, 1 in all.
        share: its part of log(1 + odds), in proportion to the weight.
    """

    name: str
    weight: float
    share: float


@final
class NeighbourExpert(SparseExpert):
    """Evidence for the answers of similar entities.

    Args:
        name: of the expert.
        model: of the training, or with added entities.
        sharpness: of the weights of neighbours.
        entities: names of all entities.
        digests: of what it was fitted on.
    """

    def __init__(
        self,
        name: str,
        model: NeighbourModel,
        sharpness: float,
        entities: Vocabulary,
        digests: dict[str, str],
    ) -> None:
        self.name, self.reads = name, ("structure", *model.spaces)
        self.model, self.sharpness = model, sharpness
        self.entities, self.digests = entities, digests

    def odds(self, queries: Queries) -> SparseOdds:
        size = len(self.entities)
        # Each distinct query is evaluated once: batches repeat those of frequent entities.
        keys, position = torch.unique(queries.relation * size + queries.head, return_inverse=True)
        nearest = self.model.nearest(Queries(keys % size, keys // size))
        chances = self.model.chances(nearest, self.sharpness)[position.numpy()].tocoo()
        chance = np.minimum(chances.data.astype(np.float64), MAX_P)
        row, column = (torch.from_numpy(ids.astype(np.int64)) for ids in (chances.row, chances.col))
        return SparseOdds(row, column, torch.from_numpy((chance / (1 - chance)).astype(np.float32)))

    def explain(self, head: int, relation: int, answer: int) -> Sequence[NeighbourShare]:
        """The neighbours that have the answer, by falling weight."""
        model = self.model
        nearest = model.nearest(Queries(torch.tensor([head]), torch.tensor([relation])))
        weights = model.weights(nearest, self.sharpness)[0].tolist()
        found = [
            (int(model.index.queries.head[pair]), weight)
            for pair, weight in zip(nearest.pair[0].tolist(), weights, strict=True)
            if weight > 0 and model.answering(pair, answer)
        ]
        chance = sum(weight for _, weight in found)
        if not found:
            return ()
        whole = -np.log1p(-min(chance, MAX_P))
        return [
            NeighbourShare(self.entities[entity], weight, float(whole * weight / chance))
            for entity, weight in found
        ]

    def extended(self, extension: Extension) -> NeighbourExpert:
        model = self.model.extended(extension.graph, extension.features)
        entities = extension.graph.entities
        return NeighbourExpert(self.name, model, self.sharpness, entities, self.digests)

    def packed(self) -> Packed:
        return {"sharpness": torch.tensor([self.sharpness], dtype=torch.float64)}, self.digests
