"""Fit structure rows of entities that were not in the training; everything else is frozen.

The objective of the training is minimised over these rows alone, with every modality shown and all
negatives weighted equally: for each fact of a new entity, in both directions, the softmax of the
answer over all entities, with N3; and for each training query, a term by which no new entity is its
answer. The fit is deterministic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.core.deadline import Check, unlimited
from mocme.data.features.tokens import TrainingFacts
from mocme.data.graph import AnswerIndex, Queries, distinct
from mocme.experts.embedding.extended_model import AddedEntities, AddedVectors, FusionStats
from mocme.experts.embedding.model import EmbeddingModel
from mocme.experts.embedding.objective import Objective

# Elements of a block of scores.
CELLS = 1 << 22
# Stands for a missing score: -inf would have no gradient.
LOWEST = -1e30
STEPS = 500


@dataclass(frozen=True, eq=False)
class FittedRows:
    """Fitted rows and the state of the optimiser at the end.

    Attributes:
        loss: of all terms together.
        gradient: its norm over the rows at the end; `first` at the start.
        steps: iterations of the optimiser.
    """

    rows: Float[Tensor, "n D"]
    loss: float
    first: float
    gradient: float
    steps: int

    @property
    def settled(self) -> bool:
        """Whether the gradient is near 0."""
        return self.gradient <= 1e-3 * max(1.0, self.first)


class FrozenQuestions:
    """The frozen part of the objective: a trained model and its training queries.

    Args:
        facts: that the model was trained on.
        without: training entities that do not compete, such as one whose row is fitted again.
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
        excluded = facts.excluded if without is None else torch.cat([facts.excluded, without])
        self.excluded = torch.unique(excluded)
        self._queries: list[_RowQueries] | None = None
        self._log_sums: Float[Tensor, " q"] | None = None

    def block(self, candidates: int) -> int:
        """Number of queries in a block of scores."""
        return max(1, CELLS // max(1, candidates))

    def queries(self) -> list[_RowQueries]:
        """Training queries for entities, which no new entity answers; computed once.

        Nearly all the time is spent on their scores over all entities.
        """
        if self._queries is None:
            device = self.vectors.device
            competing = torch.arange(self.facts.num_entities)
            competing = competing[~torch.isin(competing, self.excluded)]
            candidates = self.vectors[competing.to(device)]
            counts = (self.index.offsets[1:] - self.index.offsets[:-1]).double()
            relation = self.index.queries.relation
            counts *= self.settings.weight(relation, self.facts)
            for_entities = (self.facts.relation_class[relation] == 0).nonzero().flatten()
            queries = self.index.queries[for_entities].to(device)
            none = torch.empty(0, dtype=torch.int64, device=device)
            with torch.no_grad():
                positions = torch.arange(len(for_entities), device=device)
                blocks = positions.split(self.block(len(candidates)))
                parts = (queries[block] for block in blocks)
                query = torch.cat(
                    [self.model.query(self.vectors[part.head], part.relation) for part in parts]
                )
                if self._log_sums is None:
                    # Allocated before the loop: small results between large temporary blocks would
                    # fragment memory and keep tens of gigabytes from being reused.
                    log_sums = torch.empty(len(for_entities), dtype=torch.float64, device=device)
                    for block in blocks:
                        scores = self.model.scorer.compare(query[block], candidates)
                        log_sums[block] = scores.double().logsumexp(1)
                    self._log_sums = log_sums
            weight = counts[for_entities].to(device)
            self._queries = [
                _RowQueries(queries, 0, none, none, weight, query, self._log_sums, True)
            ]
        return self._queries

    def slim(self) -> None:
        """Free what is large and quickly computed again; keep the log sums, a number each."""
        self._queries = None


def fit_rows(
    frozen: FrozenQuestions,
    added: AddedEntities,
    new: Int[Tensor, "k 3"],
    *,
    later: Float[Tensor, "m E"] | None = None,
    as_negatives: bool = True,
    start: Float[Tensor, "n D"] | None = None,
    steps: int = STEPS,
    check: Check = unlimited,
) -> FittedRows:
    """Fit the structure rows of n entities together.

    Args:
        frozen: the trained model and its queries.
        added: content of the entities; its rows are ignored.
        new: their facts with directed relations, in one direction. Nodes of the training keep
            their ids; the m nodes of `later` follow, then the n new entities.
        later: vectors of entities that were added earlier and occur in `new`.
        as_negatives: whether training queries take part, which new entities do not answer.
        start: initial rows; `first_rows` by default.
        steps: largest number of iterations.
        check: called before each evaluation of the objective; what it raises ends the fit. The
            sums over the training queries, which later fits use too, are finished all the same.
    """
    check()
    problem = RowObjective(frozen, added, new, later, as_negatives)
    rows = first_rows(frozen, problem.facts, problem.first) if start is None else start
    return _minimize(problem, rows.to(frozen.vectors.device), steps, check)


def first_rows(
    frozen: FrozenQuestions, new: Int[Tensor, "k 3"], first: int
) -> Float[Tensor, "n D"]:
    """Initial rows: the mean row of the heads of an entity's relations, each counted once."""
    rows, used = frozen.model.structure.detach(), frozen.facts.facts
    initial = []
    for entity in range(first, int(new[:, 0].max()) + 1):
        relations = torch.unique(new[new[:, 0] == entity, 1])
        means = [
            rows[used[used[:, 1] == relation, 0]].mean(0)
            for relation in relations.tolist()
            if bool((used[:, 1] == relation).any())
        ]
        initial.append(torch.stack(means).mean(0) if means else rows[frozen.facts.present].mean(0))
    return torch.stack(initial)


class RowObjective:
    """The objective as a function of the rows.

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
        # An entity in a new fact has to compete, even if no training fact contains it.
        named = frozen.excluded[torch.isin(frozen.excluded, self.facts[:, 2])]
        entities = torch.arange(facts.num_entities)
        entities = entities[~torch.isin(entities, frozen.excluded) | torch.isin(entities, named)]
        later_ones = torch.arange(facts.num_nodes, self.first)
        spans = [torch.arange(*span) for span in facts.spans[1:]]
        self._allowed = [torch.cat([entities, later_ones]), *spans]
        self._candidates: dict[int, Tensor] = {}
        self._queries = list(self._blocks())
        if as_negatives:
            more = self._vectors[torch.cat([named, later_ones]).to(vectors.device)]
            self._queries += [block.against(self.model, more) for block in frozen.queries()]
        times = torch.bincount(self.facts[:, [0, 2]].flatten(), minlength=self.first + len(added))
        self._times = times[self.first :].double().to(vectors.device)

    def _check(self) -> None:
        ends = self.facts[:, [0, 2]]
        if int(ends.max()) >= self.first + len(self.added) or int(ends.min()) < 0:
            raise ValueError("a fact contains a node that does not exist")
        if bool((ends < self.first).all(1).any()):
            raise ValueError("a fact contains no new entity, and all others are frozen")

    def _blocks(self) -> Iterator[_RowQueries]:
        """Queries of the new facts in blocks; queries with new heads change and are separate."""
        index, device = AnswerIndex(self.facts), self._vectors.device
        classes = self._frozen.facts.relation_class[index.queries.relation]
        moving = index.queries.head >= self.first
        for number, allowed in enumerate(self._allowed):
            for moves in (False, True):
                members = ((classes == number) & (moving == moves)).nonzero().flatten()
                for block in (
                    members.split(self._frozen.block(len(allowed))) if len(members) else ()
                ):
                    row, answer = (ids.to(device) for ids in index.rows(block))
                    queries = index.queries[block]
                    weight = self.settings.weight(queries.relation, self._frozen.facts).double()
                    part = _RowQueries(queries.to(device), number, row, answer, weight.to(device))
                    yield part if moves else self._with_constants(part)

    def _with_constants(self, block: _RowQueries) -> _RowQueries:
        """Add what does not change: the query vectors and the log sum over frozen candidates."""
        with torch.no_grad():
            heads = self._vectors[block.queries.head]
            query = self.model.query(heads, block.queries.relation).double()
            return replace(
                block, query=query, frozen_log_sum=_total(self._old_scores(block, query))
            )

    def _old_scores(self, block: _RowQueries, query: Tensor) -> Float[Tensor, "B c"]:
        """Scores of the frozen candidates, in float64."""
        allowed = self._allowed[block.number]
        if block.number not in self._candidates:
            candidates = self._vectors[allowed.to(self._vectors.device)]
            self._candidates[block.number] = candidates.double()
        scores = self.model.scorer.compare(query, self._candidates[block.number])
        if self.settings.loss.answers == "together":
            return scores
        # Known answers are not negatives.
        known_row, node = self._frozen.index.lookup(block.queries.to("cpu"))
        column = torch.searchsorted(allowed, node).clamp_max(len(allowed) - 1)
        is_candidate = allowed[column] == node
        mask = torch.zeros(scores.shape, dtype=torch.bool)
        mask[known_row[is_candidate], column[is_candidate]] = True
        return scores.masked_fill(mask.to(scores.device), LOWEST)

    # -- the function ----------------------------------------------------------------------------

    def __call__(self, rows: Float[Tensor, "n D"]) -> tuple[float, Float[Tensor, "n D"]]:
        """Loss and its gradient."""
        rows = rows.detach().requires_grad_()
        new_vectors, _ = self._newcomers(rows, self.added.present)
        vectors = new_vectors.detach().requires_grad_()
        total = 0.0
        for block in self._queries:
            loss = self._loss(block, vectors)
            loss.backward()
            total += float(loss.detach())
        if self.settings.n3:
            moduli = self.model.scorer.moduli(vectors.double())
            loss = self.settings.n3 * (moduli.pow(3).sum(1) * self._times).sum()
            loss.backward()
            total += float(loss.detach())
        assert vectors.grad is not None
        (gradient,) = torch.autograd.grad(new_vectors, rows, vectors.grad)
        return total, gradient

    def _loss(self, block: _RowQueries, vectors: Float[Tensor, "n E"]) -> Tensor:
        """Summed loss of a block of queries."""
        scorer, frozen_log_sum = self.model.scorer, block.frozen_log_sum
        if block.of_training:
            assert block.query is not None
            assert frozen_log_sum is not None
            scores = scorer.compare(block.query, vectors).double()
            total = torch.logaddexp(frozen_log_sum, scores.logsumexp(1))
            return ((total - frozen_log_sum) * block.weight).sum()
        if block.query is None:
            heads = vectors[block.queries.head - self.first]
            query = self.model.query(heads, block.queries.relation).double()
        else:
            query = block.query
        # New entities are candidates for entities only, not for tokens.
        new = vectors.double() if block.number == 0 else vectors[:0].double()
        scores, column = scorer.compare(query, new), block.answer - self.first
        if frozen_log_sum is None:
            allowed = self._allowed[block.number].to(column.device)
            old = torch.searchsorted(allowed, block.answer.clamp_max(self.first - 1))
            column = torch.where(column < 0, old, column + len(allowed))
            scores = torch.cat([self._old_scores(block, query), scores], 1)
        answers = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
        answers[block.row, column] = True
        negatives = _total(scores.masked_fill(answers, LOWEST))
        if frozen_log_sum is not None:
            negatives = torch.logaddexp(frozen_log_sum, negatives)
        ones = torch.ones(len(column), dtype=torch.float64, device=scores.device)
        losses = self.settings.loss(scores[block.row, column], block.row, ones, negatives)
        return (losses * block.weight).sum()


@dataclass(frozen=True, eq=False)
class _RowQueries:
    """Queries of one class of candidates.

    Attributes:
        row, answer: which query the answer of a new fact belongs to, and its node.
        weight: of each query's loss; for training queries, times the number of answers.
        query: query vectors; None where heads are new, because they change with the rows.
        frozen_log_sum: log of the sum of e^score over the frozen candidates.
    """

    queries: Queries
    number: int
    row: Int[Tensor, " n"]
    answer: Int[Tensor, " n"]
    weight: Float[Tensor, " B"]
    query: Tensor | None = None
    frozen_log_sum: Tensor | None = None
    of_training: bool = False

    def against(self, model: EmbeddingModel, more: Float[Tensor, "m E"]) -> _RowQueries:
        """The same queries with further frozen candidates."""
        if not len(more):
            return self
        assert self.query is not None
        assert self.frozen_log_sum is not None
        with torch.no_grad():
            others = model.scorer.compare(self.query, more).double().logsumexp(1)
        return replace(self, frozen_log_sum=torch.logaddexp(self.frozen_log_sum, others))


def _total(scores: Float[Tensor, "B c"]) -> Float[Tensor, " B"]:
    """Log of the sum of e^score; LOWEST where the sum is empty."""
    low = scores.new_full((len(scores), 1), LOWEST)
    return torch.cat([scores, low], 1).logsumexp(1)


def _minimize(
    problem: RowObjective, start: Float[Tensor, "n D"], steps: int, check: Check
) -> FittedRows:
    """Minimise by L-BFGS, which needs few iterations on this smooth function."""
    from scipy.optimize import minimize

    def value(flat: Float[np.ndarray, " nD"]) -> tuple[float, Float[np.ndarray, " nD"]]:
        check()
        loss, gradient = problem(torch.from_numpy(flat).to(start).view_as(start))
        return loss, gradient.cpu().double().numpy().ravel()

    flat = start.detach().cpu().double().numpy().ravel()
    first = float(np.linalg.norm(value(flat)[1]))
    options = {"maxiter": steps, "maxcor": 20, "ftol": 1e-9, "gtol": 1e-6, "maxls": 10}
    result = minimize(value, flat, jac=True, method="L-BFGS-B", options=options)
    rows = torch.from_numpy(result.x).to(start).view_as(start)
    loss, gradient = problem(rows)
    return FittedRows(rows, loss, first, float(gradient.norm()), int(result.nit))
