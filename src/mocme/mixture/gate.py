"""A learned mixture that weighs the experts by the query: complementary fusion over experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mocme.data.graph import Graph
from mocme.experts.base import Expert, SparseExpert
from mocme.mixture.held_out import Groups
from mocme.mixture.learned import PoolModel
from mocme.mixture.learned_fit import LearnedSettings
from mocme.mixture.pool import CONTEXT, feature_names
from mocme.storage.tensor_schema import Field, check_tensors

# Scores are cut here: float32 tells apart what lies within.
LARGEST = 100.0
# What is told of a query, beside the experts' own certainty.
OF_QUERY = ("head_degree", "known", "facts", "inverse")


@final
@dataclass(frozen=True, eq=False)
class Gate(PoolModel):
    """z = sum over experts e of w_e(query) strength_e value_e(candidate).

    The weights are a softmax over the experts that speak:
    relevance_e + complementarity * complementarity_e, with relevance_e linear in the relation, in
    how certain e is (the entropy of its answer, or how many candidates it reaches) and in what is
    known of the query.

    Attributes:
        value, certainty, overlap: columns of the features that hold e's value, its certainty and
            its complementarity; E of each.
        speaks: whether e is sparse, and silent where it reaches no candidate.
        of_query: columns that tell of the query.
        tensors: the parameters, as `fields` describes them.
    """

    value: Sequence[int]
    certainty: Sequence[int]
    overlap: Sequence[int]
    sparse: Bool[Tensor, " E"]
    of_query: Sequence[int]
    tensors: Mapping[str, Tensor]

    @staticmethod
    def of(experts: Sequence[Expert], tensors: Mapping[str, Tensor]) -> Gate:
        """The gate over the features of these experts."""
        names = feature_names(experts)
        sparse = [isinstance(expert, SparseExpert) for expert in experts]

        def columns(of_dense: str, of_sparse: str) -> list[int]:
            return [
                names.index(f"{expert.name}: {of_sparse if is_sparse else of_dense}")
                for expert, is_sparse in zip(experts, sparse, strict=True)
            ]

        return Gate(
            columns("log_share", "gain"),
            columns("entropy", "reached"),
            columns("complementarity", "complementarity"),
            torch.tensor(sparse),
            [len(names) - len(CONTEXT) + CONTEXT.index(name) for name in OF_QUERY],
            tensors,
        )

    @staticmethod
    def fields(count: int, relations: int) -> dict[str, Field]:
        """The parameters of E experts and directed relations.

        ``log_strength`` and ``bias`` are of each expert, ``by_relation`` is added to the bias,
        ``certainty`` and ``of_query`` are slopes in standardised features, whose means and
        deviations are ``mean`` and ``deviation``.
        """
        told = 2 * count + len(OF_QUERY)

        def bounded(*shape: int) -> Field:
            return Field(torch.float64, shape, low=-1e3, high=1e3)

        return {
            "log_strength": Field(torch.float64, (count,), low=-20.0, high=20.0),
            "bias": bounded(count),
            "by_relation": bounded(relations, count),
            "certainty": bounded(count),
            "of_query": bounded(len(OF_QUERY), count),
            "complementarity": bounded(1),
            "mean": Field(torch.float64, (told,)),
            "deviation": Field(torch.float64, (told,), low=1e-9),
        }

    def __call__(
        self, features: Float[np.ndarray, "n F"], relation: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        if not len(features):
            return np.zeros(0)
        with torch.no_grad():
            scores = self.scores(*self.read(features), torch.from_numpy(relation))
        return scores.clamp(-LARGEST, LARGEST).numpy()

    def read(
        self, features: Float[np.ndarray, "n F"]
    ) -> tuple[Float[Tensor, "n E"], Float[Tensor, "n T"], Bool[Tensor, "n E"]]:
        """Values of the experts, what decides their weights, and which of them speak."""
        value = torch.from_numpy(features[:, self.value].astype(np.float64))
        certainty = torch.from_numpy(features[:, self.certainty].astype(np.float64))
        told = features[:, [*self.overlap, *self.of_query]].astype(np.float64)
        speaks = ~self.sparse | (certainty > 0)
        return value, torch.cat([certainty, torch.from_numpy(told)], 1), speaks

    def scores(
        self,
        value: Float[Tensor, "n E"],
        told: Float[Tensor, "n T"],
        speaks: Bool[Tensor, "n E"],
        relation: Int[Tensor, " n"],
    ) -> Float[Tensor, " n"]:
        """Z of candidates."""
        own, count = self.tensors, value.shape[1]
        told = (told - own["mean"]) / own["deviation"]
        certainty, overlap, of_query = told.split([count, count, len(OF_QUERY)], 1)
        weight = own["bias"] + own["by_relation"][relation] + certainty * own["certainty"]
        weight = weight + of_query @ own["of_query"] + own["complementarity"] * overlap
        # Where nobody speaks, all values are 0.
        masked = weight.masked_fill(~speaks & speaks.any(1, keepdim=True), -torch.inf)
        total: Tensor = (masked.softmax(1) * own["log_strength"].exp() * value).sum(1)
        return total

    @property
    def least(self) -> float:
        return -LARGEST

    def scaled(self, factor: float) -> Gate:
        moved = self.tensors["log_strength"] + float(np.log(factor))
        return replace(self, tensors={**self.tensors, "log_strength": moved.clamp(-20.0, 20.0)})

    def packed(self) -> dict[str, Tensor]:
        return dict(self.tensors)


@final
@dataclass(frozen=True, kw_only=True)
class GateSettings(LearnedSettings):
    """A learned mixture that weighs the experts by the query.

    Args:
        steps: of Adam over all groups.
        trials: steps of the mixtures that are compared while experts join.
        learning_rate: of Adam.
        shrinkage: factor of the mean square of the weights that a relation has of its own.
    """

    steps: int = 150
    trials: int = 50
    learning_rate: float = 0.05
    shrinkage: float = 1.0

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        **LearnedSettings.bounds,
        "steps": (1, 100_000),
        "trials": (1, 100_000),
        "learning_rate": (1e-6, 10.0),
        "shrinkage": (0.0, 1e6),
    }

    def fitted_model(
        self, groups: Groups, chosen: Bool[np.ndarray, " G"], experts: Sequence[Expert], trial: bool
    ) -> Gate:
        kept = groups.learnable(chosen, self.negatives, self.seed)
        relations = groups.num_relations
        fields = Gate.fields(len(experts), relations)
        start = Gate.of(experts, _initial(fields))
        if not len(kept):  # no answer is in its pool
            return start
        rows, place = np.unique(kept.cell, return_inverse=True)
        value, told, speaks = start.read(groups.features[rows])
        relation = torch.from_numpy(groups.relation[rows])
        deviation = told.std(0, correction=0)
        scale = {"mean": told.mean(0), "deviation": torch.where(deviation > 1e-9, deviation, 1.0)}
        learned = {
            name: tensor.requires_grad_()
            for name, tensor in start.tensors.items()
            if name not in scale
        }
        gate = replace(start, tensors={**learned, **scale})
        cells, valid = _rectangle(place, kept.start)
        answer = torch.from_numpy(kept.answer - kept.start[:-1])
        optimizer = torch.optim.Adam(learned.values(), lr=self.learning_rate)
        for _ in range(self.trials if trial else self.steps):
            optimizer.zero_grad()
            scores = gate.scores(value, told, speaks, relation)[cells]
            shares = scores.masked_fill(~valid, -torch.inf).log_softmax(1)
            likelihood = shares.gather(1, answer[:, None]).mean()
            own = learned["by_relation"].square().sum() / len(kept)
            (self.shrinkage * own - likelihood).backward()
            optimizer.step()
            with torch.no_grad():
                for name, tensor in learned.items():
                    tensor.clamp_(fields[name].low, fields[name].high)
        return replace(gate, tensors={n: t.detach() for n, t in gate.tensors.items()})

    def unpacked_model(
        self, tensors: Mapping[str, Tensor], experts: Sequence[Expert], graph: Graph
    ) -> Gate:
        check_tensors(tensors, Gate.fields(len(experts), 2 * graph.num_relations))
        return Gate.of(experts, tensors)


def _initial(fields: Mapping[str, Field]) -> dict[str, Tensor]:
    """Parameters with which all experts count the same."""
    tensors = {
        name: torch.zeros(field.shape, dtype=torch.float64)  # type: ignore[arg-type]
        for name, field in fields.items()
    }
    # A mean over E experts is as sharp as their sum.
    tensors["log_strength"] += float(np.log(len(tensors["bias"])))
    tensors["deviation"] += 1.0
    return tensors


def _rectangle(
    place: Int[np.ndarray, " m"], start: Int[np.ndarray, " G1"]
) -> tuple[Int[Tensor, "G w"], Bool[Tensor, "G w"]]:
    """Groups as the rows of a matrix, filled with the first candidate; and what is no filling."""
    size = np.diff(start)
    offset = np.arange(int(size.max()))
    valid = offset[None] < size[:, None]
    cells = np.where(valid, start[:-1, None] + offset[None], start[:-1, None])
    return torch.from_numpy(place[cells]), torch.from_numpy(valid)
