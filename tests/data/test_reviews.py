"""Decisions: kept, taken back, found, exported, and what holds of a fact in the end."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocme.data.reviews import Review, ReviewError, Reviews, export_name, exported

FACT = ("Chad", "borders", "Mali")


@pytest.fixture
def reviews(tmp_path: Path) -> Reviews:
    return Reviews(tmp_path / "reviews.sqlite")


def test_a_decision_is_kept_with_who_and_when(reviews: Reviews) -> None:
    made = reviews.add(FACT, "reject", " Ada ", "no", probability=0.25, score=-1.5)
    again = Reviews(reviews.path)
    assert again.find() == (1, [made])
    assert (made.fact, made.decision, made.reviewer, made.note) == (FACT, "reject", "Ada", "no")
    assert made.time.endswith("Z")
    assert (made.probability, made.score) == (0.25, -1.5)
    assert again.count() == {"accept": 0, "reject": 1, "skip": 0}


def test_decisions_are_found_by_name_and_sort_newest_first(reviews: Reviews) -> None:
    made = [
        reviews.add((f"e{n}", "r", f"e{n + 1}"), ("accept", "reject", "skip")[n % 3], "Ada")
        for n in range(9)
    ]
    assert reviews.find() == (9, made[::-1])
    assert reviews.find(offset=2, limit=3) == (9, made[::-1][2:5])
    assert reviews.find(decision="skip") == (3, [made[8], made[5], made[2]])
    assert reviews.find(name="e4") == (2, [made[4], made[3]])
    assert reviews.remove(made[4].id)
    assert not reviews.remove(made[4].id)
    assert reviews.find(name="e4") == (1, [made[3]])
    # The id of what was taken back is not given again: a late request cannot undo another's.
    assert reviews.remove(made[8].id)
    assert reviews.add(FACT, "skip", "Ada").id > made[8].id


def test_the_last_word_of_a_reviewer_stands_and_two_must_agree(reviews: Reviews) -> None:
    reviews.add(FACT, "reject", "Ada")
    reviews.add(FACT, "accept", "Ada")
    reviews.add(FACT, "skip", "Ada")
    reviews.add(("a", "r", "b"), "skip", "Ada")
    assert reviews.standing() == {FACT: "accept"}
    reviews.add(FACT, "accept", "Bob")
    assert reviews.standing() == {FACT: "accept"}
    reviews.add(FACT, "reject", "Cleo")
    with pytest.raises(ReviewError, match=r"disagree on .*Chad.*Ada: accept.*Cleo: reject"):
        reviews.standing()


@pytest.mark.parametrize(("word", "who"), [("maybe", "Ada"), ("accept", "  ")])
def test_what_is_no_decision_is_refused(word: str, who: str, reviews: Reviews) -> None:
    with pytest.raises(ValueError, match="a decision"):
        reviews.add(FACT, word, who)  # type: ignore[arg-type]
    assert reviews.find()[0] == 0


def test_files_that_hold_no_decisions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("not a database, " * 100)
    with pytest.raises(ReviewError, match=r"text\.sqlite: .*--reviews FILE"):
        Reviews(tmp_path / "text.sqlite")
    with pytest.raises(ReviewError, match="absent"):
        Reviews(tmp_path / "absent" / "reviews.sqlite")
    with sqlite3.connect(tmp_path / "later.sqlite") as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(ReviewError, match="format 99"):
        Reviews(tmp_path / "later.sqlite")


def test_many_threads_and_processes_write_at_a_time(reviews: Reviews) -> None:
    code = (
        "import sys; from mocme.data.reviews import Reviews; r = Reviews(sys.argv[1])\n"
        "for n in range(20): r.add(('process', 'r', str(n)), 'accept', 'Ada')"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(reviews.path)])

    def write(who: int) -> None:
        for n in range(20):
            reviews.add((f"thread {who}", "r", str(n)), "reject", "Bob")
        reviews.close()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.wait(30) == 0
    total, found = reviews.find()
    assert total == len({review.fact for review in found}) == 80


def test_a_killed_process_leaves_what_it_had_written(tmp_path: Path) -> None:
    code = (
        "import os, sys; from mocme.data.reviews import Reviews; r = Reviews(sys.argv[1])\n"
        "r.add(('a', 'r', 'b'), 'accept', 'Ada'); os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "reviews.sqlite"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert Reviews(path).count()["accept"] == 1


def test_exports_hold_every_decision() -> None:
    nasty = ["tab\tand\nline", 'quote " and , comma', "=1+1", "back\\slash", "emoji 🏳️‍🌈", "עברית"]
    made = [
        Review(n, name, "r", name[::-1], "accept", "Ada", name, "2026-01-01T00:00:00Z", None, 0.5)
        for n, name in enumerate(nasty)
    ]
    lines = "".join(exported(made, "jsonl")).splitlines()
    assert [Review(**json.loads(line)) for line in lines] == made
    rows = list(csv.DictReader(io.StringIO("".join(exported(made, "csv")))))
    assert [row["head"].removeprefix("'") for row in rows] == nasty
    assert rows[2]["head"] == "'=1+1"
    tsv = "".join(exported(made, "tsv")).splitlines()
    assert len(tsv) == len(made) + 1
    assert all(len(line.split("\t")) == 10 for line in tsv)
    with pytest.raises(ValueError, match="tsv, csv, jsonl"):
        list(exported(made, "xlsx"))


@given(st.text(max_size=80))
def test_a_file_of_decisions_has_a_harmless_telling_name(graph: str) -> None:
    assert re.fullmatch(
        r"[a-z0-9_][a-z0-9._-]*-decisions-\d{4}-\d\d-\d\d\.csv", export_name(graph, "csv")
    )
    assert export_name("MKG-Y / copy", "tsv").startswith("mkg-y-copy-decisions-")
