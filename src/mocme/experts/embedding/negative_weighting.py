"""Weights of negatives: uniform, by entropy (EGNS), by score, the hardest, or drawn."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from mocme.core.registry import Configurable

# Rows of scores that elementwise work is done in at a time, so that a chunk stays in the L2 cache.
CHUNK = 128


class Weighting(Configurable):
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


class UniformWeighting(Weighting):
    """Every negative weighs the same."""

    def __init__(self) -> None:
        pass

    def weigh_(
        self, scores: Tensor, reference: Tensor, count: Tensor, generator: torch.Generator
    ) -> Tensor:
        return count.log()


class EntropyWeighting(Weighting):
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


class SelfAdversarialWeighting(Weighting):
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


class HardestWeighting(Weighting):
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


class ImportanceSampling(Weighting):
    """`draws` negatives a question, drawn with replacement in proportion to another weighting."""

    whole_row = True

    def __init__(self, *, draws: int = 64, by: Weighting = EntropyWeighting()) -> None:
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


Weighting.kinds = (
    UniformWeighting,
    EntropyWeighting,
    SelfAdversarialWeighting,
    HardestWeighting,
    ImportanceSampling,
)
