"""Scorers: `query` makes a vector of (head, relation), `compare` holds it against candidates.

A head question is a tail question of the inverse relation, so one direction is enough. Vectors with
complex entries are stored as [real | imaginary].
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from mocme.parts import Part

# Floats that RotatE's differences may take at once, where no gradient needs them all.
BLOCK = 1 << 22

# Questions up to which many candidates times few queries is faster than the product turned around:
# with 15,000 candidates of width 256 or 1,000 and 2 to 8 queries up to twice as fast (MKL, AVX2).
FEW = 8


class Scorer(Part):
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
        if not self.complex_entries:
            return vectors.abs()
        real, imaginary = vectors.chunk(2, -1)
        # The root's gradient at 0 is infinite; 1e-12 is far below any trained modulus squared.
        return (real * real + imaginary * imaginary + 1e-12).sqrt()

    def floats_per_score(self, width: int) -> int:
        """Work memory of `compare`, in floats a score."""
        return 1


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
        if torch.is_grad_enabled() and (query.requires_grad or candidates.requires_grad):
            return self._negative_distance(query, candidates)
        # All differences at once would be (B, C, D): in blocks of candidates they stay small.
        width = max(1, BLOCK // max(1, query.numel()))
        blocks = candidates.split(width, -2)
        return torch.cat([self._negative_distance(query, block) for block in blocks], 1)

    def _negative_distance(self, query: Tensor, candidates: Tensor) -> Tensor:
        return -self.moduli(query.unsqueeze(1) - candidates).sum(-1)

    def invert(self, relation: Tensor) -> Tensor:
        return -relation

    def floats_per_score(self, width: int) -> int:
        return 4 * width


Scorer.kinds = (ComplEx, DistMult, TuckER, TransE, RotatE)
