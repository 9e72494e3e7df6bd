"""Negative sampling: the candidates that a question is trained against, as node ids.

No score is known here. Weights that depend on scores are in `negative_weighting`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from mocme.core.registry import Configurable


@final
@dataclass(frozen=True)
class Candidates:
    """Candidates of a step, shared by its questions of one class (entities, or one vocabulary).

    Attributes:
        nodes: a slice of the table, or ids in ascending order.
        excluded: positions among `nodes` that are no candidates.
        total: number of candidates that they represent; of a sample, the size of the population.
        barred: ids of the class's nodes that are never candidates, in ascending order.
    """

    nodes: slice | Int[Tensor, " C"]
    excluded: Int[Tensor, " x"]
    total: int
    barred: Int[Tensor, " y"]

    def __len__(self) -> int:
        if isinstance(self.nodes, slice):
            return int(self.nodes.stop - self.nodes.start)
        return len(self.nodes)

    @property
    def sampled(self) -> bool:
        return not isinstance(self.nodes, slice)


class NegativeSampling(Configurable):
    """A choice of candidates."""

    @abstractmethod
    def draw(
        self, span: tuple[int, int], excluded: Int[Tensor, " y"], generator: torch.Generator
    ) -> Candidates:
        """Choose candidates of a class.

        Args:
            span: first node of the class, and the node after its last.
            excluded: ids of nodes within the span that are no candidates, in ascending order.
            generator: on the CPU.
        """


@final
@dataclass(frozen=True, kw_only=True)
class AllEntities(NegativeSampling):
    """Every candidate of the class."""

    def draw(
        self, span: tuple[int, int], excluded: Int[Tensor, " y"], generator: torch.Generator
    ) -> Candidates:
        first, stop = span
        total = stop - first - len(excluded)
        # A slice, so that blocks of vectors are views: excluded nodes are scored and masked, which
        # is cheaper than gathering the others.
        return Candidates(slice(first, stop), excluded - first, total, excluded)


@final
@dataclass(frozen=True, kw_only=True)
class UniformSampling(NegativeSampling):
    """One uniform sample of `size` candidates a step, without replacement.

    All questions of the step share it, so that their scores are one matrix product.
    """

    size: int = 256

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, not {self.size}")

    def draw(
        self, span: tuple[int, int], excluded: Int[Tensor, " y"], generator: torch.Generator
    ) -> Candidates:
        first, stop = span
        # On the CPU, so that a seed gives the same sample on every device.
        allowed = torch.ones(stop - first, dtype=torch.bool)
        allowed[excluded.cpu() - first] = False
        offsets = allowed.nonzero().flatten()
        chosen = torch.randperm(len(offsets), generator=generator)[: self.size]
        # Ascending, so that the columns of answers are found by binary search.
        nodes = offsets[chosen].sort().values + first
        none = torch.empty(0, dtype=torch.int64, device=excluded.device)
        return Candidates(nodes.to(excluded.device), none, len(offsets), excluded)


NegativeSampling.kinds = (AllEntities, UniformSampling)
