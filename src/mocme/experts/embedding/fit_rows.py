"""Rows of entities that a training has not seen, fitted from their facts; all else is frozen.

Minimised over the rows alone is what a training minimises, with every modality shown and negatives
weighed alike: for each fact of a new entity, in both directions, the softmax of the answer over
everyone, with N3; and for each question of the training, that no new entity be its answer. There is
nothing random in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.features.tokens import TrainingFacts
from mocme.data.graph import AnswerIndex, Queries, distinct
from mocme.experts.embedding.extended_model import AddedEntities, AddedVectors, FusionStats
from mocme.experts.embedding.model import EmbeddingModel
from mocme.experts.embedding.objective import Objective

# Scores that are held at a time.
CELLS = 1 << 22
# Stands for the score of nothing: -inf has no gradient.
LOWEST = -1e30
STEPS = 500


@dataclass(frozen=True, eq=False)
class FittedRows:
    """Rows, and how far the optimiser came.

    Attributes:
        loss: of all terms together.
        gradient: its length over the rows at the end, `first` at the start.
        steps: of the optimiser.
    """

    rows: Float[Tensor, "n D"]
    loss: float
    first: float
    gradient: float
    steps: int

    @property
    def settled(self) -> bool:
        """Whether the gradient has all but vanished."""
        return self.gradient <= 1e-3 * max(1.0, self.first)


class FrozenQuestions:
    """A trained model and what it learned from, as the rows of any new entities meet them.

    Args:
        facts: what the model learned from.
        without: old entities that are no candidates, as one whose row is fitted anew.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        facts: TrainingFacts,
        settings: Objective,
        without: Int[Tensor, " x"] | None = None,
    ) -> None:
        self.model, self.facts, self.settings = model, facts, settings
        self.vectors, self.standards = model.frozen().vectors, FusionStats.of(model)
        self.index = AnswerIndex(facts.facts)
        gone = facts.excluded if without is None else torch.cat([facts.excluded, without])
        self.gone = torch.unique(gone)
        self._asked: list[_RowQueries] | None = None
        self._rest: Float[Tensor, " q"] | None = None

    def block(self, candidates: int) -> int:
        """Questions whose scores are held at a time."""
        return max(1, CELLS // max(1, candidates))

    def asked(self) -> list[_RowQueries]:
        """Questions of the training for entities, which no new entity answers; made once.

        Nearly all the time goes into what they weigh against, everyone's scores.
        """
        if self._asked is None:
            device = self.vectors.device
            held = torch.arange(self.facts.num_entities)
            held = self.vectors[held[~torch.isin(held, self.gone)].to(device)]
            counts = (self.index.offsets[1:] - self.index.offsets[:-1]).double()
            relation = self.index.queries.relation
            counts *= self.settings.weight(relation, self.facts)
            own = (self.facts.relation_class[relation] == 0).nonzero().flatten()
            queries = self.index.queries[own].to(device)
            none = torch.empty(0, dtype=torch.int64, device=device)
            with torch.no_grad():
                blocks = torch.arange(len(own), device=device).split(self.block(len(held)))
                asking = (queries[block] for block in blocks)
                made = [self.model.query(self.vectors[one.head], one.relation) for one in asking]
                query = torch.cat(made)
                if self._rest is None:
                    # In its place beforehand: what is kept between large blocks that come and go
                    # would keep their memory from being used again, tens of gigabytes of it.
                    rest = torch.empty(len(own), dtype=torch.float64, device=device)
                    for block in blocks:
                        scores = self.model.scorer.compare(query[block], held)
                        rest[block] = scores.double().logsumexp(1)
                    self._rest = rest
            weight = counts[own].to(device)
            self._asked = [_RowQueries(queries, 0, none, none, weight, query, self._rest, True)]
        return self._asked

    def slim(self) -> None:
        """Let go of what is large and soon made again, and keep what takes long: a number each."""
        self._asked = None


def fit_rows(
    frozen: FrozenQuestions,
    added: AddedEntities,
    new: Int[Tensor, "k 3"],
    *,
    later: Float[Tensor, "m E"] | None = None,
    as_negatives: bool = True,
    start: Float[Tensor, "n D"] | None = None,
    steps: int = STEPS,
) -> FittedRows:
    """Fit the structure rows of n entities together.

    Args:
        frozen: nothing in it changes.
        added: what else the entities have; its rows do not matter.
        new: their facts, of directed relations, in one direction. Ids of old nodes are those of
            the training; the m nodes of `later` come next, then the n new entities.
        later: vectors of entities that came after the training and are named in `new`.
        as_negatives: whether questions of the training count, which the new entities do not answer.
        start: rows to begin with; `first_rows` by default.
        steps: at most so many.
    """
    problem = RowObjective(frozen, added, new, later, as_negatives)
    rows = first_rows(frozen, problem.facts, problem.first) if start is None else start
    return _minimised(problem, rows.to(frozen.vectors.device), steps)


def first_rows(
    frozen: FrozenQuestions, new: Int[Tensor, "k 3"], first: int
) -> Float[Tensor, "n D"]:
    """For each new entity the mean row of the heads of its relations, a relation counting once."""
    rows, used = frozen.model.structure.detach(), frozen.facts.facts
    found = []
    for entity in range(first, int(new[:, 0].max()) + 1):
        own = torch.unique(new[new[:, 0] == entity, 1])
        means = [
            rows[used[used[:, 1] == relation, 0]].mean(0)
            for relation in own.tolist()
            if bool((used[:, 1] == relation).any())
        ]
        found.append(torch.stack(means).mean(0) if means else rows[frozen.facts.present].mean(0))
    return torch.stack(found)


class RowObjective:
    """What is minimised, as a function of the rows.

    Attributes:
        facts: distinct, in both directions.
        first: id of the first new entity.
    """

    def __init__(
        self,
        frozen: FrozenQuestions,
        added: AddedEntities,
        new: Int[Tensor, "k 3"],
        later: Float[Tensor, "m E"] | None = None,
        as_negatives: bool = True,
    ) -> None:
        self.model, self.settings, self.added = frozen.model, frozen.settings, added
        vectors, facts = frozen.vectors, frozen.facts
        self._vectors = vectors if later is None else torch.cat([vectors, later.to(vectors)])
        self.first, self._frozen = len(self._vectors), frozen
        back = torch.stack([new[:, 2], facts.inverse[new[:, 1]], new[:, 0]], 1)
        self.facts = distinct(torch.cat([new, back]))
        self._check()
        self._newcomers = AddedVectors(self.model, added, frozen.standards)
        # What a fact names must compete, though no training fact did.
        named = frozen.gone[torch.isin(frozen.gone, self.facts[:, 2])]
        entities = torch.arange(facts.num_entities)
        entities = entities[~torch.isin(entities, frozen.gone) | torch.isin(entities, named)]
        later_ones = torch.arange(facts.num_nodes, self.first)
        spans = [torch.arange(*span) for span in facts.spans[1:]]
        self._allowed = [torch.cat([entities, later_ones]), *spans]
        self._held: dict[int, Tensor] = {}
        self._questions = list(self._asked())
        if as_negatives:
            more = self._vectors[torch.cat([named, later_ones]).to(vectors.device)]
            self._questions += [asked.against(self.model, more) for asked in frozen.asked()]
        times = torch.bincount(self.facts[:, [0, 2]].flatten(), minlength=self.first + len(added))
        self._times = times[self.first :].double().to(vectors.device)

    def _check(self) -> None:
        ends = self.facts[:, [0, 2]]
        if int(ends.max()) >= self.first + len(self.added) or int(ends.min()) < 0:
            raise ValueError("a fact names a node that there is not")
        if bool((ends < self.first).all(1).any()):
            raise ValueError("a fact names no new entity, and all others are frozen")

    def _asked(self) -> Iterator[_RowQueries]:
        """Questions of the new facts, block by block, those of moving heads apart."""
        index, device = AnswerIndex(self.facts), self._vectors.device
        classes = self._frozen.facts.relation_class[index.queries.relation]
        moving = index.queries.head >= self.first
        for number, allowed in enumerate(self._allowed):
            for moves in (False, True):
                own = ((classes == number) & (moving == moves)).nonzero().flatten()
                for block in own.split(self._frozen.block(len(allowed))) if len(own) else ():
                    place, answer = (part.to(device) for part in index.rows(block))
                    queries = index.queries[block]
                    weight = self.settings.weight(queries.relation, self._frozen.facts).double()
                    asked = _RowQueries(
                        queries.to(device), number, place, answer, weight.to(device)
                    )
                    yield asked if moves else self._still(asked)

    def _still(self, asked: _RowQueries) -> _RowQueries:
        """The question with what does not change in it."""
        with torch.no_grad():
            heads = self._vectors[asked.queries.head]
            query = self.model.query(heads, asked.queries.relation).double()
            return replace(asked, query=query, rest=_total(self._old_scores(asked, query)))

    def _old_scores(self, asked: _RowQueries, query: Tensor) -> Float[Tensor, "B c"]:
        """Scores of the frozen candidates in float64."""
        allowed = self._allowed[asked.number]
        if asked.number not in self._held:
            held = self._vectors[allowed.to(self._vectors.device)]
            self._held[asked.number] = held.double()
        scores = self.model.scorer.compare(query, self._held[asked.number])
        if self.settings.loss.answers == "together":
            return scores
        # Answers that the training knows are no negatives.
        place, node = self._frozen.index.lookup(asked.queries.to("cpu"))
        column = torch.searchsorted(allowed, node).clamp_max(len(allowed) - 1)
        held_too = allowed[column] == node
        mask = torch.zeros(scores.shape, dtype=torch.bool)
        mask[place[held_too], column[held_too]] = True
        return scores.masked_fill(mask.to(scores.device), LOWEST)

    # -- the function ----------------------------------------------------------------------------

    def __call__(self, rows: Float[Tensor, "n D"]) -> tuple[float, Float[Tensor, "n D"]]:
        """Loss and its gradient."""
        rows = rows.detach().requires_grad_()
        made, _ = self._newcomers(rows, self.added.present)
        vectors = made.detach().requires_grad_()
        total = 0.0
        for asked in self._questions:
            loss = self._loss(asked, vectors)
            loss.backward()
            total += float(loss.detach())
        if self.settings.n3:
            moduli = self.model.scorer.moduli(vectors.double())
            loss = self.settings.n3 * (moduli.pow(3).sum(1) * self._times).sum()
            loss.backward()
            total += float(loss.detach())
        assert vectors.grad is not None
        (gradient,) = torch.autograd.grad(made, rows, vectors.grad)
        return total, gradient

    def _loss(self, asked: _RowQueries, vectors: Float[Tensor, "n E"]) -> Tensor:
        """Summed loss of some questions."""
        scorer, rest = self.model.scorer, asked.rest
        if asked.of_training:
            assert asked.query is not None
            assert rest is not None
            scores = scorer.compare(asked.query, vectors).double()
            return ((torch.logaddexp(rest, scores.logsumexp(1)) - rest) * asked.weight).sum()
        if asked.query is None:
            heads = vectors[asked.queries.head - self.first]
            query = self.model.query(heads, asked.queries.relation).double()
        else:
            query = asked.query
        # Only entities compete with entities: questions for tokens have no new answer.
        new = vectors.double() if asked.number == 0 else vectors[:0].double()
        scores, column = scorer.compare(query, new), asked.answer - self.first
        if rest is None:
            allowed = self._allowed[asked.number].to(column.device)
            old = torch.searchsorted(allowed, asked.answer.clamp_max(self.first - 1))
            column = torch.where(column < 0, old, column + len(allowed))
            scores = torch.cat([self._old_scores(asked, query), scores], 1)
        answers = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
        answers[asked.place, column] = True
        negatives = _total(scores.masked_fill(answers, LOWEST))
        if rest is not None:
            negatives = torch.logaddexp(rest, negatives)
        ones = torch.ones(len(column), dtype=torch.float64, device=scores.device)
        found = self.settings.loss(scores[asked.place, column], asked.place, ones, negatives)
        return (found * asked.weight).sum()


@dataclass(frozen=True, eq=False)
class _RowQueries:
    """Questions of one class of candidates.

    Attributes:
        place, answer: which question a new fact's answer belongs to, and its node.
        weight: of each question's loss; of the training's, times its answers.
        query: their vectors; None where heads are new, so that they change with the rows.
        rest: log of the sum of e^score over the frozen candidates, of those questions.
    """

    queries: Queries
    number: int
    place: Int[Tensor, " n"]
    answer: Int[Tensor, " n"]
    weight: Float[Tensor, " B"]
    query: Tensor | None = None
    rest: Tensor | None = None
    of_training: bool = False

    def against(self, model: EmbeddingModel, more: Float[Tensor, "m E"]) -> _RowQueries:
        """The same with further frozen candidates."""
        if not len(more):
            return self
        assert self.query is not None
        assert self.rest is not None
        with torch.no_grad():
            others = model.scorer.compare(self.query, more).double().logsumexp(1)
        return replace(self, rest=torch.logaddexp(self.rest, others))


def _total(scores: Float[Tensor, "B c"]) -> Float[Tensor, " B"]:
    """Log of the sum of e^score, also where there is nothing to sum."""
    low = scores.new_full((len(scores), 1), LOWEST)
    return torch.cat([scores, low], 1).logsumexp(1)


def _minimised(problem: RowObjective, start: Float[Tensor, "n D"], steps: int) -> FittedRows:
    """Minimise by L-BFGS, which takes few steps on so smooth a function."""
    from scipy.optimize import minimize

    def value(flat: Float[np.ndarray, " nD"]) -> tuple[float, Float[np.ndarray, " nD"]]:
        loss, gradient = problem(torch.from_numpy(flat).to(start).view_as(start))
        return loss, gradient.cpu().double().numpy().ravel()

    flat = start.detach().cpu().double().numpy().ravel()
    first = float(np.linalg.norm(value(flat)[1]))
    options = {"maxiter": steps, "maxcor": 20, "ftol": 1e-9, "gtol": 1e-6, "maxls": 10}
    found = minimize(value, flat, jac=True, method="L-BFGS-B", options=options)
    rows = torch.from_numpy(found.x).to(start).view_as(start)
    loss, gradient = problem(rows)
    return FittedRows(rows, loss, first, float(gradient.norm()), int(found.nit))
