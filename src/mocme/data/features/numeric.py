"""Turn numbers by attribute into scaled columns, or into quantile bins as tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

# By attribute: the entities that have it, and their numbers in float64.
Columns = Mapping[str, tuple[Sequence[int], Float[Tensor, " n"]]]


@dataclass(frozen=True)
class Scale:
    """The parameters that turn the numbers of one attribute into columns, fitted to numbers.

    Attributes:
        middle, spread: median and interquartile range, see `scaled`.
        edges: the quantiles of the piecewise linear encoding; empty without bins.
    """

    middle: float
    spread: float
    edges: tuple[float, ...] = ()

    @staticmethod
    def of(numbers: Float[Tensor, " n"], bins: int = 0) -> Scale:
        """Fit the parameters to numbers in float64."""
        low, middle, high = numbers.quantile(torch.tensor([0.25, 0.5, 0.75]).double())
        spread = float(high - low) or float(numbers.std(correction=0)) or 1.0
        if not bins:
            return Scale(float(middle), spread)
        edges = numbers.quantile(torch.linspace(0, 1, bins + 1).double())
        return Scale(float(middle), spread, tuple(edges.tolist()))

    def __call__(self, numbers: Float[Tensor, " n"]) -> Float[Tensor, "n W"]:
        """Return the columns of numbers in float64; W is 2 plus the number of bins."""
        columns = ((numbers - self.middle) / self.spread).asinh()
        columns = torch.stack([columns, torch.ones_like(numbers)], 1)
        if not self.edges:
            return columns
        edges = torch.tensor(self.edges, dtype=torch.float64)
        # Equal quantiles make a bin of length 0, whose column is a step from 0 to 1.
        lengths = edges.diff().clamp_min(1e-12)
        filled = ((numbers.unsqueeze(1) - edges[:-1]) / lengths).clamp(0, 1)
        return torch.cat([columns, filled], 1)


def scaled(numbers: Float[Tensor, " n"], bins: int = 0) -> Float[Tensor, "n W"]:
    """Return the columns of one attribute, for the entities that have it: W = 2 + bins.

    The first column is centred on the median, divided by the interquartile range (by the standard
    deviation if that is 0, by 1 if both are) and compressed by asinh, which keeps the order of
    outliers. The second column is 1: the entity has the attribute. The others are the piecewise
    linear encoding between quantiles (Gorishniy et al., NeurIPS 2022).

    Args:
        numbers: n numbers in float64.
    """
    return Scale.of(numbers, bins)(numbers)


def kept_scales(columns: Columns, bins: int) -> str:
    """Return the `Scale` of each attribute as JSON, to turn new numbers into columns."""
    scales = {name: asdict(Scale.of(numbers, bins)) for name, (_, numbers) in columns.items()}
    return json.dumps(scales)


def read_scales(text: str) -> dict[str, Scale]:
    """Read what `kept_scales` wrote, in the order of the columns."""
    scales: dict[str, Any] = json.loads(text)
    return {
        name: Scale(scale["middle"], scale["spread"], tuple(scale["edges"]))
        for name, scale in scales.items()
    }


def bin_edges(numbers: Float[Tensor, " n"], bins: int) -> Float[Tensor, " e"]:
    """Return the edges between quantile bins; equal quantiles make fewer bins."""
    inner = torch.linspace(0, 1, bins + 1).double()[1:-1]
    edges: Float[Tensor, " e"] = torch.unique(numbers.quantile(inner))
    return edges


def kept_edges(columns: Columns, bins: int) -> str:
    """Return the bin edges of each attribute as JSON, to turn new numbers into tokens."""
    edges = {name: bin_edges(numbers, bins).tolist() for name, (_, numbers) in columns.items()}
    return json.dumps(edges)


def bin_of(attribute: str, number: float, edges: Sequence[float]) -> str:
    """Return the token of a number."""
    index = torch.bucketize(
        torch.tensor(number, dtype=torch.float64),
        torch.tensor(edges, dtype=torch.float64),
        right=True,
    )
    return f"{attribute}#{int(index)}"


def bin_indices(numbers: Float[Tensor, " n"], bins: int) -> Int[Tensor, " n"]:
    """Return the index of the quantile bin of each number."""
    return torch.bucketize(numbers, bin_edges(numbers, bins), right=True)


def bin_sets(columns: Columns, bins: int) -> dict[int, list[str]]:
    """Return one token ``attribute#bin`` per entity and attribute."""
    sets: dict[int, list[str]] = {}
    for attribute, (entities, numbers) in columns.items():
        for entity, index in zip(entities, bin_indices(numbers, bins).tolist(), strict=True):
            sets.setdefault(entity, []).append(f"{attribute}#{index}")
    return sets
