"""What a reader gives back: rows in blocks, and a report that accounts for every line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mocme.core.text import counted, visible

# Rejects that are listed when a report is printed.
LISTED = 5
# Rejects of a file that are kept with their line, reason and text, and reasons that are counted one
# by one. A file may have millions of bad lines, and reasons may quote them.
KEPT, REASONS = 1000, 100
OTHER_REASONS = "other reasons"


@dataclass(frozen=True)
class Reject:
    """A line that could not be read as a row."""

    line: int
    reason: str
    text: str


@dataclass
class Report:
    """What became of every line (or record) of a file.

    ``lines + further == rows + empty + literals + blank + comments + rejected``. The consumer
    of the rows divides ``rows`` into used ones and `duplicates`. A header counts as a comment.

    Attributes:
        further: rows after the first one of a line that lists several tails.
        empty: rows whose value cell is empty.
        literals: rows that state a value of an entity instead of a link (RDF only).
        bom: whether a byte order mark was dropped.
        encoding: of the text if it is not UTF-8, by its byte order mark (``utf-16-le``).
        sha256: of the file as stored, after reading to its end.
        rejected: lines that are no rows; `rejects`: the first `KEPT` of them.
        reasons: number of rejects by reason; beyond `REASONS` of them as `OTHER_REASONS`.
        unusable: unusable cells of rows that are otherwise used; `cells`: the first `KEPT` of them.
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
    encoding: str = ""
    sha256: str = ""
    rejected: int = 0
    rejects: list[Reject] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    unusable: int = 0
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
        return self.rows + other + self.rejected

    def reject(self, line: int, reason: str, raw: bytes | str) -> None:
        """Count a line that is not a row; the first `KEPT` are kept.

        Args:
            raw: its text, of which the first 80 bytes or characters are kept.
        """
        self.rejected += 1
        if reason not in self.reasons and len(self.reasons) >= REASONS:
            reason_counted = OTHER_REASONS
        else:
            reason_counted = reason
        self.reasons[reason_counted] = self.reasons.get(reason_counted, 0) + 1
        if len(self.rejects) < KEPT:
            self.rejects.append(Reject(line, reason, _start(raw)))

    def reject_cell(self, line: int, reason: str, raw: str) -> None:
        """Count an unusable cell of a row that is otherwise used; the first `KEPT` are kept."""
        self.unusable += 1
        if len(self.cells) < KEPT:
            self.cells.append(Reject(line, reason, _start(raw)))

    def __str__(self) -> str:
        further = f" with {counted(self.further, 'further tail')}" if self.further else ""
        parts = [f"{counted(self.lines, 'line')}{further} = {counted(self.used, 'row')}"]
        parts.append(counted(self.duplicates, "duplicate"))
        if self.empty:
            parts.append(f"{self.empty:,} with an empty cell")
        if self.literals:
            parts.append(counted(self.literals, "literal"))
        parts.append(counted(self.blank + self.comments, "blank, comment and header line"))
        parts.append(counted(self.rejected, "reject"))
        text = f"{visible(self.path)}: " + " + ".join(parts)
        if self.unusable:
            verb = "is" if self.unusable == 1 else "are"
            text += f"; {counted(self.unusable, 'cell')} of its rows {verb} unusable"
        if self.encoding:
            text += f"; read as {self.encoding.upper()}"
        if self.bom:
            text += "; a byte order mark at its start was dropped"
        rejects = sorted(self.rejects, key=lambda reject: reject.line)
        lines = [f"line {r.line}: {r.reason}: {r.text!r}" for r in rejects[:LISTED]]
        text += _listed(lines, self.rejected, "more")
        if self.rejected > LISTED and len(self.reasons) > 1:
            common = sorted(self.reasons.items(), key=lambda item: -item[1])[:LISTED]
            text += "\n  by reason: " + "; ".join(f"{count:,} x {why}" for why, count in common)
            text += "; ..." if len(self.reasons) > LISTED else ""
        cells = [f"line {c.line}: {c.reason}" for c in self.cells[:LISTED]]
        return text + _listed(cells, self.unusable, "more cells")


def _start(raw: bytes | str) -> str:
    start = raw[:80]
    return start.decode(errors="replace") if isinstance(start, bytes) else start


def _listed(problems: Sequence[str], count: int, more: str) -> str:
    """The first problems, one per line, and the number of the others."""
    lines = "".join(f"\n  {visible(problem)}" for problem in problems)
    others = count - len(problems)
    return lines + (f"\n  and {others:,} {more}" if others > 0 else "")


class Block(NamedTuple):
    """Some rows of a file: one sequence per column, all of the same length.

    Attributes:
        columns: (head, relation, tail) if the file holds facts.
        lines: the line number of each row, from 1.
    """

    columns: tuple[Sequence[str], ...]
    lines: Sequence[int]
