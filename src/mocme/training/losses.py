"""Losses: scores to a number. The softmax over answers and weighted negatives, in blocks.

For a question q with answers A and negatives J (candidates that are no answers):

    loss_q = n_q log(sum_A e^s + sum_J w_j e^s_j) - sum_A s,      mean of w over J = 1, no gradient

The weighting decides w: `Uniform` is the plain softmax, `Entropy` the entropy-guided negatives.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.model.scorers import Scorer
from mocme.parts import Part
from mocme.training.negatives import Candidates
from mocme.training.rows import Rows

# Rows of scores that elementwise work is done in at a time, so that a chunk stays in the L2 cache.
CHUNK = 128
# Candidates whose scores are made at a time, where memory does not ask for fewer.
BLOCK = 2048


class Weighting(Part):
    """What decides the weight of a negative.

    Attributes:
        whole_row: needs all scores of a question at once.
    """

    whole_row = False

    @abstractmethod
    def weigh_(
        self,
        scores: Float[Tensor, "B c"],
        reference: Float[Tensor, " B"],
        count: Float[Tensor, " B"],
        generator: torch.Generator,
    ) -> Float[Tensor, " B"]:
        """Add the log of each (not yet normalised) weight to a block of scores, in place.

        Args:
            scores: -inf marks what is no negative.
            reference: mean score of the question's answers.
            count: how many of the block are negatives.

        Returns:
            The log of the sum of the block's weights.
        """


class Uniform(Weighting):
    """Every negative weighs the same."""

    def __init__(self) -> None:
        pass

    def weigh_(
        self, scores: Tensor, reference: Tensor, count: Tensor, generator: torch.Generator
    ) -> Tensor:
        return count.log()


class Entropy(Weighting):
    """EGNS: w = 1 + beta h, h the binary entropy of sigmoid((s - reference) / temperature) in bits.

    `floor` replaces the 1: 0 gives a stronger form, in which sure negatives weigh nothing.
    """

    def __init__(self, *, beta: float = 1.0, temperature: float = 1.0, floor: float = 1.0) -> None:
        if temperature <= 0 or beta < 0 or floor < 0 or beta + floor == 0:
            raise ValueError("temperature must be above 0, beta and floor at least 0, not both 0")
        self.beta, self.temperature, self.floor = beta, temperature, floor

    def weigh_(
        self, scores: Tensor, reference: Tensor, count: Tensor, generator: torch.Generator
    ) -> Tensor:
        total = torch.empty_like(reference)
        scale = self.beta / math.log(2)
        for first in range(0, len(scores), CHUNK):
            part = scores[first : first + CHUNK]
            distance = (part - reference[first : first + CHUNK, None]).abs_()
            distance.div_(self.temperature)
            small = torch.exp(-distance)
            # H(sigmoid(x)) = log(1 + e^-|x|) + |x| e^-|x| / (1 + e^-|x|); inf * 0 must be 0.
            distance.clamp_max_(1e4).mul_(small).div_(small + 1)
            entropy = distance.add_(small.log1p_())
            # Far-away and excluded entries have entropy 0, so they add nothing to the sum.
            extra = entropy.mul_(scale)
            total[first : first + CHUNK] = extra.sum(1)
            if self.floor == 1:
                part.add_(extra.log1p_())
            else:
                part.add_(extra.add_(self.floor).log_())
        return (total + self.floor * count).log()


class SelfAdversarial(Weighting):
    """w in proportion to e^(alpha s) (RotatE: Sun et al., ICLR 2019)."""

    def __init__(self, *, alpha: float = 1.0) -> None:
        if alpha <= 0:
            raise ValueError("alpha must be above 0")
        self.alpha = alpha

    def weigh_(
        self, scores: Tensor, reference: Tensor, count: Tensor, generator: torch.Generator
    ) -> Tensor:
        total = torch.logsumexp(scores * self.alpha, 1)
        scores.mul_(1 + self.alpha)
        return total


class Hardest(Weighting):
    """Only the `count` negatives with the highest scores of each question weigh anything."""

    whole_row = True

    def __init__(self, *, count: int = 64) -> None:
        if count < 1:
            raise ValueError("count must be at least 1")
        self.count = count

    def weigh_(
        self, scores: Tensor, reference: Tensor, count: Tensor, generator: torch.Generator
    ) -> Tensor:
        keep = min(self.count, scores.shape[1])
        values, places = scores.topk(keep, dim=1)
        scores.fill_(-math.inf).scatter_(1, places, values)
        return count.clamp_max(keep).log()


class Drawn(Weighting):
    """`draws` negatives a question, drawn with replacement in proportion to another weighting."""

    whole_row = True

    def __init__(self, *, draws: int = 64, by: Weighting = Entropy()) -> None:
        if draws < 1:
            raise ValueError("draws must be at least 1")
        self.draws, self.by = draws, by

    def weigh_(
        self, scores: Tensor, reference: Tensor, count: Tensor, generator: torch.Generator
    ) -> Tensor:
        weighted = scores.clone()
        self.by.weigh_(weighted, reference, count, generator)
        logits = torch.where(scores.isneginf(), scores, weighted - scores)
        chance = logits.softmax(1).nan_to_num_(0.0).cpu()
        chance[chance.sum(1) == 0] = 1.0
        drawn = torch.multinomial(chance, self.draws, replacement=True, generator=generator)
        times = torch.zeros_like(chance).scatter_add_(
            1, drawn, torch.ones_like(chance[:, :1]).expand(-1, self.draws)
        )
        scores.add_(times.to(scores.device).log())
        return torch.full_like(reference, math.log(self.draws))


Weighting.kinds = (Uniform, Entropy, SelfAdversarial, Hardest, Drawn)


class Softmax(Part):
    """Settings of the loss.

    Args:
        answers: ``together``: one sum over all answers and negatives; ``apart``: each answer
            competes with the negatives only.
    """

    def __init__(
        self,
        *,
        weighting: Weighting = Uniform(),
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


def negative_sum(
    query: Float[Tensor, "B D"],
    rows: Rows,
    candidates: Candidates,
    answers: tuple[Int[Tensor, " n"], Int[Tensor, " n"]],
    weighting: Weighting,
    reference: Float[Tensor, " B"],
    scorer: Scorer,
    generator: torch.Generator,
    budget: int = 1 << 29,
) -> Float[Tensor, " B"]:
    """The log of the weighted sum of e^score over the negatives of B questions.

    Scores are made in blocks of candidates. They are kept for the backward pass where they fit in
    `budget` bytes, and made again block by block where they do not.

    Args:
        answers: (place, node) of every known answer; these are no negatives.
    """
    result: Tensor = _NegativeSum.apply(
        query, rows, candidates, answers, weighting, reference, scorer, generator, budget
    )
    return result


class _Blocks:
    """Scores of candidates block by block, with everything that is no negative at -inf."""

    def __init__(
        self,
        rows: Rows,
        candidates: Candidates,
        answers: tuple[Tensor, Tensor],
        scorer: Scorer,
        weighting: Weighting,
        shape: tuple[int, int],
        budget: int,
    ) -> None:
        self.rows, self.candidates = rows, candidates
        self.scorer, self.weighting = scorer, weighting
        self.size, width = shape
        self.fast = scorer.by_product
        total = len(candidates)
        cost = self.size * scorer.floats_per_score(width) * rows.values.element_size()
        fits = max(1, budget // max(1, cost))
        # A weighting of whole rows has a single block, and chance enters it only once.
        self.keep = total <= fits or weighting.whole_row
        self.width = total if weighting.whole_row else min(total, max(1, min(fits, BLOCK)))
        self.place, self.column = self._columns(*answers)
        # How many negatives each question has.
        excluded = total - len(candidates.excluded)
        here = torch.bincount(self.place, minlength=self.size)
        self.count = (excluded - here).to(rows.values.dtype)

    def _columns(self, place: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        """Answers as (question, column of the candidates), sorted by column; others left out."""
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
        place, column = place[inside], column[inside]
        column, order = column.sort(stable=True)
        return place[order], column

    def spans(self) -> list[tuple[int, int]]:
        total = len(self.candidates)
        return [(first, min(total, first + self.width)) for first in range(0, total, self.width)]

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
        bounds = torch.searchsorted(self.column, torch.tensor([first, stop], device=scores.device))
        low, high = bounds.tolist()
        place, column = self.place[low:high], self.column[low:high] - first
        scores[place, column] = -math.inf
        barred = self.candidates.excluded
        barred = barred[(barred >= first) & (barred < stop)] - first
        if len(barred):
            scores.index_fill_(1, barred, -math.inf)
        taken = torch.bincount(place, minlength=self.size).to(scores.dtype)
        return (stop - first - len(barred)) - taken


class _NegativeSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        rows: Rows,
        candidates: Candidates,
        answers: tuple[Tensor, Tensor],
        weighting: Weighting,
        reference: Tensor,
        scorer: Scorer,
        generator: torch.Generator,
        budget: int,
    ) -> Tensor:
        shape = (query.shape[0], query.shape[1])
        blocks = _Blocks(rows, candidates, answers, scorer, weighting, shape, budget)
        total = query.new_full((len(query),), -math.inf)
        weight = total.clone()
        kept = []
        for first, stop in blocks.spans():
            scores, graph = _block_scores(query, blocks, first, stop, blocks.keep)
            count = blocks.mask_(scores, first, stop)
            weight = torch.logaddexp(weight, weighting.weigh_(scores, reference, count, generator))
            total = torch.logaddexp(total, torch.logsumexp(scores, 1))
            kept.append((scores, graph) if blocks.keep else None)
        ctx.blocks, ctx.kept, ctx.total = blocks, kept, total
        ctx.reference, ctx.generator = reference, generator
        ctx.save_for_backward(query)
        number = blocks.count
        if candidates.sampled:
            # The sample stands for all negatives of the class.
            counted = answers[0][~torch.isin(answers[1], candidates.barred)]
            taken = torch.bincount(counted, minlength=len(query))
            number = (candidates.total - taken).clamp_min(0).to(total.dtype)
        # A question without a negative (of any weight) has an empty sum, not the NaN of -inf + inf.
        return torch.where(total.isneginf(), total, total - weight + number.log())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (query,) = ctx.saved_tensors
        blocks: _Blocks = ctx.blocks
        # Questions without a negative have the total -inf and no gradient.
        total = ctx.total.masked_fill(ctx.total.isneginf(), 0.0).unsqueeze(1)
        upstream = gradients[0].unsqueeze(1)
        query_gradient = torch.zeros_like(query)
        low_query = query.bfloat16() if blocks.rows.low else query
        for (first, stop), held in zip(blocks.spans(), ctx.kept, strict=True):
            if held is None:
                scores, graph = _block_scores(query, blocks, first, stop, True)
                count = blocks.mask_(scores, first, stop)
                blocks.weighting.weigh_(scores, ctx.reference, count, ctx.generator)
            else:
                scores, graph = held
            for row in range(0, len(scores), CHUNK):
                part = scores[row : row + CHUNK]
                part.sub_(total[row : row + CHUNK]).exp_().mul_(upstream[row : row + CHUNK])
            nodes = blocks.nodes(first, stop)
            if graph is None:
                if blocks.rows.low:
                    low = scores.bfloat16()
                    query_gradient += low @ blocks.rows.block(nodes, low=True)
                    blocks.rows.add_product(nodes, low, low_query)
                else:
                    query_gradient.addmm_(scores, blocks.rows.block(nodes))
                    blocks.rows.add_product(nodes, scores, query)
            else:
                made, own_query, own_rows = graph
                by_query, by_rows = torch.autograd.grad(made, (own_query, own_rows), scores)
                query_gradient += by_query
                blocks.rows.add(nodes, by_rows)
        ctx.kept = ctx.blocks = None
        return (query_gradient, *[None] * 8)


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
