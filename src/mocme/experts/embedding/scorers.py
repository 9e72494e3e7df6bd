"""Scorers: `query` maps (head, relation) to a vector, `compare` scores candidates against it.

A head query is a tail query of the inverse relation, so one direction is enough. Vectors with
complex entries are stored as [real | imaginary].
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from itertools import product
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mocme.core.registry import Configurable

# Elements of a block of differences by type of device. A block of this size stays in the cache of a
# CPU, which makes it ten times as fast as all differences at once (benchmarks/rotate_distance.py).
BLOCK = {"cpu": 1 << 18, "cuda": 1 << 24}

# Added under the root, whose gradient at 0 is infinite; far below any trained squared modulus.
SMALL = 1e-12

# Up to this many queries, candidates @ query.T is faster than query @ candidates.T: up to twice as
# fast for 15,000 candidates of dimension 256 or 1,000 and 2 to 8 queries (MKL, AVX2).
FEW = 8


def moduli(vectors: Float[Tensor, "... D"]) -> Float[Tensor, "... M"]:
    """Absolute values of complex entries, [real | imaginary]."""
    real, imaginary = vectors.chunk(2, -1)
    return (real * real + imaginary * imaginary + SMALL).sqrt()


class Scorer(nn.Module, Configurable):
    """Scores triples of vectors, in two steps: `query`, then `compare`.

    A scorer owns its parameters: a subclass allocates them in its constructor and fills them in
    `reset_parameters`. Every subclass in this module is a kind.

    Args:
        embedding_dim: D, the dimension of entity vectors.

    Raises:
        ValueError: the scorer cannot use this dimension.

    Attributes:
        relation_dim: E, the dimension of relation vectors.
        by_product: `compare` is a dot product, for which training and ranking have fast paths.
        complex_entries, complex_relations: vectors are [real | imaginary] (for moduli).
    """

    trial = (2,)
    by_product: ClassVar[bool] = True
    complex_entries: ClassVar[bool] = False
    complex_relations: ClassVar[bool] = False

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        if self.complex_entries and embedding_dim % 2:
            raise ValueError(f"{self.kind_name()} needs an even embedding_dim, not {embedding_dim}")
        self.embedding_dim = embedding_dim

    @property
    def relation_dim(self) -> int:
        """E, the dimension of relation vectors."""
        return self.embedding_dim

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the scorer's own parameters; it has none by default."""

    @abstractmethod
    def query(
        self, head: Float[Tensor, "B D"], relation: Float[Tensor, "B E"]
    ) -> Float[Tensor, "B D"]:
        """The vector that a right answer should match."""

    def compare(
        self, query: Float[Tensor, "B D"], candidates: Float[Tensor, "*B C D"]
    ) -> Float[Tensor, "B C"]:
        """Scores of candidates, either shared by all queries (C, D) or one set each (B, C, D)."""
        if candidates.ndim == 2:
            if len(query) <= FEW:
                return (candidates @ query.T).T.contiguous()
            return query @ candidates.T
        return torch.einsum("bd,bcd->bc", query, candidates)

    def invert(self, relation: Float[Tensor, "R E"]) -> Float[Tensor, "R E"]:
        """The vector of the inverse relation, where the relation's own vector determines it.

        Raises:
            ValueError: it does not; use ``inverse = "free"``.
        """
        raise ValueError(f'{self.kind_name()} has no tied inverse; set inverse = "free"')

    def moduli(self, vectors: Float[Tensor, "... D"]) -> Float[Tensor, "... M"]:
        """Absolute values of the entries; moduli where entries are complex."""
        return moduli(vectors) if self.complex_entries else vectors.abs()


class DistMult(Scorer):
    """<h, r, t> (Yang et al., ICLR 2015)."""

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        return head * relation

    def invert(self, relation: Tensor) -> Tensor:
        return relation


class ComplEx(Scorer):
    """Re<h, r, conj(t)> (Trouillon et al., ICML 2016)."""

    complex_entries = True
    complex_relations = True

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        head_re, head_im = head.chunk(2, -1)
        rel_re, rel_im = relation.chunk(2, -1)
        real = head_re * rel_re - head_im * rel_im
        return torch.cat([real, head_re * rel_im + head_im * rel_re], -1)

    def invert(self, relation: Tensor) -> Tensor:
        real, imaginary = relation.chunk(2, -1)
        return torch.cat([real, -imaginary], -1)


class TuckER(Scorer):
    """W x1 h x2 r x3 t with one core tensor W (Balazevic et al., EMNLP 2019).

    The core maps a relation's vector to a D x D matrix.

    Args:
        embedding_dim: D, the dimension of entity vectors.
        relation_dim: E, the dimension of relation vectors.
    """

    def __init__(self, embedding_dim: int, *, relation_dim: int = 64) -> None:
        super().__init__(embedding_dim)
        if relation_dim < 1:
            raise ValueError("relation_dim must be at least 1")
        self.core = nn.Parameter(torch.empty(relation_dim, embedding_dim, embedding_dim))

    @property
    def relation_dim(self) -> int:
        return len(self.core)

    def reset_parameters(self, generator: torch.Generator) -> None:
        drawn = torch.randn(self.core.shape, generator=generator)
        with torch.no_grad():
            self.core.copy_(drawn / self.embedding_dim**0.5)

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        rank, dim, _ = self.core.shape
        # (B, D) x (D, rank * D): one product for all relations, then a weighted sum over rank.
        mixed = head @ self.core.transpose(0, 1).reshape(dim, rank * dim)
        return torch.einsum("brd,br->bd", mixed.view(-1, rank, dim), relation)


