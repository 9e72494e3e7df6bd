"""Explanations as text, HTML tables and data frames."""

from __future__ import annotations

import pytest

from mocme.explanation.schema import (
    Explanation,
    ModalityShare,
    Neighbour,
    Neighbours,
    RuleExplanation,
    Step,
    Support,
    Weights,
)


@pytest.fixture
def explanation() -> Explanation:
    return Explanation(
        *("Chad", "borders", "Mali", 2.5, 0.25, False, 1, 2),
        modalities=(
            ModalityShare("text", "head", True, 0.5, (0.25, 0.75), 1.5),
            ModalityShare("image", "tail", False, 0.0, (), None),
        ),
        weights=Weights(None, 0, False, "weights are not measured"),
        rules=(RuleExplanation("borders | borders", ("borders", "borders"), 3, 0.5),),
        supports=(Support("Niger", "borders", "Chad", "fact", -0.75, -0.5, -0.25),),
        paths=((Step("Chad", "borders", "Niger"), Step("Niger", "borders", "Mali")),),
        neighbours=(Neighbours("tail", "vector", (Neighbour("Niger", 0.875),)),),
        notes=("a note",),
    )


def test_text_aligns_the_columns_of_each_table(explanation: Explanation) -> None:
    lines = repr(explanation).splitlines()
    first = lines.index("What each modality adds (weights are not reasons)")
    assert lines[first + 1 : first + 4] == [
        "  modality  of    score drop without it  weight  views",
        "  text      head                 +1.500    0.50  0.25 0.75",
        "  image     tail              not known",
    ]
    first = lines.index("Training facts that support it")
    assert lines[first + 1 : first + 3] == [
        "  training fact           score drop without it  by vectors  by rules",
        "  (Niger, borders, Chad)                 +0.750      +0.500    +0.250",
    ]
    assert lines[1] == (
        "score 2.500, probability 25.0% (mean of both directions); rank 1 as tail, 2 as head"
    )
    assert lines[-2:] == ["- weights are not measured", "- a note"]


def test_text_and_html_show_every_table(explanation: Explanation) -> None:
    tables = list(explanation.tables())
    assert [table.title for table in tables] == [
        "What each modality adds (weights are not reasons)",
        "Training facts that support it",
        "Rules between head and tail",
        "Short paths in the graph",
        "Nearest entities",
    ]
    for text in (repr(explanation), explanation._repr_html_()):
        for table in tables:
            assert table.title in text
            for cell in (cell for row in table.rows for cell in row):
                assert cell in text


def test_a_data_frame_has_a_row_for_each_piece_of_evidence(explanation: Explanation) -> None:
    frame = explanation.to_pandas()
    assert list(frame) == ["part", "of", "by", "name", "value"]
    rows = frame.astype(object).where(frame.notna(), None).values.tolist()
    assert rows == [
        ["modality", "head", "", "text", 1.5],
        ["modality", "tail", "", "image", None],
        ["fact", "", "", "(Niger, borders, Chad)", 0.75],
        ["rule", "", "", "borders | borders", 0.5],
        ["path", "", "", "(Chad, borders, Niger) | (Niger, borders, Mali)", None],
        ["neighbour", "tail", "vector", "Niger", 0.875],
    ]
    assert frame["value"].dtype == float
