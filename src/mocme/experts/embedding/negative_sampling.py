"""Which candidates a question is trained against: node ids only, no score is known here."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from mocme.core.registry import Configurable


@dataclass(frozen=True)
class Candidates:
    """Candidates of a step, shared by the questions of one class.

    Attributes:
        nodes: a slice of the table, or ids in ascending order.
        excluded: places among them that are no candidates.
        total: how many candidates they stand for (more than they are, where they are a sample).
        barred: ids of the class's nodes that are no candidates at all, in ascending order.
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
        self, span: tuple[int, int], excluded: Tensor, generator: torch.Generator
    ) -> Candidates:
        """Candidates among the nodes of a span, less the excluded ones."""


class AllEntities(NegativeSampling):
    """Every candidate of the class."""

    def __init__(self) -> None:
        pass

    def draw(
        self, span: tuple[int, int], excluded: Tensor, generator: torch.Generator
    ) -> Candidates:
        first, stop = span
        total = stop - first - len(excluded)
        return Candidates(slice(first, stop), excluded - first, total, excluded)


class UniformSampling(NegativeSampling):
    """One uniform pool of `size` candidates a step, drawn without replacement."""

    def __init__(self, *, size: int = 256) -> None:
        if size < 1:
            raise ValueError("size must be at least 1")
        self.size = size

    def draw(
        self, span: tuple[int, int], excluded: Tensor, generator: torch.Generator
    ) -> Candidates:
        first, stop = span
        allowed = torch.ones(stop - first, dtype=torch.bool)
        allowed[excluded.cpu() - first] = False
        ids = allowed.nonzero().flatten()
        chosen = torch.randperm(len(ids), generator=generator)[: self.size]
        nodes = ids[chosen].sort().values + first
        none = torch.empty(0, dtype=torch.int64, device=excluded.device)
        return Candidates(nodes.to(excluded.device), none, len(ids), excluded)


NegativeSampling.kinds = (AllEntities, UniformSampling)
