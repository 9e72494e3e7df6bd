"""Losses: scores to a number. The softmax over answers and weighted negatives, in blocks.

For a question q with answers A and negatives J (candidates that are no answers):

    loss_q = n_q log(sum_A e^s + sum_J w_j e^s_j) - sum_A s,      mean of w over J = 1, no gradient

The weighting decides w: `UniformWeighting` is the plain softmax, `Entropy` the entropy-guided negatives.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.core.registry import Configurable
from mocme.experts.embedding.gradient_buffer import GradientBuffer
from mocme.experts.embedding.negative_sampling import Candidates
from mocme.experts.embedding.negative_weighting import CHUNK, UniformWeighting, Weighting
from mocme.experts.embedding.scorers import Scorer

# Candidates whose scores are made at a time, where memory does not ask for fewer.
BLOCK = 2048


class Softmax(Configurable):
    """Settings of the loss.

    Args:
        answers: ``together``: one sum over all answers and negatives; ``apart``: each answer
            competes with the negatives only.
    """

    def __init__(
        self,
        *,
        weighting: Weighting = UniformWeighting(),
        answers: Literal["together", "apart"] = "together",
    ) -> None:
        self.weighting, self.answers = weighting, answers

    def __call__(
        self,
        answer_scores: Float[Tensor, " n"],
        place: Int[Tensor, " n"],
        share: Float[Tensor, " n"],
        negatives: Float[Tensor, " B"],
    ) -> Float[Tensor, " B"]:
        """Losses of B questions.

        Args:
            place: which question an answer belongs to.
            share: how many answers each given one stands for (1, unless answers are sampled).
            negatives: log of the weighted sum over negatives, from `negative_sum`.
        """
        size = len(negatives)
        gain = _sum_by(answer_scores * share, place, size)
        if self.answers == "apart":
            both = torch.logaddexp(answer_scores, negatives[place])
            return _sum_by(both * share, place, size) - gain
        count = _sum_by(share, place, size)
        own = _logsumexp_by(answer_scores + share.log(), place, size)
        together = torch.logaddexp(own, negatives)
        return count * together - gain


Softmax.kinds = ()


def score_batch(
    query: Float[Tensor, "B D"],
    rows: GradientBuffer,
    candidates: Candidates,
    answers: tuple[Int[Tensor, " n"], Int[Tensor, " n"]],
    weighting: Weighting,
    scorer: Scorer,
    generator: torch.Generator,
    budget: int = 1 << 29,
    reference: Float[Tensor, " B"] | None = None,
    used: Int[Tensor, " u"] | None = None,
) -> tuple[Float[Tensor, " u"], Float[Tensor, " B"]]:
    """Scores of answers, and log of the weighted sum of e^score over negatives, of B questions.

    Scores are made in blocks of candidates. Where all of them fit in `budget` bytes they are kept
    for the backward pass; otherwise they are made again there, block by block. Kept scores hold
    those of the answers too, so these cost nothing more; otherwise, and where an answer is no
    candidate, answers are scored pair by pair.

    Args:
        answers: (place, node) of every known answer; these are no negatives.
        reference: what the weighting holds scores against; the mean score of a question's answers
            by default.
        used: which of the answers to score; all by default.
    """
    place, node = answers
    blocks = _Blocks(rows, candidates, answers, scorer, weighting, len(query), budget)
    if blocks.keep and len(blocks.place) == len(place):
        # The blocks know answers by column; `order` leads back to the order they were given in.
        found, negatives = _Scores.apply(query, blocks, generator, reference, True)
        found = found[blocks.order.argsort()]
        return (found if used is None else found[used]), negatives
    if used is not None:
        place, node = place[used], node[used]
    paired = scorer.compare(query[place], rows.gather(node).unsqueeze(1)).squeeze(1)
    if reference is None:
        reference = _mean_by(paired.detach(), place, len(query))
    return paired, _Scores.apply(query, blocks, generator, reference, False)[1]


class _Blocks:
    """Scores of candidates block by block, with everything that is no negative at -inf."""

    def __init__(
        self,
        rows: GradientBuffer,
        candidates: Candidates,
        answers: tuple[Tensor, Tensor],
        scorer: Scorer,
        weighting: Weighting,
        size: int,
        budget: int,
    ) -> None:
        self.rows, self.candidates = rows, candidates
        self.scorer, self.weighting = scorer, weighting
        self.size = size
        self.fast = scorer.by_product
        total = len(candidates)
        fits = max(1, budget // max(1, size * rows.values.element_size()))
        # A weighting of whole rows has a single block, and chance enters it only once.
        self.keep = total <= fits or weighting.whole_row
        self.width = total if weighting.whole_row else min(total, max(1, min(fits, BLOCK)))
        self.place, self.column, self.order = self._columns(*answers)
        self.answers = answers
        # How many negatives each question has.
        excluded = total - len(candidates.excluded)
        here = torch.bincount(self.place, minlength=self.size)
        self.count = (excluded - here).to(rows.values.dtype)

    def _columns(self, place: Tensor, node: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Answers as (question, column of the candidates, which answer), sorted by column.

        Answers that are no candidates are left out.
        """
        nodes = self.candidates.nodes
        if isinstance(nodes, slice):
            column = node - nodes.start
            inside = (column >= 0) & (column < len(self.candidates))
        else:
            column = torch.searchsorted(nodes, node).clamp_max_(max(0, len(nodes) - 1))
            inside = nodes[column] == node if len(nodes) else column.new_zeros(len(node)).bool()
        barred = torch.zeros(len(self.candidates), dtype=torch.bool, device=node.device)
        barred[self.candidates.excluded] = True
        inside &= ~barred[column.clamp(0, max(0, len(self.candidates) - 1))]
        given = inside.nonzero().flatten()
        column, order = column[given].sort(stable=True)
        return place[given[order]], column, given[order]

    def spans(self) -> list[tuple[int, int]]:
        total = len(self.candidates)
        return [(first, min(total, first + self.width)) for first in range(0, total, self.width)]

    def stands_for(self) -> Tensor:
        """How many negatives of its class each question has, those not in a sample included."""
        if not self.candidates.sampled:
            return self.count
        place, node = self.answers
        counted = place[~torch.isin(node, self.candidates.barred)]
        taken = torch.bincount(counted, minlength=self.size)
        return (self.candidates.total - taken).clamp_min(0)

    def nodes(self, first: int, stop: int) -> slice | Tensor:
        nodes = self.candidates.nodes
        if isinstance(nodes, slice):
            return slice(nodes.start + first, nodes.start + stop)
        return nodes[first:stop]

    def scores(self, query: Tensor, first: int, stop: int) -> Tensor:
        """Scores of a block by product, not masked."""
        if self.rows.low:
            held = self.rows.block(self.nodes(first, stop), low=True)
            return (query.bfloat16() @ held.T).to(query.dtype)
        return query @ self.rows.block(self.nodes(first, stop)).T

    def mask_(self, scores: Tensor, first: int, stop: int) -> Tensor:
        """Put -inf where there is no negative; returns how many negatives each question has."""
        place, column = self._answers_in(first, stop)
        scores[place, column] = -math.inf
        barred = self.candidates.excluded
        barred = barred[(barred >= first) & (barred < stop)] - first
        if len(barred):
            scores.index_fill_(1, barred, -math.inf)
        taken = torch.bincount(place, minlength=self.size).to(scores.dtype)
        return (stop - first - len(barred)) - taken

    def answer_scores(self, scores: Tensor, first: int, stop: int) -> Tensor:
        """Scores of the answers in a block, before they are masked."""
        return scores[self._answers_in(first, stop)]

    def put_(self, gradient: Tensor, first: int, stop: int, values: Tensor) -> None:
        """Put the answers' gradient in its place."""
        low, high = self._bounds(first, stop)
        gradient[self._answers_in(first, stop)] = values[low:high]

    def _answers_in(self, first: int, stop: int) -> tuple[Tensor, Tensor]:
        low, high = self._bounds(first, stop)
        return self.place[low:high], self.column[low:high] - first

    def _bounds(self, first: int, stop: int) -> tuple[int, int]:
        ends = torch.tensor([first, stop], device=self.column.device)
        low, high = torch.searchsorted(self.column, ends).tolist()
        return low, high


