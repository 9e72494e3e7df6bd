"""The loss: a softmax over the answers and weighted negatives of a question, computed in blocks.

For a question q with n_q answers A and negatives J (candidates that are no answers):

    loss_q = n_q log(sum_A e^s + sum_J w_j e^s_j) - sum_A s,      mean of w over J = 1

The weighting decides w, which gets no gradient: `UniformWeighting` is the plain softmax,
`EntropyWeighting` is EGNS.

The sum over J is computed here from unnormalised weights v, w_j = |J| v_j / sum_J v, as

    log sum_J w_j e^s_j = logsumexp(s + log v) - log sum_J v + log |J|

Both sums run over blocks of candidates, by logaddexp, so that no (B, C) matrix of scores is needed
where it does not fit in memory. The derivative by s_j is the negative's share in the sum,
exp(s_j + log v_j - logsumexp(s + log v)): it needs the same block of scores and one number of each
question. It is written by hand, because autograd would keep several matrices of a block's size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.core.registry import Configurable
from mocme.experts.embedding.gradient_buffer import GradientBuffer
from mocme.experts.embedding.negative_sampling import Candidates
from mocme.experts.embedding.negative_weighting import CHUNK, UniformWeighting, Weighting
from mocme.experts.embedding.scorers import Scorer

# Largest number of candidates whose scores are computed at once.
BLOCK = 2048


@final
@dataclass(frozen=True, kw_only=True)
class Softmax(Configurable):
    """Settings of the loss.

    Args:
        answers: ``together``: one sum over all answers and negatives; ``apart``: each answer
            competes with the negatives only.
    """

    weighting: Weighting = field(default_factory=UniformWeighting)
    answers: Literal["together", "apart"] = "together"

    def __call__(
        self,
        answer_scores: Float[Tensor, " n"],
        question: Int[Tensor, " n"],
        multiplicity: Float[Tensor, " n"],
        negatives: Float[Tensor, " B"],
    ) -> Float[Tensor, " B"]:
        """Losses of B questions.

        Args:
            question: which question an answer belongs to.
            multiplicity: how many answers each given one represents (1, unless they are sampled).
            negatives: log of the weighted sum over negatives, from `score_batch`.
        """
        size = len(negatives)
        gain = _sum_by(answer_scores * multiplicity, question, size)
        if self.answers == "apart":
            log_totals = torch.logaddexp(answer_scores, negatives[question])
            return _sum_by(log_totals * multiplicity, question, size) - gain
        count = _sum_by(multiplicity, question, size)
        # m answers with score s are m e^s = e^(s + log m).
        log_answers = _logsumexp_by(answer_scores + multiplicity.log(), question, size)
        log_total = torch.logaddexp(log_answers, negatives)
        return count * log_total - gain


Softmax.kinds = ()


def score_batch(
    query: Float[Tensor, "B D"],
    table: GradientBuffer,
    candidates: Candidates,
    answers: tuple[Int[Tensor, " n"], Int[Tensor, " n"]],
    weighting: Weighting,
    scorer: Scorer,
    generator: torch.Generator,
    max_bytes: int = 1 << 29,
    reference: Float[Tensor, " B"] | None = None,
    used: Int[Tensor, " u"] | None = None,
) -> tuple[Float[Tensor, " u"], Float[Tensor, " B"]]:
    """Scores of answers, and log of the weighted sum of e^score over negatives, of B questions.

    Scores are computed in blocks of candidates. If all of them fit in `max_bytes`, they are kept
    for the backward pass; otherwise it computes them again, block by block. Kept blocks contain
    the scores of the answers too, which then cost nothing more. Otherwise, and if an answer is no
    candidate, answers are scored pair by pair.

    Args:
        answers: (question, node) of every known answer; these are no negatives.
        reference: what the weighting compares scores with; by default the mean score of a
            question's answers.
        used: which of the answers to score; by default all.
    """
    question, node = answers
    blocks = _Blocks(table, candidates, answers, scorer, weighting, len(query), max_bytes)
    if blocks.keep and len(blocks.question) == len(question):
        # The blocks have answers in the order of their columns; `answer` is the inverse of that.
        by_column, negatives = _BlockScores.apply(query, blocks, generator, reference, True)
        answer_scores = by_column[blocks.answer.argsort()]
        return (answer_scores if used is None else answer_scores[used]), negatives
    if used is not None:
        question, node = question[used], node[used]
    vectors = table.gather(node).unsqueeze(1)
    answer_scores = scorer.compare(query[question], vectors).squeeze(1)
    if reference is None:
        reference = _mean_by(answer_scores.detach(), question, len(query))
    return answer_scores, _BlockScores.apply(query, blocks, generator, reference, False)[1]


class _Graph(NamedTuple):
    """A block's scores and the leaves that autograd differentiates them by."""

    scores: Float[Tensor, "B c"]
    query: Float[Tensor, "B D"]
    vectors: Float[Tensor, "c D"]


