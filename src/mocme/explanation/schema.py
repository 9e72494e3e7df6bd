"""What speaks for a predicted fact: plain values, which show themselves as text, HTML or a picture.

`dataclasses.asdict` gives what JSON, command line and HTTP give.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from mocme.core.table import TextTable, columns, data_frame
from mocme.explanation.faithfulness import Faithfulness

if TYPE_CHECKING:
    import pandas

Side = Literal["head", "tail"]


@dataclass(frozen=True)
class Step:
    """A fact of a path, in its own direction."""

    head: str
    relation: str
    tail: str


@dataclass(frozen=True)
class ModalityShare:
    """A modality's part in one of the two entities.

    Attributes:
        of: whose.
        weight: in the entity's vector.
        views: weights of the views within the modality; empty where it has none.
        without: score - score with the modality withheld from this entity alone; above 0 it speaks
            for the fact. None where the entity does not have it.
    """

    name: str
    of: Side
    present: bool
    weight: float
    views: tuple[float, ...]
    without: float | None


@dataclass(frozen=True)
class Weights:
    """Whether weights tell what matters (`mocme.explanation.faithfulness`).

    Attributes:
        correlation: rank correlation of weight and fall of the score.
        facts: how many cases it was measured on, each an answer and one of its modalities.
        reasons: whether weights may be taken for reasons.
    """

    correlation: float | None
    facts: int
    reasons: bool
    text: str


@dataclass(frozen=True)
class RuleExplanation:
    """A rule that leads from head to tail, or back.

    With a symmetric relation, rules over it and over its inverse say the same, and are one.

    Attributes:
        paths: how many; where rules are one, of that which has most.
        share: its part of the log odds (where rules are one, their sum); of the two directions
            that in which it is larger.
    """

    name: str
    relations: tuple[str, ...]
    paths: int
    share: float


@dataclass(frozen=True)
class Support:
    """A training fact and the estimated change of the score, had it not been in training.

    Attributes:
        kind: ``fact``, or ``token``: the head has the token `tail` in the modality `relation`.
        change: below 0 it supports the prediction; the sum of the two others.
        by_vectors: through the vectors of head and tail (an estimate).
        by_rules: through paths of rules (exact, with the weights of the rules as they are).
    """

    head: str
    relation: str
    tail: str
    kind: Literal["fact", "token"]
    change: float
    by_vectors: float
    by_rules: float


@dataclass(frozen=True)
class Neighbour:
    """An entity and its cosine."""

    name: str
    similarity: float


@dataclass(frozen=True)
class Neighbours:
    """The nearest entities, nearest first.

    Attributes:
        by: ``vector``, or the modality whose features are compared.
    """

    of: Side
    by: str
    entities: tuple[Neighbour, ...]


@dataclass(frozen=True)
class Explanation:
    """Everything that can be shown for one fact; a score is the mean of both directions.

    Attributes:
        probability: as in `Completer.check`; None where the fact is known, or without a
            calibration.
        tail_rank, head_rank: its rank among answers that are not known, 1 = best; equal scores
            count half.
        paths: short ones between head and tail, each a list of training facts.
        notes: what could not be shown, and why.
    """

    head: str
    relation: str
    tail: str
    score: float
    probability: float | None
    known: bool
    tail_rank: int
    head_rank: int
    modalities: tuple[ModalityShare, ...]
    weights: Weights
    rules: tuple[RuleExplanation, ...]
    supports: tuple[Support, ...]
    paths: tuple[tuple[Step, ...], ...]
    neighbours: tuple[Neighbours, ...]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"({self.head}, {self.relation}, {self.tail})"

    @property
    def summary(self) -> str:
        """Score, probability and ranks in a line."""
        chance = "" if self.probability is None else f", probability {self.probability:.1%}"
        known = ", known" if self.known else ""
        return (
            f"score {self.score:.3f}{chance}{known}; rank {self.tail_rank:,} as tail, "
            f"{self.head_rank:,} as head"
        )

    def __repr__(self) -> str:
        lines = [self.title, self.summary]
        for table in self.tables():
            title, *rows = table.text().splitlines()
            lines += ["", title, *(f"  {row}" for row in rows)]
        lines += ["", *(f"- {note}" for note in self.remarks())]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Render as HTML for a notebook."""
        heading = f"<p><b>{html.escape(self.title)}</b><br>{html.escape(self.summary)}</p>"
        tables = "".join(table.html() for table in self.tables())
        remarks = "".join(f"<li>{html.escape(note)}</li>" for note in self.remarks())
        return f"{heading}{tables}<ul>{remarks}</ul>"

    def picture(self, path: str | Path) -> None:
        """Draw it; the ending names the format (png, svg, pdf).

        Raises:
            ImportError: matplotlib is not installed, with how to install it.
        """
        from mocme.explanation.plot import draw

        draw(self, Path(path))

    def remarks(self) -> list[str]:
        """What a reader should know: of weights, then the notes."""
        return [self.weights.text, *self.notes]

    def tables(self) -> Iterator[TextTable]:
        """A table for each part of the explanation that is not empty."""
        if self.modalities:
            title = "What each modality adds"
            if not self.weights.reasons:
                title += " (weights are not reasons)"
            numbers = ["fall of the score without it", "weight"]
            rows = [_share(row) for row in self.modalities]
            yield _table(title, ["modality", "of", *numbers, "views"], rows, numbers)
        if self.supports:
            numbers = ["change without it", "by vectors", "by rules"]
            rows = [_support(row) for row in self.supports]
            yield _table(
                "Training facts that support it", ["training fact", *numbers], rows, numbers
            )
        if self.rules:
            numbers = ["paths", "log odds"]
            rows = [[p.name, f"{p.paths:,}", f"{p.share:+.2f}"] for p in self.rules]
            yield _table("Rules that lead there", ["rule", *numbers], rows, numbers)
        if self.paths:
            rows = [[" | ".join(fact(step) for step in path)] for path in self.paths]
            yield _table("Short paths in the graph", ["facts"], rows)
        if self.neighbours:
            rows = [
                [self.head if own.of == "head" else self.tail, own.by, near(own.entities)]
                for own in self.neighbours
            ]
            yield _table("Nearest entities", ["of", "by", "cosine"], rows)

    def to_pandas(self) -> pandas.DataFrame:
        """A data frame with a row for each piece of evidence.

        Columns: ``part`` (modality, fact, token, rule, path or neighbour), ``of`` (head or
        tail), ``by`` (what is compared for neighbours), ``name``, and ``value``: the fall of the
        score without the modality, the change of the score without the training fact or token, the
        log odds of the rule, the cosine of the neighbour. Paths have none (NaN).

        Raises:
            ImportError: pandas is not installed.
        """
        evidence: list[tuple[str, str, str, str, float | None]] = [
            *(("modality", row.of, "", row.name, row.without) for row in self.modalities),
            *((row.kind, "", "", fact(row), row.change) for row in self.supports),
            *(("rule", "", "", row.name, row.share) for row in self.rules),
            *(("path", "", "", " | ".join(map(fact, path)), None) for path in self.paths),
        ]
        for near_to in self.neighbours:
            evidence += [
                ("neighbour", near_to.of, near_to.by, entity.name, entity.similarity)
                for entity in near_to.entities
            ]
        names = ("part", "of", "by", "name", "value")
        values: dict[str, list[Any]] = {
            name: [row[n] for row in evidence] for n, name in enumerate(names)
        }
        values["value"] = [math.nan if value is None else value for value in values["value"]]
        return data_frame(values)


