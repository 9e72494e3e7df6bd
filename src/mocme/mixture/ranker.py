"""A learned mixture: trees that rank the pool of a query by what every expert says of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mocme.core.text_formats import parse_json
from mocme.data.graph import Graph, Queries
from mocme.evaluation.ranking import rank_split
from mocme.experts.base import Expert, Packed, Progress
from mocme.mixture import sum as sums
from mocme.mixture.base import Mixture, MixtureSettings
from mocme.mixture.fact_index import FactIndex
from mocme.mixture.held_out import Groups, counted_answers, make_groups
from mocme.mixture.pool import feature_names, make_pool
from mocme.mixture.selection import Chosen, Selection, alone_weight
from mocme.mixture.sum import Sum
from mocme.mixture.trees import Trees
from mocme.mixture.weight_search import Weight

FORMAT = "mocme ranker 1"
# Held-out facts below which trees would fit noise.
FEW_FACTS = 200
# Rows of one question that LightGBM takes.
GROUP = 10_000
# Scores of all experts that are held at once while queries are scored.
CELLS = 1 << 24
# Bins of a feature: candidates differ in ranks and shares, not in the last digits of them.
BINS = 63


@final
class Ranker(Mixture):
    """Trees over what the experts say of a candidate in the pool of its query.

    A candidate in the pool scores L + f(x), with f the sum of the trees and L such that this is at
    least 1. Any other candidate scores its log share in the sum of the experts, which is at most 0.

    Args:
        experts: as in `Mixture`.
        facts: that the experts were fitted on.
        weights: of each expert in the sum, by name.
        trees: over the features of `mixture.pool`.
        pool: candidates that each expert brings.
    """

    def __init__(
        self,
        experts: Sequence[Expert],
        facts: FactIndex,
        weights: Mapping[str, Weight],
        trees: Trees,
        pool: int,
    ) -> None:
        super().__init__(experts, facts.num_entities)
        self.weights = {expert.name: weights[expert.name] for expert in experts}
        self.facts, self.trees, self.pool = facts, trees, pool
        self._base = 1 - trees.least

    def score(self, queries: Queries, candidates: Tensor | None = None) -> Float[Tensor, "B C"]:
        block = max(1, CELLS // (self.num_entities * len(self.experts)))
        starts = range(0, max(1, len(queries)), block)
        scores = torch.cat([self._scores(queries[first : first + block]) for first in starts])
        scores = scores.to(self.device)
        if candidates is None:
            return scores
        return scores[:, candidates] if candidates.ndim == 1 else scores.gather(1, candidates)

    def _scores(self, queries: Queries) -> Float[Tensor, "B N"]:
        pool = make_pool(self.experts, self.weights, self.facts, queries, self.pool)
        scores = pool.outside
        inside = torch.from_numpy(self._base + self.trees(pool.features))
        row, column = torch.from_numpy(pool.row), torch.from_numpy(pool.column)
        scores[row, column] = inside.to(scores.dtype)
        return scores

    def contribution(self, name: str, value: float) -> float:
        """What an expert adds to the log of the odds in the sum: the trees do not add up."""
        return sums.contribution(self.expert(name), self.weights[name], value)

    def extended(self, experts: Sequence[Expert], graph: Graph) -> Ranker:
        return Ranker(experts, self.facts.extended(graph), self.weights, self.trees, self.pool)

    def packed(self) -> Packed:
        metadata = {
            "format": FORMAT,
            "experts": json.dumps(list(self.weights)),
            "features": json.dumps(feature_names(self.experts)),
            "pool": str(self.pool),
        }
        return {"weights": sums.packed_weights(self.weights), **self.trees.packed()}, metadata

    @staticmethod
    def unpacked(packed: Packed, experts: Sequence[Expert], graph: Graph) -> Ranker:
        """The mixture that `packed` describes.

        Raises:
            ValueError: the tensors do not fit the experts.
        """
        tensors, metadata = packed
        weights = sums.unpacked_weights(packed, experts)
        names = feature_names(experts)
        if parse_json(metadata.get("features", "null")) != names:
            raise ValueError("the trees were fitted on other features than these experts have")
        pool = metadata.get("pool", "")
        if not (pool.isascii() and pool.isdigit() and 1 <= int(pool) <= 10_000):
            raise ValueError(f"the size of the pool is {pool!r}; it must be 1 to 10000")
        parts = {name: tensor for name, tensor in tensors.items() if name != "weights"}
        trees = Trees.unpacked(parts, len(names))
        return Ranker(experts, FactIndex.of(graph), weights, trees, int(pool))


@final
@dataclass(frozen=True, kw_only=True)
class RankerSettings(MixtureSettings):
    """A learned mixture that is never worse than its best expert on held-out facts.

    The experts are fitted without the held-out facts first. They join the mixture one at a time,
    the best first, unless the cross-fitted MRR of the held-out facts falls. What has joined is
    fitted again on all training facts. If neither trees nor the sum are above the best expert, this
    expert serves alone. With too few held-out facts for trees, the sum with default weights serves.

    Args:
        held_out: share of the training facts that are held out.
        pool: candidates that each expert brings to the pool of a query.
        trees: number of trees.
        leaves: of a tree.
        learning_rate: factor of each tree.
        least: candidates in a leaf, at least.
        features: share of the features that a tree sees.
        candidates: share of the candidates that a tree sees.
        trials: trees of the mixtures that are compared while experts join.
        parts: of the held-out facts, for cross-fitting.
        seed: of the parts and the trees. The held-out facts are drawn by the seed of the run.
    """

    held_out: float = 0.05
    pool: int = 50
    trees: int = 200
    leaves: int = 15
    learning_rate: float = 0.05
    least: int = 50
    features: float = 0.5
    candidates: float = 0.7
    trials: int = 60
    parts: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        bounds = {
            "held_out": (0.001, 0.5),
            "pool": (1, 10_000),
            "trees": (1, 10_000),
            "leaves": (2, 1024),
            "learning_rate": (1e-4, 1.0),
            "least": (1, 2**31 - 1),
            "features": (0.01, 1.0),
            "candidates": (0.01, 1.0),
            "trials": (1, 10_000),
            "parts": (2, 100),
            "seed": (0, 2**31 - 1),
        }
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be {low} to {high}, not {getattr(self, name)}")

    @property
    def share(self) -> float:
        return self.held_out

    def fit(
        self,
        experts: Sequence[Expert],
        graph: Graph,
        memory: float,
        progress: Progress | None = None,
    ) -> tuple[Mixture, dict[str, Any]]:
        started = time.perf_counter()
        held = len(graph.facts("valid"))
        if held < FEW_FACTS:
            weights = {e.name: sums.default_weight(e) for e in experts}
            reason = (
                f"{held} held-out facts are fewer than {FEW_FACTS}: the sum has default weights"
            )
            return Sum(experts, graph.num_entities, weights), {
                "kind": "Sum",
                "reason": reason,
                "weights": {name: weight.as_dict() for name, weight in weights.items()},
                "seconds": round(time.perf_counter() - started, 3),
            }
        steps = _Steps(progress, 2 * len(experts) + 2)
        size, alone, counted = graph.num_entities, {}, counted_answers(graph.answers("valid"))
        for expert in experts:
            ranks = rank_split(_alone(expert, size), graph, "valid", memory)
            # Of the answers that have a group, as for the mixtures.
            alone[expert.name] = float((1 / ranks.realistic)[counted].mean())
            steps.done()
        weights = {expert.name: sums.default_weight(expert) for expert in experts}
        groups = self._groups(experts, weights, graph, memory)
        steps.done()
        selection = Selection(experts, groups, size)
        chosen = selection.choose(alone, self._cross_fitted, steps.done)
        joined = [expert for expert in experts if expert.name in chosen.names]
        record = {
            "held_out": held,
            "alone": dict(chosen.alone),
            "steps": list(chosen.steps),
            "left_out": chosen.left_out,
            "ranker": chosen.ranker,
            "sum": chosen.sum,
        }
        mixture, kind, reason = self._fitted(joined, chosen, graph, memory)
        steps.done()
        record |= {
            "kind": kind,
            "reason": reason,
            "weights": {name: w.as_dict() for name, w in mixture.weights.items()},
            "seconds": round(time.perf_counter() - started, 3),
        }
        return mixture, record

    def _fitted(
        self, experts: Sequence[Expert], chosen: Chosen, graph: Graph, memory: float
    ) -> tuple[Ranker | Sum, str, str]:
        """The better of trees and sum, or the best expert; its kind, and why."""
        best = max(experts, key=lambda expert: chosen.alone[expert.name])
        alone = chosen.alone[best.name]
        if max(chosen.ranker, chosen.sum) <= alone:
            reason = f"no mixture is above {best.name} alone on the held-out facts"
            return _alone(best, graph.num_entities), "Sum", reason
        if chosen.sum >= chosen.ranker:
            reason = "the sum is above the trees on the held-out facts"
            return Sum(experts, graph.num_entities, chosen.weights), "Sum", reason
        groups = self._groups(experts, chosen.weights, graph, memory)
        trees = self._trees(groups, np.ones(len(groups), bool), self.trees)
        facts = FactIndex.of(graph)
        reason = "the trees are above the sum and every expert on the held-out facts"
        return Ranker(experts, facts, chosen.weights, trees, self.pool), "Ranker", reason

    def _groups(
        self,
        experts: Sequence[Expert],
        weights: Mapping[str, Weight],
        graph: Graph,
        memory: float,
    ) -> Groups:
        return make_groups(experts, weights, graph, self.pool, self.parts, self.seed, memory)

    def _cross_fitted(self, groups: Groups) -> Float[np.ndarray, " G"]:
        """Reciprocal rank of each group, by trees that were fitted without its part."""
        ranks = np.zeros(len(groups))
        for part in range(self.parts):
            inside = groups.part == part
            fitted = self._trees(groups, ~inside, self.trials)
            ranks[inside] = groups.reciprocal_ranks(fitted(groups.features))[inside]
        return ranks

    def _trees(self, groups: Groups, chosen: Bool[np.ndarray, " G"], count: int) -> Trees:
        """Trees that rank the answers of the chosen groups high.

        LambdaRank: Burges, From RankNet to LambdaRank to LambdaMART, 2010.
        """
        import lightgbm

        kept = groups.learnable(chosen)
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

    def unpacked(self, packed: Packed, experts: Sequence[Expert], graph: Graph) -> Mixture:
        if packed[1].get("format") == sums.FORMAT:
            return Sum.unpacked(packed, experts, graph)
        if packed[1].get("format") != FORMAT:
            raise ValueError(
                f"a mixture of format {packed[1].get('format')!r} cannot be read; expected {FORMAT}"
            )
        mixture = Ranker.unpacked(packed, experts, graph)
        if mixture.pool != self.pool:
            raise ValueError(f"has a pool of {mixture.pool}; the settings have {self.pool}")
        return mixture

    def check_experts(self, sparse: Mapping[str, bool]) -> None:
        if self.pool * len(sparse) > GROUP:
            raise ValueError(
                f"mixture.pool: {self.pool} candidates of each of {len(sparse)} experts are more "
                f"than the {GROUP:,} of one question that LightGBM takes; use a smaller pool"
            )


def _alone(expert: Expert, num_entities: int) -> Sum:
    return Sum([expert], num_entities, {expert.name: alone_weight(expert)})


@dataclass
class _Steps:
    """Counts the steps of a fit."""

    progress: Callable[[int, int], None] | None
    total: int
    count: int = 0

    def done(self) -> None:
        self.count += 1
        if self.progress is not None:
            self.progress(self.count, self.total)
