"""Statements of an RDF file: facts become rows, literals go to their tables."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from mocme.data.formats.literals import Literals
from mocme.data.formats.rdf import BASE, Value, name, statement_line
from mocme.data.formats.report import Block, Report


@dataclass
class Selection(Report):
    """The report on a file of which only the statements of some predicates are kept.

    Attributes:
        left_out: statements of other predicates, which complete the count of lines.
    """

    left_out: int = 0

    def _total(self) -> int:
        return super()._total() + self.left_out

    def __str__(self) -> str:
        return f"{super().__str__()}\n  {self.left_out:,} statements of other predicates left out"


class Statements:
    """Collects the statements of a file, in their order.

    Args:
        report: a `Selection` if there are `predicates`.
        literals: receives the literals; None only counts them.
        predicates: the predicates to keep; None for all.

    Raises:
        ValueError: there are `predicates`, but `report` is not a `Selection`.
    """

    def __init__(
        self,
        report: Report,
        literals: Literals | None = None,
        predicates: Container[str] | None = None,
    ) -> None:
        if predicates is not None and not isinstance(report, Selection):
            raise ValueError(
                f"{report.path}: predicates leave statements out; give a Selection as the report, "
                f"which counts them"
            )
        self.report, self.literals, self.predicates = report, literals, predicates
        self._clear()

    def _clear(self) -> None:
        self.heads: list[str] = []
        self.relations: list[str] = []
        self.tails: list[str] = []
        self.numbers: list[int] = []

    def add(self, number: int, head: str, relation: str, target: str | Value) -> None:
        """Add the statement of a line, with its IRIs unchanged."""
        report = self.report
        try:
            # Names under BASE are rare, and testing for them is faster than calling `name`.
            if head.startswith(BASE) or relation.startswith(BASE):
                head, relation = name(head), name(relation, relation=True)
            if self.predicates is not None and relation not in self.predicates:
                assert isinstance(report, Selection)
                report.left_out += 1
            elif isinstance(target, str):
                # The tail comes first: its conversion may fail, and then nothing is added.
                self.tails.append(name(target) if target.startswith(BASE) else target)
                self.heads.append(head)
                self.relations.append(relation)
                self.numbers.append(number)
            else:
                if self.literals is not None:
                    self.literals.add(head, relation, target)
                report.literals += 1
        except ValueError as error:
            report.reject(number, str(error), statement_line(head, relation, target))

    def select(self, relations: Sequence[str | None]) -> list[bool]:
        """Which statements to keep, by their predicates (None: unknown); counts the others.

        No predicate may be an IRI under `BASE`.
        """
        assert self.predicates is not None
        assert isinstance(self.report, Selection)
        kept = [relation is None or relation in self.predicates for relation in relations]
        self.report.left_out += kept.count(False)
        return kept

    def block(self) -> Block:
        """The facts since the last block, which are counted in the report now."""
        block = Block((self.heads, self.relations, self.tails), self.numbers)
        self.report.rows += len(self.numbers)
        self._clear()
        return block
