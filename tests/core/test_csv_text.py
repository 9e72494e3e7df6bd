"""CSV text is read back exactly by the csv module, except for guarded cells."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocme.core.csv_text import csv_text

CELL = st.text(st.sampled_from('a,"\n\r\t;=é名 '), max_size=5)


@given(st.lists(st.lists(CELL, min_size=2, max_size=4), max_size=4))
def test_rows_survive_a_round_trip(rows: list[list[str]]) -> None:
    assert list(csv.reader(io.StringIO(csv_text(rows), newline=""))) == rows


def test_cells_are_quoted_only_if_needed() -> None:
    assert csv_text([("a", 'b"c', "d,e", None, 1.5), ("f\ng", "h\ri", "", " ", "=1+1")]) == (
        'a,"b""c","d,e",,1.5\r\n"f\ng","h\ri",, ,=1+1\r\n'
    )
    assert csv_text([("a", "b")], line_end="\n") == "a,b\n"
    assert csv_text([]) == ""


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@a", "\ta", "\ra"])
def test_formulas_are_guarded_if_requested(cell: str) -> None:
    (row,) = csv.reader(io.StringIO(csv_text([(cell, "a", 2)], guard=True), newline=""))
    assert row == [f"'{cell}", "a", "2"]
