"""The best new facts of a whole graph, over all relations: exact, in bounded memory, resumable.

The probability (`chance`) of a new fact (h, r, t) is the mean over its two questions of

    applies(asked entity, directed relation) * probability(answer within its question),

so that it is at least `least` only if one of the two terms is. For each relation all questions
that can reach that are asked; of what they find the other direction is asked too. Nothing is
sampled, and nothing that is left out could be among the best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.prediction.predictor import Predictor
from mocme.prediction.relation_prior import RelationPrior

# Below this probability nothing is mined: the facts that reach it would be too many to hold.
LEAST = 0.001

Advance = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class CompletedFacts:
    """New facts, best first.

    Attributes:
        facts: head, relation and tail of each.
        chance: probability of the fact, see the module.
        probability: mean of both questions' probabilities, as `Predictor.check` gives it.
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
        """The first `limit`; equal probabilities in the order of head, relation and tail."""
        order = torch.arange(len(self))
        for column in (2, 1, 0):
            order = order[self.facts[order, column].argsort(stable=True)]
        order = order[self.chance[order].argsort(descending=True, stable=True)][:limit]
        return CompletedFacts(*(column[order] for column in self._columns()))

    def joined(self, other: CompletedFacts) -> CompletedFacts:
        """Both together, in no order."""
        both = zip(self._columns(), other._columns(), strict=True)
        return CompletedFacts(*(torch.cat(pair) for pair in both))

    def _columns(self) -> tuple[Tensor, ...]:
        return self.facts, self.chance, self.probability, self.score


class GraphCompletion:
    """Mining that can be stopped between two relations.

    Args:
        relations: ids to mine; all by default.
        limit: how many facts are kept.
        least: probability (`chance`) that a fact must have.

    Attributes:
        done: how many relations are mined.
        found: the best of them.
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
                "mining goes by probability, and this run has none, for its graph has no valid "
                "split; put a valid.tsv beside its train.tsv and train again"
            )
        if not LEAST <= least <= 1:
            raise ValueError(f"the least probability must be between {LEAST} and 1, not {least}")
        if limit < 1:
            raise ValueError(f"the limit must be 1 or more, not {limit}")
        self.predictor, self.limit, self.least = predictor, limit, least
        number = predictor.graph.num_relations
        self.relations = list(range(number)) if relations is None else list(relations)
        self.applying = RelationPrior(predictor.graph)
        self.done, self.found = 0, CompletedFacts.none()

    @property
    def bar(self) -> float:
        """What a fact must reach to be among the best so far."""
        if len(self.found) < self.limit:
            return self.least
        return max(self.least, float(self.found.chance[-1]))

    def questions(self, relation: int) -> int:
        """How many questions of a relation can reach the bar, at most: what mining it costs."""
        return sum(len(self._worth(directed)) for directed in self._both(relation))

    def step(self, advance: Advance | None = None) -> None:
        """Mine the next relation.

        Args:
            advance: is told (questions asked, questions that were expected).
        """
        relation = self.relations[self.done]
        found = self._relation(relation, advance or (lambda asked, expected: None))
        self.found = self.found.joined(found).best(self.limit)
        self.done += 1

    def _both(self, relation: int) -> tuple[int, int]:
        return relation, relation + self.predictor.graph.num_relations

    def _worth(self, directed: int) -> Int[Tensor, " n"]:
        """Entities whose best possible answer reaches the bar."""
        assert self.predictor.calibration is not None
        most = float(self.predictor.calibration.curve(directed).y.max())
        return (self.applying.to(directed) * most >= self.bar).nonzero().flatten()

    def _relation(self, relation: int, advance: Advance) -> CompletedFacts:
        there, back = self._both(relation)
        total = self.questions(relation)
        size = self.predictor.graph.num_entities
        # Pairs as head * N + tail, with their terms, of each direction's own questions.
        keys = []
        for directed in (there, back):
            asked, answers = self._reaching(directed, self._worth(directed), advance, total)
            keys.append(asked * size + answers if directed == there else answers * size + asked)
        pairs = torch.unique(torch.cat(keys))
        head, tail = pairs // size, pairs % size
        forward = self._terms(there, head, tail)
        backward = self._terms(back, tail, head)
        chance = (forward[0] + backward[0]) / 2
        kept = chance >= self.bar
        facts = torch.stack([head, torch.full_like(head, relation), tail], 1)[kept]
        means = [(f + b)[kept] / 2 for f, b in zip(forward, backward, strict=True)]
        return CompletedFacts(facts, *means).best(self.limit)

    def _reaching(
        self, directed: int, entities: Int[Tensor, " n"], advance: Advance, total: int
    ) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
        """Questions and answers whose own term reaches the bar."""
        applies = self.applying.to(directed)
        asked, answers = [], []
        for part in entities.split(self.predictor.block()) if len(entities) else ():
            _, chances = self.predictor.unknown(part.tolist(), [directed] * len(part))
            row, answer = (chances * applies[part, None] >= self.bar).nonzero().unbind(1)
            asked.append(part[row])
            answers.append(answer)
            advance(len(part), total)
        none = torch.empty(0, dtype=torch.int64)
        return torch.cat([none, *asked]), torch.cat([none, *answers])

    def _terms(
        self, directed: int, asked: Int[Tensor, " n"], answers: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
        """`chance`, probability and score of given pairs in one direction."""
        applies = self.applying.to(directed)
        probability = torch.zeros(len(asked), dtype=torch.float64)
        score = torch.zeros(len(asked), dtype=torch.float64)
        entities, place = torch.unique(asked, return_inverse=True)
        order = place.argsort(stable=True)
        start = torch.searchsorted(place[order], torch.arange(len(entities) + 1))
        first = 0
        for part in entities.split(self.predictor.block()) if len(entities) else ():
            scores, chances = self.predictor.unknown(part.tolist(), [directed] * len(part))
            own = order[int(start[first]) : int(start[first + len(part)])]
            row = place[own] - first
            probability[own] = chances[row, answers[own]]
            score[own] = scores[row, answers[own]].double()
            first += len(part)
        return probability * applies[asked], probability, score
