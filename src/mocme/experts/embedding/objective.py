"""Settings of what a training minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.core.registry import Configurable
from mocme.data.features.tokens import TrainingFacts
from mocme.experts.embedding.losses import Softmax
from mocme.experts.embedding.negative_sampling import AllEntities, NegativeSampling


@dataclass(frozen=True, kw_only=True)
class Objective(Configurable):
    """Link prediction over distinct queries.

    Args:
        loss: of a query.
        negatives: which candidates a query competes with.
        n3: weight of the cubed-modulus regulariser on head, relation and answer vectors as scored
            (Lacroix et al., ICML 2018).
        redundancy: weight of the mean redundancy of a modality's views.
        token_weight: weight of the loss of queries about tokens against that of links. The
            regulariser counts every fact alike.
        candidates: which entities compete; see `TrainingFacts.of`.
        rejected: weight of a fact that reviewers rejected against a training fact. Once an epoch,
            in each direction, it is trained to be no likelier than an average candidate.
        max_answers: answers of a query that take part in a step, drawn uniformly and rescaled; 0
            for all.
        score_memory: GiB for a block of scores.
    """

    loss: Softmax = Softmax()
    negatives: NegativeSampling = AllEntities()
    n3: float = 0.0
    redundancy: float = 0.0
    token_weight: float = 0.3
    candidates: Literal["linked", "trained", "all"] = "trained"
    rejected: float = 1.0
    max_answers: int = 0
    score_memory: float = 0.5

    def __post_init__(self) -> None:
        weights = (self.n3, self.redundancy, self.token_weight, self.rejected, self.max_answers)
        if min(weights) < 0 or self.score_memory <= 0:
            raise ValueError("weights are at least 0 and score_memory (GiB) is above 0")

    def weight(self, relation: Int[Tensor, " B"], facts: TrainingFacts) -> Float[Tensor, " B"]:
        """Weight of each query's loss, by its directed relation."""
        return torch.where(relation >= facts.first_token_relation, self.token_weight, 1.0)
