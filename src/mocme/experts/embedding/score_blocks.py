"""Scores of a batch's questions against its candidates, in blocks of candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.experts.embedding.gradient_buffer import GradientBuffer
from mocme.experts.embedding.negative_sampling import Candidates
from mocme.experts.embedding.negative_weighting import Weighting
from mocme.experts.embedding.scorers import Scorer


@final
class ScoreGraph(NamedTuple):
    """A block's scores and the leaves that autograd differentiates them by."""

    scores: Float[Tensor, "B c"]
    query: Float[Tensor, "B D"]
    vectors: Float[Tensor, "c D"]


# Scores of a block that may be changed in place; a graph where the scorer is no product.
ScoreBlock = tuple[Tensor, ScoreGraph | None]


@final
class ScoreBlocks:
    """Scores of B questions and C candidates, block by block, and which of them are negatives.

    Args:
        max_bytes: memory for scores. If it is enough for all of them, blocks are kept for the
            backward pass; otherwise a block has at most this size.
        max_width: largest number of candidates of a block.

    Attributes:
        keep: blocks are kept for the backward pass.
        width: number of candidates of a block.
        question, column, answer: of each answer that is a candidate: its question, its column
            among the candidates, and its position among all answers. Sorted by column, so that the
            answers in a block are a slice.
        count: number of negatives of each question among the candidates.
    """

    def __init__(
        self,
        table: GradientBuffer,
        candidates: Candidates,
        answers: tuple[Int[Tensor, " n"], Int[Tensor, " n"]],
        scorer: Scorer,
        weighting: Weighting,
        num_questions: int,
        max_bytes: int,
        max_width: int,
    ) -> None:
        self.table, self.candidates, self.answers = table, candidates, answers
        self.scorer, self.weighting = scorer, weighting
        self.num_questions = num_questions
        total = len(candidates)
        fitting = max(1, max_bytes // max(1, num_questions * table.values.element_size()))
        # A weighting of whole rows has a single block. It is always kept: one that samples would
        # draw other negatives in the backward pass.
        self.keep = total <= fitting or weighting.whole_row
        if weighting.whole_row:
            self.width = total
        else:
            self.width = min(total, max(1, min(fitting, max_width)))
        self.question, self.column, self.answer = self._columns(*answers)
        num_candidates = total - len(candidates.excluded)
        num_answers = torch.bincount(self.question, minlength=num_questions)
        self.count = (num_candidates - num_answers).to(table.values.dtype)

    def _columns(
        self, question: Int[Tensor, " n"], node: Int[Tensor, " n"]
    ) -> tuple[Int[Tensor, " a"], Int[Tensor, " a"], Int[Tensor, " a"]]:
        """`question`, `column` and `answer`, of answers given as (question, node)."""
        nodes, size = self.candidates.nodes, len(self.candidates)
        if isinstance(nodes, slice):
            column = node - nodes.start
            inside = (column >= 0) & (column < size)
        else:
            column = torch.searchsorted(nodes, node).clamp_max_(max(0, size - 1))
            inside = nodes[column] == node if size else column.new_zeros(len(node)).bool()
        excluded = torch.zeros(size, dtype=torch.bool, device=node.device)
        excluded[self.candidates.excluded] = True
        inside &= ~excluded[column.clamp(0, max(0, size - 1))]
        answer = inside.nonzero().flatten()
        # Stable, so that the order of answers with the same column is defined.
        column, order = column[answer].sort(stable=True)
        return question[answer[order]], column, answer[order]

    def spans(self) -> Sequence[tuple[int, int]]:
        """First column and column after the last of each block."""
        total = len(self.candidates)
        return [(first, min(total, first + self.width)) for first in range(0, total, self.width)]

    def population(self) -> Int[Tensor, " B"] | Float[Tensor, " B"]:
        """|J|: number of negatives of each question, those that were not sampled included."""
        if not self.candidates.sampled:
            return self.count
        question, node = self.answers
        # `total` does not count barred nodes, so an answer among them is not to be subtracted.
        is_candidate = ~torch.isin(node, self.candidates.barred)
        num_answers = torch.bincount(question[is_candidate], minlength=self.num_questions)
        return (self.candidates.total - num_answers).clamp_min(0)

    def nodes(self, first: int, stop: int) -> slice | Tensor:
        """Nodes of a block's columns."""
        nodes = self.candidates.nodes
        if isinstance(nodes, slice):
            return slice(nodes.start + first, nodes.start + stop)
        return nodes[first:stop]

    def scores(self, query: Float[Tensor, "B D"], first: int, stop: int, keep: bool) -> ScoreBlock:
        """Scores of a block, not masked.

        Args:
            keep: record a graph where the scorer needs one to be differentiated.
        """
        nodes = self.nodes(first, stop)
        if not self.scorer.by_product:
            # Leaves of its own, so that the graph ends at the block and can be freed with it.
            leaf_query = query.detach().requires_grad_(keep)
            vectors = self.table.block(nodes).detach().requires_grad_(keep)
            with torch.set_grad_enabled(keep):
                scores = self.scorer.compare(leaf_query, vectors)
            graph = ScoreGraph(scores, leaf_query, vectors) if keep else None
            # A copy, because the graph may need its output unchanged.
            return scores.detach().clone(), graph
        if self.table.bfloat16:
            vectors = self.table.block(nodes, bfloat16=True)
            # Back to float32 at once: an exponential of a bfloat16 score is off by percents.
            return (query.bfloat16() @ vectors.T).to(query.dtype), None
        return query @ self.table.block(nodes).T, None

    def mask_(self, scores: Float[Tensor, "B c"], first: int, stop: int) -> Float[Tensor, " B"]:
        """Set what is no negative to -inf; returns the number of negatives of each question."""
        question, column = self._answers_in(first, stop)
        scores[question, column] = -math.inf
        excluded = self.candidates.excluded
        excluded = excluded[(excluded >= first) & (excluded < stop)] - first
        if len(excluded):
            scores.index_fill_(1, excluded, -math.inf)
        num_answers = torch.bincount(question, minlength=self.num_questions).to(scores.dtype)
        return (stop - first - len(excluded)) - num_answers

    def answer_scores(
        self, scores: Float[Tensor, "B c"], first: int, stop: int
    ) -> Float[Tensor, " a"]:
        """Scores of the answers in a block, before they are masked."""
        return scores[self._answers_in(first, stop)]

    def put_answers_(
        self, gradient: Float[Tensor, "B c"], first: int, stop: int, values: Float[Tensor, " a"]
    ) -> None:
        """Write the gradient of the answers' scores into a block's gradient."""
        low, high = self._answer_range(first, stop)
        gradient[self._answers_in(first, stop)] = values[low:high]

    def _answers_in(self, first: int, stop: int) -> tuple[Tensor, Tensor]:
        """Question and column within a block of its answers."""
        low, high = self._answer_range(first, stop)
        return self.question[low:high], self.column[low:high] - first

    def _answer_range(self, first: int, stop: int) -> tuple[int, int]:
        ends = torch.tensor([first, stop], device=self.column.device)
        low, high = torch.searchsorted(self.column, ends).tolist()
        return low, high
