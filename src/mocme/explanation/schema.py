"""Evidence for a predicted fact as plain values, with text, HTML and plots.

`dataclasses.asdict` returns the object that the command line and HTTP return as JSON.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from mocme.core.deadline import Check, unlimited
from mocme.core.table import TextTable, columns, data_frame
from mocme.core.text import shorten
from mocme.explanation.faithfulness import Faithfulness
from mocme.explanation.plot import LONGEST, Panel, draw

if TYPE_CHECKING:
    import pandas

Side = Literal["head", "tail"]
MOST_BARS = 8  # rules in a plot
DROP = "score drop without it"
SHORT_NAME, NEIGHBOUR_NAME = 30, 24  # characters of names in a plot


@dataclass(frozen=True)
class Step:
    """A fact of a path, in the direction in which it is stored."""

    head: str
    relation: str
    tail: str


@dataclass(frozen=True)
class ModalityShare:
    """The contribution of one modality of one of the two entities.

    Attributes:
        of: the entity that has the modality.
        present: whether the entity has the modality.
        weight: weight of the modality in the entity's vector.
        views: weights of the views within the modality; empty where it has none.
        without: score minus the score with the modality withheld from this entity only; positive
            where the modality supports the fact. None where the entity does not have it.
    """

    name: str
    of: Side
    present: bool
    weight: float
    views: tuple[float, ...]
    without: float | None


@dataclass(frozen=True)
class Weights:
    """Whether weights explain score drops (`mocme.explanation.faithfulness`).

    Attributes:
        correlation: rank correlation of weight and score drop.
        facts: number of measured cases, each an answer and one of its modalities.
        reasons: whether weights may be read as reasons.
        text: the result in a sentence.
    """

    correlation: float | None
    facts: int
    reasons: bool
    text: str


@dataclass(frozen=True)
class RuleExplanation:
    """A rule that predicts tail from head, or head from tail.

    Rules over a symmetric relation and over its inverse are equivalent and are merged.

    Attributes:
        relations: the relations of the rule's body, from head to tail.
        paths: number of paths; the maximum over merged rules.
        share: contribution to the log odds, summed over merged rules; the larger one of the two
            directions.
    """

    name: str
    relations: tuple[str, ...]
    paths: int
    share: float


@dataclass(frozen=True)
class Support:
    """A training fact and the estimated change of the score if it were not in training.

    Attributes:
        kind: ``fact``, or ``token`` where the head has the token `tail` in modality `relation`.
        change: sum of the next two; negative where the fact supports the prediction.
        by_vectors: estimated change through the vectors of head and tail.
        by_rules: exact change through the paths of rules, with the rule weights unchanged.
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
    """An entity and its cosine similarity."""

    name: str
    similarity: float


@dataclass(frozen=True)
class Neighbours:
    """The most similar entities of one of the two entities, most similar first.

    Attributes:
        of: the entity that they are compared with.
        by: ``vector``, or the modality whose features are compared.
    """

    of: Side
    by: str
    entities: tuple[Neighbour, ...]


