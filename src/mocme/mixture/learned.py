"""Learned mixtures: a model that ranks the pool of a query by what every expert says of it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.core.text_formats import parse_json
from mocme.data.graph import Graph, Queries
from mocme.experts.base import Expert, Packed
from mocme.mixture import sum as sums
from mocme.mixture.base import Mixture
from mocme.mixture.fact_index import FactIndex
from mocme.mixture.held_out import parts_of
from mocme.mixture.pool import feature_names, make_pool
from mocme.mixture.weight_search import Weight

FORMAT = "mocme learned mixture 1"
# Scores of all experts that are held at once while queries are scored.
CELLS = 1 << 24


class PoolModel(ABC):
    """A function of what the experts say of the candidates in a pool."""

    @abstractmethod
    def __call__(
        self, features: Float[np.ndarray, "n F"], relation: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """Scores of candidates.

        Args:
            features: in the order of `feature_names`.
            relation: that each candidate answers, a directed one.
        """

    @property
    @abstractmethod
    def least(self) -> float:
        """A lower bound of the scores."""

    @abstractmethod
    def scaled(self, factor: float) -> PoolModel:
        """The model with every score multiplied by a factor above 0."""

    @abstractmethod
    def packed(self) -> dict[str, Tensor]:
        """Tensors for a file."""


@final
class Learned(Mixture):
    """A model of what the experts say of a candidate in the pool of its query.

    A candidate in the pool scores L + f(x), with f the model and L such that this is at least 1.
    Any other candidate scores its log share in the sum of the experts, which is at most 0.

    Args:
        kind: of the settings.
        experts: as in `Mixture`.
        facts: that the experts were fitted on.
        weights: of each expert in the sum, by name.
        model: over the features of `mixture.pool`.
        pool: candidates that each expert brings.
        parts: if the valid split fitted the model, the models that were fitted without each part of
            it, by `held_out.parts_of`.
        seed: of the parts.
    """

    def __init__(
        self,
        kind: str,
        experts: Sequence[Expert],
        facts: FactIndex,
        weights: Mapping[str, Weight],
        model: PoolModel,
        pool: int,
        parts: Sequence[PoolModel] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(experts, facts.num_entities)
        self.kind = kind
        self.weights = {expert.name: weights[expert.name] for expert in experts}
        self.facts, self.model, self.pool = facts, model, pool
        self.parts, self.seed = tuple(parts), seed
        self._base = 1 - model.least

    def unseen(self, graph: Graph, split: str) -> Sequence[tuple[Mixture, Tensor]]:
        facts = graph.directed(split)
        if split != "valid" or not self.parts:
            return [(self, facts)]
        part = parts_of(facts, graph.num_relations, len(self.parts), self.seed)
        of = self.kind, self.experts, self.facts, self.weights
        return [
            (Learned(*of, model, self.pool), facts[part == number])
            for number, model in enumerate(self.parts)
        ]

    def without_parts(self) -> Learned:
        """The mixture that is served, which has seen the facts of valid."""
        return Learned(self.kind, self.experts, self.facts, self.weights, self.model, self.pool)

    def score(self, queries: Queries, candidates: Tensor | None = None) -> Float[Tensor, "B C"]:
        block = max(1, CELLS // (self.num_entities * len(self.experts)))
        starts = range(0, max(1, len(queries)), block)
        scores = torch.cat([self._scores(queries[first : first + block]) for first in starts])
        scores = scores.to(self.device)
        if candidates is None:
            return scores
        return scores[:, candidates] if candidates.ndim == 1 else scores.gather(1, candidates)

    def _scores(self, queries: Queries) -> Float[Tensor, "B N"]:
        pool = make_pool(self.experts, self.weights, self.facts, queries, self.pool)
        scores = pool.outside
        relation = queries.relation.cpu().numpy()[pool.row]
        inside = torch.from_numpy(self._base + self.model(pool.features, relation))
        row, column = torch.from_numpy(pool.row), torch.from_numpy(pool.column)
        scores[row, column] = inside.to(scores.dtype)
        return scores

    def contribution(self, name: str, value: float) -> float:
        """What an expert adds to the log of the odds in the sum: the model does not add up."""
        return sums.contribution(self.expert(name), self.weights[name], value)

    def extended(self, experts: Sequence[Expert], graph: Graph) -> Learned:
        facts, parts = self.facts.extended(graph), (self.parts, self.seed)
        return Learned(self.kind, experts, facts, self.weights, self.model, self.pool, *parts)

    def packed(self) -> Packed:
        metadata = {
            "format": FORMAT,
            "kind": self.kind,
            "experts": json.dumps(list(self.weights)),
            "features": json.dumps(feature_names(self.experts)),
            "pool": str(self.pool),
            "parts": str(len(self.parts)),
            "seed": str(self.seed),
        }
        tensors = {"weights": sums.packed_weights(self.weights), **self.model.packed()}
        for number, model in enumerate(self.parts):
            tensors |= {f"part {number} {name}": part for name, part in model.packed().items()}
        return tensors, metadata

    @staticmethod
    def unpacked(
        packed: Packed,
        experts: Sequence[Expert],
        graph: Graph,
        kind: str,
        pool: int,
        unpacked_model: Callable[[Mapping[str, Tensor]], PoolModel],
    ) -> Learned:
        """The mixture that `packed` describes.

        Args:
            kind, pool: of the settings.
            unpacked_model: reads the tensors of one model.

        Raises:
            ValueError: the tensors do not fit the experts or the settings.
        """
        tensors, metadata = packed
        if metadata.get("format") != FORMAT:
            raise ValueError(
                f"a mixture of format {metadata.get('format')!r} cannot be read; expected {FORMAT}"
            )
        if metadata.get("kind") != kind:
            raise ValueError(f"is a {metadata.get('kind')!r}; the settings are of a {kind}")
        weights = sums.unpacked_weights(packed, experts)
        names = feature_names(experts)
        if parse_json(metadata.get("features", "null")) != names:
            raise ValueError("the model was fitted on other features than these experts have")
        stored = _number(metadata, "pool", "the size of the pool", 1, 10_000)
        if stored != pool:
            raise ValueError(f"has a pool of {stored}; the settings have {pool}")
        count = _number(metadata, "parts", "the number of parts", 0, 100)
        seed = _number(metadata, "seed", "the seed of the parts", 0, 2**31 - 1)
        own = {name: tensor for name, tensor in tensors.items() if name != "weights"}
        models = []
        for number in range(count):
            prefix = f"part {number} "
            held = {name: own.pop(name) for name in list(own) if name.startswith(prefix)}
            short = {name.removeprefix(prefix): tensor for name, tensor in held.items()}
            models.append(unpacked_model(short))
        model = unpacked_model(own)
        facts = FactIndex.of(graph)
        return Learned(kind, experts, facts, weights, model, pool, models, seed)


def _number(metadata: Mapping[str, str], key: str, what: str, low: int, high: int) -> int:
    text = metadata.get(key, "")
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise ValueError(f"{what} is {text!r}; it must be {low} to {high}")
    return int(text)
