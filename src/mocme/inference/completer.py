"""Ask a trained run for missing facts."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mocme.graph.triples import AnswerIndex, Graph, Queries
from mocme.inference.applying import Applying
from mocme.inference.calibration import Calibration, log_shares
from mocme.inference.explaining import Asked, Explainer
from mocme.inference.explanation import Explanation, Grounds
from mocme.model.model import Model
from mocme.patterns.evidence import Reason

MAX_K = 1000
Known = Literal["hide", "mark"]
Among = Literal["all", "observed"] | Sequence[str]
# Scores that are held at a time where a question has many parts.
CELLS = 1 << 24


@dataclass(frozen=True)
class Prediction:
    """A fact that may hold.

    Attributes:
        score: in the direction that was asked; higher is likelier, comparable within a question.
        known: whether the graph holds it already.
        probability: the chance that it is a known fact, a lower bound of the chance that it holds
            (`mocme.inference.calibration`); None where the run has no calibration, or the graph
            holds the fact already.
        applies: of `Completer.missing`, how likely the entity is to have a fact (or one more) of
            this relation; None elsewhere.
        applies: of `Completer.missing`, how likely the entity asked for is to have a fact (or one
            more) of this relation; None elsewhere.
        weights: weight of each modality in the answer's vector; all 0 where nothing is known of it.
    """

    head: str
    relation: str
    tail: str
    score: float
    known: bool
    weights: dict[str, float]
    probability: float | None = None
    applies: float | None = None

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
            whole = f"({item.head}, {item.relation}, {item.tail})"
            name = whole if self._asked == "fact" else getattr(item, self._asked)
            shares = ", ".join(f"{m} {w:.2f}" for m, w in item.weights.items() if w)
            known = " (known)" if item.known else ""
            shares = shares or "nothing known"
            chance = "" if item.probability is None else f"{item.probability:7.1%}"
            lines.append(f"{place:3d}  {item.score:8.3f} {chance}  {name}{known}  [{shares}]")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        chances = any(item.probability is not None for item in self._items)
        modalities = list(self._items[0].weights) if self._items else []
        head = ["", "head", "relation", "tail", "score"]
        head += [*(["probability"] if chances else []), *modalities, ""]
        rows = []
        for place, item in enumerate(self._items, 1):
            cells = [str(place), item.head, item.relation, item.tail, f"{item.score:.3f}"]
            if chances:
                cells.append("" if item.probability is None else f"{item.probability:.1%}")
            cells += [
                f"{item.weights[name]:.2f}" if item.weights[name] else "" for name in modalities
            ]
            rows.append([*cells, "known" if item.known else item.note])
        made = [_cells("th", head), *(_cells("td", row) for row in rows)]
        body = "".join(f"<tr>{row}</tr>" for row in made)
        return f"<table><caption>{html.escape(self.question)}</caption>{body}</table>"


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)


class Checked(Predictions):
    """Facts that were checked, in the order they were given.

    Attributes:
        order: by fact, its probability (or share, without probabilities), of known ones too.
    """

    def __init__(
        self,
        question: str,
        items: Sequence[Prediction],
        asked: str,
        order: Mapping[tuple[str, str, str], float],
    ) -> None:
        super().__init__(question, items, asked)
        self.order = dict(order)


class Completer:
    """A trained model and its graph, ready for questions by name.

    Args:
        grounds: what explanations need of the run.
    """

    def __init__(
        self,
        model: Model,
        graph: Graph,
        calibration: Calibration | None = None,
        grounds: Grounds | None = None,
    ) -> None:
        self.model, self.graph, self.calibration = model, graph, calibration
        self.explainer = Explainer(model, graph, grounds)
        self._known: AnswerIndex | None = None
        self._reflexive: frozenset[int] | None = None
        self._applying: Applying | None = None

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
            self._reflexive = frozenset(self.graph.reflexive().tolist())
        return self._reflexive

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

        The head itself is no answer, unless the graph holds a fact of this relation between some
        entity and itself.

        Args:
            k: how many, at most 1,000.
            known: ``hide`` facts of the graph, or ``mark`` them.
            among: ``all`` entities; ``observed``: those that are a tail of this relation in the
                graph; or names.
            min_probability: leave out what is less probable; what is known stays.

        Raises:
            UnknownName: with near matches.
            ValueError: k or min_probability is out of range, or the run has no probabilities.
        """
        which = self.graph.relations.id(relation)
        return self._ask(head, which, k, known, among, min_probability, asked="tail")

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
        inverse = self.graph.relations.id(relation) + self.graph.num_relations
        return self._ask(tail, inverse, k, known, among, min_probability, asked="head")

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
        self._check(k, known, min_probability)
        names = list(self.graph.relations)
        found = self.check([(head, relation, tail) for relation in names])
        items = [
            item
            for item in found
            if (known == "mark" or not item.known)
            and (item.known or (item.probability or 0.0) >= min_probability)
        ]
        items.sort(key=lambda item: -found.order[(item.head, item.relation, item.tail)])
        return Predictions(f"({head}, ?, {tail})", items[:k], "relation")

    def missing(self, entity: str, k: int = 10, *, min_probability: float = 0.0) -> Predictions:
        """What is missing about an entity: the likeliest new facts of it, over all relations.

        Ordered by probability times how likely the entity is to have a fact, or one more, of the
        relation (`mocme.inference.applying`); without probabilities by share in the softmax.
        """
        self._check(k, "hide", min_probability)
        if self._applying is None:
            self._applying = Applying(self.graph)
        own = self.graph.entities.id(entity)
        applies = self._applying.of(own)
        best: list[tuple[float, Prediction]] = []
        for block in torch.arange(2 * self.graph.num_relations).split(self.block()):
            scores, chances = self.unknown([own] * len(block), block.tolist())
            for row, relation in enumerate(block.tolist()):
                chance = float(applies[relation])
                top = chances[row].topk(min(k, len(chances[row])))
                for value, answer in zip(top.values.tolist(), top.indices.tolist(), strict=True):
                    if value <= 0 or value < min_probability:
                        break
                    score = float(scores[row, answer])
                    item = self._item(own, relation, answer, score, value, chance)
                    best.append((value * chance, item))
        best.sort(key=lambda pair: -pair[0])
        return Predictions(f"what is missing about {entity}", [i for _, i in best[:k]], "fact")

    def check(self, triples: Sequence[tuple[str, str, str]]) -> Checked:
        """Score and probability of given facts, in their order: means of both directions.

        Raises:
            UnknownName: with near matches.
        """
        entities, names, number = (
            self.graph.entities,
            self.graph.relations,
            self.graph.num_relations,
        )
        ids = [(entities.id(h), names.id(r), entities.id(t)) for h, r, t in triples]
        items, order = [], {}
        for first in range(0, len(ids), max(1, self.block() // 2)):
            part = ids[first : first + max(1, self.block() // 2)]
            asked = [h for h, _, _ in part] + [t for _, _, t in part]
            relations = [r for _, r, _ in part] + [r + number for _, r, _ in part]
            scores, chances, known = self.marked(asked, relations)
            for place, (h, r, t) in enumerate(part):
                back = len(part) + place
                score = (float(scores[place, t]) + float(scores[back, h])) / 2
                value = (float(chances[place, t]) + float(chances[back, h])) / 2
                item = self._item(h, r, t, score, value, None, (place, t) in known)
                items.append(item)
                order[(item.head, item.relation, item.tail)] = value
        return Checked("facts to check", items, "fact", order)

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

    def explain(self, head: str, relation: str, tail: str) -> Explanation:
        """What speaks for a fact, and what could not be shown; see docs/explaining.md.

        Raises:
            UnknownName: with near matches.
        """
        h, t = self.graph.entities.id(head), self.graph.entities.id(tail)
        r = self.graph.relations.id(relation)
        scores, chances, known = self.marked([h, t], [r, r + self.graph.num_relations])
        new = ~scores.isneginf()
        for place, answer in known:
            new[place, answer] = False
        held = (0, t) in known
        chance = (float(chances[0, t]) + float(chances[1, h])) / 2
        if h == t and r not in self.reflexive:
            # No answer to a question; asked for by name it has a score all the same.
            scores[:, h] = self.score(head, relation, tail)
        probability = None if held or self.calibration is None else chance
        return self.explainer.explain(Asked(h, r, t, scores, new, probability, held))

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Vectors of the entities (N, D) and of the directed relations (2R, E), by id.

        A relation's inverse has the id r + R.
        """
        with torch.no_grad():
            relations = torch.arange(
                2 * self.graph.num_relations, device=self.model.structure.device
            )
            table = self.model.frozen().vectors[: self.graph.num_entities]
            return table.float().cpu(), self.model.relations(relations).detach().float().cpu()

    def weights(self, entity: str) -> dict[str, float]:
        """Weight of each modality in an entity's vector."""
        return self._weights(self.graph.entities.id(entity))

    def _weights(self, entity: int) -> dict[str, float]:
        row = self.model.frozen().weights[entity].tolist()
        return dict(zip(self.model.modalities, row, strict=True))

    def _queries(self, heads: list[int], relations: list[int]) -> Queries:
        device = self.model.structure.device
        return Queries(torch.tensor(heads, device=device), torch.tensor(relations, device=device))

    def block(self) -> int:
        """Questions whose scores are held at a time."""
        return max(1, CELLS // max(1, self.graph.num_entities))

    def _check(self, k: int, known: str, min_probability: float) -> None:
        if not 1 <= k <= MAX_K:
            raise ValueError(f"k must be between 1 and {MAX_K}, not {k}")
        if known not in ("hide", "mark"):
            raise ValueError(f"known must be 'hide' or 'mark', not {known!r}")
        if not 0 <= min_probability <= 1:
            raise ValueError(f"min_probability must be between 0 and 1, not {min_probability}")
        if min_probability and self.calibration is None:
            raise ValueError(
                "this run has no probabilities, for its graph has no valid split; put a valid.tsv "
                "beside its train.tsv and train again, or leave min_probability out"
            )

    def marked(
        self, entities: list[int], relations: list[int]
    ) -> tuple[Tensor, Tensor, set[tuple[int, int]]]:
        """Scores (B, N), probabilities (B, N), and the known answers as (question, answer).

        Of a known answer, too, the probability is that of its score among the unknown ones. Without
        a calibration shares of the softmax stand in.
        """
        queries = self._queries(entities, relations)
        with torch.no_grad():
            scores = self.model.score(queries).float().cpu()
        queries = queries.to("cpu")
        for row, (entity, relation) in enumerate(zip(entities, relations, strict=True)):
            if relation % self.graph.num_relations not in self.reflexive:
                scores[row, entity] = -torch.inf
        place, answer = self.known.lookup(queries)
        new = scores.clone()
        new[place, answer] = -torch.inf
        shares = log_shares(scores, new)
        if self.calibration is None:
            chances = shares.exp()
        else:
            rows = zip(shares, relations, strict=True)
            chances = torch.stack([self.calibration.probability(*row) for row in rows])
        chances[scores.isneginf()] = 0.0
        return scores, chances, set(zip(place.tolist(), answer.tolist(), strict=True))

    def unknown(self, entities: list[int], relations: list[int]) -> tuple[Tensor, Tensor]:
        """Scores and probabilities of unknown answers; those of known ones are -inf and 0."""
        scores, chances, known = self.marked(entities, relations)
        for place, answer in known:
            scores[place, answer], chances[place, answer] = -torch.inf, 0.0
        return scores, chances

    def _ask(
        self,
        given: str,
        relation: int,
        k: int,
        known: Known,
        among: Among,
        min_probability: float,
        asked: str,
    ) -> Predictions:
        self._check(k, known, min_probability)
        entity = self.graph.entities.id(given)
        scores, chances, held = self.marked([entity], [relation])
        order = scores[0].clone()
        mine = torch.zeros(len(order), dtype=torch.bool)
        mine[[answer for _, answer in held]] = True
        if known == "hide":
            order[mine] = -torch.inf
        if min_probability:
            order[~mine & (chances[0] < min_probability)] = -torch.inf
        if among != "all":
            order[~self._among(among, relation)] = -torch.inf
        top = order.topk(min(k, len(order)))
        items = [
            self._item(
                entity, relation, answer, score, float(chances[0, answer]), None, bool(mine[answer])
            )
            for score, answer in zip(top.values.tolist(), top.indices.tolist(), strict=True)
            if score != -torch.inf
        ]
        name = self.graph.relations[relation % self.graph.num_relations]
        question = f"({given}, {name}, ?)" if asked == "tail" else f"(?, {name}, {given})"
        return Predictions(question, items, asked)

    def _among(self, among: Among, relation: int) -> Tensor:
        """A mask of the entities that may answer."""
        mask = torch.zeros(self.graph.num_entities, dtype=torch.bool)
        if among == "observed":
            facts = self.graph.directed(*self.graph.splits)
            mask[facts[facts[:, 1] == relation, 2]] = True
        elif isinstance(among, str):
            raise ValueError(f"among must be 'all', 'observed' or a list of names, not {among!r}")
        else:
            mask[[self.graph.entities.id(name) for name in among]] = True
        return mask

    def _item(
        self,
        entity: int,
        relation: int,
        answer: int,
        score: float,
        chance: float,
        applies: float | None,
        known: bool = False,
    ) -> Prediction:
        """A prediction, of a directed relation."""
        names, number = self.graph.entities, self.graph.num_relations
        head, tail = (answer, entity) if relation >= number else (entity, answer)
        return Prediction(
            names[head],
            self.graph.relations[relation % number],
            names[tail],
            score,
            known,
            self._weights(answer),
            None if known or self.calibration is None else chance,
            applies,
        )