class TransE(Scorer):
    """-|h + r - t| (Bordes et al., NeurIPS 2013), Euclidean, by one matrix product."""

    by_product = False

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        return head + relation

    def compare(self, query: Tensor, candidates: Tensor) -> Tensor:
        squared = (query * query).sum(-1, keepdim=True) + (candidates * candidates).sum(-1)
        if candidates.ndim == 2:
            product = query @ candidates.T
        else:
            product = torch.einsum("bd,bcd->bc", query, candidates)
        # Rounding can make it negative; below 1e-9 the gradient of the root diverges.
        return -(squared - 2 * product).clamp_min(1e-9).sqrt()

    def invert(self, relation: Tensor) -> Tensor:
        return -relation


class RotatE(Scorer):
    """-sum_j |h_j e^(i r_j) - t_j| (Sun et al., ICLR 2019); a relation holds angles."""

    by_product = False
    complex_entries = True

    @property
    def relation_dim(self) -> int:
        return self.embedding_dim // 2

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        real, imaginary = head.chunk(2, -1)
        cos, sin = relation.cos(), relation.sin()
        return torch.cat([real * cos - imaginary * sin, real * sin + imaginary * cos], -1)

    def compare(self, query: Tensor, candidates: Tensor) -> Tensor:
        scores: Tensor = _RotatedDistance.apply(query, candidates)
        return scores

    def invert(self, relation: Tensor) -> Tensor:
        return -relation


class _RotatedDistance(torch.autograd.Function):
    """Minus the sum of moduli of differences, (B, D) against (C, D) or (B, C, D).

    All differences at once would take (B, C, D), and autograd would keep several tensors of that
    size. The forward pass computes them block by block, so that a block stays in the cache, and the
    backward pass computes them again instead of storing them.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, candidates: Tensor) -> Tensor:
        ctx.save_for_backward(query, candidates)
        scores = query.new_empty(len(query), candidates.shape[-2])
        for rows, columns, real, imaginary in _differences(query, candidates):
            torch.sum(_modulus_(real, imaginary), -1, out=scores[rows, columns])
        return scores.neg_()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        query, candidates = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is needed, which happens for few queries
            return _differentiable_gradients(query, candidates, gradient)
        by_query, by_candidate = torch.zeros_like(query), torch.zeros_like(candidates)
        half = query.shape[1] // 2
        for rows, columns, real, imaginary in _differences(query, candidates):
            # d(-|z|)/dz = -z / |z|, times the upstream gradient of each (query, candidate) pair.
            factor = _modulus_(real.clone(), imaginary).reciprocal_()
            factor *= gradient[rows, columns].unsqueeze(-1)
            for part, entries in ((real, slice(half)), (imaginary, slice(half, None))):
                part *= factor
                by_query[rows, entries] -= part.sum(1)
                if candidates.ndim == 2:
                    by_candidate[columns, entries] += part.sum(0)
                else:
                    by_candidate[rows, columns, entries] = part
        return by_query, by_candidate


def _differences(
    query: Tensor, candidates: Tensor
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Differences block by block: rows of queries, columns of candidates, real, imaginary part."""
    count, half = candidates.shape[-2], query.shape[1] // 2
    if min(len(query), count) == 0:
        return
    pairs = BLOCK["cpu" if query.device.type == "cpu" else "cuda"] // max(1, half)
    width = min(count, max(1, pairs))
    height = min(len(query), max(1, pairs // width))
    batched = candidates if candidates.ndim == 3 else candidates.unsqueeze(0)
    buffers = [query.new_empty(height * width * half) for _ in range(2)]
    for top, left in product(range(0, len(query), height), range(0, count, width)):
        rows = slice(top, min(len(query), top + height))
        columns = slice(left, min(count, left + width))
        shape = (rows.stop - top, columns.stop - left, half)
        block = batched[rows if candidates.ndim == 3 else slice(None), columns]
        parts = []
        for buffer, entries in zip(buffers, (slice(half), slice(half, None)), strict=True):
            part = buffer[: math.prod(shape)].view(shape)
            torch.sub(query[rows, None, entries], block[..., entries], out=part)
            parts.append(part)
        yield rows, columns, parts[0], parts[1]


def _modulus_(real: Tensor, imaginary: Tensor) -> Tensor:
    """Moduli, written over the real parts."""
    return real.mul_(real).addcmul_(imaginary, imaginary).add_(SMALL).sqrt_()


def _differentiable_gradients(
    query: Tensor, candidates: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of `_RotatedDistance` as a differentiable expression."""
    difference = query.unsqueeze(1) - candidates
    slope = difference * (gradient.unsqueeze(-1) / moduli(difference)).repeat(1, 1, 2)
    return -slope.sum(1), slope.sum(0) if candidates.ndim == 2 else slope


Scorer.kinds = (ComplEx, DistMult, TuckER, TransE, RotatE)
