"""Tables of text: plain text of a given width, HTML and a terminal; data frames."""

from __future__ import annotations

import sys
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from mocme.core.console import show
from mocme.core.table import Column, TextTable, columns, data_frame

TABLE = TextTable(
    columns("name", "number", right=["number"]),
    [["one", "1.0"], ["a hundred", "100.0"]],
    title="Numbers",
    caption="not all of them",
)


def test_plain_text_aligns_columns_below_the_title() -> None:
    assert TABLE.text().splitlines() == [
        "Numbers",
        "name       number",
        "one           1.0",
        "a hundred   100.0",
    ]
    assert TABLE.text(header=False).splitlines()[1] == "one          1.0"


def test_a_limited_width_wraps_cells_and_loses_nothing() -> None:
    table = TextTable(columns("fact"), [["word " * 30], ["x" * 90], ["名" * 30]])
    text = table.text(40)
    assert max(map(cell_len, text.splitlines())) <= 40
    assert text.count("word") == 30
    assert text.count("x") == 90
    assert text.count("名") == 30
    assert len(table.text().splitlines()) == 4


def test_wide_characters_keep_the_alignment() -> None:
    table = TextTable([Column(), Column(align="right")], [["名名", "1"], ["abcd", "22"]])
    assert [cell_len(line) for line in table.text(header=False).splitlines()] == [8, 8]


def test_a_table_without_rows_is_its_title() -> None:
    empty = TextTable(columns("name"), [], title="None")
    assert empty.text() == "None"
    assert empty.html() == "<table><caption>None</caption><tr><th>name</th></tr></table>"
    assert TextTable(columns("name"), []).text() == ""


def test_cells_may_have_several_lines() -> None:
    table = TextTable(columns("a", "b"), [["1\n2", "x"]])
    assert table.text(header=False).splitlines() == ["1  x", "2"]
    assert "<td>1 2</td>" in table.html()


@given(st.text(max_size=20), st.text(max_size=20))
def test_texts_have_no_effect_on_terminal_or_html(title: str, cell: str) -> None:
    hostile = f"[bold]<script>{cell}\x1b[31m"
    table = TextTable([Column(title)], [[hostile]], title=title, caption=hostile)
    screen = StringIO()
    Console(file=screen, width=200, force_terminal=False).print(table)
    for text in (screen.getvalue(), table.text(), table.html()):
        assert "\x1b" not in text
        assert "[bold]" in text
    assert "<script>" not in table.html()
    assert "\n" not in table.html()


def test_a_terminal_shows_title_and_caption(capsys: pytest.CaptureFixture[str]) -> None:
    show(TABLE)
    output = capsys.readouterr().out
    for text in ("Numbers", "not all of them", "a hundred", "100.0", "number"):
        assert text in output


def test_environment_variables_of_terminals_do_not_change_plain_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = TABLE.text()
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "5"), ("TTY_COMPATIBLE", "1")):
        monkeypatch.setenv(name, value)
    assert TABLE.text() == before


def test_a_data_frame_has_the_columns_given() -> None:
    frame = data_frame({"a": [1, 2], "b": ["x", None]})
    assert list(frame) == ["a", "b"]
    assert frame["a"].tolist() == [1, 2]


def test_a_missing_pandas_is_an_error_that_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        data_frame({})