class _Scores(torch.autograd.Function):
    """Scores of the answers, by column, and the log of the weighted sum over negatives."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        blocks: _Blocks,
        generator: torch.Generator,
        reference: Tensor | None,
        with_answers: bool,
    ) -> tuple[Tensor, Tensor]:
        spans, found = blocks.spans(), query.new_empty(0)
        kept: list[Any] = [None] * len(spans)
        if with_answers:
            # A weighting may need the answers' scores, so every block comes before any weight.
            kept = [_block_scores(query, blocks, *span, True) for span in spans]
            parts = [blocks.answer_scores(kept[n][0], *span) for n, span in enumerate(spans)]
            found = torch.cat(parts) if parts else found
            if reference is None:
                reference = _mean_by(found, blocks.place, len(query))
        assert reference is not None
        total = query.new_full((len(query),), -math.inf)
        weight = total.clone()
        for number, span in enumerate(spans):
            held = kept[number] or _block_scores(query, blocks, *span, blocks.keep)
            count = blocks.mask_(held[0], *span)
            logs = blocks.weighting.weigh_(held[0], reference, count, generator)
            weight = torch.logaddexp(weight, logs)
            total = torch.logaddexp(total, torch.logsumexp(held[0], 1))
            kept[number] = held if blocks.keep else None
        ctx.blocks, ctx.kept, ctx.total, ctx.with_answers = blocks, kept, total, with_answers
        ctx.reference, ctx.generator = reference, generator
        ctx.save_for_backward(query)
        number_of = blocks.stands_for().to(total.dtype)
        # A question without a negative (of any weight) has an empty sum, not the NaN of -inf + inf.
        return found, torch.where(total.isneginf(), total, total - weight + number_of.log())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (query,) = ctx.saved_tensors
        blocks: _Blocks = ctx.blocks
        # Questions without a negative have the total -inf and no gradient.
        total = ctx.total.masked_fill(ctx.total.isneginf(), 0.0).unsqueeze(1)
        upstream = gradients[1].unsqueeze(1)
        query_gradient = torch.zeros_like(query)
        for span, held in zip(blocks.spans(), ctx.kept, strict=True):
            if held is None:
                held = _block_scores(query, blocks, *span, True)
                count = blocks.mask_(held[0], *span)
                blocks.weighting.weigh_(held[0], ctx.reference, count, ctx.generator)
            scores, graph = held
            for row in range(0, len(scores), CHUNK):
                part = scores[row : row + CHUNK]
                part.sub_(total[row : row + CHUNK]).exp_().mul_(upstream[row : row + CHUNK])
            if ctx.with_answers:
                blocks.put_(scores, *span, gradients[0])
            _differentiate(query, blocks, span, scores, graph, query_gradient)
        ctx.kept = ctx.blocks = None
        return query_gradient, None, None, None, None


def _differentiate(
    query: Tensor,
    blocks: _Blocks,
    span: tuple[int, int],
    gradient: Tensor,
    graph: tuple[Tensor, Tensor, Tensor] | None,
    query_gradient: Tensor,
) -> None:
    """Add a block's gradient by query and by rows, given that by its scores."""
    nodes, rows = blocks.nodes(*span), blocks.rows
    if graph is not None:
        made, own_query, own_rows = graph
        by_query, by_rows = torch.autograd.grad(made, (own_query, own_rows), gradient)
        query_gradient += by_query
        rows.add(nodes, by_rows)
    elif rows.low:
        low = gradient.bfloat16()
        query_gradient += low @ rows.block(nodes, low=True)
        rows.add_product(nodes, low, query.bfloat16())
    else:
        query_gradient.addmm_(gradient, rows.block(nodes))
        rows.add_product(nodes, gradient, query)


