"""Which training facts support a prediction: what its score would be had one not been in training.

Through rules: exact, with their weights as they are (`mocme.experts.rules.leave_one_out`).
Through vectors: an estimate for the vectors of head and tail, everything else held as it is. A
training is at rest, so the gradients of all that pulls at a vector v sum to 0. Without the loss L
of one fact, the others pull v on to v + H^-1 grad L, H the second derivatives of the losses of v's
facts and a damping (Koh and Liang, ICML 2017, for the parameters of one entity); the score S
changes by grad S . H^-1 grad L. One system of equations an entity gives H^-1 grad S for all its
facts.

In such a step it does not matter how a vector is made of an entity's row and its modalities, as
long as the row can move it anywhere; so no way of fusing is named here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.features.tokens import TrainingFacts
from mocme.data.graph import AnswerIndex, Graph, Queries
from mocme.data.modality import Features
from mocme.experts.embedding.expert import EmbeddingExpert
from mocme.experts.embedding.objective import Objective
from mocme.experts.embedding.vector_model import VectorModel
from mocme.experts.rules.expert import RuleExpert
from mocme.experts.rules.leave_one_out import score_changes as rule_losses
from mocme.explanation.schema import Support
from mocme.mixture.base import Mixture

# Facts of one entity that are weighed, at most.
MOST_FACTS = 200
# The damping is this share of the mean of H's diagonal.
DAMPING = 0.1
STEPS = 20
RESIDUAL = 1e-2

Fact = tuple[int, int, int]


class InfluenceFinder:
    """Finds the training facts that support a prediction of a mixture.

    Args:
        mixture: of trained experts.
        graph: its training view.
        features: of the graph's entities.
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
        self, head: int, relation: int, tail: int, most: int
    ) -> tuple[list[Support], list[str]]:
        """The facts that support (head, relation, tail) most, best first, and notes."""
        by_rules = self.by_rules(head, relation, tail)
        by_vectors, notes = self.by_vectors(head, relation, tail, set(by_rules))
        changes = {
            fact: (by_vectors.get(fact, 0.0), by_rules.get(fact, 0.0))
            for fact in by_vectors.keys() | by_rules.keys()
        }
        # The fact itself explains nothing.
        changes.pop((head, relation, tail), None)
        order = sorted(changes, key=lambda fact: (sum(changes[fact]), fact))
        supports = [
            self._support(fact, *changes[fact]) for fact in order[:most] if sum(changes[fact]) < 0
        ]
        if not supports:
            notes.append("no training fact of head or tail speaks for it")
        return supports, notes

    def by_rules(self, head: int, relation: int, tail: int) -> dict[Fact, float]:
        """Change of the mean score of both directions without each fact on a path of a rule."""
        inverse = relation + self.graph.num_relations
        total: dict[Fact, float] = {}
        for expert in self.rules:
            contribution = partial(self.mixture.contribution, expert.name)
            for changes in (
                rule_losses(expert.model, head, relation, tail, contribution),
                rule_losses(expert.model, tail, inverse, head, contribution),
            ):
                for fact, value in changes.items():
                    total[fact] = total.get(fact, 0.0) + value / 2
        return total

    def by_vectors(
        self, head: int, relation: int, tail: int, wanted: set[Fact]
    ) -> tuple[dict[Fact, float], list[str]]:
        """Estimated change of the mean score without each training fact of head or tail.

        Args:
            head: of the fact.
            relation: of the fact.
            tail: of the fact.
            wanted: facts to weigh in any case, where an entity has more than `MOST_FACTS`.
        """
        total: dict[Fact, float] = {}
        notes: list[str] = []
        for influence in self.embeddings:
            changes, said = influence.changes(head, relation, tail, wanted)
            for fact, value in changes.items():
                change = self.mixture.contribution(influence.expert.name, value)
                total[fact] = total.get(fact, 0.0) + change
            notes += [note for note in said if note not in notes]
        return total, notes

    def _support(self, fact: Fact, by_vectors: float, by_rules: float) -> Support:
        head, relation, tail = fact
        names, links = self.graph.entities, 2 * self.graph.num_relations
        numbers = (by_vectors + by_rules, by_vectors, by_rules)
        if relation < links:
            return Support(
                names[head], self.graph.relations[relation], names[tail], "fact", *numbers
            )
        modality = list(self.features.tokens)[(relation - links) // 2]
        # Nodes of tokens follow the entities, vocabulary by vocabulary.
        first = self.graph.num_entities
        for name, tokens in self.features.tokens.items():
            if name == modality:
                word = tokens.vocabulary[tail - first]
            first += len(tokens.vocabulary)
        return Support(names[head], modality, word, "token", *numbers)


class EmbeddingInfluence:
    """Estimated influence of training facts through the vectors of one embedding.

    Args:
        expert: the embedding.
        graph: its training view.
        features: of the graph's entities.
    """

    def __init__(self, expert: EmbeddingExpert, graph: Graph, features: Features) -> None:
        self.expert, self.model, self.graph = expert, expert.model, graph
        self.device = expert.device
        candidates = expert.objective.candidates
        self.facts = TrainingFacts.of(graph, features.tokens, candidates)
        self.estimator = InfluenceEstimator(expert.objective, self.model, self.facts)

    def changes(
        self, head: int, relation: int, tail: int, wanted: set[Fact]
    ) -> tuple[dict[Fact, float], list[str]]:
        """Estimated change of the expert's mean score without each training fact; notes."""
        slopes = self.slopes(head, relation, tail)
        total: dict[Fact, float] = {}
        notes = []
        for entity, slope in slopes.items():
            other = tail if entity == head else head
            all_facts = self.estimator.facts_of(entity)
            facts = self._chosen(all_facts, other, wanted)
            name = self.graph.entities[entity]
            if not len(facts):
                notes.append(f"{name} is in no training fact, so that none supports it")
                continue
            if len(facts) < len(all_facts):
                notes.append(
                    f"of {len(all_facts):,} training facts of {name}, {len(facts):,} were weighed: "
                    f"those on paths of rules, and those whose other entity is most like "
                    f"{self.graph.entities[other]}"
                )
            change = self.estimator.changes(entity, facts, slope, len(all_facts) / len(facts))
            for fact, value in zip(facts.tolist(), change.tolist(), strict=True):
                key = self._undirected(*fact)
                total[key] = total.get(key, 0.0) + value
        return total, notes

    # Asked within torch.no_grad, it differentiates all the same.
    @torch.enable_grad()
    def slopes(self, head: int, relation: int, tail: int) -> dict[int, Float[Tensor, " D"]]:
        """Gradient of the mean score with respect to the vectors of head and tail."""
        model = self.model
        vectors = model.frozen().vectors
        own = {e: vectors[e].clone().requires_grad_() for e in dict.fromkeys((head, tail))}
        both = torch.tensor([relation, relation + self.graph.num_relations], device=self.device)
        query = model.query(torch.stack([own[head], own[tail]]), both)
        answers = torch.stack([own[tail], own[head]]).unsqueeze(1)
        score = model.scorer.compare(query, answers).mean()
        slopes = torch.autograd.grad(score, list(own.values()))
        return dict(zip(own, slopes, strict=True))

    def _chosen(self, own: Int[Tensor, "n 3"], other: int, wanted: set[Fact]) -> Int[Tensor, "m 3"]:
        """The facts of an entity that are weighed."""
        if len(own) <= MOST_FACTS:
            return own
        vectors = self.model.frozen().vectors
        alike = torch.cosine_similarity(vectors[own[:, 2]], vectors[other].unsqueeze(0))
        on_paths = [self._undirected(*fact) in wanted for fact in own.tolist()]
        alike[torch.tensor(on_paths, device=alike.device)] += 2
        chosen = alike.argsort(descending=True, stable=True)[:MOST_FACTS].sort().values
        return own[chosen.to(own.device)]

    def _undirected(self, head: int, relation: int, tail: int) -> Fact:
        """A directed fact in its own direction."""
        number = self.graph.num_relations
        if relation < number:
            return head, relation, tail
        if relation < 2 * number:
            return tail, relation - number, head
        return head, relation, tail


class InfluenceEstimator:
    """What each training fact of an entity does to the entity's vector."""

    def __init__(self, settings: Objective, model: VectorModel, facts: TrainingFacts) -> None:
        self.settings, self.model, self.facts = settings, model, facts
        self.index = AnswerIndex(facts.facts)
        self.device = model.device

    def facts_of(self, entity: int) -> Int[Tensor, "n 3"]:
        """Training facts of an entity, tokens included, each once and directed away from it."""
        own: Tensor = self.facts.facts[self.facts.facts[:, 0] == entity]
        return own

    @torch.enable_grad()
    def changes(
        self, entity: int, own: Int[Tensor, "n 3"], slope: Float[Tensor, " D"], times: float
    ) -> Float[Tensor, " n"]:
        """Estimated change of the score without each fact: slope . H^-1 grad L.

        Args:
            times: how many facts each stands for in H, where not all are weighed.
        """
        vector = self.model.frozen().vectors[entity]
        each = vector.expand(len(own), -1).clone().requires_grad_()
        (pulls,) = torch.autograd.grad(self.losses(own, each).sum(), each)
        shared = vector.clone().requires_grad_()
        total = self.losses(own, shared.expand(len(own), -1)).sum() * times
        (first,) = torch.autograd.grad(total, shared, create_graph=True)

        def curve(direction: Tensor) -> Tensor:
            (found,) = torch.autograd.grad(first, shared, direction, retain_graph=True)
            return found

        signs = torch.randn(len(vector), generator=torch.Generator().manual_seed(0)).sign()
        signs = signs.to(vector)
        # An estimate of the mean of H's diagonal (Hutchinson).
        damping = DAMPING * float((signs * curve(signs)).mean().clamp_min(1e-6))
        return pulls @ _solve(lambda d: curve(d) + damping * d, slope)

    def losses(self, own: Int[Tensor, "n 3"], vectors: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
        """The part of the objective that is each fact's own, as a function of its head's vector.

        Of its question and of that of its inverse: the log-sum over answers and weighted negatives,
        less the score of its own answer; and N3 of the vector. All entities but the head are as
        trained, its own part as a candidate of its own question included; so are the weights of
        negatives.
        """
        inverse = torch.stack([own[:, 2], self.facts.inverse[own[:, 1]], own[:, 0]], 1)
        total = vectors.new_zeros(len(own))
        for directed, is_head in ((own, True), (inverse, False)):
            for part in self._classes(directed):
                found = self._questions(directed[part], vectors[part.to(self.device)], is_head)
                total = total.index_add(0, part.to(self.device), found)
        if self.settings.n3:
            cubes = self.model.scorer.moduli(vectors).pow(3).sum(1)
            # The fact and its inverse count once each.
            total = total + 2 * self.settings.n3 * cubes
        return total

    def _classes(self, directed: Int[Tensor, "n 3"]) -> Iterator[Int[Tensor, " m"]]:
        """Places of facts whose answers are of the same class of candidates."""
        classes = self.facts.relation_class[directed[:, 1]]
        for number in torch.unique(classes):
            yield (classes == number).nonzero().flatten()

    def _questions(
        self, directed: Int[Tensor, "m 3"], vectors: Float[Tensor, "m D"], is_head: bool
    ) -> Float[Tensor, " m"]:
        """Loss of one answer of each question; `vectors` are those of heads, or of answers."""
        settings, model = self.settings, self.model
        table = model.frozen().vectors
        directed = directed.to(self.device)
        head, relation, answer = directed.unbind(1)
        query = model.query(vectors if is_head else table[head], relation)
        number = int(self.facts.relation_class[directed[0, 1].cpu()])
        span = self.facts.spans[number]
        scores = model.scorer.compare(query, table[slice(*span)])
        rows = torch.arange(len(directed), device=self.device)
        own = scores[rows, answer - span[0]]
        if not is_head:
            own = model.scorer.compare(query, vectors.unsqueeze(1)).squeeze(1)
        place, node = self.index.lookup(Queries(head.cpu(), relation.cpu()))
        place, column = place.to(self.device), node.to(self.device) - span[0]
        others = self._negatives(scores, place, column, number)
        if settings.loss.answers == "together":
            answers = torch.full_like(scores, -torch.inf)
            answers = answers.index_put((place, column), scores[place, column])
            answers = answers.index_put((rows, answer - span[0]), own)
            others = torch.logaddexp(torch.logsumexp(answers, 1), others)
        else:
            others = torch.logaddexp(own, others)
        return (others - own) * settings.weight(relation, self.facts)

    def _negatives(
        self, scores: Float[Tensor, "m C"], place: Tensor, column: Tensor, number: int
    ) -> Float[Tensor, " m"]:
        """Log of the weighted sum over negatives, whole, where a training may draw a sample."""
        barred = torch.zeros_like(scores, dtype=torch.bool)
        barred[place, column] = True
        if number == 0:
            barred[:, self.facts.excluded.to(self.device)] = True
        kept = scores.masked_fill(barred, -torch.inf)
        with torch.no_grad():
            count = torch.bincount(place, minlength=len(scores)).clamp_min(1)
            mean = scores.new_zeros(len(scores))
            mean = mean.index_add(0, place, scores[place, column]) / count
            many = (~barred).sum(1).to(scores.dtype)
            weighted = kept.detach().clone()
            generator = torch.Generator().manual_seed(0)
            logs = self.settings.loss.weighting.weigh_(weighted, mean, many, generator)
            shift = torch.where(barred, 0.0, weighted - kept) - logs[:, None] + many.log()[:, None]
        return torch.logsumexp(kept + shift, 1)


def _solve(curve: Callable[[Tensor], Tensor], right: Float[Tensor, " D"]) -> Float[Tensor, " D"]:
    """Conjugate gradients; they stop where the curve turns down, as some scorers' may."""
    found = torch.zeros_like(right)
    rest, direction = right.clone(), right.clone()
    size = first = float(rest @ rest)
    for _ in range(STEPS):
        if size <= RESIDUAL**2 * first or size == 0:
            break
        bent = curve(direction)
        bend = float(direction @ bent)
        if bend <= 0:
            break
        found = found + size / bend * direction
        rest = rest - size / bend * bent
        size, before = float(rest @ rest), size
        direction = rest + size / before * direction
    return found