def fact(step: Step | Support) -> str:
    """A fact as text."""
    return f"({step.head}, {step.relation}, {step.tail})"


def near(entities: Sequence[Neighbour]) -> str:
    """Neighbours as text."""
    return ", ".join(f"{entity.name} {entity.similarity:.2f}" for entity in entities)


def _table(
    title: str, titles: Sequence[str], rows: list[list[str]], numbers: Sequence[str] = ()
) -> TextTable:
    return TextTable(columns(*titles, right=numbers), rows, title=title, title_align="left")


def _share(row: ModalityShare) -> list[str]:
    if not row.present or row.without is None:
        return [row.name, row.of, "not known", "", ""]
    experts = " ".join(f"{weight:.2f}" for weight in row.views)
    return [row.name, row.of, f"{row.without:+.3f}", f"{row.weight:.2f}", experts]


def _support(row: Support) -> list[str]:
    numbers = (row.change, row.by_vectors, row.by_rules)
    return [fact(row), *(f"{number:+.3f}" if number else "" for number in numbers)]


@runtime_checkable
class ExplanationContext(Protocol):
    """What an explanation needs of a run besides its model and graph."""

    def faithfulness(self) -> Faithfulness:
        """Whether weights tell what matters."""

    def supports(
        self, head: int, relation: int, tail: int, most: int
    ) -> tuple[list[Support], list[str]]:
        """The training facts that support a fact most, best first, and notes."""