def _block_scores(
    query: Tensor, blocks: _Blocks, first: int, stop: int, keep: bool
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor] | None]:
    """Scores of a block that may be changed in place, and the graph to differentiate them by."""
    if blocks.fast:
        return blocks.scores(query, first, stop), None
    own_query = query.detach().requires_grad_(keep)
    own_rows = blocks.rows.block(blocks.nodes(first, stop)).detach().requires_grad_(keep)
    with torch.set_grad_enabled(keep):
        made = blocks.scorer.compare(own_query, own_rows)
    return made.detach().clone(), (made, own_query, own_rows) if keep else None


def _sum_by(values: Tensor, place: Tensor, size: int) -> Tensor:
    return values.new_zeros(size).index_add(0, place, values)


def _mean_by(values: Tensor, place: Tensor, size: int) -> Tensor:
    count = torch.bincount(place, minlength=size).clamp_min(1).to(values.dtype)
    return _sum_by(values, place, size) / count


def _logsumexp_by(values: Tensor, place: Tensor, size: int) -> Tensor:
    """Log-sum-exp of values by place, -inf where a place has none."""
    top = values.new_full((size,), -math.inf)
    top = top.scatter_reduce(0, place, values.detach(), "amax")
    top = top.masked_fill(top.isneginf(), 0.0)
    return _sum_by((values - top[place]).exp(), place, size).log() + top


class Cubes(torch.autograd.Function):
    """Sum of cubed moduli of each vector, (n, D) -> (n,); its gradient is 3 |x| x, finite at 0."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, complex_entries: bool) -> Tensor:
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
            factor = torch.cat([factor, factor], -1)
        return factor.mul_(vectors), None
