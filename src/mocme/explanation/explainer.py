"""Explain a fact: gather what a model, its graph and its run say of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mocme.data.graph import Graph, Queries
from mocme.data.pairs.similarity import nearest_to
from mocme.data.paths import FactNetwork
from mocme.experts.base import SparseExpert
from mocme.experts.embedding.expert import EmbeddingExpert
from mocme.experts.rules.expert import RuleExpert
from mocme.explanation.faithfulness import Faithfulness, measure
from mocme.explanation.schema import (
    Explanation,
    ExplanationContext,
    ModalityShare,
    Neighbour,
    Neighbours,
    RuleExplanation,
    Side,
    Step,
    Support,
    Weights,
)
from mocme.mixture.base import Mixture

SIDES: tuple[Side, Side] = ("head", "tail")
NEAREST, MOST_PATHS, MOST_SUPPORTS = 5, 10, 5


@dataclass(frozen=True, eq=False)
class FactQuery:
    """A fact, and what `Completer` knows of it.

    Attributes:
        scores: of (head, relation, ?) and (tail, inverse relation, ?), (2, N).
        new: which of these answers are not known.
    """

    head: int
    relation: int
    tail: int
    scores: Float[Tensor, "2 N"]
    new: Tensor
    probability: float | None
    known: bool

    @property
    def entities(self) -> tuple[int, int]:
        return self.head, self.tail


class Explainer:
    """Explains the facts of one mixture and graph.

    Args:
        mixture: of trained experts.
        graph: of the mixture's entities.
        context: of the run; without it no fact is named as support.
    """

    def __init__(self, mixture: Mixture, graph: Graph, context: ExplanationContext | None) -> None:
        self.mixture, self.graph, self.context = mixture, graph, context
        self.embeddings = [e for e in mixture.experts if isinstance(e, EmbeddingExpert)]
        self._network: FactNetwork | None = None
        self._faithfulness: Faithfulness | None = None

    def explain(self, fact: FactQuery) -> Explanation:
        """All that can be shown for a fact."""
        names, relations = self.graph.entities, self.graph.relations
        notes: list[str] = []
        own = [float(fact.scores[0, fact.tail]), float(fact.scores[1, fact.head])]
        if fact.head == fact.tail:
            notes.append("head and tail are one entity: what is said of one holds for the other")
        return Explanation(
            names[fact.head],
            relations[fact.relation],
            names[fact.tail],
            sum(own) / 2,
            fact.probability,
            fact.known,
            _rank(fact, 0, fact.tail),
            _rank(fact, 1, fact.head),
            tuple(self._modalities(fact, notes)),
            self._weights(),
            tuple(self._rules(fact, notes)),
            tuple(self._supports(fact, notes)),
            tuple(self._paths(fact, notes)),
            tuple(self._neighbours(fact, notes)),
            tuple(notes),
        )

    # -- modalities ------------------------------------------------------------------------------

    def _modalities(self, fact: FactQuery, notes: list[str]) -> Iterator[ModalityShare]:
        if not self.embeddings:
            notes.append("no expert of the run computes vectors, so no modality can be withheld")
        for expert in self.embeddings:
            model = expert.model
            table = model.frozen()
            prefix = f"{expert.name}: " if len(self.embeddings) > 1 else ""
            drops = self._score_drops(expert, fact, notes)
            for side, entity in zip(SIDES, fact.entities, strict=True):
                for column, name in enumerate(model.modalities):
                    yield ModalityShare(
                        prefix + name,
                        side,
                        bool(model.present[entity, column]),
                        float(table.weights[entity, column]),
                        _view_weights(expert, name, entity),
                        drops.get((side, name)),
                    )

    def _score_drops(
        self, expert: EmbeddingExpert, fact: FactQuery, notes: list[str]
    ) -> dict[tuple[Side, str], float]:
        """Drop of the score when a modality is withheld from one of the two entities alone.

        Other experts do not read vectors, so their scores cancel in the difference.
        """
        model = expert.model
        keys: list[tuple[Side, str]] = []
        hides: list[dict[str, Tensor]] = []
        for side, entity in zip(SIDES, fact.entities, strict=True):
            flags = zip(model.modalities, model.present[entity], strict=True)
            having = [name for name, present in flags if present]
            if not having:
                notes.append(
                    f"nothing is known of {self.graph.entities[entity]}: its vector is the mean of "
                    f"all, and no modality can be withheld from it"
                )
            if len(having) == 1:
                notes.append(
                    f"{having[0]} is all that is known of {self.graph.entities[entity]}: without "
                    f"it the vector is the mean of all entities, and the change tells how much "
                    f"better than an average entity it does"
                )
            mask = torch.zeros(model.num_entities, dtype=torch.bool)
            mask[entity] = True
            keys += [(side, name) for name in having]
            hides += [{name: mask} for name in having]
        queries, answers = self._both_directions(fact, expert.device)
        with torch.no_grad():
            before = model.score(queries, answers).mean()
            after = [model.score(queries, answers, t).mean() for t in model.tables(hides)]
        return {
            key: self.mixture.contribution(expert.name, float(before - score))
            for key, score in zip(keys, after, strict=True)
        }

    def _both_directions(self, fact: FactQuery, device: torch.device) -> tuple[Queries, Tensor]:
        relation = torch.tensor([fact.relation, fact.relation + self.graph.num_relations])
        queries = Queries(torch.tensor(fact.entities), relation)
        return queries.to(device), torch.tensor([[fact.tail], [fact.head]], device=device)

    def _weights(self) -> Weights:
        if self._faithfulness is None:
            self._faithfulness = (
                measure(self.mixture, self.graph)
                if self.context is None
                else self.context.faithfulness()
            )
        found = self._faithfulness
        return Weights(found.together.correlation, found.together.facts, found.reasons, found.text)

    # -- facts -----------------------------------------------------------------------------------

    def _rules(self, fact: FactQuery, notes: list[str]) -> list[RuleExplanation]:
        """Rules of both directions; one found in both counts once, by its larger share.

        Rules that say the same are one: a symmetric relation and its inverse lead to the same
        entities. Their shares add up; their paths are the same ones and are not counted twice.
        """
        experts = [e for e in self.mixture.experts if isinstance(e, SparseExpert)]
        if not experts:
            notes.append("the run has no rules")
            return []
        rules = [rule for expert in experts for rule in self._rules_of(expert, fact)]
        if not rules:
            notes.append("no rule leads from head to tail")
        return sorted(rules, key=lambda rule: (-rule.share, rule.name))

    def _rules_of(self, expert: SparseExpert, fact: FactQuery) -> list[RuleExplanation]:
        inverse = fact.relation + self.graph.num_relations
        if isinstance(expert, RuleExpert):
            rules = expert.explain_both(fact.head, fact.relation, fact.tail, inverse)
            return [RuleExplanation(*rule) for rule in rules]
        forward = expert.explain(fact.head, fact.relation, fact.tail)
        backward = expert.explain(fact.tail, inverse, fact.head)
        best: dict[str, float] = {}
        for reason in (*forward, *backward):
            best[reason.name] = max(reason.share, best.get(reason.name, reason.share))
        return [RuleExplanation(name, (), 0, share) for name, share in best.items()]

    def _supports(self, fact: FactQuery, notes: list[str]) -> list[Support]:
        if self.context is None:
            notes.append("no supporting facts: the mixture was opened without its run")
            return []
        found, said = self.context.supports(fact.head, fact.relation, fact.tail, MOST_SUPPORTS)
        notes += said
        return found

    def _paths(self, fact: FactQuery, notes: list[str]) -> list[tuple[Step, ...]]:
        if self._network is None:
            self._network = FactNetwork(self.graph, "train")
        without = (fact.head, fact.relation, fact.tail)
        found = self._network.paths(fact.head, fact.tail, without, MOST_PATHS)
        if found.left_out:
            notes.append(
                f"paths of three facts were not followed over {found.left_out:,} neighbours with "
                f"the most facts"
            )
        if not found.paths:
            notes.append("no path of up to three training facts links head and tail")
        names, relations = self.graph.entities, self.graph.relations
        return [
            tuple(Step(names[h], relations[r], names[t]) for h, r, t in path)
            for path in found.paths
        ]

    # -- neighbours ------------------------------------------------------------------------------

    def _neighbours(self, fact: FactQuery, notes: list[str]) -> Iterator[Neighbours]:
        names = self.graph.entities
        for expert in self.embeddings[:1]:
            model = expert.model
            known = model.known().nonzero().flatten()
            spaces = [("vector", known, model.frozen().vectors[known])]
            for name in model.modalities[1:]:
                spaces.append((name, *model.modality_vectors(name)))
            for side, entity in zip(SIDES, fact.entities, strict=True):
                for by, rows, values in spaces:
                    row = (rows == entity).nonzero().flatten()
                    if not len(row):
                        continue
                    nearest, cosines = nearest_to(values, int(row[0]), NEAREST)
                    near = [
                        Neighbour(names[int(rows[n])], cosine)
                        for n, cosine in zip(nearest, cosines, strict=True)
                    ]
                    yield Neighbours(side, by, tuple(near))


def _view_weights(expert: EmbeddingExpert, modality: str, entity: int) -> tuple[float, ...]:
    """Weights of a modality's views in an entity; none where the entity lacks it."""
    views = expert.model.frozen().views
    if modality not in views:
        return ()
    rows, _ = expert.model.modality_vectors(modality)
    row = (rows == entity).nonzero().flatten()
    return tuple(views[modality][row[0]].tolist()) if len(row) else ()


def _rank(fact: FactQuery, direction: int, answer: int) -> int:
    """Rank of an answer among those that are not known and itself."""
    own = fact.scores[direction, answer]
    others = fact.scores[direction][fact.new[direction]]
    above = int((others > own).sum())
    ties = int((others == own).sum()) - int(fact.new[direction, answer])
    return 1 + above + ties // 2
