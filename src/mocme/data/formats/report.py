"""What a reader of a file hands on: rows in blocks, and an account of every line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class Reject:
    """A line that could not be read as a row."""

    line: int
    reason: str
    text: str


@dataclass
class Report:
    """What became of every line (or record) of a file.

    ``lines + further == rows + empty + literals + blank + comments + len(rejects)``, and whoever
    uses the rows divides ``rows`` into those used and `duplicates`. `further` are rows beyond the
    first of a line that lists several tails. `empty` are rows whose cell for a value is empty;
    `literals` rows that say a value of an entity instead of a link (RDF only). A header
    counts as a comment. `first` is the first row, and `first_line` its line.
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
        """Whether every line became something."""
        return self.lines + self.further == self._whole()

    def _whole(self) -> int:
        other = self.empty + self.literals + self.blank + self.comments
        return self.rows + other + len(self.rejects)

    def reject(self, line: int, reason: str, raw: bytes | str) -> None:
        """Note a line that is no row."""
        text = raw[:80]
        shown = text.decode(errors="replace") if isinstance(text, bytes) else text
        self.rejects.append(Reject(line, reason, shown))

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
        text += _some([f"line {r.line}: {r.reason}: {r.text!r}" for r in rejects], "more")
        text += _some([f"line {c.line}: {c.reason}" for c in self.cells], "more cells")
        return text


def _some(faults: Sequence[str], more: str) -> str:
    """The first five, a line each, and how many more there are."""
    lines = "".join(f"\n  {fault}" for fault in faults[:5])
    return lines + (f"\n  and {len(faults) - 5:,} {more}" if len(faults) > 5 else "")


class Block(NamedTuple):
    """Some rows of a file, a sequence for each column, all of the same length.

    Attributes:
        columns: (head, relation, tail) where the file holds facts.
        lines: the number of each row's line, from 1.
    """

    columns: tuple[Sequence[str], ...]
    lines: Sequence[int]
