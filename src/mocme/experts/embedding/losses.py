"""The loss: a softmax over the answers and weighted negatives of a question, computed in blocks.

For a question q with n_q answers A and negatives J (candidates that are no answers):

    loss_q = n_q log(sum_A e^s + sum_J w_j e^s_j) - sum_A s,      mean of w over J = 1

The weighting decides w, which gets no gradient: `UniformWeighting` is the plain softmax,
`EntropyWeighting` is EGNS.

The sum over J is computed here from unnormalised weights v, w_j = |J| v_j / sum_J v, as

    log sum_J w_j e^s_j = logsumexp(s + log v) - log sum_J v + log |J|

If candidates are sampled, the first two terms are sums over the sample, and |J| stays that of all
candidates. Both sums run over blocks of candidates, by logaddexp, so that no (B, C) matrix of
scores is needed where it does not fit in memory.

The derivative by s_j is the negative's share in the sum, exp(s_j + log v_j - logsumexp(s + log v)).
It needs the same block of scores and one number of each question. It is written by hand, because
autograd would keep several matrices of a block's size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.core.registry import Configurable
from mocme.experts.embedding.gradient_buffer import GradientBuffer
from mocme.experts.embedding.negative_sampling import Candidates
from mocme.experts.embedding.negative_weighting import CHUNK, UniformWeighting, Weighting
from mocme.experts.embedding.score_blocks import ScoreBlock, ScoreBlocks, ScoreGraph
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
    blocks = ScoreBlocks(
        table, candidates, answers, scorer, weighting, len(query), max_bytes, BLOCK
    )
    if blocks.keep and len(blocks.question) == len(question):
        # The blocks have the answers ordered by column; `answer` leads back to the given order.
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


class _BlockScores(torch.autograd.Function):
    """Scores of the answers, by column, and the log of the weighted sum over negatives.

    The gradient by the candidates' vectors goes into the table's `GradientBuffer`, not through
    autograd; only that by `query` is returned.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "B D"],
        blocks: ScoreBlocks,
        generator: torch.Generator,
        reference: Float[Tensor, " B"] | None,
        with_answers: bool,
    ) -> tuple[Float[Tensor, " a"], Float[Tensor, " B"]]:
        spans, answer_scores = blocks.spans(), query.new_empty(0)
        kept: list[ScoreBlock | None] = [None] * len(spans)
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
        blocks: ScoreBlocks = ctx.blocks
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
    blocks: ScoreBlocks,
    span: tuple[int, int],
    gradient: Float[Tensor, "B c"],
    graph: ScoreGraph | None,
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


class CubedModuli(torch.autograd.Function):
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
