"""Scores and probabilities of the answers to queries, by id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mocme.calibration.curves import Calibration, log_shares_from_total
from mocme.core.deadline import Check, unlimited
from mocme.core.finite import all_finite
from mocme.data.graph import AnswerIndex, Graph, Queries
from mocme.data.paths import Fact
from mocme.mixture.base import Mixture

# Elements of a block of scores.
CELLS = 1 << 24


class AnswerScorer:
    """Scores all entities as answers to queries, without those that cannot be answers.

    Args:
        mixture: of trained experts.
        graph: of the mixture's entities.
        calibration: probabilities of scores; without it there are none.
        name: of the model in errors, such as the folder of its run.
    """

    def __init__(
        self,
        mixture: Mixture,
        graph: Graph,
        calibration: Calibration | None = None,
        name: str = "the model",
    ) -> None:
        self.mixture, self.graph, self.calibration = mixture, graph, calibration
        self.name = name
        self._known: AnswerIndex | None = None
        self._refused: AnswerIndex | None = None
        self._reflexive: frozenset[int] | None = None

    @property
    def known(self) -> AnswerIndex:
        """Answers that are facts of any split."""
        if self._known is None:
            self._known = self.graph.answers(*self.graph.splits)
        return self._known

    @property
    def refused(self) -> AnswerIndex:
        """Answers that reviewers rejected."""
        if self._refused is None:
            self._refused = AnswerIndex(self.graph.refusals())
        return self._refused

    @property
    def reflexive(self) -> frozenset[int]:
        """Relations with a fact between an entity and itself in the graph."""
        if self._reflexive is None:
            self._reflexive = frozenset(self.graph.reflexive().tolist())
        return self._reflexive

    def queries(self, heads: list[int], relations: list[int]) -> Queries:
        device = self.mixture.device
        return Queries(torch.tensor(heads, device=device), torch.tensor(relations, device=device))

    def block(self) -> int:
        """Number of queries in a block of scores."""
        return max(1, CELLS // max(1, self.graph.num_entities))

    def scores(
        self, entities: list[int], relations: list[int]
    ) -> tuple[Float[Tensor, "B N"], Bool[Tensor, "B N"]]:
        """Scores (-inf for excluded answers), and which answers are known.

        Raises:
            ValueError: a score is NaN or infinite.
        """
        queries = self.queries(entities, relations)
        with torch.no_grad():
            scores = self.mixture.score(queries).float().cpu()
        if not all_finite(scores):
            raise ValueError(
                f"{self.name}: scores are NaN or infinite, because weights of an expert are too "
                f"large; restore the run from a copy, or train it again"
            )
        queries = queries.to("cpu")
        for row, (entity, relation) in enumerate(zip(entities, relations, strict=True)):
            if relation % self.graph.num_relations not in self.reflexive:
                scores[row, entity] = -torch.inf
        scores[self.refused.lookup(queries)] = -torch.inf
        known = torch.zeros_like(scores, dtype=torch.bool)
        known[self.known.lookup(queries)] = True
        return scores, known

    def probabilities(
        self, scores: Float[Tensor, " n"], total: Float[Tensor, ""], relation: int
    ) -> Float[Tensor, " n"]:
        """Probabilities of candidates of one query.

        A known answer gets the probability of its score among the unknown ones. Without a
        calibration, shares of the softmax are returned.

        Args:
            scores: of the candidates.
            total: log-sum-exp of the scores of unknown answers.
            relation: directed.
        """
        shares = log_shares_from_total(scores, total)
        if self.calibration is None:
            return shares.exp()
        return self.calibration.probability(shares, relation)

    def scored(
        self, entities: list[int], relations: list[int], check: Check = unlimited
    ) -> tuple[Tensor, Tensor, Bool[Tensor, "B N"]]:
        """Scores (B, N), probabilities (B, N), and which answers are known.

        Args:
            check: called before the scores and before each query's probabilities.
        """
        check()
        scores, known = self.scores(entities, relations)
        totals = scores.masked_fill(known, -torch.inf).logsumexp(1)
        rows = []
        for row in zip(scores, totals, relations, strict=True):
            check()
            rows.append(self.probabilities(*row))
        probabilities = torch.stack(rows)
        probabilities[scores.isneginf()] = 0.0
        return scores, probabilities, known

    def unknown(
        self, entities: list[int], relations: list[int], check: Check = unlimited
    ) -> tuple[Tensor, Tensor]:
        """Scores and probabilities of unknown answers; known ones get -inf and 0."""
        scores, probabilities, known = self.scored(entities, relations, check)
        scores[known], probabilities[known] = -torch.inf, 0.0
        return scores, probabilities

    def facts(
        self, ids: Sequence[Fact], check: Check = unlimited
    ) -> Iterator[tuple[Fact, float, float, bool]]:
        """Of each fact its score and probability, means of both directions, and if it is known."""
        number, size = self.graph.num_relations, max(1, self.block() // 2)
        for first in range(0, len(ids), size):
            part = ids[first : first + size]
            entity_ids = [h for h, _, _ in part] + [t for _, _, t in part]
            relations = [r for _, r, _ in part] + [r + number for _, r, _ in part]
            check()
            answers = torch.tensor([t for _, _, t in part] + [h for h, _, _ in part])
            scores, known = self.scores(entity_ids, relations)
            totals = scores.masked_fill(known, -torch.inf).logsumexp(1)
            rows = torch.arange(len(answers))
            known, scores = known[rows, answers], scores[rows, answers]
            probabilities = []
            for score, total, relation in zip(scores.split(1), totals, relations, strict=True):
                check()
                excluded = score == -torch.inf
                value = 0.0 if excluded else float(self.probabilities(score, total, relation))
                probabilities.append(value)
            for position, fact in enumerate(part):
                back = len(part) + position
                score = (float(scores[position]) + float(scores[back])) / 2
                value = (probabilities[position] + probabilities[back]) / 2
                yield fact, score, value, bool(known[position])
