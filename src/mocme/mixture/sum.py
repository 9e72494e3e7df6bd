"""A sum of experts, each with a strength."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mocme.data.graph import Graph, Queries
from mocme.experts.base import DenseExpert, Expert, Packed, Progress, SparseExpert
from mocme.mixture.base import Mixture, MixtureSettings, packed_experts
from mocme.mixture.weight_search import Weight, search
from mocme.storage.tensor_schema import Field, check_tensors

FORMAT = "mocme sum 1"
# Without a valid split: the middle of what three benchmarks chose.
DEFAULT_SPARSE = Weight(1.5, 30.0)
DEFAULT_DENSE = Weight(1.0)


@final
class Sum(Mixture):
    """The sum of the experts' contributions.

    A dense expert contributes strength * score, a sparse one strength * log(1 + sharpness * odds).

    Args:
        experts: as in `Mixture`.
        num_entities: N.
        weights: of each expert, by name.
    """

    def __init__(
        self, experts: Sequence[Expert], num_entities: int, weights: Mapping[str, Weight]
    ) -> None:
        super().__init__(experts, num_entities)
        self.weights = {expert.name: weights[expert.name] for expert in experts}

    def score(self, queries: Queries, candidates: Tensor | None = None) -> Float[Tensor, "B C"]:
        total = self._dense(queries, candidates)
        for expert in self.experts:
            if not isinstance(expert, SparseExpert):
                continue
            row, column, odds = expert.odds(queries.to(expert.device))
            gain = self.weights[expert.name].gain(odds)
            # In place where all entities are scored; a copy of (B, N) would cost more than the sum.
            target = (
                total if candidates is None else total.new_zeros(len(queries), self.num_entities)
            )
            target[row.to(target.device), column.to(target.device)] += gain.to(target)
            if candidates is not None:
                columns = (
                    target[:, candidates] if candidates.ndim == 1 else target.gather(1, candidates)
                )
                total = total + columns
        return total

    def _dense(self, queries: Queries, candidates: Tensor | None) -> Tensor:
        total: Tensor | None = None
        for expert in self.experts:
            if not isinstance(expert, DenseExpert):
                continue
            chosen = None if candidates is None else candidates.to(expert.device)
            scores = expert.score(queries.to(expert.device), chosen)
            strength = self.weights[expert.name].strength
            if strength != 1.0:
                scores = scores * strength
            total = scores if total is None else total + scores.to(total)
        if total is None:
            shape = (
                (len(queries), self.num_entities)
                if candidates is None
                else (len(queries), candidates.shape[-1])
            )
            total = torch.zeros(shape, device=self.device)
        return total

    def contribution(self, name: str, value: float) -> float:
        return contribution(self.expert(name), self.weights[name], value)

    def extended(self, experts: Sequence[Expert], graph: Graph) -> Sum:
        return Sum(experts, graph.num_entities, self.weights)

    def packed(self) -> Packed:
        metadata = {"format": FORMAT, "experts": json.dumps(list(self.weights))}
        return {"weights": packed_weights(self.weights)}, metadata

    @staticmethod
    def unpacked(packed: Packed, experts: Sequence[Expert], graph: Graph) -> Sum:
        """The mixture that `packed` describes.

        Raises:
            ValueError: the tensors do not fit the experts.
        """
        tensors, metadata = packed
        if metadata.get("format") != FORMAT:
            raise ValueError(
                f"a sum of format {metadata.get('format')!r} cannot be read; expected {FORMAT}"
            )
        if unknown := [name for name in tensors if name != "weights"]:
            raise ValueError(f"holds a tensor {unknown[0]!r}, which does not belong there")
        return Sum(experts, graph.num_entities, unpacked_weights(packed, experts))


@final
@dataclass(frozen=True, kw_only=True)
class SumSettings(MixtureSettings):
    """A sum of experts.

    The first dense expert has the strength 1. The weights of all others are chosen on the valid
    split, one expert after the other in the order of the experiment, unless they are given here.

    Args:
        strength: of an expert, by name.
        sharpness: of a sparse expert, by name.
    """

    strength: Mapping[str, float] = field(default_factory=dict)
    sharpness: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for setting in ("strength", "sharpness"):
            for name, value in getattr(self, setting).items():
                if not 0 <= value < math.inf:
                    raise ValueError(
                        f"{setting}.{name} must be a finite number, 0 or above, not {value}"
                    )

    def fit(
        self,
        experts: Sequence[Expert],
        graph: Graph,
        memory: float,
        progress: Progress | None = None,
        *,
        held_out: bool = False,
    ) -> tuple[Sum, dict[str, Any]]:
        self.check_experts({expert.name: isinstance(expert, SparseExpert) for expert in experts})
        started = time.perf_counter()
        dense = [expert for expert in experts if isinstance(expert, DenseExpert)]
        first = dense[0] if dense else experts[0]
        weights = {first.name: self._completed(first)}
        records: dict[str, Any] = {}
        others = [expert for expert in experts if expert is not first]
        for number, expert in enumerate(others):
            part = Sum([first, *others[:number]], graph.num_entities, weights)
            weights[expert.name], records[expert.name] = self._weight(part, expert, graph, memory)
            if progress is not None:
                progress(number + 1, len(others))
        mixture = Sum(experts, graph.num_entities, weights)
        record = {
            "kind": "Sum",
            "weights": {name: weight.as_dict() for name, weight in mixture.weights.items()},
            "experts": records,
            "seconds": round(time.perf_counter() - started, 3),
        }
        return mixture, record

    def _weight(
        self, part: Sum, expert: Expert, graph: Graph, memory: float
    ) -> tuple[Weight, dict[str, Any]]:
        """The weight of an expert next to those that are weighted, and how it was chosen."""
        strength = self.strength.get(expert.name)
        sharpness = self.sharpness.get(expert.name)
        if given := self._given(expert):
            return given, {"chosen_by": "settings"}
        if len(graph.facts("valid")):
            result = search(part, expert, graph, memory, strength, sharpness)
            tried = [[*weight.as_list(expert), mrr] for weight, mrr in result.tried]
            return result.best, {"chosen_by": "valid", "without": result.without, "tried": tried}
        return self._completed(expert), {"chosen_by": "nothing: there is no valid split"}

    def _given(self, expert: Expert) -> Weight | None:
        """The weight that the settings give, if they leave nothing open."""
        strength = self.strength.get(expert.name)
        sharpness = self.sharpness.get(expert.name)
        if strength is None:
            return None
        if isinstance(expert, DenseExpert):
            return Weight(strength)
        return None if sharpness is None else Weight(strength, sharpness)

    def _completed(self, expert: Expert) -> Weight:
        """The weight that the settings give, with defaults for what they leave open."""
        default = default_weight(expert)
        strength = self.strength.get(expert.name, default.strength)
        if isinstance(expert, DenseExpert):
            return Weight(strength)
        return Weight(strength, self.sharpness.get(expert.name, default.sharpness))

    def check_experts(self, sparse: Mapping[str, bool]) -> None:
        for setting in ("strength", "sharpness"):
            for name in getattr(self, setting):
                if name not in sparse:
                    raise ValueError(
                        f"mixture.{setting}.{name}: the experiment has no such expert; it has "
                        f"{', '.join(sparse)}"
                    )
        for name in self.sharpness:
            if not sparse[name]:
                raise ValueError(
                    f"mixture.sharpness.{name}: this expert is dense and has no sharpness; set "
                    f"mixture.strength.{name} instead"
                )

    def unpacked(self, packed: Packed, experts: Sequence[Expert], graph: Graph) -> Sum:
        return Sum.unpacked(packed, experts, graph)


def contribution(expert: Expert, weight: Weight, value: float) -> float:
    """What a score, or the odds of a sparse expert, add to a sum."""
    if isinstance(expert, DenseExpert):
        return weight.strength * value
    return weight.strength * float(np.log1p(weight.sharpness * value))


def default_weight(expert: Expert) -> Weight:
    """The weight of an expert without facts to choose it on."""
    return DEFAULT_SPARSE if isinstance(expert, SparseExpert) else DEFAULT_DENSE


def packed_weights(weights: Mapping[str, Weight]) -> Float[Tensor, "E 2"]:
    """Weights as a tensor for a file."""
    rows = [[weight.strength, weight.sharpness] for weight in weights.values()]
    return torch.tensor(rows, dtype=torch.float64)


def unpacked_weights(packed: Packed, experts: Sequence[Expert]) -> dict[str, Weight]:
    """The weights of these experts in a packed mixture.

    Raises:
        ValueError: they are of other experts, or wrong.
    """
    names, wanted = packed_experts(packed), [expert.name for expert in experts]
    if names != wanted:
        raise ValueError(f"has weights of {names!r}; the run has the experts {wanted!r}")
    weights = {name: tensor for name, tensor in packed[0].items() if name == "weights"}
    check_tensors(weights, {"weights": Field(torch.float64, (len(names), 2), low=0.0)})
    rows = weights["weights"].tolist()
    return {name: Weight(*row) for name, row in zip(names, rows, strict=True)}
