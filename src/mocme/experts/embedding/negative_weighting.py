"""Weights of negatives: uniform, by entropy (EGNS), by score, the hardest, or sampled by weight.

A weighting sees a block of scores s and replaces each by s + log w, with w not normalised. The sum
of the weights of a block is returned, so that the loss can normalise over all blocks at the end and
no block is visited twice. Weights get no gradient.

On validation no weighting is better than the uniform one (docs/learned.md): the gradient of the
softmax already is each negative's share, and sharper weights take from the many with small shares
that keep all entities in order.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from mocme.core.registry import Configurable

# Rows of scores per elementwise pass. The passes over a chunk then read it from the L2 cache.
CHUNK = 128


class Weighting(Configurable):
    """The weight of a negative, as a function of its score.

    Attributes:
        whole_row: the weights depend on all scores of a question, so that blocks cannot be used.
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
        """Add the log of each unnormalised weight to a block of scores, in place.

        Args:
            scores: of B questions and c candidates; -inf marks what is no negative.
            reference: mean score of each question's answers.
            count: number of negatives of each question in the block.

        Returns:
            The log of the sum of the block's weights.
        """


@final
@dataclass(frozen=True, kw_only=True)
class UniformWeighting(Weighting):
    """The same weight for every negative."""

    def weigh_(
        self, scores: Tensor, reference: Tensor, count: Tensor, generator: torch.Generator
    ) -> Tensor:
        return count.log()


@final
@dataclass(frozen=True, kw_only=True)
class EntropyWeighting(Weighting):
    """EGNS: w = floor + beta h, with h the binary entropy of a negative in bits.

    h = H(sigmoid((s - reference) / temperature)) is 1 where the model cannot tell the negative from
    an answer, and 0 where it is sure. With a floor of 0 sure negatives have no weight.
    """

    beta: float = 1.0
    temperature: float = 1.0
    floor: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
        if self.beta < 0 or self.floor < 0 or self.beta + self.floor == 0:
            raise ValueError(
                f"beta and floor must be at least 0 and not both 0, not {self.beta} and "
                f"{self.floor}"
            )

    def weigh_(
        self, scores: Tensor, reference: Tensor, count: Tensor, generator: torch.Generator
    ) -> Tensor:
        total = torch.empty_like(reference)
        scale = self.beta / math.log(2)
        for first in range(0, len(scores), CHUNK):
            chunk = scores[first : first + CHUNK]
            distance = (chunk - reference[first : first + CHUNK, None]).abs_()
            distance.div_(self.temperature)
            # H(sigmoid(x)) = log(1 + e^-|x|) + |x| e^-|x| / (1 + e^-|x|) in nats. H is even, so |x|
            # is enough, and no exponential overflows. -p log p - q log q would be 0 * inf for the
            # -inf of excluded entries; here the clamp turns their inf * 0 into 0.
            decay = torch.exp(-distance)
            distance.clamp_max_(1e4).mul_(decay).div_(decay + 1)
            entropy = distance.add_(decay.log1p_())
            # Excluded entries have entropy 0 and add nothing to the sum, so that only the floor
            # has to be counted, by the number of negatives.
            extra = entropy.mul_(scale)
            total[first : first + CHUNK] = extra.sum(1)
            if self.floor == 1:
                # log1p keeps the digits of small entropies, which log(1 + x) loses.
                chunk.add_(extra.log1p_())
            else:
                chunk.add_(extra.add_(self.floor).log_())
        return (total + self.floor * count).log()


@final
@dataclass(frozen=True, kw_only=True)
class SelfAdversarialWeighting(Weighting):
    """w = e^(alpha s) (RotatE: Sun et al., ICLR 2019)."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise ValueError(f"alpha must be above 0, not {self.alpha}")

    def weigh_(
        self, scores: Tensor, reference: Tensor, count: Tensor, generator: torch.Generator
    ) -> Tensor:
        total = torch.logsumexp(scores * self.alpha, 1)
        # s + log w = (1 + alpha) s.
        scores.mul_(1 + self.alpha)
        return total


@final
@dataclass(frozen=True, kw_only=True)
class HardestWeighting(Weighting):
    """Weight 1 for the `count` negatives of each question with the highest scores, 0 for others."""

    whole_row = True

    count: int = 64

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1, not {self.count}")

    def weigh_(
        self, scores: Tensor, reference: Tensor, count: Tensor, generator: torch.Generator
    ) -> Tensor:
        kept = min(self.count, scores.shape[1])
        values, columns = scores.topk(kept, dim=1)
        scores.fill_(-math.inf).scatter_(1, columns, values)
        # A question with fewer negatives keeps -inf entries among its top, which are no weight.
        return count.clamp_max(kept).log()


@final
@dataclass(frozen=True, kw_only=True)
class ImportanceSampling(Weighting):
    """`draws` negatives a question, sampled with replacement in proportion to another weighting.

    w is how often a negative was drawn. The expected sum over negatives is that of the other
    weighting: E[|J| / draws * sum over draws of e^s] = |J| * sum p_j e^s_j, with p = w / sum w.
    """

    whole_row = True

    draws: int = 64
    by: Weighting = field(default_factory=EntropyWeighting)

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws must be at least 1, not {self.draws}")

    def weigh_(
        self, scores: Tensor, reference: Tensor, count: Tensor, generator: torch.Generator
    ) -> Tensor:
        weighted = scores.clone()
        self.by.weigh_(weighted, reference, count, generator)
        # The log weights of the other weighting. -inf - -inf would be NaN.
        log_weights = torch.where(scores.isneginf(), scores, weighted - scores)
        # On the CPU, so that a seed gives the same draws on every device.
        probabilities = log_weights.softmax(1).nan_to_num_(0.0).cpu()
        # torch.multinomial refuses a row without any weight. Such a row draws uniformly: its scores
        # are -inf and stay so.
        probabilities[probabilities.sum(1) == 0] = 1.0
        drawn = torch.multinomial(probabilities, self.draws, replacement=True, generator=generator)
        times = torch.zeros_like(probabilities).scatter_add_(
            1, drawn, torch.ones_like(probabilities[:, :1]).expand(-1, self.draws)
        )
        # What was not drawn has a weight of 0, and so -inf.
        scores.add_(times.to(scores.device).log())
        return torch.full_like(reference, math.log(self.draws))


Weighting.kinds = (
    UniformWeighting,
    EntropyWeighting,
    SelfAdversarialWeighting,
    HardestWeighting,
    ImportanceSampling,
)