@dataclass(frozen=True)
class Explanation:
    """All evidence for one fact.

    Attributes:
        score: mean of the scores of both directions.
        probability: as in `Predictor.score_facts`; None where the fact is known, or without a
            calibration.
        tail_rank, head_rank: rank among the answers that are not known facts, 1 = best; equal
            scores count half.
        paths: short paths between head and tail, each a tuple of training facts.
        notes: evidence that could not be given, and why.
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
        """Score, probability and ranks in one line."""
        probability = "" if self.probability is None else f", probability {self.probability:.1%}"
        known = ", known" if self.known else ""
        return (
            f"score {self.score:.3f}{probability} (mean of both directions){known}; "
            f"rank {self.tail_rank:,} as tail, {self.head_rank:,} as head"
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
        """Write a plot of the explanation; the suffix sets the format (png, svg, pdf).

        Raises:
            MissingLibrary: matplotlib is not installed; the message says how to install it.
        """
        draw(self.title, self.summary, self._panels(), self._neighbour_lines(), Path(path))

    def _panels(self) -> list[Panel]:
        names = {"head": self.head, "tail": self.tail}
        modalities = [
            (f"{share.name} of {shorten(names[share.of], SHORT_NAME)}", share.without)
            for share in self.modalities
            if share.without is not None
        ]
        supports = [(fact(row), -row.change) for row in self.supports]
        rules = [(rule.name, rule.share) for rule in self.rules[:MOST_BARS]]
        omitted = len(self.rules) - len(rules)
        suffix = f" ({omitted} more not shown)" if omitted else ""
        return [
            Panel("Modalities", modalities, DROP),
            Panel("Training facts", supports, f"{DROP} (estimated)"),
            Panel(f"Rules{suffix}", rules, "log odds"),
        ]

    def _neighbour_lines(self) -> list[str]:
        names = {"head": self.head, "tail": self.tail}
        lines = []
        for group in self.neighbours:
            nearest = ", ".join(shorten(near.name, NEIGHBOUR_NAME) for near in group.entities)
            lines.append(f"{shorten(names[group.of], LONGEST)} by {group.by}: {nearest}")
        return lines

    def remarks(self) -> list[str]:
        """Return the sentence about weights, then the notes."""
        return [self.weights.text, *self.notes]

    def tables(self) -> Iterator[TextTable]:
        """Yield a table for each part of the explanation that is not empty."""
        if self.modalities:
            title = "What each modality adds"
            if not self.weights.reasons:
                title += " (weights are not reasons)"
            numbers = [DROP, "weight"]
            rows = [_share(row) for row in self.modalities]
            yield _table(title, ["modality", "of", *numbers, "views"], rows, numbers)
        if self.supports:
            numbers = [DROP, "by vectors", "by rules"]
            rows = [_support(row) for row in self.supports]
            yield _table(
                "Training facts that support it", ["training fact", *numbers], rows, numbers
            )
        if self.rules:
            numbers = ["paths", "log odds"]
            rows = [[rule.name, f"{rule.paths:,}", f"{rule.share:+.2f}"] for rule in self.rules]
            yield _table("Rules between head and tail", ["rule", *numbers], rows, numbers)
        if self.paths:
            rows = [[" | ".join(fact(step) for step in path)] for path in self.paths]
            yield _table("Short paths in the graph", ["facts"], rows)
        if self.neighbours:
            rows = [
                [self.head if group.of == "head" else self.tail, group.by, near(group.entities)]
                for group in self.neighbours
            ]
            yield _table("Nearest entities", ["of", "by", "cosine"], rows)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a data frame with a row for each piece of evidence.

        Columns: ``part`` (modality, fact, token, rule, path or neighbour), ``of`` (head or
        tail), ``by`` (the compared space of neighbours), ``name``, and ``value``: the score drop
        without the modality, training fact or token (positive where it supports the fact), the log
        odds of the rule, the cosine similarity of the neighbour. The value of a path is NaN.

        Raises:
            MissingLibrary: pandas is not installed.
        """
        evidence: list[tuple[str, str, str, str, float | None]] = [
            *(("modality", row.of, "", row.name, row.without) for row in self.modalities),
            *((row.kind, "", "", fact(row), -row.change) for row in self.supports),
            *(("rule", "", "", row.name, row.share) for row in self.rules),
            *(("path", "", "", " | ".join(map(fact, path)), None) for path in self.paths),
        ]
        for group in self.neighbours:
            evidence += [
                ("neighbour", group.of, group.by, entity.name, entity.similarity)
                for entity in group.entities
            ]
        names = ("part", "of", "by", "name", "value")
        values: dict[str, list[Any]] = {
            name: [row[column] for row in evidence] for column, name in enumerate(names)
        }
        values["value"] = [math.nan if value is None else value for value in values["value"]]
        return data_frame(values)


def fact(step: Step | Support) -> str:
    """Format a fact as text."""
    return f"({step.head}, {step.relation}, {step.tail})"


def near(entities: Sequence[Neighbour]) -> str:
    """Format neighbours as text, each with its cosine similarity."""
    return ", ".join(f"{entity.name} {entity.similarity:.2f}" for entity in entities)


def _table(
    title: str, titles: Sequence[str], rows: list[list[str]], numbers: Sequence[str] = ()
) -> TextTable:
    return TextTable(columns(*titles, right=numbers), rows, title=title, title_align="left")


def _share(row: ModalityShare) -> list[str]:
    if not row.present or row.without is None:
        return [row.name, row.of, "not known", "", ""]
    views = " ".join(f"{weight:.2f}" for weight in row.views)
    return [row.name, row.of, f"{row.without:+.3f}", f"{row.weight:.2f}", views]


def _support(row: Support) -> list[str]:
    # The drop, as for modalities: positive where it supports the fact.
    drops = (-row.change, -row.by_vectors, -row.by_rules)
    return [fact(row), *(f"{drop:+.3f}" if drop else "" for drop in drops)]


@runtime_checkable
class ExplanationContext(Protocol):
    """The parts of a run that an explanation needs besides its mixture and graph."""

    def faithfulness(self) -> Faithfulness:
        """Return whether weights explain score drops."""

    def supports(
        self, head: int, relation: int, tail: int, most: int, check: Check = unlimited
    ) -> tuple[list[Support], list[str]]:
        """Return the training facts that support a fact most, strongest first, and notes."""
