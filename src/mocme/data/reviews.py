"""Decisions of reviewers on predicted facts, kept in SQLite."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, final, get_args

from mocme.core.text import guarded

Decision = Literal["accept", "reject", "skip"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
FORMATS = ("tsv", "csv", "jsonl")
VERSION = 1
_COLUMNS = ("id", "head", "relation", "tail", "decision", "reviewer", "note", "time")
_MORE = ("probability", "score")
_SCHEMA = """
CREATE TABLE review (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    head TEXT NOT NULL, relation TEXT NOT NULL, tail TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('accept', 'reject', 'skip')),
    reviewer TEXT NOT NULL, note TEXT NOT NULL, time TEXT NOT NULL,
    probability REAL, score REAL
);
CREATE INDEX review_fact ON review (head, relation, tail);
"""
Fact = tuple[str, str, str]


class ReviewError(ValueError):
    """Decisions cannot be kept or read; the message names the file and a remedy."""


@dataclass(frozen=True)
class Review:
    """A decision on a fact.

    Attributes:
        time: when, in UTC (ISO 8601).
        probability, score: of the fact as it was shown.
    """

    id: int
    head: str
    relation: str
    tail: str
    decision: Decision
    reviewer: str
    note: str
    time: str
    probability: float | None = None
    score: float | None = None

    @property
    def fact(self) -> Fact:
        """Head, relation and tail."""
        return self.head, self.relation, self.tail


@final
class Reviews:
    """A file of decisions; several threads and processes may use one file at a time.

    Every decision stays; of several on one fact by one reviewer the last counts (`standing`). A
    decision is on disk when `add` returns, also if the power fails then.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._local = threading.local()
        with self._open() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise ReviewError(
                    f"{self.path}: decisions of format {version}; this version knows {VERSION}; "
                    f"use the version of mocme that wrote them"
                )
        if version == 0:
            self._begin()

    def _begin(self) -> None:
        """Make the tables, unless another process has just made them."""
        with self._open() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("PRAGMA user_version").fetchone() == (0,):
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection; errors of SQLite become errors that name the file."""
        try:
            connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
            if connection is None:
                connection = sqlite3.connect(self.path, timeout=10, isolation_level=None)
                # A decision outlives a power failure; without it only a crash of the process.
                connection.execute("PRAGMA synchronous = FULL")
                self._local.connection = connection
            yield connection
        except sqlite3.Error as error:
            raise ReviewError(
                f"{self.path}: decisions cannot be kept there ({error}); name a file in a folder "
                f"that may be written to (--reviews FILE), or mend this one"
            ) from error

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def add(
        self,
        fact: Fact,
        decision: Decision,
        reviewer: str,
        note: str = "",
        *,
        probability: float | None = None,
        score: float | None = None,
    ) -> Review:
        """Keep a decision.

        Raises:
            ValueError: the decision is none of the three, or no reviewer is named.
            ReviewError: the file cannot be written to.
        """
        if decision not in DECISIONS:
            raise ValueError(f"a decision is one of {', '.join(DECISIONS)}, not {decision!r}")
        if not reviewer.strip():
            raise ValueError("a decision needs the reviewer's name")
        time = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        values = (*fact, decision, reviewer.strip(), note, time, probability, score)
        with self._open() as connection:
            names = ", ".join((*_COLUMNS[1:], *_MORE))
            marks = ", ".join("?" * len(values))
            made = connection.execute(f"INSERT INTO review ({names}) VALUES ({marks})", values)
        return Review(int(made.lastrowid or 0), *values)

    def remove(self, id: int) -> bool:
        """Take a decision back; whether there was one."""
        with self._open() as connection:
            return connection.execute("DELETE FROM review WHERE id = ?", (id,)).rowcount > 0

    def count(self) -> dict[Decision, int]:
        """How many decisions of each sort there are."""
        with self._open() as connection:
            rows = connection.execute("SELECT decision, count(*) FROM review GROUP BY decision")
            found = dict(rows.fetchall())
        return {decision: int(found.get(decision, 0)) for decision in DECISIONS}

    def find(
        self,
        *,
        name: str | None = None,
        decision: Decision | None = None,
        offset: int = 0,
        limit: int = -1,
    ) -> tuple[int, list[Review]]:
        """Decisions, the newest first, and how many there are in all.

        Args:
            name: only on facts of this head or tail.
        """
        where, values = ["1"], list[Any]()
        if name is not None:
            where.append("(head = ? OR tail = ?)")
            values += [name, name]
        if decision is not None:
            where.append("decision = ?")
            values.append(decision)
        rule = " AND ".join(where)
        with self._open() as connection:
            (total,) = connection.execute(
                f"SELECT count(*) FROM review WHERE {rule}", values
            ).fetchone()
            rows = connection.execute(
                f"SELECT {', '.join((*_COLUMNS, *_MORE))} FROM review WHERE {rule} "
                f"ORDER BY id DESC LIMIT ? OFFSET ?",
                [*values, limit, offset],
            ).fetchall()
        return int(total), [Review(*row) for row in rows]

    def standing(self) -> dict[Fact, Decision]:
        """What holds of each fact: skips aside, each reviewer's last word.

        Raises:
            ReviewError: reviewers disagree on a fact, which is named.
        """
        last: dict[Fact, dict[str, Decision]] = {}
        _, reviews = self.find()
        for review in reversed(reviews):
            if review.decision != "skip":
                last.setdefault(review.fact, {})[review.reviewer] = review.decision
        for fact, words in last.items():
            if len(set(words.values())) > 1:
                says = ", ".join(f"{who}: {word}" for who, word in sorted(words.items()))
                raise ReviewError(
                    f"{self.path}: reviewers disagree on {fact} ({says}); let one of them decide "
                    f"again"
                )
        return {fact: next(iter(words.values())) for fact, words in last.items()}


def exported(reviews: Iterable[Review], format: str) -> Iterator[str]:
    """Decisions as text, piece by piece: ``tsv``, ``csv`` (both with a header) or ``jsonl``.

    In TSV, tabs, line feeds and backslashes of names are written with a backslash, as in C.

    Raises:
        ValueError: another format.
    """
    names = (*_COLUMNS, *_MORE)
    if format == "jsonl":
        for review in reviews:
            yield json.dumps(asdict(review), ensure_ascii=False) + "\n"
    elif format == "csv":
        yield _csv_line(names)
        for review in reviews:
            yield _csv_line(["" if v is None else v for v in asdict(review).values()])
    elif format == "tsv":
        yield "\t".join(names) + "\n"
        for review in reviews:
            yield "\t".join(_cell(value) for value in asdict(review).values()) + "\n"
    else:
        raise ValueError(f"decisions are exported as {', '.join(FORMATS)}, not {format!r}")


def export_name(graph: str, format: str) -> str:
    """What a file of decisions on a graph is called: "atlas-decisions-2025-06-01.tsv" (in UTC)."""
    name = re.sub(r"[^a-z0-9._-]+", "-", graph.lower()).strip("-.")[:60] or "graph"
    return f"{name}-decisions-{datetime.now(UTC):%Y-%m-%d}.{format}"


def _csv_line(values: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(
        [guarded(v) if isinstance(v, str) else v for v in values]
    )
    return line.getvalue()


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    for plain, written in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, written)
    return text
