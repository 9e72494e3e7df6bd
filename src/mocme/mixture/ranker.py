"""A learned mixture of trees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from mocme.data.graph import Graph
from mocme.experts.base import Expert
from mocme.mixture.held_out import Groups
from mocme.mixture.learned_fit import LearnedSettings
from mocme.mixture.pool import feature_names
from mocme.mixture.trees import Trees

# Bins of a feature: candidates differ in ranks and shares, not in the last digits of them.
BINS = 63


@final
@dataclass(frozen=True, kw_only=True)
class RankerSettings(LearnedSettings):
    """A learned mixture of trees over what every expert says of a candidate.

    LambdaRank: Burges, From RankNet to LambdaRank to LambdaMART, 2010.

    Args:
        trees: number of trees.
        leaves: of a tree.
        learning_rate: factor of each tree.
        least: candidates in a leaf, at least.
        features: share of the features that a tree sees.
        candidates: share of the candidates that a tree sees.
        trials: trees of the mixtures that are compared while experts join.
    """

    trees: int = 100
    leaves: int = 15
    learning_rate: float = 0.1
    least: int = 50
    features: float = 0.5
    candidates: float = 0.7
    trials: int = 40

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        **LearnedSettings.bounds,
        "trees": (1, 10_000),
        "leaves": (2, 1024),
        "learning_rate": (1e-4, 1.0),
        "least": (1, 2**31 - 1),
        "features": (0.01, 1.0),
        "candidates": (0.01, 1.0),
        "trials": (1, 10_000),
    }

    def fitted_model(
        self, groups: Groups, chosen: Bool[np.ndarray, " G"], experts: Sequence[Expert], trial: bool
    ) -> Trees:
        import lightgbm

        count = self.trials if trial else self.trees

        kept = groups.learnable(chosen, self.negatives, self.seed)
        if not len(kept):  # no answer is in its pool
            return Trees.none(groups.features.shape[1])
        label = np.zeros(len(kept.cell), np.int8)
        label[kept.answer] = 1
        data = lightgbm.Dataset(
            kept.features[kept.cell],
            label,
            group=np.diff(kept.start),
            params={"max_bin": BINS, "verbosity": -1},
        )
        # Fewer trees learn the faster.
        rate = min(0.2, self.learning_rate * self.trees / count)
        settings = {
            "objective": "lambdarank",
            "num_leaves": self.leaves,
            "learning_rate": rate,
            "min_data_in_leaf": self.least,
            "feature_fraction": self.features,
            "bagging_fraction": self.candidates,
            "bagging_freq": 1,
            "max_bin": BINS,
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": torch.get_num_threads(),
            "verbosity": -1,
        }
        return Trees.of(lightgbm.train(settings, data, count))

    def unpacked_model(
        self, tensors: Mapping[str, Tensor], experts: Sequence[Expert], graph: Graph
    ) -> Trees:
        return Trees.unpacked(tensors, len(feature_names(experts)))
