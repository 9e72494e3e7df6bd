"""Find the training facts that support a prediction: how its score would change without each.

Through rules, the change is exact with the rule weights unchanged
(`mocme.experts.rules.leave_one_out`); through vectors, it is estimated
(`mocme.explanation.embedding_influence`).
"""

from __future__ import annotations

from functools import partial

from mocme.core.deadline import Check, unlimited
from mocme.data.graph import Graph
from mocme.data.modality import Features
from mocme.data.paths import Fact
from mocme.experts.embedding.expert import EmbeddingExpert
from mocme.experts.rules.expert import RuleExpert
from mocme.experts.rules.leave_one_out import score_changes as rule_losses
from mocme.explanation.embedding_influence import EmbeddingInfluence
from mocme.explanation.schema import Support
from mocme.mixture.base import Mixture


class InfluenceFinder:
    """Finds the training facts that support a prediction of a mixture.

    Args:
        mixture: trained experts and their weights.
        graph: the training view of the mixture's graph.
        features: the features of the graph's entities.
    """

    def __init__(self, mixture: Mixture, graph: Graph, features: Features) -> None:
        self.mixture, self.graph, self.features = mixture, graph, features
        self.rules = [e for e in mixture.experts if isinstance(e, RuleExpert)]
        self.embeddings = [
            EmbeddingInfluence(expert, graph, features)
            for expert in mixture.experts
            if isinstance(expert, EmbeddingExpert)
        ]

    def __call__(
        self, head: int, relation: int, tail: int, most: int, check: Check = unlimited
    ) -> tuple[list[Support], list[str]]:
        """Return the facts that support (head, relation, tail) most, strongest first, and notes.

        Args:
            check: called between the steps of the work; what it raises ends it.
        """
        by_rules = self.by_rules(head, relation, tail, check)
        by_vectors, notes = self.by_vectors(head, relation, tail, set(by_rules), check)
        changes = {
            fact: (by_vectors.get(fact, 0.0), by_rules.get(fact, 0.0))
            for fact in by_vectors.keys() | by_rules.keys()
        }
        # The fact itself is not evidence for itself.
        changes.pop((head, relation, tail), None)
        order = sorted(changes, key=lambda fact: (sum(changes[fact]), fact))
        supports = [
            self._support(fact, *changes[fact]) for fact in order[:most] if sum(changes[fact]) < 0
        ]
        if not supports:
            notes.append("no training fact of head or tail supports the fact")
        return supports, notes

    def by_rules(
        self, head: int, relation: int, tail: int, check: Check = unlimited
    ) -> dict[Fact, float]:
        """Return the exact score change without each fact on a path of a rule.

        The score is the mean of both directions, (head, relation, ?) and its inverse.
        """
        inverse = relation + self.graph.num_relations
        total: dict[Fact, float] = {}
        for expert in self.rules:
            contribution = partial(self.mixture.contribution, expert.name)
            for changes in (
                rule_losses(expert.model, head, relation, tail, contribution, check),
                rule_losses(expert.model, tail, inverse, head, contribution, check),
            ):
                for fact, value in changes.items():
                    total[fact] = total.get(fact, 0.0) + value / 2
        return total

    def by_vectors(
        self,
        head: int,
        relation: int,
        tail: int,
        wanted: set[Fact],
        check: Check = unlimited,
    ) -> tuple[dict[Fact, float], list[str]]:
        """Estimate the change of the mean score without each training fact of head or tail.

        Args:
            head: head of the prediction.
            relation: relation of the prediction.
            tail: tail of the prediction.
            wanted: facts to prefer where an entity has more than `MOST_FACTS`.
            check: called between the steps of the work; what it raises ends it.
        """
        total: dict[Fact, float] = {}
        notes: list[str] = []
        for influence in self.embeddings:
            changes, expert_notes = influence.changes(head, relation, tail, wanted, check)
            for fact, value in changes.items():
                change = self.mixture.contribution(influence.expert.name, value)
                total[fact] = total.get(fact, 0.0) + change
            notes += [note for note in expert_notes if note not in notes]
        return total, notes

    def _support(self, fact: Fact, by_vectors: float, by_rules: float) -> Support:
        """Name a fact; relations from 2R on are tokens, two per modality (with inverses)."""
        head, relation, tail = fact
        names, links = self.graph.entities, 2 * self.graph.num_relations
        numbers = (by_vectors + by_rules, by_vectors, by_rules)
        if relation < links:
            return Support(
                names[head], self.graph.relations[relation], names[tail], "fact", *numbers
            )
        modality = list(self.features.tokens)[(relation - links) // 2]
        # Token nodes follow the entities, one vocabulary after another.
        first = self.graph.num_entities
        for name, tokens in self.features.tokens.items():
            if name == modality:
                word = tokens.vocabulary[tail - first]
            first += len(tokens.vocabulary)
        return Support(names[head], modality, word, "token", *numbers)
