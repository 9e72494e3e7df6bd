"""What a reader gives back: rows in blocks, and a report that accounts for every line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

# Rejects that a report lists.
LISTED = 5


@dataclass(frozen=True)
class Reject:
    """A line that could not be read as a row."""

    line: int
    reason: str
    text: str


@dataclass
class Report:
    """What became of every line (or record) of a file.

    ``lines + further == rows + empty + literals + blank + comments + len(rejects)``. The consumer
    of the rows divides ``rows`` into used ones and `duplicates`. A header counts as a comment.

    Attributes:
        further: rows after the first one of a line that lists several tails.
        empty: rows whose value cell is empty.
        literals: rows that state a value of an entity instead of a link (RDF only).
        bom: whether a byte order mark was dropped.
        sha256: of the file as stored, after reading to its end.
        cells: unusable cells of rows that are otherwise used.
        first: the first row; `first_line`: its line.
    """

    path: str
    lines: int = 0
    further: int = 0
    rows: int = 0
    duplicates: int = 0
    empty: int = 0
    literals: int = 0
    blank: int = 0
    comments: int = 0
    bom: bool = False
    sha256: str = ""
    rejects: list[Reject] = field(default_factory=list)
    cells: list[Reject] = field(default_factory=list)
    first: tuple[str, ...] = ()
    first_line: int = 0

    @property
    def used(self) -> int:
        return self.rows - self.duplicates

    @property
    def accounted(self) -> bool:
        """Whether every line is counted."""
        return self.lines + self.further == self._total()

    def _total(self) -> int:
        other = self.empty + self.literals + self.blank + self.comments
        return self.rows + other + len(self.rejects)

    def reject(self, line: int, reason: str, raw: bytes | str) -> None:
        """Record a line that is not a row, with the first 80 bytes or characters of its text."""
        start = raw[:80]
        text = start.decode(errors="replace") if isinstance(start, bytes) else start
        self.rejects.append(Reject(line, reason, text))

    def __str__(self) -> str:
        further = f" with {self.further:,} further tails" if self.further else ""
        parts = [f"{self.lines:,} lines{further} = {self.used:,} rows"]
        parts.append(f"{self.duplicates:,} duplicates")
        if self.empty:
            parts.append(f"{self.empty:,} with an empty cell")
        if self.literals:
            parts.append(f"{self.literals:,} literals")
        parts.append(f"{self.blank + self.comments:,} blank, comment and header lines")
        parts.append(f"{len(self.rejects):,} rejects")
        text = f"{self.path}: " + " + ".join(parts)
        if self.cells:
            text += f"; {len(self.cells):,} cells of its rows are unusable"
        if self.bom:
            text += "; a byte order mark at its start was dropped"
        rejects = sorted(self.rejects, key=lambda reject: reject.line)
        text += _listed([f"line {r.line}: {r.reason}: {r.text!r}" for r in rejects], "more")
        text += _listed([f"line {c.line}: {c.reason}" for c in self.cells], "more cells")
        return text


def _listed(problems: Sequence[str], more: str) -> str:
    """The first problems, one per line, and the number of the others."""
    lines = "".join(f"\n  {problem}" for problem in problems[:LISTED])
    others = len(problems) - LISTED
    return lines + (f"\n  and {others:,} {more}" if others > 0 else "")


class Block(NamedTuple):
    """Some rows of a file: one sequence per column, all of the same length.

    Attributes:
        columns: (head, relation, tail) if the file holds facts.
        lines: the line number of each row, from 1.
    """

    columns: tuple[Sequence[str], ...]
    lines: Sequence[int]
