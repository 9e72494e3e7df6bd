"""The arithmetic of numbers by attribute: scaled columns, and quantile bins as tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

# By attribute the entities that have it, and their numbers in float64.
Columns = Mapping[str, tuple[Sequence[int], Float[Tensor, " n"]]]


@dataclass(frozen=True)
class Scale:
    """How the numbers of one attribute become columns, as some numbers set it.

    Attributes:
        edges: quantiles between which the piecewise linear encoding lies; none without bins.
    """

    middle: float
    spread: float
    edges: tuple[float, ...] = ()

    @staticmethod
    def of(numbers: Float[Tensor, " n"], bins: int = 0) -> Scale:
        """That of some numbers in float64; see `scaled`."""
        low, middle, high = numbers.quantile(torch.tensor([0.25, 0.5, 0.75]).double())
        spread = float(high - low) or float(numbers.std(correction=0)) or 1.0
        if not bins:
            return Scale(float(middle), spread)
        edges = numbers.quantile(torch.linspace(0, 1, bins + 1).double())
        return Scale(float(middle), spread, tuple(edges.tolist()))

    def __call__(self, numbers: Float[Tensor, " n"]) -> Float[Tensor, "n W"]:
        """The columns of numbers in float64."""
        columns = ((numbers - self.middle) / self.spread).asinh()
        columns = torch.stack([columns, torch.ones_like(numbers)], 1)
        if not self.edges:
            return columns
        edges = torch.tensor(self.edges, dtype=torch.float64)
        # Equal quantiles make an empty bin, which is a step from 0 to 1.
        lengths = edges.diff().clamp_min(1e-12)
        filled = ((numbers.unsqueeze(1) - edges[:-1]) / lengths).clamp(0, 1)
        return torch.cat([columns, filled], 1)


def scaled(numbers: Float[Tensor, " n"], bins: int = 0) -> Float[Tensor, "n W"]:
    """The columns of one attribute, for the entities that have it: W = 2 + bins.

    The first is centred on the median, divided by the interquartile range (by the deviation where
    that is 0, by 1 where both are) and squeezed by asinh, so that outliers keep their order. The
    second is 1 and says that the number is there. Then follow the columns of the piecewise linear
    encoding between quantiles (Gorishniy et al., NeurIPS 2022).

    Args:
        numbers: in float64.
    """
    return Scale.of(numbers, bins)(numbers)


def kept_scales(columns: Columns, bins: int) -> str:
    """The scale of each attribute as a line of JSON, by which new numbers become columns."""
    return json.dumps({name: asdict(Scale.of(own, bins)) for name, (_, own) in columns.items()})


def read_scales(text: str) -> dict[str, Scale]:
    """What `kept_scales` wrote, in the order of the columns."""
    found: dict[str, Any] = json.loads(text)
    return {
        name: Scale(own["middle"], own["spread"], tuple(own["edges"]))
        for name, own in found.items()
    }


def bin_edges(numbers: Float[Tensor, " n"], bins: int) -> Float[Tensor, " e"]:
    """Where one bin ends and the next begins; equal quantiles make fewer bins."""
    inner = torch.linspace(0, 1, bins + 1).double()[1:-1]
    edges: Float[Tensor, " e"] = torch.unique(numbers.quantile(inner))
    return edges


def kept_edges(columns: Columns, bins: int) -> str:
    """The edges of each attribute's bins as a line of JSON, by which new numbers become tokens."""
    return json.dumps({name: bin_edges(own, bins).tolist() for name, (_, own) in columns.items()})


def bin_of(attribute: str, number: float, edges: Sequence[float]) -> str:
    """The token of a number."""
    place = torch.bucketize(
        torch.tensor(number, dtype=torch.float64),
        torch.tensor(edges, dtype=torch.float64),
        right=True,
    )
    return f"{attribute}#{int(place)}"


def places(numbers: Float[Tensor, " n"], bins: int) -> Int[Tensor, " n"]:
    """In which of the bins between quantiles each number lies; equal quantiles make fewer bins."""
    return torch.bucketize(numbers, bin_edges(numbers, bins), right=True)


def bin_sets(columns: Columns, bins: int) -> dict[int, list[str]]:
    """For each entity a token ``attribute#bin`` an attribute that it has."""
    sets: dict[int, list[str]] = {}
    for attribute, (entities, numbers) in columns.items():
        for entity, place in zip(entities, places(numbers, bins).tolist(), strict=True):
            sets.setdefault(entity, []).append(f"{attribute}#{place}")
    return sets
