"""The SQLite file of decisions: what it holds, and checks of a file that comes from elsewhere."""

from __future__ import annotations

import functools
import math
import os
import sqlite3
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE review (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    head TEXT NOT NULL, relation TEXT NOT NULL, tail TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('accept', 'reject', 'skip')),
    reviewer TEXT NOT NULL, note TEXT NOT NULL, time TEXT NOT NULL,
    probability REAL, score REAL
);
CREATE INDEX review_fact ON review (head, relation, tail);
"""
# Characters of a name, a note and the other texts of a decision.
MAX_TEXT = 1 << 20


class ReviewError(ValueError):
    """Decisions cannot be stored or read; the message names the file and a remedy."""


class ReviewsNotWritable(ReviewError):
    """The file of decisions cannot be created or written where it is."""


class ReviewsMoved(ReviewError):
    """The file of decisions was deleted, moved or replaced while it was in use."""


def check_file(path: Path) -> None:
    """Refuse a file of decisions that is no regular file, or whose companions are none.

    SQLite opens FILE-wal, FILE-shm and FILE-journal as well.

    Raises:
        ReviewError: one is a link, FIFO, device or directory.
    """
    try:
        # A user may name a link; what belongs to the file lies next to its target.
        target = path.resolve()
    except (OSError, RuntimeError) as error:
        raise ReviewError(f"{path}: cannot be reached ({error}); name another file") from error
    for suffix in ("", "-wal", "-shm", "-journal"):
        file = target.with_name(f"{target.name}{suffix}")
        if os.path.lexists(file) and not stat.S_ISREG(file.lstat().st_mode):
            raise ReviewError(
                f"{file}: is no regular file; remove it, or name another file (--reviews FILE)"
            )


def not_writable(path: Path, error: Exception) -> ReviewsNotWritable:
    """Return the error for a file that SQLite cannot create or write, with the cause."""
    folder = path.absolute().parent
    if not folder.is_dir():
        cause = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK):
        # SQLite needs the folder of an existing file too, for its journal.
        cause = f"the folder {folder} cannot be written"
    elif path.exists() and not os.access(path, os.W_OK):
        cause = "it is read-only"
    else:
        cause = str(error)
    verb = "written" if path.exists() else "created"
    return ReviewsNotWritable(
        f"{path}: the file of decisions cannot be {verb} ({cause}); name a file in a folder that "
        f"can be written (--reviews FILE)"
    )


def check_schema(path: Path, connection: sqlite3.Connection, version: int) -> None:
    """Refuse a database that holds anything besides what `Reviews` creates.

    A trigger or a generated column of a file from elsewhere would change what is stored or read.

    Raises:
        ReviewError: with the part that does not belong there.
    """
    rows = connection.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
    found = {(str(kind), str(name)): _normal(sql) for kind, name, sql in rows}
    # Version 0 is a new file; another process may be creating its tables just now.
    wanted = _objects() if version or found else dict[tuple[str, str], str]()
    for key, sql in found.items():
        if wanted.get(key) != sql:
            kind, name = key
            raise ReviewError(
                f"{path}: its {kind} {name!r} is not of mocme, and could change decisions; export "
                f"them with the program that made the file, or name another file (--reviews FILE)"
            )
    if version and (missing := set(wanted) - set(found)):
        raise ReviewError(
            f"{path}: has no {' '.join(min(missing))}; restore it from a copy, or name another "
            f"file (--reviews FILE)"
        )
    (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if state != "ok":
        raise ReviewError(
            f"{path}: is damaged ({state}); restore it from a copy, or name another file "
            f"(--reviews FILE)"
        )


@functools.cache
def _objects() -> dict[tuple[str, str], str]:
    """What SQLite lists of a database with `SCHEMA`: (type, name) to the statement."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(SCHEMA)
        rows = connection.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
    finally:
        connection.close()
    return {(kind, name): _normal(sql) for kind, name, sql in rows}


def _normal(sql: object) -> str:
    return " ".join(str(sql).split())


def check_values(path: Path, row: Mapping[str, Any], decisions: Collection[str]) -> None:
    """Check a row of the table.

    Args:
        row: values by column.
        decisions: the kinds of decisions.

    Raises:
        ReviewError: a value has another type, or is out of range.
    """
    number = row["id"]
    for name in ("head", "relation", "tail", "decision", "reviewer", "note", "time"):
        text = row[name]
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise odd_value(path, f"decision {number!r} with a {name} that is no text")
    if type(number) is not int or row["decision"] not in decisions:
        raise odd_value(path, f"decision {number!r} of the kind {row['decision']!r}")
    for name in ("probability", "score"):
        value = row[name]
        if value is not None and not (type(value) in (int, float) and math.isfinite(value)):
            raise odd_value(path, f"decision {number} with the {name} {value!r}")
    if row["probability"] is not None and not 0 <= row["probability"] <= 1:
        raise odd_value(path, f"decision {number} with the probability {row['probability']!r}")


def odd_value(path: Path, what: str) -> ReviewError:
    """Return the error for a value that `Reviews` does not write."""
    return ReviewError(
        f"{path}: holds {what}, which mocme does not write; restore it from a copy, or name "
        f"another file (--reviews FILE)"
    )
