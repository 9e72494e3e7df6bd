"""A file of decisions that comes from elsewhere: nothing in it acts, no odd value passes."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from mocme.data.review_schema import ReviewError
from mocme.data.reviews import Reviews

FACT = ("Chad", "borders", "Mali")
OBJECTS = {
    "trigger": "CREATE TRIGGER t AFTER INSERT ON review BEGIN"
    " UPDATE review SET decision = 'reject'; END",
    "view": "CREATE VIEW v AS SELECT * FROM review",
    "table": "CREATE TABLE more (x)",
    "index": "CREATE INDEX more ON review (note)",
    "index by an expression": "CREATE INDEX more ON review (abs(id))",
    "column": "ALTER TABLE review ADD COLUMN more TEXT",
    "generated column": "ALTER TABLE review ADD COLUMN more TEXT AS (note) VIRTUAL",
    "renamed column": "ALTER TABLE review RENAME COLUMN note TO remark",
    "no index": "DROP INDEX review_fact",
    "no table": "DROP TABLE review",
}
VALUES = {
    "head": b"\xff",
    "note": b"note",
    "reviewer": b"Ada",
    "time": b"",
    "probability": 1.5,
    "score": float("inf"),
    "tail": b"\x00" * 10,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    reviews = Reviews(tmp_path / "reviews.sqlite")
    reviews.add(FACT, "accept", "Ada", probability=0.5)
    reviews.close()
    return reviews.path


def change(path: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement, values)
    connection.close()


def test_an_unchanged_file_is_read(path: Path) -> None:
    assert Reviews(path).verdicts() == {FACT: "accept"}


@pytest.mark.parametrize("name", OBJECTS)
def test_anything_besides_the_table_is_refused(path: Path, name: str) -> None:
    change(path, OBJECTS[name])
    with pytest.raises(ReviewError, match=r"reviews\.sqlite: .*; .*--reviews FILE") as error:
        Reviews(path)
    assert "\n" not in str(error.value)


def test_objects_in_a_file_without_a_version_are_refused(tmp_path: Path) -> None:
    change(tmp_path / "new.sqlite", "CREATE TABLE other (x)")
    with pytest.raises(ReviewError, match="its table 'other' is not of mocme"):
        Reviews(tmp_path / "new.sqlite")


@pytest.mark.parametrize("column", VALUES)
def test_values_of_another_type_or_range_are_refused(path: Path, column: str) -> None:
    change(path, f"UPDATE review SET {column} = ?", VALUES[column])
    with pytest.raises(ReviewError, match=r"reviews\.sqlite: holds decision 1 with"):
        Reviews(path).find()


def test_an_unknown_decision_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE review SET decision = 'ACCEPT'")
    connection.close()
    # quick_check reports a constraint that does not hold.
    with pytest.raises(ReviewError, match=r"reviews\.sqlite: is damaged \(CHECK"):
        Reviews(path)


def test_a_damaged_page_is_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:4200] = b"\x7f" * 104
    path.write_bytes(content)
    with pytest.raises(ReviewError, match=r"reviews\.sqlite"):
        Reviews(path).find()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "link"])
def test_only_regular_files_are_opened(path: Path, suffix: str, kind: str) -> None:
    file = path.with_name(path.name + suffix)
    file.unlink(missing_ok=True)
    target = path.with_name("elsewhere")
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to(target)
    if kind == "link" and not suffix:
        # The user named this path; a link to where decisions shall be is allowed.
        Reviews(path).add(FACT, "skip", "Ada")
        assert target.exists()
        return
    with pytest.raises(ReviewError, match="is no regular file"):
        Reviews(path)
    assert not target.exists()
