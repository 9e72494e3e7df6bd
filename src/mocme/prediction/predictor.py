"""Queries of a trained run by name: missing facts, scores of facts, explanations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import islice

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mocme.calibration.curves import Calibration
from mocme.core.deadline import Check, unlimited
from mocme.data.graph import Graph
from mocme.data.modality import Features
from mocme.experts.base import Reason, SparseExpert
from mocme.experts.embedding.expert import EmbeddingExpert
from mocme.explanation.explainer import Explainer, FactQuery
from mocme.explanation.schema import Explanation, ExplanationContext
from mocme.mixture.base import Mixture
from mocme.prediction.answer_scorer import AnswerScorer
from mocme.prediction.existing_links import ExistingLinks
from mocme.prediction.relation_prior import RelationPrior
from mocme.prediction.schema import (
    Among,
    Checked,
    Known,
    Missing,
    Prediction,
    Predictions,
    Question,
    check_range,
)


class Predictor:
    """Answers queries by name with a trained mixture and its graph.

    Args:
        mixture: of trained experts.
        graph: of the mixture's entities.
        calibration: probabilities of scores; without it there are none.
        context: data of the run that explanations need.
        features: of the graph's entities, where available.
        name: of the model in errors, such as the folder of its run.
    """

    def __init__(
        self,
        mixture: Mixture,
        graph: Graph,
        calibration: Calibration | None = None,
        context: ExplanationContext | None = None,
        features: Features | None = None,
        name: str = "the model",
    ) -> None:
        self.mixture, self.graph, self.calibration = mixture, graph, calibration
        self.features = features or Features()
        self.scorer = AnswerScorer(mixture, graph, calibration, name)
        self.explainer = Explainer(mixture, graph, context)
        self._relation_prior: RelationPrior | None = None
        self._existing_links: ExistingLinks | None = None

    @property
    def existing_links(self) -> ExistingLinks:
        """Existing links between entities, and symmetric relations."""
        if self._existing_links is None:
            self._existing_links = ExistingLinks(self.graph)
        return self._existing_links

    def warm_up(self) -> None:
        """Compute in advance what the first query needs."""
        _ = self._modality_weights
        _ = self.existing_links

    def tails(
        self,
        head: str,
        relation: str,
        k: int = 10,
        known: Known = "hide",
        *,
        among: Among = "all",
        min_probability: float = 0.0,
    ) -> Predictions:
        """The likeliest tails of (head, relation, ?), by score.

        The head itself is not an answer, unless the graph has a fact of this relation between some
        entity and itself.

        Args:
            k: number of answers, at most 1,000.
            known: ``hide`` facts of the graph, or ``mark`` them.
            among: ``all`` entities; ``observed``: those that are a tail of this relation in the
                graph; or names.
            min_probability: leave out less probable answers; known facts stay.

        Raises:
            UnknownName: with near matches.
            ValueError: k or min_probability is out of range, or the run has no probabilities.
        """
        question = Question(head, relation, None, k, known, among, min_probability)
        return self.ask([question])[0]

    def heads(
        self,
        relation: str,
        tail: str,
        k: int = 10,
        known: Known = "hide",
        *,
        among: Among = "all",
        min_probability: float = 0.0,
    ) -> Predictions:
        """The likeliest heads of (?, relation, tail); see `tails`."""
        question = Question(None, relation, tail, k, known, among, min_probability)
        return self.ask([question])[0]

    def relations(
        self,
        head: str,
        tail: str,
        k: int = 10,
        known: Known = "hide",
        *,
        min_probability: float = 0.0,
    ) -> Predictions:
        """The likeliest relations of (head, ?, tail), by the mean probability of both directions.

        Without probabilities by the mean share in the softmax of both questions; arguments and
        errors as in `tails`.
        """
        question = Question(head, None, tail, k, known, "all", min_probability)
        return self.ask([question])[0]

    def ask(self, questions: Sequence[Question], check: Check = unlimited) -> list[Predictions]:
        """Answer several questions together, which is faster than one by one.

        Args:
            check: called at least once per block of scores and per question; what it raises ends
                the work.

        Raises:
            UnknownName: with near matches.
            ValueError: `min_probability` is given, and the run has no probabilities.
        """
        for question in questions:
            self._check(question.min_probability)
        answers: dict[int, Predictions] = {}
        linked = []
        for position, question in enumerate(questions):
            if question.relation is None:
                answers[position] = self._between(question, check)
            else:
                linked.append((position, question, *self._directed(question)))
        for first in range(0, len(linked), self.scorer.block()):
            part = linked[first : first + self.scorer.block()]
            check()
            scores, known = self.scorer.scores(
                [e for _, _, e, _ in part], [r for _, _, _, r in part]
            )
            new = scores.masked_fill(known, -torch.inf)
            totals = new.logsumexp(1)
            for row, (position, question, entity, relation) in enumerate(part):
                check()
                order = new[row] if question.known == "hide" else scores[row]
                answers[position] = self._top(
                    question, entity, relation, order, known[row], totals[row]
                )
        return [answers[position] for position in range(len(questions))]

    def missing(
        self,
        entity: str,
        k: int = 10,
        *,
        min_probability: float = 0.0,
        check: Check = unlimited,
    ) -> Predictions:
        """The likeliest new facts of an entity over all relations.

        Ordered by probability times how likely the entity is to have a fact, or one more, of the
        relation (`mocme.prediction.relation_prior`); without probabilities by share in the softmax.
        Of two equivalent facts of a symmetric relation, only the likelier one is returned.

        Args:
            check: see `ask`.
        """
        check_range(k, min_probability)
        self._check(min_probability)
        if self._relation_prior is None:
            self._relation_prior = RelationPrior(self.graph)
        entity_id = self.graph.entities.id(entity)
        priors = self._relation_prior.of(entity_id)
        best: list[tuple[float, tuple[int, int, float, float, float]]] = []
        for block in torch.arange(2 * self.graph.num_relations).split(self.scorer.block()):
            scores, probabilities = self.scorer.unknown(
                [entity_id] * len(block), block.tolist(), check
            )
            for row, relation in enumerate(block.tolist()):
                check()
                prior = float(priors[relation])
                top = probabilities[row].topk(min(k, len(probabilities[row])))
                for value, answer in zip(top.values.tolist(), top.indices.tolist(), strict=True):
                    if value <= 0 or value < min_probability:
                        break
                    score = float(scores[row, answer])
                    best.append((value * prior, (relation, answer, score, value, prior)))
        best.sort(key=lambda pair: -pair[0])
        best_by_link: dict[tuple[int, int], tuple[int, int, float, float, float]] = {}
        for _, candidate in best:
            relation, answer = candidate[:2]
            link = relation % self.graph.num_relations
            best_by_link.setdefault(
                (link if link in self.existing_links.symmetric else relation, answer), candidate
            )
        items = [
            self._item(entity_id, *candidate) for candidate in islice(best_by_link.values(), k)
        ]
        return Missing(f"what is missing about {entity}", items, "fact")

    def score_facts(
        self, triples: Sequence[tuple[str, str, str]], check: Check = unlimited
    ) -> Checked:
        """Scores and probabilities of given facts, in their order: means of both directions.

        Args:
            check: see `ask`.

        Raises:
            UnknownName: with near matches.
        """
        entities, names = self.graph.entities, self.graph.relations
        ids = [(entities.id(h), names.id(r), entities.id(t)) for h, r, t in triples]
        items, order = [], {}
        for (h, r, t), score, value, known in self.scorer.facts(ids, check):
            item = self._item(h, r, t, score, value, None, known)
            items.append(item)
            order[(item.head, item.relation, item.tail)] = value
        return Checked("facts to check", items, "fact", order)

    def score(self, head: str, relation: str, tail: str) -> float:
        """The mean of both directions' scores of one fact."""
        h, t = self.graph.entities.id(head), self.graph.entities.id(tail)
        r = self.graph.relations.id(relation)
        device = self.mixture.device
        queries = self.scorer.queries([h, t], [r, r + self.graph.num_relations])
        with torch.no_grad():
            scores = self.mixture.score(queries, torch.tensor([[t], [h]], device=device))
        return float(scores.mean())

    def reasons(self, head: str, relation: str, tail: str) -> list[Reason]:
        """Rules that lead from head to tail for this relation, strongest first.

        Empty where no expert has rules, or none leads there.

        Raises:
            UnknownName: with near matches.
        """
        h, t = self.graph.entities.id(head), self.graph.entities.id(tail)
        r = self.graph.relations.id(relation)
        sparse = [expert for expert in self.mixture.experts if isinstance(expert, SparseExpert)]
        reasons = [reason for expert in sparse for reason in expert.explain(h, r, t)]
        return sorted(reasons, key=lambda reason: -reason.share) if len(sparse) > 1 else reasons

    def explain(self, head: str, relation: str, tail: str, check: Check = unlimited) -> Explanation:
        """Evidence for a fact; see docs/explaining.md.

        Args:
            check: called between the steps of the work; what it raises ends it. What is measured
                once per run and kept is finished all the same.

        Raises:
            UnknownName: with near matches.
        """
        h, t = self.graph.entities.id(head), self.graph.entities.id(tail)
        r = self.graph.relations.id(relation)
        scores, probabilities, mask = self.scorer.scored(
            [h, t], [r, r + self.graph.num_relations], check
        )
        new = ~(scores.isneginf() | mask)
        known = bool(mask[0, t])
        mean = (float(probabilities[0, t]) + float(probabilities[1, h])) / 2
        if scores[0, t] == -torch.inf:
            # Excluded as an answer; scored all the same when it is named.
            scores[0, t] = scores[1, h] = self.score(head, relation, tail)
        probability = None if known or self.calibration is None else mean
        fact = FactQuery(h, r, t, scores, new, probability, known)
        return self.explainer.explain(fact, check)

    def embedding(self, name: str | None = None) -> EmbeddingExpert:
        """An embedding of the mixture.

        Args:
            name: of the expert; the first embedding by default.

        Raises:
            ValueError: the run has no such expert, or it is not an embedding.
        """
        experts = self.mixture.experts if name is None else [self.mixture.expert(name)]
        for expert in experts:
            if isinstance(expert, EmbeddingExpert):
                return expert
        known = ", ".join(expert.name for expert in self.mixture.experts)
        which = "the run has no embedding" if name is None else f"{name} is not an embedding"
        raise ValueError(f"{which}; its experts are {known}")

    def embeddings(self, name: str | None = None) -> tuple[Tensor, Tensor]:
        """Vectors of the entities (N, D) and of the directed relations (2R, E), by id.

        A relation's inverse has the id r + R.

        Args:
            name: of an expert; the first embedding by default.

        Raises:
            ValueError: as `embedding`.
        """
        model = self.embedding(name).model
        with torch.no_grad():
            relations = torch.arange(2 * self.graph.num_relations, device=model.device)
            table = model.frozen().vectors[: self.graph.num_entities]
            return table.float().cpu(), model.relations(relations).detach().float().cpu()

    @cached_property
    def _modality_weights(self) -> tuple[Sequence[str], Tensor]:
        """Modalities of the first embedding, and their weights (N, M); none without one."""
        for expert in self.mixture.experts:
            if isinstance(expert, EmbeddingExpert):
                return expert.model.modalities, expert.model.frozen().weights
        return (), torch.zeros(self.graph.num_entities, 0)

    def weights(self, entity: str) -> dict[str, float]:
        """Weight of each modality in an entity's vector; empty without an embedding."""
        return self._weights(self.graph.entities.id(entity))

    def _weights(self, entity: int) -> dict[str, float]:
        names, weights = self._modality_weights
        return self._named(names, weights[entity].tolist())

    @staticmethod
    def _named(names: Sequence[str], row: Sequence[float]) -> dict[str, float]:
        return dict(zip(names, row, strict=True))

    def _check(self, min_probability: float) -> None:
        if min_probability and self.calibration is None:
            raise ValueError(
                "this run has no probabilities, because its graph has no valid split with facts "
                "that are not in train; put a valid.tsv next to its train.tsv and train again, or "
                "omit min_probability"
            )

    def _directed(self, question: Question) -> tuple[int, int]:
        """The given entity, and the directed relation from it."""
        relation = self.graph.relations.id(str(question.relation))
        if question.head is None:
            return self.graph.entities.id(str(question.tail)), relation + self.graph.num_relations
        return self.graph.entities.id(question.head), relation

    def _top(
        self,
        question: Question,
        entity: int,
        relation: int,
        order: Float[Tensor, " N"],
        known: Bool[Tensor, " N"],
        total: Float[Tensor, ""],
    ) -> Predictions:
        """The best candidates."""
        if question.min_probability:
            probabilities = self.scorer.probabilities(order, total, relation)
            order = order.masked_fill(
                ~known & (probabilities < question.min_probability), -torch.inf
            )
        if question.among != "all":
            order = order.masked_fill(~self._among(question.among, relation), -torch.inf)
        top = order.topk(min(question.k, len(order)))
        probabilities = self.scorer.probabilities(top.values, total, relation)
        rows = zip(
            *(
                part.tolist()
                for part in (top.values, top.indices, probabilities, known[top.indices])
            ),
            self._modality_weights[1][top.indices].tolist(),
            strict=True,
        )
        items = [
            self._item(entity, relation, answer, score, probability, None, known, weights)
            for score, answer, probability, known, weights in rows
            if score != -torch.inf
        ]
        return Predictions(str(question), items, question.unknown)

    def _between(self, question: Question, check: Check) -> Predictions:
        """Relations between two entities, best first."""
        head = self.graph.entities.id(str(question.head))
        tail = self.graph.entities.id(str(question.tail))
        facts = [(head, relation, tail) for relation in range(self.graph.num_relations)]
        rows = [
            row
            for row in self.scorer.facts(facts, check)
            if (question.known == "mark" or not row[3])
            and (row[3] or row[2] >= question.min_probability)
        ]
        # Items are made of those that are shown only: there may be many relations.
        rows.sort(key=lambda row: -row[2])
        items = [
            self._item(*fact, score, value, None, known)
            for fact, score, value, known in rows[: question.k]
        ]
        return Predictions(str(question), items, question.unknown)

    def _among(self, among: Among, relation: int) -> Tensor:
        """Mask of the entities that may be answers."""
        mask = torch.zeros(self.graph.num_entities, dtype=torch.bool)
        if among == "observed":
            facts = self.graph.directed(*self.graph.splits)
            mask[facts[facts[:, 1] == relation, 2]] = True
        else:
            mask[[self.graph.entities.id(name) for name in among]] = True
        return mask

    def _item(
        self,
        entity: int,
        relation: int,
        answer: int,
        score: float,
        probability: float,
        applies: float | None,
        known: bool = False,
        weights: Sequence[float] | None = None,
    ) -> Prediction:
        """A prediction for a directed relation; `weights` of the answer, if already known."""
        names, number = self.graph.entities, self.graph.num_relations
        head, tail = (answer, entity) if relation >= number else (entity, answer)
        fact = (head, relation % number, tail)
        return Prediction(
            names[head],
            self.graph.relations[relation % number],
            names[tail],
            score,
            known,
            self._weights(answer)
            if weights is None
            else self._named(self._modality_weights[0], weights),
            None if known or self.calibration is None else probability,
            applies,
            self.existing_links.others(fact),
            not known and self.existing_links.both_ways(fact),
        )
