"""Fitted rules as an expert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

from mocme.data.graph import Queries
from mocme.experts.base import Extension, Packed, SparseExpert, SparseOdds
from mocme.experts.rules.adjacency import adjacency_of
from mocme.experts.rules.rule_model import RuleModel, RuleShare


@final
class RuleExpert(SparseExpert):
    """Evidence for the entities that a rule leads to.

    Args:
        name: of the expert.
        reads: structure, and the modalities of pairs.
        model: the fitted rules.
    """

    def __init__(self, name: str, reads: tuple[str, ...], model: RuleModel) -> None:
        self.name, self.reads, self.model = name, reads, model

    def odds(self, queries: Queries) -> SparseOdds:
        return SparseOdds(*self.model.odds(queries))

    def explain(self, head: int, relation: int, answer: int) -> Sequence[RuleShare]:
        return self.model.reasons(head, relation, answer)

    def explain_both(
        self, head: int, relation: int, tail: int, inverse: int
    ) -> list[tuple[str, tuple[str, ...], int, float]]:
        """Rules of a fact in both directions; equal ones once, by the larger share.

        Returns:
            Name, names of the steps, number of paths and share of each rule.
        """
        forward = self.explain(head, relation, tail)
        backward = self.explain(tail, inverse, head)
        adjacency = self.model.relations
        # The same walks, from head to tail.
        turned = [tuple(adjacency.inverse[list(one.body[::-1])].tolist()) for one in backward]
        best: dict[tuple[int, ...], tuple[int, float]] = {}
        for bodies, rules in (([rule.body for rule in forward], forward), (turned, backward)):
            for body, (paths, share) in self._folded(bodies, rules).items():
                if body not in best or share > best[body][1]:
                    best[body] = paths, share
        merged = []
        for body, (paths, share) in best.items():
            names = tuple(adjacency.names[step] for step in body)
            merged.append((", then ".join(names), names, paths, share))
        return merged

    def _folded(
        self, bodies: Sequence[tuple[int, ...]], rules: Sequence[RuleShare]
    ) -> dict[tuple[int, ...], tuple[int, float]]:
        """Paths and share of rules of one direction; bodies that say the same are one."""
        folded: dict[tuple[int, ...], tuple[int, float]] = {}
        for body, rule in zip(bodies, rules, strict=True):
            key = tuple(self.model.relations.display[list(body)].tolist())
            paths, share = folded.get(key, (0, 0.0))
            folded[key] = max(paths, rule.count), share + rule.share
        return folded

    def extended(self, extension: Extension) -> RuleExpert:
        """The rules as they were fitted, over the facts and pairs of added entities too."""
        adjacency = adjacency_of(extension.graph, extension.features)
        return RuleExpert(self.name, self.reads, replace(self.model, relations=adjacency))

    def packed(self) -> Packed:
        return self.model.packed()