# Scores of a block that may be changed in place; a graph where the scorer is no product.
_Block = tuple[Tensor, _Graph | None]


class _Blocks:
    """Scores of B questions and C candidates, block by block, and which of them are negatives.

    Attributes:
        keep: blocks are kept for the backward pass.
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
            self.width = min(total, max(1, min(fitting, BLOCK)))
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

    def scores(self, query: Float[Tensor, "B D"], first: int, stop: int, keep: bool) -> _Block:
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
            # A copy, because the graph may need its output unchanged.
            return scores.detach().clone(), _Graph(scores, leaf_query, vectors) if keep else None
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


class _BlockScores(torch.autograd.Function):
    """Scores of the answers, by column, and the log of the weighted sum over negatives.

    The gradient by the candidates' vectors goes into the table's `GradientBuffer`, not through
    autograd; only that by `query` is returned.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "B D"],
        blocks: _Blocks,
        generator: torch.Generator,
        reference: Float[Tensor, " B"] | None,
        with_answers: bool,
    ) -> tuple[Float[Tensor, " a"], Float[Tensor, " B"]]:
        spans, answer_scores = blocks.spans(), query.new_empty(0)
        kept: list[_Block | None] = [None] * len(spans)
        if with_answers:
            # The reference is the mean score of the answers, which are spread over the blocks: all
            # scores come before the first weight.
            computed = [blocks.scores(query, *span, True) for span in spans]
            parts = [
                blocks.answer_scores(scores, *span)
                for (scores, _), span in zip(computed, spans, strict=True)
            ]
            answer_scores = torch.cat(parts) if parts else answer_scores
            if reference is None:
                reference = _mean_by(answer_scores, blocks.question, len(query))
            kept = [*computed]
        assert reference is not None
        # Running logsumexp of s + log v, and running log sum of v.
        log_sum = query.new_full((len(query),), -math.inf)
        log_weight = log_sum.clone()
        for number, span in enumerate(spans):
            block = kept[number] or blocks.scores(query, *span, blocks.keep)
            scores, _ = block
            count = blocks.mask_(scores, *span)
            block_weight = blocks.weighting.weigh_(scores, reference, count, generator)
            log_weight = torch.logaddexp(log_weight, block_weight)
            log_sum = torch.logaddexp(log_sum, torch.logsumexp(scores, 1))
            kept[number] = block if blocks.keep else None
        ctx.blocks, ctx.kept, ctx.log_sum, ctx.with_answers = blocks, kept, log_sum, with_answers
        ctx.reference, ctx.generator = reference, generator
        ctx.save_for_backward(query)
        population = blocks.population().to(log_sum.dtype)
        # A question without a negative (of any weight) has an empty sum: -inf, and not the NaN of
        # -inf - -inf.
        negatives = torch.where(
            log_sum.isneginf(), log_sum, log_sum - log_weight + population.log()
        )
        return answer_scores, negatives

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (query,) = ctx.saved_tensors
        blocks: _Blocks = ctx.blocks
        # A question without a negative has log_sum = -inf, and all its scores are: with 0 instead,
        # its shares are e^-inf = 0 and its gradient is 0.
        log_sum_B1 = ctx.log_sum.masked_fill(ctx.log_sum.isneginf(), 0.0).unsqueeze(1)
        upstream_B1 = gradients[1].unsqueeze(1)
        query_gradient = torch.zeros_like(query)
        for span, block in zip(blocks.spans(), ctx.kept, strict=True):
            if block is None:
                block = blocks.scores(query, *span, True)
                count = blocks.mask_(block[0], *span)
                blocks.weighting.weigh_(block[0], ctx.reference, count, ctx.generator)
            # The buffer holds s + log v, and becomes the gradient by s: share * upstream. Chunks of
            # rows stay in the L2 cache through all three passes.
            gradient, graph = block
            for row in range(0, len(gradient), CHUNK):
                rows = slice(row, row + CHUNK)
                gradient[rows].sub_(log_sum_B1[rows]).exp_().mul_(upstream_B1[rows])
            if ctx.with_answers:
                # Their cells are 0 so far, because they were masked.
                blocks.put_answers_(gradient, *span, gradients[0])
            _add_gradients(query, blocks, span, gradient, graph, query_gradient)
        # The blocks are large, and autograd would keep them as long as the loss.
        ctx.kept = ctx.blocks = None
        return query_gradient, None, None, None, None


