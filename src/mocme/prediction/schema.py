"""What a question is, and what an answer to it looks like."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mocme.core.text import html_cells, short

MAX_K = 1000
# Columns of what is printed, and characters of a name in it.
WIDTH, NAME = 120, 30
Known = Literal["hide", "mark"]
Among = Literal["all", "observed"] | Sequence[str]


def check_range(k: int, min_probability: float) -> None:
    """Refuse a number of answers, or a least probability, that is out of range.

    Raises:
        ValueError: one is.
    """
    if not 1 <= k <= MAX_K:
        raise ValueError(f"k must be between 1 and {MAX_K}, not {k}")
    if not 0 <= min_probability <= 1:
        raise ValueError(f"min_probability must be between 0 and 1, not {min_probability}")


@dataclass(frozen=True)
class Question:
    """Two of head, relation and tail; the third is asked for.

    Attributes:
        k: how many answers, at most 1,000.
        known: ``hide`` facts of the graph, or ``mark`` them.
        among: ``all`` entities; ``observed``: those that answer this relation somewhere in the
            graph; or names. Only where the relation is given.
        min_probability: leave out what is less probable; what is known stays.

    Raises:
        ValueError: not two are given, or a setting is out of range.
    """

    head: str | None = None
    relation: str | None = None
    tail: str | None = None
    k: int = 10
    known: Known = "hide"
    among: Among = "all"
    min_probability: float = 0.0

    def __post_init__(self) -> None:
        if [self.head, self.relation, self.tail].count(None) != 1:
            raise ValueError("a question has two of head, relation and tail; leave one out")
        check_range(self.k, self.min_probability)
        if self.known not in ("hide", "mark"):
            raise ValueError(f"known must be 'hide' or 'mark', not {self.known!r}")
        if isinstance(self.among, str) and self.among not in ("all", "observed"):
            raise ValueError(
                f"among must be 'all', 'observed' or a list of names, not {self.among!r}"
            )
        if self.relation is None and self.among != "all":
            raise ValueError("among is for a question with a relation")

    @property
    def asked(self) -> Literal["head", "relation", "tail"]:
        """What is asked for."""
        if self.head is None:
            return "head"
        return "relation" if self.relation is None else "tail"

    def __str__(self) -> str:
        parts = (self.head, self.relation, self.tail)
        return f"({', '.join('?' if part is None else part for part in parts)})"


@dataclass(frozen=True)
class Prediction:
    """A fact that may hold.

    Attributes:
        score: in the direction that was asked; higher is likelier, comparable within a question.
        known: whether the graph holds it already.
        probability: that it is a known fact, a lower bound of the probability that it holds
            (`mocme.calibration.curves`); None where the run has no calibration, or the graph
            holds the fact already.
        applies: of `Completer.missing`, how likely the entity asked for is to have a fact (or one
            more) of this relation; None elsewhere.
        weights: weight of each modality in the answer's vector; all 0 where nothing is known of it.
        linked: other relations that link head and tail in the graph already: "capital of", or
            "inverse of capital of", or of a symmetric relation "borders (turned around)".
        symmetric: whether the fact turned around says the same and is as new: its relation is one
            that training facts show to be symmetric (docs/asking.md). `Completer.missing` gives
            the likelier one of the two.
    """

    head: str
    relation: str
    tail: str
    score: float
    known: bool
    weights: dict[str, float]
    probability: float | None = None
    applies: float | None = None
    linked: tuple[str, ...] = ()
    symmetric: bool = False

    @property
    def note(self) -> str:
        """What a reader should know of it besides the score."""
        if self.score == -math.inf:
            if self.head == self.tail:
                return "the graph links no entity to itself by this relation; it is no answer"
            return "reviewers rejected it; it is no answer"
        if not any(self.weights.values()):
            return "nothing is known of this entity; its score is that of an average one"
        return ""

    @property
    def remark(self) -> str:
        """All that a table has to say of it: `mark` and note."""
        return "; ".join(filter(None, [self.mark, self.note]))

    @property
    def mark(self) -> str:
        """Whether it is known, what links the two already, whether it is told for two facts."""
        known = "known" if self.known else ""
        already = f"already: {', '.join(self.linked)}" if self.linked else ""
        # Where it is asked for what is missing, the other of the two is left out.
        both = "and the other way round" if self.symmetric and self.applies is not None else ""
        return "; ".join(filter(None, [known, already, both]))

    def as_dict(self) -> dict[str, Any]:
        """Its attributes and its note, as JSON has them; a score of what is no answer is None."""
        score = self.score if math.isfinite(self.score) else None
        linked = list(self.linked)
        return {**vars(self), "score": score, "linked": linked, "note": self.note}


class Predictions(Sequence[Prediction]):
    """Predictions of one question, best first; prints as a table of at most `WIDTH` columns.

    Attributes:
        nothing: what a reader is told where there are none.
    """

    nothing = (
        "no answer is left; ask for a lower probability, among all entities, or have known facts "
        "marked"
    )

    def __init__(self, question: str, items: Sequence[Prediction], asked: str) -> None:
        self.question, self._items, self._asked = question, tuple(items), asked

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Prediction:  # type: ignore[override]
        return self._items[index]

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self._items)

    def __repr__(self) -> str:
        question = short(self.question, WIDTH)
        chances = any(item.probability is not None for item in self._items)
        lines = [question] if self._items else [f"{question}:", self.nothing]
        for place, item in enumerate(self._items, 1):
            fact = (short(part, NAME) for part in (item.head, item.relation, item.tail))
            whole = f"({', '.join(fact)})"
            name = whole if self._asked == "fact" else short(getattr(item, self._asked), 2 * NAME)
            shares = ", ".join(f"{m} {w:.2f}" for m, w in item.weights.items() if w)
            mark = f"  ({item.mark})" if item.mark else ""
            shares = shares or "nothing known"
            numbers = "" if item.probability is None else f"{item.probability:7.1%}"
            numbers = f"{numbers:7}" if chances else numbers
            numbers += "" if item.applies is None else f", applies {item.applies:.1%}"
            line = short(f"{place:3d}  {item.score:8.3f} {numbers}  {name}{mark}", WIDTH - 5)
            # Weights are whole, or left to the item itself.
            shares = shares if len(line) + len(shares) + 4 <= WIDTH else "…"
            lines.append(f"{line}  [{shares}]")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        question = short(self.question, WIDTH)
        if not self._items:
            return f"<p>{html.escape(question)}: {html.escape(self.nothing)}</p>"
        chances = any(item.probability is not None for item in self._items)
        modalities = list(self._items[0].weights)
        head = ["", "head", "relation", "tail", "score"]
        head += [*(["probability"] if chances else []), *modalities, ""]
        rows = []
        for place, item in enumerate(self._items, 1):
            fact = [short(part, 2 * NAME) for part in (item.head, item.relation, item.tail)]
            cells = [str(place), *fact, f"{item.score:.3f}"]
            if chances:
                cells.append("" if item.probability is None else f"{item.probability:.1%}")
            cells += [
                f"{item.weights[name]:.2f}" if item.weights[name] else "" for name in modalities
            ]
            rows.append([*cells, item.remark])
        made = [html_cells("th", head), *(html_cells("td", row) for row in rows)]
        body = "".join(f"<tr>{row}</tr>" for row in made)
        return f"<table><caption>{html.escape(question)}</caption>{body}</table>"


class Missing(Predictions):
    """What is missing about an entity."""

    nothing = "nothing new is left to suggest; a lower probability may find more"


class Checked(Predictions):
    """Facts that were checked, in the order they were given.

    Attributes:
        nothing: see `Predictions`.
        order: by fact, its probability (or share, without probabilities), of known ones too.
    """

    nothing = "no fact was given"

    def __init__(
        self,
        question: str,
        items: Sequence[Prediction],
        asked: str,
        order: Mapping[tuple[str, str, str], float],
    ) -> None:
        super().__init__(question, items, asked)
        self.order = dict(order)
