"""Dictionary-encoded columns give the same results as columns of names."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mocme.data.formats import coded, writers
from mocme.data.formats.coded import (
    CodedColumn,
    from_arrow,
    split_columns,
    unify_dictionaries,
)
from mocme.data.formats.kinds import tsv
from mocme.data.formats.registry import format_of
from mocme.data.formats.report import Block, Report
from mocme.data.graph import Graph
from mocme.data.ingest.indexer import FactIndexer

CELL = st.text(st.sampled_from("aé名\r\0 x"), max_size=3)


def sample(count: int = 3000) -> list[writers.Row]:
    """Facts with repeated names, also across heads, relations and tails; some facts twice."""
    source = random.Random(0)
    names = ["a", "é", "名", "a b", "007", "#", *(f"n{number}" for number in range(200))]
    rows = [tuple(source.choices(names, k=3)) for _ in range(count)]
    return [*rows, *rows[:50]]  # type: ignore[list-item]


def read(path: Path, indexer: FactIndexer) -> tuple[list[list[str]], torch.Tensor, int, Report]:
    """Names in the order of their ids, distinct facts, the number of repetitions, the report."""
    report = Report(str(path))
    for block in format_of(path).facts(path, report):
        indexer.add("train", block, report)
    return [list(names) for names in indexer.names], *indexer.split("train"), report


@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1))
def test_both_ways_split_a_text_into_the_same_columns(rows: list[tuple[str, str, str]]) -> None:
    text = "".join("\t".join(row) + "\t" for row in rows).encode()
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == 9)
    with pytest.MonkeyPatch.context() as patch:
        for arrow_bytes, kind in ((0, CodedColumn), (1 << 22, list)):
            patch.setattr(coded, "ARROW_BYTES", arrow_bytes)
            columns = split_columns(text, ends, 3)
            assert {type(column) for column in columns} == {kind}
            assert [tuple(row) for row in zip(*columns, strict=True)] == rows


def test_a_column_is_a_sequence() -> None:
    column = from_arrow(pyarrow.array(["b", "a", "b", "é"]))
    assert column.names == ["b", "a", "é"]
    assert len(column) == 4
    assert list(column) == [column[row] for row in range(4)] == ["b", "a", "b", "é"]
    assert list(column[1:3]) == ["a", "b"]
    assert column[-1] == "é"
    assert "a" in column
    with pytest.raises(IndexError):
        column[4]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("cdef"))), st.booleans())
def test_names_come_in_the_order_of_rows(rows: list[tuple[str, str]], shared: bool) -> None:
    names = [list("fedcba"), list("fedcba")]
    if shared:
        names[1] = names[0]
    columns = [
        CodedColumn(column, np.array([column.index(row[index]) for row in rows], np.int64))
        for index, column in enumerate(names)
    ]
    unified, codes = unify_dictionaries(columns)
    in_order = list(dict.fromkeys(name for row in rows for name in row))
    # A name in two dictionaries occurs twice in the unified one.
    assert list(dict.fromkeys(unified)) == in_order
    assert [tuple(unified[code] for code in row) for row in codes.tolist()] == rows


@pytest.mark.parametrize("ending", [".tsv", ".parquet"])
def test_ids_are_those_of_plain_columns(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = sample()
    heads, relations, tails = map(list, zip(*rows, strict=True))
    plain = FactIndexer()
    plain.add("train", Block((heads, relations, tails), range(len(rows))), Report(""))
    path = tmp_path / f"facts{ending}"
    format_of(path).write(path, rows)
    monkeypatch.setattr(coded, "ARROW_BYTES", 0)
    # Several blocks; later ones repeat names of earlier ones.
    monkeypatch.setattr(tsv, "CHUNK", 1 << 12)
    names, facts, repeated, report = read(path, FactIndexer())
    assert names == [list(ids) for ids in plain.names]
    expected, expected_repeated = plain.split("train")
    assert facts.equal(expected)
    assert repeated == expected_repeated >= 50
    assert report.rows == len(rows)
    assert list(dict.fromkeys(rows)) == [
        (names[0][h], names[1][r], names[0][t]) for h, r, t in facts.tolist()
    ]


def test_bad_lines_in_a_large_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coded, "ARROW_BYTES", 0)
    path = tmp_path / "facts.tsv"
    for bad, reason in ((b"a\tr\t\xff\n", "not valid UTF-8"), (b"a\tr\t\n", "an empty name")):
        path.write_bytes(b"a\tr\tb\n" * 3 + bad + b"c\tr\td\n")
        names, facts, repeated, report = read(path, FactIndexer())
        assert (names, len(facts), repeated) == ([["a", "b", "c", "d"], ["r"]], 2, 2)
        assert [(reject.line, reject.reason) for reject in report.rejects] == [(4, reason)]
        assert report.accounted


@pytest.mark.parametrize("arrow_bytes", [0, 1 << 22])
def test_a_name_that_is_not_listed(
    tmp_path: Path, arrow_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coded, "ARROW_BYTES", arrow_bytes)
    path = tmp_path / "facts.tsv"
    path.write_text("a\tr\tb\n" * 4 + "b\tr\tx\n" + "y\tr\tx\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"facts\.tsv: line 5: 'x' is not listed in entities"):
        read(path, FactIndexer(["a", "b"], ["r"]))
    with pytest.raises(ValueError, match=r"facts\.tsv: line 1: 'r' is not listed in relations"):
        read(path, FactIndexer(["a", "b", "x", "y"], ["s"]))


@given(st.lists(st.integers(0, 9)))
def test_repeated_facts_leave_the_first(heads: list[int]) -> None:
    indexer = FactIndexer([str(number) for number in range(10)], ["r"])
    names = [str(head) for head in heads]
    indexer.add("all", Block((names, ["r"] * len(names), names), range(len(names))), Report(""))
    facts, repeated = indexer.split("all")
    assert facts[:, 0].tolist() == list(dict.fromkeys(heads))
    assert repeated == len(heads) - len(set(heads))


def test_the_graph_does_not_depend_on_arrow(tmp_path: Path) -> None:
    """TSV gives the same graph in a process without pyarrow."""
    path = tmp_path / "facts.tsv"
    tsv.write(path, sample(20_000))
    code = (
        "import sys\n"
        "from mocme.data.formats import coded\n"
        "from mocme.data.load import load\n"
        "coded.ARROW_BYTES = 0\n"
        "graph = load(sys.argv[1])\n"
        "assert bool(sys.modules.get('pyarrow')) == coded.HAS_ARROW\n"
        "print(coded.HAS_ARROW, graph.entities.digest(), graph.splits['train'].tolist())\n"
    )
    outputs = []
    for head in ("", "import sys\nsys.modules['pyarrow'] = None\n"):
        command = [sys.executable, "-c", head + code, str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.split(" ", 1))
    assert [has_arrow for has_arrow, _ in outputs] == ["True", "False"]
    assert outputs[0][1] == outputs[1][1]


def test_writers_take_a_graph_that_was_read_in_large_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coded, "ARROW_BYTES", 0)
    rows = list(dict.fromkeys(sample(500)))
    first, second = tmp_path / "one.tsv", tmp_path / "two.parquet"
    tsv.write(first, rows)
    for path, other in ((first, second), (second, first)):
        indexer = FactIndexer()
        read(path, indexer)
        graph = Graph(*indexer.vocabularies(), {"train": indexer.split("train")[0]})
        format_of(other).write(other, writers.fact_rows(graph, "train"))
        assert list(writers.fact_rows(graph, "train")) == rows
