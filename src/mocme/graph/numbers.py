"""The arithmetic of numbers by attribute: scaled columns, and quantile bins as tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

# By attribute the entities that have it, and their numbers in float64.
Columns = Mapping[str, tuple[Sequence[int], Float[Tensor, " n"]]]


def scaled(numbers: Float[Tensor, " n"], bins: int = 0) -> Float[Tensor, "n W"]:
    """The columns of one attribute, for the entities that have it: W = 2 + bins.

    The first is centred on the median, divided by the interquartile range (by the deviation where
    that is 0, by 1 where both are) and squeezed by asinh, so that outliers keep their order. The
    second is 1 and says that the number is there. Then follow the columns of the piecewise linear
    encoding between quantiles (Gorishniy et al., NeurIPS 2022).

    Args:
        numbers: in float64.
    """
    low, middle, high = numbers.quantile(torch.tensor([0.25, 0.5, 0.75]).double())
    spread = float(high - low) or float(numbers.std(correction=0)) or 1.0
    columns = torch.stack([((numbers - middle) / spread).asinh(), torch.ones_like(numbers)], 1)
    if not bins:
        return columns
    edges = numbers.quantile(torch.linspace(0, 1, bins + 1).double())
    # Equal quantiles make an empty bin, which is a step from 0 to 1.
    lengths = edges.diff().clamp_min(1e-12)
    filled = ((numbers.unsqueeze(1) - edges[:-1]) / lengths).clamp(0, 1)
    return torch.cat([columns, filled], 1)


def places(numbers: Float[Tensor, " n"], bins: int) -> Int[Tensor, " n"]:
    """In which of the bins between quantiles each number lies; equal quantiles make fewer bins."""
    inner = torch.linspace(0, 1, bins + 1).double()[1:-1]
    edges = torch.unique(numbers.quantile(inner))
    return torch.bucketize(numbers, edges, right=True)


def bin_sets(columns: Columns, bins: int) -> dict[int, list[str]]:
    """For each entity a token ``attribute#bin`` an attribute that it has."""
    sets: dict[int, list[str]] = {}
    for attribute, (entities, numbers) in columns.items():
        for entity, place in zip(entities, places(numbers, bins).tolist(), strict=True):
            sets.setdefault(entity, []).append(f"{attribute}#{place}")
    return sets
