"""JSON lines hold names exactly, and other lines are rejected with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from fact_files import NAMES, facts_of, put, read, rejects
from mocme.data.formats.kinds import jsonl


def test_json_rejects_have_their_lines(tmp_path: Path) -> None:
    lines = [
        '{"h": "a", "r": "r", "t": "b", "weight": 1}',
        " \t",
        '{"h": "a", "r": "r"}',
        '{"h": "a", "r": 7, "t": "b"}',
        '{"h": "a", "r": null, "t": "b"}',
        '{"h": "a", "r": true, "t": "b"}',
        '{"h": ["a"], "r": "r", "t": "b"}',
        '{"h": {"a": 1}, "r": "r", "t": "b"}',
        '{"h": "a", "r": "r", "t": ""}',
        '["a", "r", "b"]',
        '{"h": "a", "r": "r", "t": "b", "h": "a"}',
        '{"h": "a", "r": "r", "t": "b"',
        '{"h": "a", "r": "r", "t": "b"} {}',
        '{"h": NaN, "r": "r", "t": "b"}',
        '{"h": "\\ud800", "r": "r", "t": "b"}',
        "[" * 100_000,
        '{"h": ' + "9" * 5000 + "}",
        ' {"t": "\\ud83d\\ude00", "r": "\\u0000", "h": "a\\nb"}\r',
        "nan",
    ]
    data = "\n".join(lines).encode() + b'\n{"h": "\xff", "r": "r", "t": "b"}'
    rows, numbers, report = read(put(tmp_path / "facts.jsonl", data))
    assert rows == [("a", "r", "b"), ("a\nb", "\0", "😀")]
    assert numbers == [1, 18]
    reasons = dict(rejects(report))
    assert list(reasons) == [*range(3, 18), 19, 20]
    for line, reason in [
        (3, "no key 't'"),
        (4, "'r' is a number, not a string"),
        (5, "'r' is null, not a string"),
        (6, "'r' is true or false, not a string"),
        (7, "'h' is a list, not a string"),
        (8, "'h' is an object, not a string"),
        (9, "an empty name"),
        (10, "a list where an object is expected"),
        (11, "the key 'h' occurs twice"),
        (15, "'h' contains half a surrogate pair, which is not a character"),
        (20, "not valid UTF-8"),
    ]:
        assert reasons[line] == reason
    for line in (12, 13, 14, 17, 19):
        assert reasons[line].startswith("not valid JSON (")
    assert "deep" in reasons[16] or reasons[16].startswith("not valid JSON")


def test_a_tail_in_json_lines_may_be_a_list(tmp_path: Path) -> None:
    lines = [
        '{"h": "a", "r": "r", "t": ["b", "c"]}',
        '{"h": "a", "r": "r", "t": "d"}',
        '{"h": "a", "r": "r", "t": []}',
        '{"h": "a", "r": "r", "t": ["e", 7]}',
        '{"h": "a", "r": "r", "t": ["e", ""]}',
        '{"h": "a", "r": ["r"], "t": ["e"]}',
        '{"h": "a", "r": "r", "t": ["\\ud800"]}',
        '{"h": "a", "r": "r", "t": ["f"]}',
    ]
    rows, numbers, report = read(put(tmp_path / "facts.jsonl", "\n".join(lines)))
    assert rows == [("a", "r", tail) for tail in "bcdf"]
    assert numbers == [1, 1, 2, 8]
    assert (report.lines, report.further, report.rows, report.empty) == (8, 1, 4, 1)
    assert rejects(report) == [
        (4, "'t' is a number, not a string"),
        (5, "an empty name"),
        (6, "'r' is a list, not a string"),
        (7, "'t' contains half a surrogate pair, which is not a character"),
    ]


def test_json_lines_in_small_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "CHUNK", 100)
    facts = facts_of(NAMES[-300:])
    path = tmp_path / "facts.jsonl"
    jsonl.write(path, facts)
    rows, lines, _ = read(path)
    assert rows == facts
    assert lines == list(range(1, 301))