def _add_gradients(
    query: Float[Tensor, "B D"],
    blocks: _Blocks,
    span: tuple[int, int],
    gradient: Float[Tensor, "B c"],
    graph: _Graph | None,
    query_gradient: Float[Tensor, "B D"],
) -> None:
    """Add a block's gradients by query (in place) and by vectors (in the table's buffer).

    Args:
        gradient: by the scores of the block.
    """
    nodes, table = blocks.nodes(*span), blocks.table
    if graph is not None:
        by_query, by_vectors = torch.autograd.grad(
            graph.scores, (graph.query, graph.vectors), gradient
        )
        query_gradient += by_query
        table.add(nodes, by_vectors)
    elif table.bfloat16:
        rounded = gradient.bfloat16()
        query_gradient += rounded @ table.block(nodes, bfloat16=True)
        table.add_product(nodes, rounded, query.bfloat16())
    else:
        query_gradient.addmm_(gradient, table.block(nodes))
        table.add_product(nodes, gradient, query)


def _sum_by(values: Float[Tensor, " n"], group: Int[Tensor, " n"], size: int) -> Tensor:
    """Sums of values by group, (size,)."""
    return values.new_zeros(size).index_add(0, group, values)


def _mean_by(values: Float[Tensor, " n"], group: Int[Tensor, " n"], size: int) -> Tensor:
    """Means of values by group, (size,); 0 for a group without values."""
    count = torch.bincount(group, minlength=size).clamp_min(1).to(values.dtype)
    return _sum_by(values, group, size) / count


def _logsumexp_by(values: Float[Tensor, " n"], group: Int[Tensor, " n"], size: int) -> Tensor:
    """Log-sum-exp of values by group, (size,); -inf for a group without values."""
    # The maximum is subtracted so that no exponential overflows. Detached: it cancels out of the
    # result, so its gradient is 0.
    top = values.new_full((size,), -math.inf)
    top = top.scatter_reduce(0, group, values.detach(), "amax")
    top = top.masked_fill(top.isneginf(), 0.0)
    return _sum_by((values - top[group]).exp(), group, size).log() + top


class Cubes(torch.autograd.Function):
    """Sum of the cubed moduli of each vector's entries, (n, D) -> (n,).

    The derivative of |x|^3 by x is 3 |x| x, also for the real and imaginary part of a complex x.
    Written by hand it is 0 at 0; autograd would go through the modulus, whose derivative there is
    undefined.
    """

    @staticmethod
    def forward(
        ctx: Any, vectors: Float[Tensor, "n D"], complex_entries: bool
    ) -> Float[Tensor, " n"]:
        if complex_entries:
            real, imaginary = vectors.chunk(2, -1)
            modulus = torch.hypot(real, imaginary)
        else:
            modulus = vectors.abs()
        ctx.save_for_backward(vectors, modulus)
        ctx.complex_entries = complex_entries
        return (modulus * modulus).mul_(modulus).sum(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        vectors, modulus = ctx.saved_tensors
        factor = modulus * (3 * gradients[0].unsqueeze(-1))
        if ctx.complex_entries:
            # Both parts of an entry have its modulus.
            factor = torch.cat([factor, factor], -1)
        return factor.mul_(vectors), None
