"""Questions to a run, and the predictions that answer them."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mocme.core.table import Column, TextTable, columns, data_frame
from mocme.core.text import shorten

if TYPE_CHECKING:
    import pandas

MAX_K = 1000
# Columns of what is printed, and characters of a name in it.
WIDTH, NAME = 120, 30
Known = Literal["hide", "mark"]
Among = Literal["all", "observed"] | Sequence[str]


def check_range(k: int, min_probability: float) -> None:
    """Check the number of answers and the least probability.

    Raises:
        ValueError: one of them is out of range.
    """
    if not 1 <= k <= MAX_K:
        raise ValueError(f"k must be between 1 and {MAX_K}, not {k}")
    if not 0 <= min_probability <= 1:
        raise ValueError(f"min_probability must be between 0 and 1, not {min_probability}")


@dataclass(frozen=True)
class Question:
    """Two of head, relation and tail; the third is the unknown.

    Attributes:
        k: how many answers, at most 1,000.
        known: ``hide`` facts of the graph, or ``mark`` them.
        among: ``all`` entities; ``observed``: those that answer this relation somewhere in the
            graph; or names. Only where the relation is given.
        min_probability: leave out less probable answers; known facts stay.

    Raises:
        ValueError: the number of given parts is not two, or a setting is out of range.
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
            raise ValueError("among is only for a question with a relation; leave it out")

    @property
    def unknown(self) -> Literal["head", "relation", "tail"]:
        """The part of the fact that is not given."""
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
        score: in the direction of the question; higher is likelier, comparable within a question.
        known: whether the graph holds it already.
        probability: that it is a known fact, a lower bound of the probability that it holds
            (`mocme.calibration.curves`); None where the run has no calibration, or the graph
            holds the fact already.
        applies: of `Predictor.missing`, how likely the query entity is to have a fact (or one
            more) of this relation; None elsewhere.
        weights: weight of each modality in the answer's vector; all 0 for an entity without
            content.
        linked: other relations that link head and tail in the graph already: "capital of", or
            "inverse of capital of", or of a symmetric relation "borders (turned around)".
        symmetric: whether the reversed fact is equivalent and also new: its relation is symmetric
            in the training facts (docs/asking.md). `Predictor.missing` returns the likelier one.
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
        """A remark on the score; empty where there is none."""
        if self.score == -math.inf:
            if self.head == self.tail:
                return "the graph links no entity to itself by this relation; it is no answer"
            return "reviewers rejected it; it is no answer"
        if not any(self.weights.values()):
            return "nothing is known of this entity; its score is that of an average one"
        return ""

    @property
    def remark(self) -> str:
        """The remark of a table: `mark` and note."""
        return "; ".join(filter(None, [self.mark, self.note]))

    @property
    def mark(self) -> str:
        """Whether it is known, existing links, and whether it represents two facts."""
        known = "known" if self.known else ""
        already = f"already: {', '.join(self.linked)}" if self.linked else ""
        # Only `Predictor.missing` leaves out the reversed fact.
        both = "and the other way round" if self.symmetric and self.applies is not None else ""
        return "; ".join(filter(None, [known, already, both]))

    def as_dict(self) -> dict[str, Any]:
        """Attributes and note for JSON; the score of an excluded answer is None."""
        score = self.score if math.isfinite(self.score) else None
        linked = list(self.linked)
        return {**vars(self), "score": score, "linked": linked, "note": self.note}


