"""Which training facts support a prediction: what its score would be had one not been in training.

Through patterns: exact, with their weights as they are (`mocme.experts.rules.leave_one_out`).
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

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.features.tokens import TrainingFacts
from mocme.data.graph import AnswerIndex, Graph, Queries
from mocme.data.modality import Features
from mocme.experts.embedding.model import Model
from mocme.experts.embedding.objective import Objective
from mocme.experts.rules.leave_one_out import losses as pattern_losses
from mocme.explanation.schema import Support

# Facts of one entity that are weighed, at most.
MOST_FACTS = 200
# The damping is this share of the mean of H's diagonal.
DAMPING = 0.1
STEPS = 20
RESIDUAL = 1e-2

Fact = tuple[int, int, int]


class InfluenceFinder:
    """Finds the supporting facts of predictions of one model.

    Args:
        settings: the objective that the model was trained with.
        facts: what it was trained on.
    """

    def __init__(
        self,
        settings: Objective,
        model: Model,
        facts: TrainingFacts,
        graph: Graph,
        features: Features,
    ) -> None:
        self.settings, self.model, self.facts = settings, model, facts
        self.graph, self.features = graph, features
        self.device = model.device
        self.pull = InfluenceEstimator(settings, model, facts)

    def __call__(
        self, head: int, relation: int, tail: int, most: int
    ) -> tuple[list[Support], list[str]]:
        """The facts that support (head, relation, tail) most, best first, and notes."""
        by_patterns = self.by_patterns(head, relation, tail)
        by_vectors, notes = self.by_vectors(head, relation, tail, set(by_patterns))
        whole = {
            fact: (by_vectors.get(fact, 0.0), by_patterns.get(fact, 0.0))
            for fact in by_vectors.keys() | by_patterns.keys()
        }
        # The fact that is asked for explains nothing.
        whole.pop((head, relation, tail), None)
        order = sorted(whole, key=lambda fact: (sum(whole[fact]), fact))
        found = [self._support(fact, *whole[fact]) for fact in order[:most] if sum(whole[fact]) < 0]
        if not found:
            notes.append("no training fact of head or tail speaks for it")
        return found, notes

    def by_patterns(self, head: int, relation: int, tail: int) -> dict[Fact, float]:
        """Change of the mean evidence of both directions without each fact on a counted path."""
        evidence = self.model.evidence
        if evidence is None:
            return {}
        inverse = relation + self.graph.num_relations
        total: dict[Fact, float] = {}
        for change in (
            pattern_losses(evidence, head, relation, tail),
            pattern_losses(evidence, tail, inverse, head),
        ):
            for fact, value in change.items():
                total[fact] = total.get(fact, 0.0) + value / 2
        return total

    def by_vectors(
        self, head: int, relation: int, tail: int, wanted: set[Fact]
    ) -> tuple[dict[Fact, float], list[str]]:
        """Estimated change of the mean score without each training fact of head or tail.

        Args:
            wanted: facts that are weighed in any case, where an entity has more than `MOST_FACTS`.
        """
        slopes = self.slopes(head, relation, tail)
        total: dict[Fact, float] = {}
        notes = []
        for entity, slope in slopes.items():
            other = tail if entity == head else head
            all_own = self.pull.facts_of(entity)
            own = self._chosen(all_own, other, wanted)
            name = self.graph.entities[entity]
            if not len(own):
                notes.append(f"{name} is in no training fact, so that none supports it")
                continue
            if len(own) < len(all_own):
                notes.append(
                    f"of {len(all_own):,} training facts of {name}, {len(own):,} were weighed: "
                    f"those on paths of patterns, and those whose other entity is most like "
                    f"{self.graph.entities[other]}"
                )
            change = self.pull.changes(entity, own, slope, len(all_own) / len(own))
            for fact, value in zip(own.tolist(), change.tolist(), strict=True):
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

    def _support(self, fact: Fact, by_vectors: float, by_patterns: float) -> Support:
        head, relation, tail = fact
        names, links = self.graph.entities, 2 * self.graph.num_relations
        numbers = (by_vectors + by_patterns, by_vectors, by_patterns)
        if relation < links:
            return Support(
                names[head], self.graph.relations[relation], names[tail], "fact", *numbers
            )
        number = (relation - links) // 2
        modality = list(self.features.tokens)[number]
        token = tail - self.facts.spans[number + 1][0]
        word = self.features.tokens[modality].vocabulary[token]
        return Support(names[head], modality, word, "token", *numbers)


class InfluenceEstimator:
    """What each training fact of an entity does to the entity's vector."""

    def __init__(self, settings: Objective, model: Model, facts: TrainingFacts) -> None:
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
