"""How neighbours are fitted: the kind ``neighbours`` of experts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch

from mocme.core.registry import ConfigError
from mocme.data.modality import Features, Form
from mocme.experts.base import ExpertSettings, FitTask, Packed
from mocme.experts.neighbours.expert import NeighbourExpert
from mocme.experts.neighbours.model import NeighbourModel, facts_digest, reciprocal_ranks
from mocme.storage.tensor_schema import Field, check_tensors

# Directed training facts that choose the sharpness.
SAMPLE = 2000
SHARPNESS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@final
@dataclass(frozen=True, kw_only=True)
class Neighbours(ExpertSettings):
    """The answers of entities whose vectors or tokens are alike.

    Args:
        k: neighbours of a query: the most similar entities that have its relation.
        sharpness: a neighbour's weight is proportional to exp(sharpness * similarity); chosen on
            training facts by default.
        seed: of the sample of training facts that chooses `sharpness`.
    """

    usable: ClassVar[tuple[Form, ...]] = ("dense", "tokens")
    sparse: ClassVar[bool] = True

    k: int = 32
    sharpness: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, not {self.k}")
        if self.sharpness is not None and not 0 <= self.sharpness < math.inf:
            raise ValueError(f"sharpness must be finite and at least 0, not {self.sharpness}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be at least 0 and fit in 63 bits, not {self.seed}")

    def features_of(self, features: Features, name: str) -> Features:
        part = super().features_of(features, name)
        if not part.names:
            raise ConfigError(
                f"experts.{name}.modalities: neighbours compare vectors or tokens, and there is no "
                f"such modality for this expert to read; declare one in the graph and name it "
                f"here, or remove the expert"
            )
        return part

    def fit(self, task: FitTask) -> tuple[NeighbourExpert, dict[str, Any]]:
        """Choose the sharpness by the mean reciprocal rank of training facts, left out singly."""
        features = self.features_of(task.features, task.name)
        model = NeighbourModel.of(task.graph, features, self.k)
        record: dict[str, Any] = {"modalities": features.names}
        sharpness = self.sharpness
        if sharpness is None:
            facts = task.graph.directed("train")
            generator = torch.Generator().manual_seed(self.seed)
            facts = facts[torch.randperm(len(facts), generator=generator)[:SAMPLE]]
            progress = task.monitor.stage(task.name)
            tried = reciprocal_ranks(model, facts, SHARPNESS, progress).tolist()
            # Of equally good ones, the first and least sharp.
            sharpness = SHARPNESS[tried.index(max(tried))]
            record["facts"] = len(facts)
            record["tried"] = {
                f"{value:g}": mrr for value, mrr in zip(SHARPNESS, tried, strict=True)
            }
        expert = self._expert(task, model, features, sharpness)
        return expert, {**record, "sharpness": sharpness}

    def unpacked(self, packed: Packed, task: FitTask) -> NeighbourExpert:
        tensors, metadata = packed
        check_tensors(tensors, {"sharpness": Field(torch.float64, (1,), low=0.0)})
        features = self.features_of(task.features, task.name)
        model = NeighbourModel.of(task.graph, features, self.k)
        expert = self._expert(task, model, features, float(tensors["sharpness"]))
        for key, digest in expert.digests.items():
            if metadata.get(key) != digest:
                raise ValueError(f"{task.name}: was fitted on other {key}; fit it again on these")
        return expert

    def _expert(
        self, task: FitTask, model: NeighbourModel, features: Features, sharpness: float
    ) -> NeighbourExpert:
        digests = {"facts": facts_digest(task.graph), "modalities": features.digest()}
        return NeighbourExpert(task.name, model, sharpness, task.graph.entities, digests)
