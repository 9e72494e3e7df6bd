"""Scorers: `query` makes a vector of (head, relation), `compare` holds it against candidates.

A head question is a tail question of the inverse relation, so one direction is enough. Vectors with
complex entries are stored as [real | imaginary].
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mocme.core.registry import Configurable

# Differences that are made at a time, by sort of device: so few stay in a processor's cache, where
# they are made ten times as fast as all at once (benchmarks/rotate_distance.py).
BLOCK = {"cpu": 1 << 18, "cuda": 1 << 24}

# The root's gradient at 0 is infinite; this is far below any trained modulus squared.
SMALL = 1e-12

# Questions up to which many candidates times few queries is faster than the product turned around:
# with 15,000 candidates of width 256 or 1,000 and 2 to 8 queries up to twice as fast (MKL, AVX2).
FEW = 8


def moduli(vectors: Float[Tensor, "... D"]) -> Float[Tensor, "... M"]:
    """Absolute values of complex entries, [real | imaginary]."""
    real, imaginary = vectors.chunk(2, -1)
    return (real * real + imaginary * imaginary + SMALL).sqrt()


class Scorer(Configurable):
    """What makes a score of vectors.

    Attributes:
        by_product: `compare` is a dot product, which training and ranking have fast paths for.
        complex_entries, complex_relations: vectors are [real | imaginary] (for moduli).
    """

    by_product = True
    complex_entries = False
    complex_relations = False

    def relation_width(self, width: int) -> int:
        """Length of a relation's vector, given that of an entity's.

        Raises:
            ValueError: the scorer cannot use this width.
        """
        if self.complex_entries and width % 2:
            raise ValueError(f"{type(self).__name__} needs an even width, not {width}")
        return width

    @abstractmethod
    def query(
        self, head: Float[Tensor, "B D"], relation: Float[Tensor, "B E"]
    ) -> Float[Tensor, "B D"]:
        """The vector that a right answer should match."""

    def compare(
        self, query: Float[Tensor, "B D"], candidates: Float[Tensor, "*B C D"]
    ) -> Float[Tensor, "B C"]:
        """Scores of candidates shared by all questions (C, D) or own to each (B, C, D)."""
        if candidates.ndim == 2:
            if len(query) <= FEW:
                return (candidates @ query.T).T.contiguous()
            return query @ candidates.T
        return torch.einsum("bd,bcd->bc", query, candidates)

    def invert(self, relation: Float[Tensor, "R E"]) -> Float[Tensor, "R E"]:
        """The vector of the inverse relation, where it follows from the relation's own.

        Raises:
            ValueError: it does not; use ``inverse = "free"``.
        """
        raise ValueError(f'{type(self).__name__} has no tied inverse; set inverse = "free"')

    def moduli(self, vectors: Float[Tensor, "... D"]) -> Float[Tensor, "... M"]:
        """Absolute values of the entries (of complex ones where they are complex)."""
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

    The core of shape (relation_width, D, D) comes with the relation table: a relation's vector is
    mixed into a matrix by it. It belongs to the model as a dense parameter; see `Model`.
    """

    def __init__(self, *, relation_width: int = 64) -> None:
        if relation_width < 1:
            raise ValueError("relation_width must be at least 1")
        self.rank = relation_width
        self.core: Tensor | None = None

    def relation_width(self, width: int) -> int:
        return self.rank

    def core_shape(self, width: int) -> tuple[int, int, int]:
        """Shape of the core tensor for entity vectors of a width."""
        return self.rank, width, width

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        assert self.core is not None
        rank, width, _ = self.core.shape
        # (B, D) x (D, rank * D): one product for all relations, then a weighted sum over rank.
        mixed = head @ self.core.transpose(0, 1).reshape(width, rank * width)
        return torch.einsum("brd,br->bd", mixed.view(-1, rank, width), relation)


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
        # Rounding can make it negative; below 1e-9 the root's gradient would run away.
        return -(squared - 2 * product).clamp_min(1e-9).sqrt()

    def invert(self, relation: Tensor) -> Tensor:
        return -relation


class RotatE(Scorer):
    """-sum_j |h_j e^(i r_j) - t_j| (Sun et al., ICLR 2019); a relation holds angles."""

    by_product = False
    complex_entries = True

    def relation_width(self, width: int) -> int:
        return super().relation_width(width) // 2

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        real, imaginary = head.chunk(2, -1)
        cos, sin = relation.cos(), relation.sin()
        return torch.cat([real * cos - imaginary * sin, real * sin + imaginary * cos], -1)

    def compare(self, query: Tensor, candidates: Tensor) -> Tensor:
        scores: Tensor = _Rotated.apply(query, candidates)
        return scores

    def invert(self, relation: Tensor) -> Tensor:
        return -relation


class _Rotated(torch.autograd.Function):
    """Minus the sum of moduli of differences, (B, D) against (C, D) or (B, C, D).

    All differences at once would be (B, C, D), and a gradient would keep several of that size. They
    are made block by block instead, and made again for the gradient.
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
        if torch.is_grad_enabled():  # of a gradient's gradient, which is asked of few questions
            return _pulls(query, candidates, gradient)
        own, others = torch.zeros_like(query), torch.zeros_like(candidates)
        half = query.shape[1] // 2
        for rows, columns, real, imaginary in _differences(query, candidates):
            share = _modulus_(real.clone(), imaginary).reciprocal_()
            share *= gradient[rows, columns].unsqueeze(-1)
            for part, place in ((real, slice(half)), (imaginary, slice(half, None))):
                part *= share
                own[rows, place] -= part.sum(1)
                if candidates.ndim == 2:
                    others[columns, place] += part.sum(0)
                else:
                    others[rows, columns, place] = part
        return own, others


def _differences(
    query: Tensor, candidates: Tensor
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """A block at a time: questions, candidates, real and imaginary parts of their differences."""
    count, half = candidates.shape[-2], query.shape[1] // 2
    if min(len(query), count) == 0:
        return
    room = BLOCK["cpu" if query.device.type == "cpu" else "cuda"] // max(1, half)
    wide = min(count, max(1, room))
    high = min(len(query), max(1, room // wide))
    held = candidates if candidates.ndim == 3 else candidates.unsqueeze(0)
    buffers = [query.new_empty(high * wide * half) for _ in range(2)]
    for first, left in product(range(0, len(query), high), range(0, count, wide)):
        rows = slice(first, min(len(query), first + high))
        columns = slice(left, min(count, left + wide))
        shape = (rows.stop - first, columns.stop - left, half)
        block = held[rows if candidates.ndim == 3 else slice(None), columns]
        parts = []
        for buffer, place in zip(buffers, (slice(half), slice(half, None)), strict=True):
            part = buffer[: math.prod(shape)].view(shape)
            torch.sub(query[rows, None, place], block[..., place], out=part)
            parts.append(part)
        yield rows, columns, parts[0], parts[1]


def _modulus_(real: Tensor, imaginary: Tensor) -> Tensor:
    """Moduli, in the place of the real parts."""
    return real.mul_(real).addcmul_(imaginary, imaginary).add_(SMALL).sqrt_()


def _pulls(query: Tensor, candidates: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of `_Rotated`, made so that it has one itself."""
    apart = query.unsqueeze(1) - candidates
    pull = apart * (gradient.unsqueeze(-1) / moduli(apart)).repeat(1, 1, 2)
    return -pull.sum(1), pull.sum(0) if candidates.ndim == 2 else pull


Scorer.kinds = (ComplEx, DistMult, TuckER, TransE, RotatE)
