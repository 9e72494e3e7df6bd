"""The best new facts of a whole graph over all relations: exact, in bounded memory, resumable.

The `chance` of a new fact (h, r, t) is the mean over its two queries of

    applies(query entity, directed relation) * probability(answer of the query),

so it can reach `least` only if one of the two terms does. For each relation, all queries that can
reach it are scored, and their answers are scored in the other direction too. Nothing is sampled,
and no fact that is left out could be among the best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.core.deadline import Check, unlimited
from mocme.prediction.predictor import Predictor
from mocme.prediction.relation_prior import RelationPrior

# Lower bound of `least`: below it too many facts would have to be kept in memory.
LEAST = 0.001

Advance = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class CompletedFacts:
    """New facts, best first.

    Attributes:
        facts: head, relation and tail of each.
        chance: of the fact, see the module.
        probability: mean of both queries' probabilities, as `Predictor.score_facts` returns it.
        score: mean of both directions' scores.
    """

    facts: Int[Tensor, "n 3"]
    chance: Float[Tensor, " n"]
    probability: Float[Tensor, " n"]
    score: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.facts)

    @staticmethod
    def none() -> CompletedFacts:
        """No facts."""
        empty = torch.empty(0, dtype=torch.float64)
        return CompletedFacts(torch.empty(0, 3, dtype=torch.int64), empty, empty, empty)

    def best(self, limit: int) -> CompletedFacts:
        """The best `limit`; equal ones in the order of head, relation and tail."""
        order = torch.arange(len(self))
        for column in (2, 1, 0):
            order = order[self.facts[order, column].argsort(stable=True)]
        order = order[self.chance[order].argsort(descending=True, stable=True)][:limit]
        return CompletedFacts(*(column[order] for column in self._columns()))

    def joined(self, other: CompletedFacts) -> CompletedFacts:
        """Both together, unordered."""
        both = zip(self._columns(), other._columns(), strict=True)
        return CompletedFacts(*(torch.cat(pair) for pair in both))

    def _columns(self) -> tuple[Tensor, ...]:
        return self.facts, self.chance, self.probability, self.score


class GraphCompletion:
    """Completes a graph relation by relation; it can be stopped after each.

    Args:
        predictor: with probabilities.
        relations: ids to complete; all by default.
        limit: how many facts are kept.
        least: least `chance` of a fact.

    Attributes:
        done: how many relations are done.
        facts: the best facts of these.

    Raises:
        ValueError: the run has no probabilities, or a limit is out of range.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        relations: Sequence[int] | None = None,
        limit: int = 1_000_000,
        least: float = 0.5,
    ) -> None:
        if predictor.calibration is None:
            raise ValueError(
                "completion needs probabilities, and this run has none because its graph has no "
                "valid split; put a valid.tsv next to its train.tsv and train again"
            )
        if not LEAST <= least <= 1:
            raise ValueError(f"the least probability must be between {LEAST} and 1, not {least}")
        if limit < 1:
            raise ValueError(f"the limit must be 1 or more, not {limit}")
        self.predictor, self.limit, self.least = predictor, limit, least
        number = predictor.graph.num_relations
        self.relations = list(range(number)) if relations is None else list(relations)
        self.prior = RelationPrior(predictor.graph)
        self.done, self.facts = 0, CompletedFacts.none()

    @property
    def bar(self) -> float:
        """The chance that a fact has to reach to be among the best so far."""
        if len(self.facts) < self.limit:
            return self.least
        return max(self.least, float(self.facts.chance[-1]))

    def questions(self, relation: int) -> int:
        """Upper bound of the queries of a relation that have to be scored."""
        return sum(len(self._worth(directed)) for directed in self._both(relation))

    def step(self, advance: Advance | None = None, check: Check = unlimited) -> None:
        """Complete the next relation.

        Args:
            advance: receives (queries done, upper bound of the queries).
            check: called between blocks; what it raises leaves the relation undone.
        """
        relation = self.relations[self.done]
        facts = self._relation(relation, advance or (lambda done, total: None), check)
        self.facts = self.facts.joined(facts).best(self.limit)
        self.done += 1

    def _both(self, relation: int) -> tuple[int, int]:
        return relation, relation + self.predictor.graph.num_relations

    def _worth(self, directed: int) -> Int[Tensor, " n"]:
        """Entities whose best possible answer reaches the bar."""
        assert self.predictor.calibration is not None
        most = float(self.predictor.calibration.curve(directed).y.max())
        return (self.prior.to(directed) * most >= self.bar).nonzero().flatten()

    def _relation(self, relation: int, advance: Advance, check: Check) -> CompletedFacts:
        forward_relation, inverse_relation = self._both(relation)
        total = self.questions(relation)
        size = self.predictor.graph.num_entities
        # Pairs as head * N + tail, from the queries of each direction.
        keys = []
        for directed in (forward_relation, inverse_relation):
            worth = self._worth(directed)
            entities, answers = self._reaching(directed, worth, advance, total, check)
            heads, tails = (
                (entities, answers) if directed == forward_relation else (answers, entities)
            )
            keys.append(heads * size + tails)
        pairs = torch.unique(torch.cat(keys))
        head, tail = pairs // size, pairs % size
        forward = self._terms(forward_relation, head, tail, check)
        backward = self._terms(inverse_relation, tail, head, check)
        chance = (forward[0] + backward[0]) / 2
        kept = chance >= self.bar
        facts = torch.stack([head, torch.full_like(head, relation), tail], 1)[kept]
        means = [(f + b)[kept] / 2 for f, b in zip(forward, backward, strict=True)]
        return CompletedFacts(facts, *means).best(self.limit)

    def _reaching(
        self,
        directed: int,
        entities: Int[Tensor, " n"],
        advance: Advance,
        total: int,
        check: Check,
    ) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
        """Query entities and answers whose term reaches the bar."""
        applies = self.prior.to(directed)
        queries, answers = [], []
        for part in entities.split(self.predictor.scorer.block()) if len(entities) else ():
            relations = [directed] * len(part)
            _, probabilities = self.predictor.scorer.unknown(part.tolist(), relations, check)
            row, answer = (probabilities * applies[part, None] >= self.bar).nonzero().unbind(1)
            queries.append(part[row])
            answers.append(answer)
            advance(len(part), total)
        none = torch.empty(0, dtype=torch.int64)
        return torch.cat([none, *queries]), torch.cat([none, *answers])

    def _terms(
        self,
        directed: int,
        entities_of_pairs: Int[Tensor, " n"],
        answers: Int[Tensor, " n"],
        check: Check,
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
        """`chance`, probability and score of given pairs in one direction."""
        applies = self.prior.to(directed)
        probability = torch.zeros(len(entities_of_pairs), dtype=torch.float64)
        score = torch.zeros(len(entities_of_pairs), dtype=torch.float64)
        entities, group = torch.unique(entities_of_pairs, return_inverse=True)
        order = group.argsort(stable=True)
        start = torch.searchsorted(group[order], torch.arange(len(entities) + 1))
        first = 0
        for part in entities.split(self.predictor.scorer.block()) if len(entities) else ():
            relations = [directed] * len(part)
            scores, probabilities = self.predictor.scorer.unknown(part.tolist(), relations, check)
            rows_of_part = order[int(start[first]) : int(start[first + len(part)])]
            row = group[rows_of_part] - first
            probability[rows_of_part] = probabilities[row, answers[rows_of_part]]
            score[rows_of_part] = scores[row, answers[rows_of_part]].double()
            first += len(part)
        return probability * applies[entities_of_pairs], probability, score
