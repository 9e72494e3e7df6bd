"""Decisions of reviewers on facts: a SQLite file of them, and a graph with them applied."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, final, get_args

from mocme.data.review_schema import (
    SCHEMA,
    ReviewError,
    ReviewsMoved,
    check_file,
    check_schema,
    check_values,
    not_writable,
    odd_value,
)

Decision = Literal["accept", "reject", "skip"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
VERSION = 1
COLUMNS = ("id", "head", "relation", "tail", "decision", "reviewer", "note", "time")
OPTIONAL_COLUMNS = ("probability", "score")
Fact = tuple[str, str, str]


# Errors of SQLite where a file is missing, read-only or not permitted, or the disk is full.
_NOT_WRITABLE = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)
_TIMEOUT = 10
# Device and inode of a file.
_Identity = tuple[int, int]


@dataclass(frozen=True)
class Review:
    """The decision of a reviewer on a fact.

    Attributes:
        time: time of the decision in UTC (ISO 8601).
        probability, score: those of the fact when it was shown to the reviewer.
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
        """Return head, relation and tail."""
        return self.head, self.relation, self.tail


@final
class Reviews:
    """A file of decisions; several threads and processes may use it at the same time.

    All decisions are kept. If a reviewer decides several times on a fact, the last decision counts
    (`verdicts`). When `add` returns, the decision is on disk and survives a power failure, and it
    is in the file that is at the path: each use checks that this is the file that was opened. A
    file that was replaced is opened again. One that was deleted or moved away is an error.

    Raises:
        ReviewError: the file cannot be opened or created, has the format of another version, is
            damaged, or holds anything besides the table of decisions (such as a trigger).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._local = threading.local()
        check_file(self.path)
        # Only this may create a file; a file that is missing later was deleted.
        self._creates = True
        with self._open() as connection:
            version = self._version(connection)
            check_schema(self.path, connection, version)
            self._leave_wal(connection)
        if version == 0:
            self._create_tables()
        self._creates = False

    def _version(self, connection: sqlite3.Connection) -> int:
        """Return the format of the file; 0 if it is empty.

        Raises:
            ReviewError: it is that of another version.
        """
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise ReviewError(
                f"{self.path}: has format {version} of decisions, but this version of mocme "
                f"reads format {VERSION}; use the version that wrote the file"
            )
        return int(version)

    def _leave_wal(self, connection: sqlite3.Connection) -> None:
        """Keep all decisions in the one file, so that none is lost when it is moved.

        Version 0.1 kept the last ones in a write-ahead log beside it.
        """
        try:
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.OperationalError:  # it is read-only, or a process of version 0.1 has it open
            pass
        finally:
            connection.execute(f"PRAGMA busy_timeout = {_TIMEOUT * 1000}")

    def _create_tables(self) -> None:
        """Create the tables, unless another process has just created them."""
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("PRAGMA user_version").fetchone() == (0,):
                for statement in SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection of this thread; turn errors of SQLite into a `ReviewError`."""
        try:
            yield self._connection()
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code in _NOT_WRITABLE:
                raise not_writable(self.path, error) from error
            raise ReviewError(
                f"{self.path}: decisions cannot be stored there ({error}); repair the file, or "
                f"name a file in a writable folder (--reviews FILE)"
            ) from error

    def _connection(self) -> sqlite3.Connection:
        """Return the connection of this thread to the file that is at the path now.

        Raises:
            ReviewsMoved: there is none, or an empty one.
        """
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None and self._identity() == self._local.identity:
            return connection
        self.close()
        if self._creates:
            connection = self._connect("rwc")
        else:
            if self._identity() is None:
                raise self._moved()
            check_file(self.path)
            connection = self._connect("rw")
            try:
                version = self._version(connection)
                if version == 0:
                    raise self._moved()
                # What took the file's place may hold anything.
                check_schema(self.path, connection, version)
            except BaseException:
                connection.close()
                raise
        self._local.connection = connection
        return connection

    def _connect(self, mode: str) -> sqlite3.Connection:
        """Open the file; it stays at the path while it is opened."""
        while True:
            before = self._identity()
            address = f"{self.path.absolute().as_uri()}?mode={mode}"
            connection = sqlite3.connect(address, uri=True, timeout=_TIMEOUT, isolation_level=None)
            # EXTRA makes a decision survive a power failure, not only a crash of the process.
            connection.execute("PRAGMA synchronous = EXTRA")
            # A file from elsewhere must not run functions of its own schema.
            connection.execute("PRAGMA trusted_schema = OFF")
            self._local.identity = self._identity()
            if before in (None, self._local.identity):
                return connection
            connection.close()

    def _identity(self) -> _Identity | None:
        """Return the identity of the file at the path; None if there is none."""
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _require_in_place(self) -> None:
        """Check, after a change, that it was made in the file that is at the path.

        Raises:
            ReviewsMoved: it was not.
        """
        if self._identity() != self._local.identity:
            raise self._moved()

    def _moved(self) -> ReviewsMoved:
        return ReviewsMoved(
            f"{self.path}: the file of decisions was deleted, moved or replaced while it is in "
            f"use; put it back, or start the server again to begin a new file"
        )

    def check_writable(self) -> None:
        """Check that decisions can be stored, without storing one.

        Raises:
            ReviewsNotWritable: they cannot.
        """
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:  # BEGIN alone succeeds in a file that cannot be written
                connection.execute(f"PRAGMA user_version = {VERSION}")
            finally:
                connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection of this thread."""
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
        """Store a decision.

        Raises:
            ValueError: the decision is not one of `DECISIONS`, or the reviewer has no name.
            ReviewError: the file cannot be written.
            ReviewsMoved: it was deleted, moved or replaced; the decision does not count as stored.
        """
        if decision not in DECISIONS:
            raise ValueError(f"a decision is one of {', '.join(DECISIONS)}, not {decision!r}")
        if not reviewer.strip():
            raise ValueError("a decision needs the reviewer's name")
        time = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        values = (*fact, decision, reviewer.strip(), note, time, probability, score)
        with self._open() as connection:
            columns = ", ".join((*COLUMNS[1:], *OPTIONAL_COLUMNS))
            marks = ", ".join("?" * len(values))
            insertion = f"INSERT INTO review ({columns}) VALUES ({marks})"
            review_id = connection.execute(insertion, values).lastrowid
            self._require_in_place()
        return Review(int(review_id or 0), *values)

    def remove(self, id: int) -> bool:
        """Delete a decision; return whether it existed.

        Raises:
            ReviewError: as of `add`.
        """
        with self._open() as connection:
            deleted = connection.execute("DELETE FROM review WHERE id = ?", (id,)).rowcount > 0
            self._require_in_place()
        return deleted

    def count(self) -> dict[Decision, int]:
        """Count the decisions of each type."""
        with self._open() as connection:
            rows = connection.execute("SELECT decision, count(*) FROM review GROUP BY decision")
            counts = dict(rows.fetchall())
        if unknown := set(counts) - set(DECISIONS):
            raise odd_value(self.path, f"decision {next(iter(unknown))!r}")
        return {decision: int(counts.get(decision, 0)) for decision in DECISIONS}

    def find(
        self,
        *,
        name: str | None = None,
        decision: Decision | None = None,
        offset: int = 0,
        limit: int = -1,
    ) -> tuple[int, list[Review]]:
        """Return the total number of matching decisions, and a page of them, newest first.

        Args:
            name: only facts with this head or tail.
            offset, limit: the page; a limit of -1 is no limit.
        """
        conditions, values = ["1"], list[Any]()
        if name is not None:
            conditions.append("(head = ? OR tail = ?)")
            values += [name, name]
        if decision is not None:
            conditions.append("decision = ?")
            values.append(decision)
        condition = " AND ".join(conditions)
        with self._open() as connection:
            (total,) = connection.execute(
                f"SELECT count(*) FROM review WHERE {condition}", values
            ).fetchone()
            rows = connection.execute(
                f"SELECT {', '.join((*COLUMNS, *OPTIONAL_COLUMNS))} FROM review "
                f"WHERE {condition} "
                f"ORDER BY id DESC LIMIT ? OFFSET ?",
                [*values, limit, offset],
            ).fetchall()
        return int(total), [Review(*self._checked(row)) for row in rows]

    def _checked(self, row: Sequence[Any]) -> Sequence[Any]:
        """Return a row of the table after a check: SQLite stores any type in any column."""
        columns = (*COLUMNS, *OPTIONAL_COLUMNS)
        check_values(self.path, dict(zip(columns, row, strict=True)), DECISIONS)
        return row

    def verdicts(self) -> dict[Fact, Decision]:
        """Return the decision on each fact: the last one of each reviewer, skips left out.

        Raises:
            ReviewError: reviewers disagree on a fact; the message names it.
        """
        last: dict[Fact, dict[str, Decision]] = {}
        _, reviews = self.find()
        for review in reversed(reviews):
            if review.decision != "skip":
                last.setdefault(review.fact, {})[review.reviewer] = review.decision
        for fact, by_reviewer in last.items():
            if len(set(by_reviewer.values())) > 1:
                votes = ", ".join(f"{name}: {vote}" for name, vote in sorted(by_reviewer.items()))
                raise ReviewError(
                    f"{self.path}: reviewers disagree on {fact} ({votes}); let one of them decide "
                    f"again"
                )
        return {fact: next(iter(by_reviewer.values())) for fact, by_reviewer in last.items()}
