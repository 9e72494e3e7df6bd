"""The arithmetic of numbers by attribute: scaled columns, and quantile bins as tokens."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.features.tokens import rarest
from mocme.data.modality import Tokens

# By attribute the entities that have it, and their numbers in float64.
Columns = Mapping[str, tuple[Sequence[int], Float[Tensor, " n"]]]


def finite_number(cell: str) -> float | None:
    """The number in a cell of a table; None if the cell is not a finite number."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


class ColumnBuilder:
    """Collects numbers by attribute and entity, 16 bytes each."""

    def __init__(self) -> None:
        self._cells: dict[str, tuple[array[int], array[float]]] = {}

    def add(self, attribute: str, entity: int, number: float) -> None:
        """Add a value of an attribute of an entity."""
        entities, numbers = self._cells.setdefault(attribute, (array("q"), array("d")))
        entities.append(entity)
        numbers.append(number)

    def columns(self) -> tuple[Columns, int]:
        """All numbers by attribute, and how many of them were replaced by a later value.

        Of several values of an attribute of an entity, the last one counts. Entities are in the
        order of their first value.
        """
        columns = {name: _last_values(*cells) for name, cells in self._cells.items()}
        added = sum(len(entities) for entities, _ in self._cells.values())
        return columns, added - sum(len(entities) for entities, _ in columns.values())


def _last_values(
    entities: array[int], numbers: array[float]
) -> tuple[list[int], Float[Tensor, " n"]]:
    ids, values = np.array(entities), np.array(numbers)
    _, first = np.unique(ids, return_index=True)
    # The first index in the reversed array is that of an entity's last value.
    _, back = np.unique(ids[::-1], return_index=True)
    order = np.argsort(first)
    last = (len(ids) - 1 - back)[order]
    return ids[first[order]].tolist(), torch.from_numpy(values[last])


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


class NumberVectors:
    """Dense vectors of numbers: the columns of each attribute, side by side.

    Where an entity lacks an attribute, its columns are 0, presence included.

    Attributes:
        rows: ids of the entities that have an attribute, ascending.
        width: F, which is (2 + bins) for each attribute.
    """

    def __init__(self, columns: Columns, bins: int) -> None:
        self.rows = np.unique(np.concatenate([ids for ids, _ in columns.values()]))
        self.width = (2 + bins) * len(columns)
        self._each = 2 + bins
        # For each attribute the ids that have it, ascending, and their columns.
        self._columns: list[tuple[np.ndarray, np.ndarray]] = []
        for ids, numbers in columns.values():
            order = np.argsort(ids)
            values = scaled(numbers, bins).float().numpy()
            self._columns.append((np.array(ids)[order], values[order]))

    def block(self, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n F"]:
        """The vectors in float32 of a run of consecutive entries of `self.rows`, at least one."""
        block = np.zeros((len(rows), self.width), np.float32)
        for number, (ids, values) in enumerate(self._columns):
            first = number * self._each
            low, high = np.searchsorted(ids, [rows[0], rows[-1] + 1])
            positions = np.searchsorted(rows, ids[low:high])
            block[positions, first : first + self._each] = values[low:high]
        return block


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


def bin_tokens(
    columns: Columns,
    bins: int,
    num_entities: int,
    *,
    per_entity: int | None,
    provenance: Mapping[str, str],
) -> Tokens:
    """Numbers as tokens ``attribute#bin``, with the edges of the bins in the provenance.

    Args:
        per_entity: recorded in the provenance (see `rarest`); None, or at least the number of
            attributes.
    """
    return rarest(
        bin_sets(columns, bins),
        num_entities,
        per_entity=per_entity,
        at_least=1,
        at_most=1.0,
        provenance={**provenance, "edges": kept_edges(columns, bins)},
    )
