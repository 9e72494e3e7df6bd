"""Which experts a learned mixture takes: each in turn, unless held-out answers fall.

What an expert adds is often less than the noise of a few thousand held-out answers, so an expert
joins unless the mixture falls below the best one so far by more than a standard error. A sum has
less to learn from more experts: one joins only if the MRR rises.

Everything is read from one pool of all experts. For some of them, an answer that none of them
brings is ranked among the pool of all, not among all entities: near enough to compare choices, and
the mixture that is chosen is fitted on its own pool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float

from mocme.experts.base import Expert, SparseExpert
from mocme.mixture.held_out import Groups
from mocme.mixture.pool import CONTEXT, DENSE, SHARPNESS, SPARSE, complementarity
from mocme.mixture.sum import default_weight
from mocme.mixture.weight_search import Weight, weight_grid

# Reciprocal rank of each group of some experts, by a model that was fitted without its part.
CrossFit = Callable[[Groups, Sequence[Expert]], Float[np.ndarray, " G"]]


@final
@dataclass(frozen=True)
class Chosen:
    """Experts that joined a mixture.

    Attributes:
        names: best alone first.
        weights: of each in their sum.
        learned, sum: MRR of the held-out facts: cross-fitted, and of the sum with these weights;
            without a learned mixture, the first is None.
        alone: MRR of every expert by itself.
        steps: MRR of each trial: the expert that might join, ``learned`` and ``sum``.
    """

    names: Sequence[str]
    weights: Mapping[str, Weight]
    learned: float | None
    sum: float
    alone: Mapping[str, float]
    steps: Sequence[Mapping[str, Any]]

    @property
    def left_out(self) -> dict[str, float]:
        """The MRR with each expert that did not join."""
        what = "sum" if self.learned is None else "learned"
        return {s["expert"]: s[what] for s in self.steps if s["expert"] not in self.names}


@final
class Selection:
    """The pool of all experts, from which those of some are taken.

    Args:
        experts: in the order in which the groups were made.
        groups: of all experts, each with its default weight.
        num_entities: N.
    """

    def __init__(self, experts: Sequence[Expert], groups: Groups, num_entities: int) -> None:
        self.experts, self.groups, self.num_entities = experts, groups, num_entities
        self._names = [expert.name for expert in experts]
        self._columns: dict[str, slice] = {}
        first = 0
        for expert in experts:
            size = len(SPARSE if isinstance(expert, SparseExpert) else DENSE)
            self._columns[expert.name] = slice(first, first + size)
            first += size

    def choose(self, alone: Mapping[str, float], cross_fit: CrossFit) -> Chosen:
        """Let experts join one at a time, the best alone first.

        Args:
            alone: MRR of every expert by itself.
            cross_fit: ranks by a mixture of some experts, by their groups.
        """
        order = sorted(self._names, key=lambda name: -alone[name])
        best = order[0]
        names, weights = [best], {best: alone_weight(self._expert(best))}
        reached, of_sum = cross_fit(self.view(names, weights), [self._expert(best)]), alone[best]
        bar = reached
        steps = [{"expert": best, "learned": float(reached.mean()), "sum": of_sum}]
        for name in order[1:]:
            weight, with_it = self._weight(name, names, weights)
            trial = {**weights, name: weight}
            ranks = cross_fit(
                self.view([*names, name], trial), [*map(self._expert, names), self._expert(name)]
            )
            steps.append({"expert": name, "learned": float(ranks.mean()), "sum": with_it})
            change = ranks - bar
            if change.mean() >= -change.std() / np.sqrt(len(change)):
                names, weights, reached, of_sum = [*names, name], trial, ranks, with_it
            bar = max(bar, ranks, key=np.mean)
        return Chosen(names, weights, float(reached.mean()), of_sum, alone, steps)

    def choose_sum(self, alone: Mapping[str, float]) -> Chosen:
        """Let experts join a sum one at a time, the best alone first, while its MRR rises.

        Args:
            alone: MRR of every expert by itself.
        """
        order = sorted(self._names, key=lambda name: -alone[name])
        best = order[0]
        names, weights, reached = [best], {best: alone_weight(self._expert(best))}, alone[best]
        steps: list[dict[str, Any]] = [{"expert": best, "sum": reached}]
        for name in order[1:]:
            weight, with_it = self._weight(name, names, weights)
            steps.append({"expert": name, "sum": with_it})
            if with_it > reached:
                names, weights, reached = [*names, name], {**weights, name: weight}, with_it
        return Chosen(names, weights, None, reached, alone, steps)

    def gain(self, name: str, weight: Weight) -> Float[np.ndarray, " n"]:
        """What an expert adds to the sum, up to a constant for each question."""
        values = self.groups.features[:, self._columns[name].start].astype(np.float64)
        expert = self._expert(name)
        if isinstance(expert, SparseExpert):
            odds = np.expm1(values) / SHARPNESS
            values = np.log1p(weight.sharpness * odds)
        return weight.strength * values

    def view(self, names: Sequence[str], weights: Mapping[str, Weight]) -> Groups:
        """The groups of some experts: their candidates and features."""
        groups = self.groups
        member = self._member(names)
        total = sum(self.gain(name, weights[name]) for name in names)
        assert isinstance(total, np.ndarray)
        overlap = complementarity(member, groups.row, groups.rivals)
        parts = []
        for number, name in enumerate(names):
            own = groups.features[:, self._columns[name]].copy()
            own[:, -1] = overlap[groups.row, number]
            parts.append(own)
        parts.append(groups.features[:, -len(CONTEXT) :])
        features = np.concatenate(parts, 1, dtype=np.float32)
        return self._restricted(names, features, total)

    def _expert(self, name: str) -> Expert:
        return self.experts[self._names.index(name)]

    def _member(self, names: Sequence[str]) -> Bool[np.ndarray, "n E"]:
        member: Bool[np.ndarray, "n E"] = self.groups.member[:, [*map(self._names.index, names)]]
        return member

    def _restricted(
        self,
        names: Sequence[str],
        features: Float[np.ndarray, "n F"],
        total: Float[np.ndarray, " n"],
    ) -> Groups:
        """The groups of some experts; other candidates are ranked by their total."""
        sparse = all(isinstance(self._expert(name), SparseExpert) for name in names)
        # Of all that is in no pool, such experts say nothing: it ties at 0.
        tied = self.num_entities if sparse else 0
        kept = np.asarray(self._member(names).any(1))
        return _restricted(self.groups, kept, features, total, tied)

    def _mrr(self, total: Float[np.ndarray, " n"], names: Sequence[str]) -> float:
        inside = self._restricted(names, self.groups.features, total)
        return float(inside.reciprocal_ranks(total).mean())

    def _weight(
        self, name: str, names: Sequence[str], weights: Mapping[str, Weight]
    ) -> tuple[Weight, float]:
        """The weight of an expert that joins others in a sum, and the MRR of the sum."""
        before = sum(self.gain(other, weights[other]) for other in names)
        tried = {
            weight: self._mrr(before + self.gain(name, weight), [*names, name])
            for weight in weight_grid(self._expert(name))
        }
        best = max(tried, key=lambda weight: tried[weight])
        return best, tried[best]


def alone_weight(expert: Expert) -> Weight:
    """The weight of an expert that is its own mixture."""
    return default_weight(expert)._replace(strength=1.0)


def _restricted(
    groups: Groups,
    kept: Bool[np.ndarray, " n"],
    features: Float[np.ndarray, "n F"],
    total: Float[np.ndarray, " n"],
    tied: int,
) -> Groups:
    """The groups without candidates that are not kept; those are ranked by their total.

    Args:
        tied: how many entities in no pool have the total 0.
    """
    inside = kept[groups.cell]
    count = len(groups)
    group = np.repeat(np.arange(count), np.diff(groups.start))
    size = np.bincount(group, inside, count).astype(np.int64)
    place = np.cumsum(inside) - 1
    had = groups.answer >= 0
    has = had.copy()
    has[had] = inside[groups.answer[had]]
    answer = np.full(count, -1)
    answer[has] = place[groups.answer[has]]
    own = np.full(count, np.inf)
    own[had] = total[groups.cell[groups.answer[had]]]
    values = total[groups.cell]
    above = np.bincount(group, ~inside & (values > own[group]), count)
    ties = np.bincount(group, ~inside & (values == own[group]), count) + tied * (own == 0)
    outside = np.where(had, 1 / (0.5 + size + above + ties / 2), groups.outside)
    if tied:
        outside = np.where(had, outside, 1 / (0.5 + size + tied / 2))
    return replace(
        groups,
        features=features,
        cell=groups.cell[inside],
        start=np.concatenate([[0], np.cumsum(size)]),
        answer=answer,
        outside=outside,
    )
