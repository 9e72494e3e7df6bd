"""Turtle states its triples, and blank nodes have stable names."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

pyoxigraph = pytest.importorskip("pyoxigraph", reason="needs pip install 'mocme[rdf]'")

from mocme.data.formats.kinds import turtle  # noqa: E402
from mocme.data.formats.rdf import XSD  # noqa: E402
from mocme.data.formats.report import Report  # noqa: E402
from rdf_files import RecordedLiterals, put, read  # noqa: E402


def test_turtle_is_read_as_its_triples(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        """@prefix a: <http://a/> . @base <http://b/> .
        a:x a:r <y>, a:z ; a:n 1, 2.5, 1e3, true ; a:t "plain", "deutsch"@de .
        _:me a:r [ a:r (a:x) ] .""",
        "file.ttl",
    )
    with RecordedLiterals() as kept:
        rows, lines, report = read(path, turtle.statements, literals=kept)
    first, others, end = (
        f"http://www.w3.org/1999/02/22-rdf-syntax-ns#{name}" for name in ("first", "rest", "nil")
    )
    # pyoxigraph determines the order of the two nodes, which is always the same.
    inner, outer = sorted(["_:b0", "_:b1"], key=[row[0] for row in rows].index)
    assert set(rows) == {
        ("http://a/x", "http://a/r", "http://b/y"),
        ("http://a/x", "http://a/r", "http://a/z"),
        ("_:me", "http://a/r", outer),
        (outer, "http://a/r", inner),
        (inner, first, "http://a/x"),
        (inner, others, end),
    }
    assert report.lines == 12
    assert report.literals == len(kept.values) == 6
    assert lines == sorted(lines)
    assert [tuple(value) for *_, value in kept.values] == [
        ("1", "", f"{XSD}integer"),
        ("2.5", "", f"{XSD}decimal"),
        ("1e3", "", f"{XSD}double"),
        ("true", "", f"{XSD}boolean"),
        ("plain", "", ""),
        ("deutsch", "de", ""),
    ]


def test_nodes_without_a_label_have_stable_and_distinct_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = random.Random(0)
    for trial in range(30):
        labels = [f"_:b{source.randrange(12)}" for _ in range(20)]
        nodes = [source.choice(["[]", label]) for label in labels]
        gaps = [source.choice([" ", "\n", "  # _:b3\n"]) for _ in labels]
        text = "".join(
            f"{node}{gap}<a:r> <a:{index}> ."
            for index, (node, gap) in enumerate(zip(nodes, gaps, strict=True))
        )
        path = put(tmp_path, text, "file.ttl")
        rows, *_ = read(path, turtle.statements)
        assert len(rows) == len(nodes)
        monkeypatch.setattr(turtle, "ROWS", source.randrange(1, 9))
        again, *_ = read(put(tmp_path, gzip.compress(text.encode()), "f.ttl"), turtle.statements)
        assert again == rows, trial
        # A name stands for one label, or for one node without a label.
        node_of_name: dict[str, str] = {}
        for index, (node, (head, *_)) in enumerate(zip(nodes, rows, strict=True)):
            label = node if node != "[]" else f"[{index}]"
            assert node_of_name.setdefault(head, label) == label
        assert len(node_of_name) == nodes.count("[]") + len({*nodes} - {"[]"})
    text = "@prefix : <a:> . _:b1:r[]._:x.y :r[]._:é:a _:b1."
    rows, *_ = read(put(tmp_path, text, "labels.ttl"), turtle.statements)
    assert rows == [("_:b1", "a:r", "_:b0"), ("_:x.y", "a:r", "_:b2"), ("_:é", "a:a", "_:b1")]


def test_errors_of_turtle_name_the_line(tmp_path: Path) -> None:
    path = put(tmp_path, "<a:a> <a:b> <a:c> .\n<a:a> <a:b>\n<c d> .\n", "file.ttl")
    with pytest.raises(ValueError, match=r"file.ttl: line 3: .*; correct it there"):
        list(turtle.statements(path, Report(str(path))))
    path = put(tmp_path, "\ufeff<x> <a:b> <<( <a:a> <a:b> <a:c> )>>, <y> .\n", "file.ttl")
    with pytest.raises(ValueError, match=r"file.ttl: line 1: .*; correct it there"):
        list(turtle.statements(path, Report(str(path))))
    rows, _, report = read(path, turtle.statements, base="http://a/b")
    assert rows == [("http://a/x", "a:b", "http://a/y")]
    assert report.bom
    assert [reject.reason[:30] for reject in report.rejects] == ["a statement about a statement,"]
    with pytest.raises(ValueError, match="the base 'x' is not an absolute IRI"):
        list(turtle.statements(path, Report(str(path)), base="x"))


def test_a_statement_that_is_too_long_for_pyoxigraph_is_an_error(tmp_path: Path) -> None:
    path = put(tmp_path, f'<a:a> <a:b> <a:c> .\n<a:a> <a:b> "\\U0001F600{"x" * (1 << 24)}" .\n')
    rows, _, report = read(path)
    assert len(rows) == 1
    assert [reject.line for reject in report.rejects] == [2]
    assert "maximal size" in report.rejects[0].reason
    with pytest.raises(ValueError, match=r"longer than 16 MiB; shorten it"):
        list(turtle.statements(path, Report(str(path))))
