"""Turn numbers by attribute into scaled columns, or into quantile bins as tokens."""

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

from mocme.core.device import memory_of_machine
from mocme.core.text_formats import parse_json
from mocme.data.features.tokens import rarest_tokens
from mocme.data.modality import Tokens

# Bounds of a spread and of a number divided by it, so that the quotient is finite in float64.
TINY, HUGE = 1e-300, 1e300
# Bins of an attribute; vectors have a column for each.
MAX_BINS = 10_000

# By attribute: the entities that have it, and their numbers in float64.
Columns = Mapping[str, tuple[Sequence[int], Float[Tensor, " n"]]]


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
    """The parameters that turn the numbers of one attribute into columns, fitted to numbers.

    Attributes:
        middle, spread: median and interquartile range, see `scale_columns`.
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

    def number(self, column: float) -> float:
        """The number whose first column this is, up to the rounding of float32."""
        number = self.middle + self.spread * math.sinh(column)
        # What is 0 but for rounding is 0.
        return number if abs(number) > 1e-6 * (abs(self.middle) + self.spread) else 0.0

    def __call__(self, numbers: Float[Tensor, " n"]) -> Float[Tensor, "n W"]:
        """Return the columns of numbers in float64; W is 2 plus the number of bins."""
        quotients = ((numbers - self.middle) / max(self.spread, TINY)).clamp(-HUGE, HUGE)
        columns = quotients.asinh()
        columns = torch.stack([columns, torch.ones_like(numbers)], 1)
        if not self.edges:
            return columns
        edges = torch.tensor(self.edges, dtype=torch.float64)
        # Equal quantiles make a bin of length 0, whose column is a step from 0 to 1.
        lengths = edges.diff().clamp_min(1e-12)
        filled = ((numbers.unsqueeze(1) - edges[:-1]) / lengths).clamp(0, 1)
        return torch.cat([columns, filled], 1)


def scale_columns(numbers: Float[Tensor, " n"], bins: int = 0) -> Float[Tensor, "n W"]:
    """Return the columns of one attribute, for the entities that have it: W = 2 + bins.

    The first column is centred on the median, divided by the interquartile range (by the standard
    deviation if that is 0, by 1 if both are) and compressed by asinh, which keeps the order of
    outliers. The second column is 1: the entity has the attribute. The others are the piecewise
    linear encoding between quantiles (Gorishniy et al., NeurIPS 2022).

    Args:
        numbers: n numbers in float64.
    """
    return Scale.of(numbers, bins)(numbers)


def check_bins(bins: int, *, none: bool) -> None:
    """Check a number of bins.

    Args:
        none: whether 0, for no bins, is allowed.

    Raises:
        ValueError: it is out of range.
    """
    if not (2 <= bins <= MAX_BINS or (none and bins == 0)):
        wanted = "0 or at least 2" if none else "at least 2"
        raise ValueError(f"bins must be {wanted}, and at most {MAX_BINS:,}")


class NumberVectors:
    """Dense vectors of numbers: the columns of each attribute, side by side.

    Where an entity lacks an attribute, its columns are 0, presence included.

    Attributes:
        rows: ids of the entities that have an attribute, ascending.
        width: F, which is (2 + bins) for each attribute.

    Raises:
        ValueError: all vectors together take more than half of the machine's memory.
    """

    def __init__(self, columns: Columns, bins: int) -> None:
        self.rows = np.unique(np.concatenate([ids for ids, _ in columns.values()]))
        self.width = (2 + bins) * len(columns)
        self._each = 2 + bins
        # A small file in which each row has an attribute of its own declares a huge table.
        size, limit = len(self.rows) * self.width * 4, memory_of_machine() // 2
        if size > limit:
            raise ValueError(
                f"vectors of the numbers of {len(self.rows):,} entities in {len(columns):,} "
                f"attributes take {size / 2**30:,.1f} GiB, more than {limit / 2**30:,.1f} GiB "
                f"(half of this machine's memory); use fewer bins or attributes, or the kind bins"
            )
        # For each attribute the ids that have it, ascending, and their columns.
        self._columns: list[tuple[np.ndarray, np.ndarray]] = []
        for ids, numbers in columns.values():
            order = np.argsort(ids)
            values = scale_columns(numbers, bins).float().numpy()
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


def scales_json(columns: Columns, bins: int) -> str:
    """Return the `Scale` of each attribute as JSON, to turn new numbers into columns."""
    scales = {name: asdict(Scale.of(numbers, bins)) for name, (_, numbers) in columns.items()}
    return json.dumps(scales)


def read_scales(text: str) -> dict[str, Scale]:
    """Read what `scales_json` wrote, in the order of the columns.

    Raises:
        ValueError: it wrote something else.
    """
    scales = parse_json(text)
    if not isinstance(scales, dict):
        raise ValueError("scales are no JSON object")
    return {name: _scale(name, scale) for name, scale in scales.items()}


def check_edges(attribute: str, edges: Any) -> None:
    """Check the edges of an attribute's bins that come from a file.

    Raises:
        ValueError: they are not a list of ascending numbers.
    """
    if not isinstance(edges, list) or not all(type(edge) in (int, float) for edge in edges):
        raise ValueError(f"the edges of {attribute!r} are not a list of numbers")
    if edges != sorted(edges):
        raise ValueError(f"the edges of {attribute!r} do not ascend")


def _scale(attribute: str, scale: Any) -> Scale:
    if not isinstance(scale, dict) or set(scale) != {"middle", "spread", "edges"}:
        raise ValueError(f"the scale of {attribute!r} does not hold middle, spread and edges")
    check_edges(attribute, scale["edges"])
    middle, spread = scale["middle"], scale["spread"]
    if any(type(number) not in (int, float) for number in (middle, spread)) or spread <= 0:
        raise ValueError(f"middle and spread of {attribute!r} are not numbers, spread above 0")
    return Scale(float(middle), float(spread), tuple(map(float, scale["edges"])))


def bin_edges(numbers: Float[Tensor, " n"], bins: int) -> Float[Tensor, " e"]:
    """Return the edges between quantile bins; equal quantiles make fewer bins."""
    inner = torch.linspace(0, 1, bins + 1).double()[1:-1]
    edges: Float[Tensor, " e"] = torch.unique(numbers.quantile(inner))
    return edges


def edges_json(columns: Columns, bins: int) -> str:
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
        per_entity: recorded in the provenance (see `rarest_tokens`); None, or at least the number
            of attributes.
    """
    return rarest_tokens(
        bin_sets(columns, bins),
        num_entities,
        per_entity=per_entity,
        at_least=1,
        at_most=1.0,
        provenance={**provenance, "edges": edges_json(columns, bins)},
    )
