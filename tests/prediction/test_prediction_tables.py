"""Predictions as a table, in a notebook and as a data frame."""

from __future__ import annotations

import math

import pytest

from mocme.prediction.schema import Prediction, Predictions

WEIGHTS = {"structure": 0.75, "text": 0.25}
ITEMS = [
    Prediction("Chad", "borders", "Mali", 2.5, False, WEIGHTS, 0.25, 0.5, ("part of",), True),
    Prediction("Chad", "borders", "Niger", -math.inf, True, {"structure": 0.0, "text": 0.0}),
]


@pytest.fixture
def predictions() -> Predictions:
    return Predictions("(Chad, borders, ?)", ITEMS, "tail")


def test_terminal_and_notebook_show_the_same_cells(predictions: Predictions) -> None:
    table = predictions.table()
    assert [column.title for column in table.columns] == [
        *("", "head", "relation", "tail", "score", "probability", "applies"),
        *("structure", "text", "remark"),
    ]
    first, second = table.rows
    assert first[:9] == ["1", "Chad", "borders", "Mali", "2.500", "25.0%", "50.0%", "0.75", "0.25"]
    assert first[9] == "already: part of; and the other way round"
    assert second[4:9] == ["-inf", "-", "-", "-", "-"]
    html = predictions._repr_html_()
    for cell in [*first, *second, table.title]:
        assert cell in html


def test_columns_without_values_are_left_out() -> None:
    plain = Predictions("?", [Prediction("a", "r", "b", 1.0, False, {"structure": 1.0})], "tail")
    titles = [column.title for column in plain.table().columns]
    assert titles == ["", "head", "relation", "tail", "score", "structure"]
    assert repr(plain) == "?\n  1     1.000  b  [structure 1.00]"


def test_long_names_are_cut_in_a_notebook_only() -> None:
    long = Predictions("x" * 200, [Prediction("h" * 99, "r", "t", 1.0, False, {})], "tail")
    assert long.table().rows[0][1] == "h" * 99
    assert long.table().title == "x" * 200
    assert "h" * 60 not in long._repr_html_()
    assert "x" * 120 not in long._repr_html_()


def test_lines_show_weights_completely_or_not_at_all() -> None:
    weights = {f"modality {n}": 0.1 for n in range(10)}
    lines = repr(Predictions("?", [Prediction("a", "r", "b", 1.0, False, weights)], "tail"))
    assert lines.endswith("b  […]")


def test_a_data_frame_has_a_row_for_each_prediction(predictions: Predictions) -> None:
    frame = predictions.to_pandas()
    assert list(frame) == [
        *("head", "relation", "tail", "score", "probability", "applies", "known"),
        *("linked", "symmetric", "note", "weight_structure", "weight_text"),
    ]
    assert frame["tail"].tolist() == ["Mali", "Niger"]
    assert frame["score"].tolist() == [2.5, -math.inf]
    assert frame["probability"].dtype == frame["applies"].dtype == float
    assert frame["probability"].isna().tolist() == [False, True]
    assert frame["known"].tolist() == [False, True]
    assert frame["weight_text"].tolist() == [0.25, 0.0]
    assert frame["linked"][0] == ("part of",)
    assert "reviewers rejected it" in frame["note"][1]


def test_no_predictions_are_an_empty_data_frame() -> None:
    frame = Predictions("?", [], "tail").to_pandas()
    assert len(frame) == 0
    assert "probability" in frame
