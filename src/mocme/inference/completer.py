"""Ask a trained run for missing facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mocme.graph.triples import AnswerIndex, Graph, Queries
from mocme.model.model import Model
from mocme.patterns.evidence import Reason

MAX_K = 1000
Known = Literal["hide", "mark"]


@dataclass(frozen=True)
class Prediction:
    """A fact that may hold.

    Attributes:
        score: in the direction that was asked; higher is likelier, comparable within a question.
        known: whether the graph holds it already.
        weights: weight of each modality in the answer's vector; all 0 where nothing is known of it.
    """

    head: str
    relation: str
    tail: str
    score: float
    known: bool
    weights: dict[str, float]

    @property
    def note(self) -> str:
        """What a reader should know of it besides the score."""
        if not any(self.weights.values()):
            return "nothing is known of this entity; its score is that of an average one"
        return ""


class Predictions(Sequence[Prediction]):
    """Predictions of one question, best first; prints as a table."""

    def __init__(self, question: str, items: Sequence[Prediction], asked: str) -> None:
        self.question, self._items, self._asked = question, tuple(items), asked

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Prediction:  # type: ignore[override]
        return self._items[index]

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self._items)

    def __repr__(self) -> str:
        lines = [self.question]
        for place, item in enumerate(self._items, 1):
            name = getattr(item, self._asked)
            shares = ", ".join(f"{m} {w:.2f}" for m, w in item.weights.items() if w)
            known = " (known)" if item.known else ""
            shares = shares or "nothing known"
            lines.append(f"{place:3d}  {item.score:8.3f}  {name}{known}  [{shares}]")
        return "\n".join(lines)


class Completer:
    """A trained model and its graph, ready for questions by name."""

    def __init__(self, model: Model, graph: Graph) -> None:
        self.model, self.graph = model, graph
        self._known: AnswerIndex | None = None
        self._reflexive: frozenset[int] | None = None

    @property
    def known(self) -> AnswerIndex:
        """Answers that the graph holds in any split."""
        if self._known is None:
            self._known = self.graph.answers(*self.graph.splits)
        return self._known

    @property
    def reflexive(self) -> frozenset[int]:
        """Relations of which the graph holds a fact between an entity and itself."""
        if self._reflexive is None:
            head, relation, tail = self.graph.facts().unbind(1)
            self._reflexive = frozenset(relation[head == tail].tolist())
        return self._reflexive

    def tails(self, head: str, relation: str, k: int = 10, known: Known = "hide") -> Predictions:
        """The likeliest tails of (head, relation, ?).

        The head itself is no answer, unless the graph holds a fact of this relation between some
        entity and itself.

        Args:
            k: how many, at most 1,000.
            known: ``hide`` facts of the graph, or ``mark`` them.

        Raises:
            UnknownName: with near matches.
        """
        return self._ask(head, self.graph.relations.id(relation), k, known, asked="tail")

    def heads(self, relation: str, tail: str, k: int = 10, known: Known = "hide") -> Predictions:
        """The likeliest heads of (?, relation, tail); see `tails`."""
        inverse = self.graph.relations.id(relation) + self.graph.num_relations
        return self._ask(tail, inverse, k, known, asked="head")

    def score(self, head: str, relation: str, tail: str) -> float:
        """The mean of both directions' scores of one fact."""
        h, t = self.graph.entities.id(head), self.graph.entities.id(tail)
        r = self.graph.relations.id(relation)
        device = self.model.structure.device
        queries = self._queries([h, t], [r, r + self.graph.num_relations])
        with torch.no_grad():
            scores = self.model.score(queries, torch.tensor([[t], [h]], device=device))
        return float(scores.mean())

    def reasons(self, head: str, relation: str, tail: str) -> list[Reason]:
        """Patterns that lead from head to tail for this relation, strongest first.

        Empty where the model has no patterns or none leads there.

        Raises:
            UnknownName: with near matches.
        """
        if self.model.evidence is None:
            return []
        h, t = self.graph.entities.id(head), self.graph.entities.id(tail)
        return self.model.evidence.reasons(h, self.graph.relations.id(relation), t)

    def weights(self, entity: str) -> dict[str, float]:
        """Weight of each modality in an entity's vector."""
        return self._weights(self.graph.entities.id(entity))

    def _weights(self, entity: int) -> dict[str, float]:
        row = self.model.frozen().weights[entity].tolist()
        return dict(zip(self.model.modalities, row, strict=True))

    def _queries(self, heads: list[int], relations: list[int]) -> Queries:
        device = self.model.structure.device
        return Queries(torch.tensor(heads, device=device), torch.tensor(relations, device=device))

    def _ask(self, given: str, relation: int, k: int, known: Known, asked: str) -> Predictions:
        if not 1 <= k <= MAX_K:
            raise ValueError(f"k must be between 1 and {MAX_K}, not {k}")
        if known not in ("hide", "mark"):
            raise ValueError(f"known must be 'hide' or 'mark', not {known!r}")
        entity = self.graph.entities.id(given)
        queries = self._queries([entity], [relation])
        with torch.no_grad():
            scores = self.model.score(queries)[0].float().cpu()
        _, answers = self.known.lookup(queries.to("cpu"))
        if known == "hide":
            scores[answers] = -torch.inf
        if relation % self.graph.num_relations not in self.reflexive:
            scores[entity] = -torch.inf
        items = self._items(entity, relation, scores, set(answers.tolist()), k)
        name = self.graph.relations[relation % self.graph.num_relations]
        question = f"({given}, {name}, ?)" if asked == "tail" else f"(?, {name}, {given})"
        return Predictions(question, items, asked)

    def _items(
        self, entity: int, relation: int, scores: Tensor, answers: set[int], k: int
    ) -> list[Prediction]:
        names, relations = self.graph.entities, self.graph.relations
        top = scores.topk(min(k, len(scores)))
        items = []
        for score, found in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            if score == -torch.inf:
                break
            inverse = relation >= self.graph.num_relations
            head, tail = (found, entity) if inverse else (entity, found)
            items.append(
                Prediction(
                    names[head],
                    relations[relation % self.graph.num_relations],
                    names[tail],
                    score,
                    found in answers,
                    self._weights(found),
                )
            )
        return items