class Predictions(Sequence[Prediction]):
    """Predictions of one question, best first; prints as a table of at most `WIDTH` columns.

    Attributes:
        nothing: message where there are no predictions.
    """

    nothing = (
        "no answer is left; ask for a lower probability, among all entities, or have known facts "
        "marked"
    )

    def __init__(self, question: str, items: Sequence[Prediction], part: str) -> None:
        self.question, self._items, self._part = question, tuple(items), part

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Prediction:  # type: ignore[override]
        return self._items[index]

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self._items)

    def table(self, longest: int | None = None) -> TextTable:
        """A table with the weight of each modality in the answer's vector.

        Args:
            longest: cut names that have more characters.
        """

        def cut(text: str, most: int | None) -> str:
            return text if most is None else shorten(text, most)

        names = list(self._items[0].weights) if self._items else []
        shares = [name for name in ("probability", "applies") if self._has(name)]
        remarks = ["remark"] if any(item.remark for item in self._items) else []
        rows = []
        for position, item in enumerate(self._items, 1):
            fact = (item.head, item.relation, item.tail)
            cells = [str(position), *(cut(part, longest) for part in fact), f"{item.score:.3f}"]
            for name in shares:
                share = getattr(item, name)
                cells.append("-" if share is None else f"{share:.1%}")
            cells += [f"{item.weights[name]:.2f}" if item.weights[name] else "-" for name in names]
            rows.append([*cells, *([item.remark] if remarks else [])])
        numbers = [Column(name, "right") for name in ("score", *shares, *names)]
        titles = [*columns("", "head", "relation", "tail"), *numbers, *columns(*remarks)]
        return TextTable(titles, rows, title=cut(self.question, longest and WIDTH))

    def to_pandas(self) -> pandas.DataFrame:
        """A data frame with a row for each prediction, and a column `weight_NAME` per modality.

        Raises:
            MissingLibrary: pandas is not installed.
        """
        fields = ("head", "relation", "tail", "score", "probability", "applies", "known")
        values: dict[str, Sequence[Any]] = {
            name: [getattr(item, name) for item in self._items]
            for name in (*fields, "linked", "symmetric", "note")
        }
        for name in ("probability", "applies"):
            # None in every row would make a column of objects.
            values[name] = [math.nan if v is None else v for v in values[name]]
        for name in self._items[0].weights if self._items else ():
            values[f"weight_{name}"] = [item.weights[name] for item in self._items]
        return data_frame(values)

    def _has(self, name: str) -> bool:
        return any(getattr(item, name) is not None for item in self._items)

    def __repr__(self) -> str:
        question = shorten(self.question, WIDTH)
        if not self._items:
            return f"{question}:\n{self.nothing}"
        numbers = self._number_cells()
        # The answer gets what the columns before it, each with a gap of two, leave.
        room = WIDTH - sum(max(map(len, column)) + 2 for column in zip(*numbers, strict=True))
        rows = [
            [*cells, self._answer(item, room)]
            for cells, item in zip(numbers, self._items, strict=True)
        ]
        titles = [*[Column(align="right")] * len(numbers[0]), Column()]
        return TextTable(titles, rows, title=question).text(header=False)

    def _number_cells(self) -> list[list[str]]:
        """Position, score and, if any item has one, probability of each item."""
        cells = [[f"{n:3d}", f"{item.score:8.3f}"] for n, item in enumerate(self._items, 1)]
        if self._has("probability"):
            for row, item in zip(cells, self._items, strict=True):
                share = "" if item.probability is None else f"{item.probability:6.1%}"
                applies = "" if item.applies is None else f", applies {item.applies:.1%}"
                row.append(share + applies)
        return cells

    def _answer(self, item: Prediction, room: int) -> str:
        """The unknown part of a fact, its mark and weights in at most `room` characters."""
        fact = ", ".join(shorten(part, NAME) for part in (item.head, item.relation, item.tail))
        shows_fact = self._part == "fact"
        name = f"({fact})" if shows_fact else shorten(getattr(item, self._part), 2 * NAME)
        mark = f"  ({item.mark})" if item.mark else ""
        answer = shorten(f"{name}{mark}", room - len("  […]"))
        shares = ", ".join(f"{m} {w:.2f}" for m, w in item.weights.items() if w) or "nothing known"
        # Weights are shown completely or not at all; the item has them.
        shares = shares if len(answer) + len(shares) + 4 <= room else "…"
        return f"{answer}  [{shares}]"

    def _repr_html_(self) -> str:
        """Render as HTML for a notebook."""
        if not self._items:
            question = html.escape(shorten(self.question, WIDTH))
            return f"<p>{question}: {html.escape(self.nothing)}</p>"
        return self.table(2 * NAME).html()


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
        part: str,
        order: Mapping[tuple[str, str, str], float],
    ) -> None:
        super().__init__(question, items, part)
        self.order = dict(order)
