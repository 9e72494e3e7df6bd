"""CSV is read as by a naive reader, and every line is accounted for."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pytest

from fact_files import NAMES, facts_of, put, read, rejects
from mocme.data.formats.kinds import delimited
from mocme.data.formats.report import Report
from mocme.data.formats.streams import BOM


def naive(data: bytes) -> tuple[list[tuple[int, list[bytes]]], list[int], list[int]]:
    """Rows with their lines, lines of misplaced quotes, blank lines: character by character."""
    data = data.removeprefix(BOM)
    data += b"" if data.endswith(b"\n") or not data else b"\n"
    rows, bad, blank = [], [], []
    start, line = 0, 1
    while start < len(data):
        cells, cell, state, end = [], b"", "start", start
        while state not in ("done", "bad"):
            char, after = data[end : end + 1], data[end + 1 : end + 2]
            end += 1
            if not char:
                state = "bad"
            elif state == "quoted":
                state = "closed" if char == b'"' else state
                cell += b"" if char == b'"' else char
            elif state == "closed" and char == b'"':
                state, cell = "quoted", cell + char
            elif char == b",":
                cells.append(cell)
                cell, state = b"", "start"
            elif char == b"\n" or (char == b"\r" and after == b"\n"):
                cells.append(cell)
                end += char == b"\r"
                state = "done"
            elif state == "closed" or char == b"\r" or (char == b'"' and state == "plain"):
                state = "bad"
            else:
                state = "quoted" if char == b'"' else "plain"
                cell += b"" if char == b'"' else char
        if state == "bad":
            bad.append(line)
            end = data.index(b"\n", start) + 1
        elif data[start:end] in (b"\n", b"\r\n"):
            blank.append(line)
        else:
            rows.append((line, cells))
        line += data.count(b"\n", start, end)
        start = end
    return rows, bad, blank


def check(path: Path, data: bytes) -> None:
    """Compare with the naive reading of the same data, below a header in line 1."""
    rows, bad, blank = naive(data)
    expected, misfits = [], []
    for line, cells in rows:
        try:
            names = [cell.decode() for cell in cells]
        except UnicodeDecodeError:
            names = []
        if len(names) == 3 and all(names):
            expected.append((line + 1, tuple(names)))
        else:
            misfits.append(line + 1)
    facts, lines, report = read(put(path, BOM + b"h,r,t\n" + data.removeprefix(BOM)))
    assert list(zip(lines, facts, strict=True)) == expected
    assert [reject.line for reject in report.rejects] == sorted(
        [*misfits, *(line + 1 for line in bad)]
    )
    assert (report.blank, report.comments) == (len(blank), 1)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 22])
def test_csv_is_read_as_by_a_naive_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(delimited, "CHUNK", chunk)
    pieces = [b",", b'"', b'""', b"\n", b"\r\n", b"\r", b"a", b"\xc3\xa9", b"\xff", b"\0", b"#"]
    rows = [b"a,b,c\n", b'"x\ny","""",z\r\n', b'a,"b, c",\xc3\xa9\n']
    source = random.Random(chunk)
    for trial in range(250):
        if trial % 2:
            data = b"".join(source.choices(pieces, [8, 4, 3, 4, 2, 1, 4, 1, 1, 1, 1], k=trial % 40))
        else:
            data = b"".join(source.choices([*rows, b'"', b"\n"], [6, 6, 6, 1, 1], k=trial % 20))
        check(tmp_path / "facts.csv", data)


@pytest.mark.parametrize("delimiter", [";", "|", "\t"])
def test_csv_with_another_delimiter(tmp_path: Path, delimiter: str) -> None:
    facts = facts_of(NAMES[-3000:])
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("s", "p", "o"), *facts])
    path = put(tmp_path / "facts.csv", text.getvalue())
    rows = [
        row
        for block in delimited.facts(path, Report(str(path)), delimiter=delimiter)
        for row in zip(*block.columns, strict=True)
    ]
    assert rows == facts
    unquoted = put(path, delimiter.join("hrt") + "\n")
    with pytest.raises(ValueError, match=r"seems to be several.*between them"):
        read(unquoted)
    with pytest.raises(ValueError, match="a delimiter is one of"):
        list(delimited.facts(path, Report(""), delimiter=":"))


def test_csv_rejects_have_their_lines(tmp_path: Path) -> None:
    data = (
        b'head,relation,tail\r\na,r,b\r\n"a\n\nb",r,c\n\na,r\na,r,"b\na,"r",b\na,r,"b"x\n'
        b'a,r"s,b\n,r,b\na,"",b\na,\xff,b\na,r,b\rc\na,r,"b\r\n"\n"a",r,b,c\na,r,"b'
    )
    rows, lines, report = read(put(tmp_path / "facts.csv", data))
    assert list(zip(lines, rows, strict=True)) == [
        (2, ("a", "r", "b")),
        (3, ("a\n\nb", "r", "c")),
        (9, ("a", "r", "b")),
        (16, ("a", "r", "b\r\n")),
    ]
    assert rejects(report) == [
        (7, "2 cells where the header has 3"),
        (8, "a misplaced quote"),
        (10, "a misplaced quote"),
        (11, "a misplaced quote"),
        (12, "an empty name"),
        (13, "an empty name"),
        (14, "not valid UTF-8"),
        (15, "a carriage return outside quotes"),
        (18, "4 cells where the header has 3"),
        (19, "a quote that never closes"),
    ]
    assert report.rejects[1].text == 'a,r,"b'


def test_a_quote_that_never_closes_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "CHUNK", 1 << 12)
    monkeypatch.setattr(delimited, "LONGEST", 1 << 14)
    data = 'h,r,t\na,r,"b\n' + "a,r,b\n" * 20_000
    _, lines, report = read(put(tmp_path / "facts.csv", data))
    assert rejects(report) == [(2, "a quote that never closes")]
    assert lines == list(range(3, 20_003))


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b'h,"r,t\n', "line 1: the header has a quote that never closes"),
        (b'\n\nh,"r"x,t\n', "line 3: the header has a misplaced quote"),
        (b"h,r,t\xff\n", "line 1: the header is not UTF-8; save the file as UTF-8"),
    ],
)
def test_headers_that_cannot_be_read(tmp_path: Path, header: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read(put(tmp_path / "facts.csv", header + b"a,r,b\n"))


def test_an_open_quote_costs_no_more_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither blank lines nor further quotes make the rest of a file be read again and again."""
    split = delimited._DelimitedReader._record
    for rest, rows in [
        (b"\n" * 5_000, 0),
        (b"\r\n" * 5_000, 0),
        (b"a,r,b\n" * 5_000, 5_000),
        (b'a,"r",b\n' * 5_000, 5_000),
        (b'a,r,"b\n' * 5_000, 0),
    ]:
        calls: list[int] = []

        def counted(*given: object, calls: list[int] = calls) -> object:
            calls.append(1)
            return split(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(delimited._DelimitedReader, "_record", counted)
        path = put(tmp_path / "facts.csv", b'h,r,t\na,r,"b"\na,r,"b\n' + rest)
        _, lines, report = read(path)
        monkeypatch.undo()
        assert len(lines) == rows + 1
        assert report.rejects[0].line == 3
        assert report.rejects[0].reason in ("a quote that never closes", "a misplaced quote")
        assert len(calls) <= max(3000, 2 * report.rejected)
