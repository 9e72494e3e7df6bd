"""Explain a fact with the evidence of a mixture, its graph and its run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mocme.core.deadline import Check, unlimited
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
    """A fact to explain, with its scores and its probability.

    Attributes:
        scores: scores of all answers to (head, relation, ?) and (tail, inverse relation, ?).
        new: (2, N) boolean, True for answers that are not known facts.
        probability: calibrated probability, None where the fact is known or nothing is calibrated.
        known: whether the fact is in the graph.
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
    """Explains facts for one mixture and its graph.

    Args:
        mixture: trained experts and their weights.
        graph: the graph of the mixture's entities.
        context: the explanation context of the run; None to omit supporting facts.
    """

    def __init__(self, mixture: Mixture, graph: Graph, context: ExplanationContext | None) -> None:
        self.mixture, self.graph, self.context = mixture, graph, context
        self.embeddings = [e for e in mixture.experts if isinstance(e, EmbeddingExpert)]
        self._network: FactNetwork | None = None
        self._faithfulness: Faithfulness | None = None

    def explain(self, fact: FactQuery, check: Check = unlimited) -> Explanation:
        """Collect all evidence for and against a fact.

        Args:
            check: called between the steps of the work; what it raises ends it.
        """
        names, relations = self.graph.entities, self.graph.relations
        notes: list[str] = []
        scores = [float(fact.scores[0, fact.tail]), float(fact.scores[1, fact.head])]
        if fact.head == fact.tail:
            notes.append("head and tail are one entity: evidence for one also applies to the other")
        return Explanation(
            names[fact.head],
            relations[fact.relation],
            names[fact.tail],
            sum(scores) / 2,
            fact.probability,
            fact.known,
            _rank(fact, 0, fact.tail),
            _rank(fact, 1, fact.head),
            tuple(self._modalities(fact, notes, check)),
            self._weights(),
            tuple(self._rules(fact, notes, check)),
            tuple(self._supports(fact, notes, check)),
            tuple(self._paths(fact, notes, check)),
            tuple(self._neighbours(fact, notes, check)),
            tuple(notes),
        )

    # -- modalities ------------------------------------------------------------------------------

    def _modalities(
        self, fact: FactQuery, notes: list[str], check: Check
    ) -> Iterator[ModalityShare]:
        if not self.embeddings:
            notes.append("the run has no embedding expert, so no modality can be withheld")
        for expert in self.embeddings:
            model = expert.model
            table = model.frozen()
            prefix = f"{expert.name}: " if len(self.embeddings) > 1 else ""
            drops = self._score_drops(expert, fact, notes, check)
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
        self, expert: EmbeddingExpert, fact: FactQuery, notes: list[str], check: Check
    ) -> dict[tuple[Side, str], float]:
        """Return the score drop when a modality is withheld from only one of the two entities.

        The vectors of all entities are recomputed exactly. The drop is that of this expert's score;
        other experts that read the modality keep it.
        """
        model = expert.model
        keys: list[tuple[Side, str]] = []
        hides: list[dict[str, Tensor]] = []
        for side, entity in zip(SIDES, fact.entities, strict=True):
            flags = zip(model.modalities, model.present[entity], strict=True)
            available = [name for name, present in flags if present]
            if not available:
                notes.append(
                    f"nothing is known about {self.graph.entities[entity]}: its vector is the mean "
                    f"of all entities, so no modality can be withheld"
                )
            if len(available) == 1:
                notes.append(
                    f"{available[0]} is the only modality of {self.graph.entities[entity]}: "
                    f"without it the vector is the mean of all entities, so the change compares "
                    f"this entity with an average one"
                )
            mask = torch.zeros(model.num_entities, dtype=torch.bool)
            mask[entity] = True
            keys += [(side, name) for name in available]
            hides += [{name: mask} for name in available]
        queries, answers = self._both_directions(fact, expert.device)
        with torch.no_grad():
            before = model.score(queries, answers).mean()
            after = []
            for table in model.tables(hides):
                check()
                after.append(model.score(queries, answers, table).mean())
        return {
            key: self.mixture.contribution(expert.name, float(before - score))
            for key, score in zip(keys, after, strict=True)
        }

    def _both_directions(self, fact: FactQuery, device: torch.device) -> tuple[Queries, Tensor]:
        """Return the two queries of a fact, (h, r, ?) and (t, r^-1, ?), and answers (2, 1)."""
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
        measured = self._faithfulness
        agreement = measured.together
        return Weights(agreement.correlation, agreement.facts, measured.reasons, measured.text)

    # -- facts -----------------------------------------------------------------------------------

    def _rules(self, fact: FactQuery, notes: list[str], check: Check) -> list[RuleExplanation]:
        """Return the rules of both directions, largest share first.

        A rule that applies in both directions is listed once, with its larger share. Equivalent
        rules, over a symmetric relation and over its inverse, are merged: their shares add up, and
        their identical paths are counted once.
        """
        experts = [e for e in self.mixture.experts if isinstance(e, SparseExpert)]
        if not experts:
            notes.append("the run has no rule expert")
            return []
        rules = []
        for expert in experts:
            check()
            rules += self._rules_of(expert, fact)
        if not rules:
            notes.append("no rule connects head and tail")
        return sorted(rules, key=lambda rule: (-rule.share, rule.name))

    def _rules_of(self, expert: SparseExpert, fact: FactQuery) -> list[RuleExplanation]:
        inverse = fact.relation + self.graph.num_relations
        if isinstance(expert, RuleExpert):
            several = sum(isinstance(e, RuleExpert) for e in self.mixture.experts) > 1
            prefix = f"{expert.name}: " if several else ""
            rules = expert.explain_both(fact.head, fact.relation, fact.tail, inverse)
            return [
                RuleExplanation(prefix + name, steps, paths, share)
                for name, steps, paths, share in rules
            ]
        forward = expert.explain(fact.head, fact.relation, fact.tail)
        backward = expert.explain(fact.tail, inverse, fact.head)
        best: dict[str, float] = {}
        for reason in (*forward, *backward):
            # With the expert's name: a reason may be nothing but the name of an entity.
            name = f"{expert.name}: {reason.name}"
            best[name] = max(reason.share, best.get(name, reason.share))
        return [RuleExplanation(name, (), 0, share) for name, share in best.items()]

    def _supports(self, fact: FactQuery, notes: list[str], check: Check) -> list[Support]:
        if self.context is None:
            notes.append(
                "no supporting facts: the mixture was opened without its run; open the run"
            )
            return []
        supports, support_notes = self.context.supports(
            fact.head, fact.relation, fact.tail, MOST_SUPPORTS, check
        )
        notes += support_notes
        return supports

    def _paths(self, fact: FactQuery, notes: list[str], check: Check) -> list[tuple[Step, ...]]:
        if self._network is None:
            self._network = FactNetwork(self.graph, "train")
        # A path must not use the fact that it explains.
        without = (fact.head, fact.relation, fact.tail)
        search = self._network.paths(fact.head, fact.tail, without, MOST_PATHS, check)
        if search.left_out:
            notes.append(
                f"paths of three facts through the {search.left_out:,} neighbours with the most "
                f"facts were not searched"
            )
        if not search.paths:
            notes.append("no path of up to three training facts connects head and tail")
        names, relations = self.graph.entities, self.graph.relations
        return [
            tuple(Step(names[h], relations[r], names[t]) for h, r, t in path)
            for path in search.paths
        ]

    # -- neighbours ------------------------------------------------------------------------------

    def _neighbours(self, fact: FactQuery, notes: list[str], check: Check) -> Iterator[Neighbours]:
        names = self.graph.entities
        for expert in self.embeddings[:1]:
            model = expert.model
            known = model.known().nonzero().flatten()
            # Each space: its name, the entities that have a vector in it, and their vectors.
            spaces = [("vector", known, model.frozen().vectors[known])]
            for name in model.modalities[1:]:
                spaces.append((name, *model.modality_vectors(name)))
            for side, entity in zip(SIDES, fact.entities, strict=True):
                for by, rows, values in spaces:
                    check()
                    row = (rows == entity).nonzero().flatten()
                    if not len(row):
                        continue
                    nearest, cosines = nearest_to(values, int(row[0]), NEAREST)
                    neighbours = [
                        Neighbour(names[int(rows[index])], cosine)
                        for index, cosine in zip(nearest, cosines, strict=True)
                    ]
                    yield Neighbours(side, by, tuple(neighbours))


def _view_weights(expert: EmbeddingExpert, modality: str, entity: int) -> tuple[float, ...]:
    """Return the weights of a modality's views; empty where the entity lacks the modality."""
    views = expert.model.frozen().views
    if modality not in views:
        return ()
    rows, _ = expert.model.modality_vectors(modality)
    row = (rows == entity).nonzero().flatten()
    return tuple(views[modality][row[0]].tolist()) if len(row) else ()


def _rank(fact: FactQuery, direction: int, answer: int) -> int:
    """Return the rank of an answer among the new answers and itself; ties count half."""
    score = fact.scores[direction, answer]
    others = fact.scores[direction][fact.new[direction]]
    above = int((others > score).sum())
    # A new answer ties with itself once.
    ties = int((others == score).sum()) - int(fact.new[direction, answer])
    return 1 + above + ties // 2
