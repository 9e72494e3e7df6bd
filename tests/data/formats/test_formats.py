"""Every format gives back the names that it was given, or says which one it cannot hold."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import random
import re
import string
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow
import pyarrow.parquet as pyarrow_parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mocme.data.formats import cypher, delimited, jsonl, openke, parquet, tables, writers
from mocme.data.formats.named import HEADERS, FactColumns
from mocme.data.formats.registry import ENDINGS, FORMATS, format_of
from mocme.data.formats.report import Report
from mocme.data.formats.streams import BOM
from mocme.data.graph import Graph, Vocabulary
from mocme.data.ingest.indexer import FactIndexer

Row = tuple[str, str, str]
PIECES = [
    *("\t", "\n", "\r", "\r\n", '"', '""', "'", "\\", "\\n", "\\u0041", "\\\\", "`", "``"),
    *(",", ";", "|", ":", "#", "=1+1", "+", "@", "-", "%0A", "$", "{", "}", "[", "]", "<", ">"),
    *("nan", "NaN", "None", "null", "true", "007", "1e5", "0", "-1", "_:b", "//", "/*", "head"),
    *("\0", "\x01", "\x0b", "\x0c", "\x1c", "\x7f", "\x85", "\u2028", "\u2029", "\ufeff", " "),
    *("\u202e", "\u200d", "\u00a0", "אב", "مرحبا", "名", "é", "e\u0301", "😀", "👩\u200d👩"),
    *("\uffff", "\ufffd", "\ue000", "\U0010ffff", "\ud7ff", "a", "b"),
]


def hostile(count: int = 10_000) -> list[str]:
    """Distinct names made of what formats trip over, the pieces themselves among them."""
    source = random.Random(0)
    found = dict.fromkeys([*PIECES, "x" * 200_000, '"\n,' * 70_000, "é\t" * 3_000])
    while len(found) < count:
        found["".join(source.choices(PIECES, k=source.randrange(1, 7)))] = None
    return list(found)


NAMES = hostile()


def facts_of(names: list[str]) -> list[Row]:
    """A fact for each name, in which it is the head; it is a relation and a tail elsewhere."""
    total = len(names)
    places = range(total)
    return [(names[p], names[(7 * p + 1) % total], names[(3 * p + 2) % total]) for p in places]


def read(path: Path, columns: FactColumns | None = None) -> tuple[list[Row], list[int], Report]:
    """All rows of a file, their lines, and the account, which must be complete."""
    report = Report(str(path))
    rows: list[Row] = []
    lines: list[int] = []
    for block in format_of(path).facts(path, report, columns):
        assert len(block.columns) == 3
        rows += zip(*block.columns, strict=True)
        lines += block.lines
    assert report.accounted
    assert report.rows == len(rows) == len(lines)
    return rows, lines, report


def put(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def rejects(report: Report) -> list[tuple[int, str]]:
    return [(reject.line, reject.reason) for reject in report.rejects]


def in_tsv(name: str) -> bool:
    return not ("\t" in name or "\n" in name or name.endswith("\r"))


def in_openke(name: str) -> bool:
    return "\n" not in name and not name.endswith((" ", "\t"))


def in_cypher(name: str) -> bool:
    return "\0" not in name and len(name.encode()) <= 8000


HOLDS: dict[str, Callable[[str], bool]] = {".tsv": in_tsv, ".cypher": in_cypher}


def test_the_names_are_hostile() -> None:
    assert len(set(NAMES)) == len(NAMES) == 10_000
    for holds in (in_tsv, in_openke, in_cypher):
        assert 3000 < sum(map(holds, NAMES)) < 10_000


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet", ".tsv"])
def test_names_survive_a_round_trip(tmp_path: Path, ending: str) -> None:
    facts = facts_of([name for name in NAMES if HOLDS.get(ending, bool)(name)])
    path = tmp_path / f"facts{ending}"
    format_of(path).write(path, iter(facts))
    rows, lines, report = read(path)
    assert rows == facts
    assert lines == sorted(lines)
    assert not report.rejects
    assert len(report.sha256) == 64
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@settings(max_examples=15)
@given(st.lists(st.tuples(*[st.text(st.characters(codec="utf-8"), min_size=1)] * 3), max_size=6))
def test_any_names_survive_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, facts: list[Row]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    for ending in (".csv", ".jsonl", ".parquet"):
        format_of(ending_path := folder / f"any{ending}").write(ending_path, facts)
        assert read(ending_path)[0] == facts


@pytest.mark.parametrize("ending", [".tsv", ".cypher"])
def test_names_that_do_not_fit_are_refused_by_name(tmp_path: Path, ending: str) -> None:
    path = put(tmp_path / f"facts{ending}", "what was there")
    refused = [name for name in NAMES if not HOLDS[ending](name)]
    for name in refused[:: len(refused) // 300]:
        row = (name, "r", "t") if len(name) > 1000 else ("h", name, "t")
        row = ("h", "r", name) if ending == ".tsv" else row
        with pytest.raises(ValueError, match=r"cannot hold; .*JSON lines") as caught:
            format_of(path).write(path, [("a", "b", "c"), row])
        assert repr(name[:80])[:-1] in str(caught.value)
        assert str(path) in str(caught.value)
    assert path.read_text() == "what was there"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_would_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "facts.tsv"
    rows = [("a", "\ufeffr", "t"), ("\ufeffa", "r", "t")]
    writers.write_tsv(path, rows)
    assert read(path)[0] == rows
    with pytest.raises(ValueError, match="byte order mark where the file starts"):
        writers.write_tsv(path, rows[::-1])
    assert read(path)[0] == rows


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl", ".parquet", ".cypher"])
def test_names_that_no_format_holds(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"facts{ending}"
    for name, problem in [("", "a name is empty"), ("a\ud800", r"name 'a\\ud800' holds half a")]:
        with pytest.raises(ValueError, match=problem):
            format_of(path).write(path, [("a", "r", "b"), ("a", "r", name)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_no_rows(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"facts{ending}"
    format_of(path).write(path, [])
    assert read(path)[0] == []


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl"])
@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_compressed(tmp_path: Path, ending: str, packed: str) -> None:
    facts = facts_of([name for name in NAMES[-500:] if in_tsv(name)])
    plain, path = tmp_path / f"facts{ending}", tmp_path / f"facts{ending}{packed}"
    for target in (plain, path):
        format_of(target).write(target, facts)
    assert path.stat().st_size < plain.stat().st_size
    assert read(path)[0] == read(plain)[0] == facts
    before = path.read_bytes()
    format_of(path).write(path, facts)
    assert path.read_bytes() == before


def test_standard_input_and_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for known in FORMATS:
        known.write("-", [("a", "r", "b")])
        data = capfdbinary.readouterr().out
        path = tmp_path / f"facts{known.endings[0]}"
        known.write(path, [("a", "r", "b")])
        assert data == path.read_bytes()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        (block,) = known.facts("-", report := Report("-"))
        assert [list(column) for column in block.columns] == [["a"], ["r"], ["b"]]
        assert report.accounted
        assert report.sha256 == hashlib.sha256(data).hexdigest()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        if known.name == "Parquet":
            with pytest.raises(ValueError, match="-: is no Parquet file"):
                list(known.facts("-", Report("-")))


def test_an_error_on_the_way_leaves_the_old_file(tmp_path: Path) -> None:
    def broken() -> Iterable[Row]:
        yield ("a", "r", "b")
        raise RuntimeError("no more")

    for known in FORMATS:
        path = put(tmp_path / f"facts{known.endings[0]}", "old")
        with pytest.raises(RuntimeError, match="no more"):
            known.write(path, broken())
        assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == len(FORMATS)


def test_where_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for path, problem in [
        (tmp_path / "absent" / "facts.csv", "cannot be written .*check the folder"),
        (tmp_path / "folder.csv", "is no regular file"),
        (Path("/dev/null"), "is no regular file"),
    ]:
        with pytest.raises(ValueError, match=problem):
            delimited.write(path, [("a", "r", "b")])
    with pytest.raises(ValueError, match=r"by itself; name it \.parquet"):
        parquet.write(tmp_path / "facts.parquet.gz", [("a", "r", "b")])
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "facts.csv")
    delimited.write(link, [("a", "r", "b")])
    assert link.is_symlink()
    assert read(tmp_path / "facts.csv")[0] == [("a", "r", "b")]


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "facts.parquet"
    parquet.write(path, [("a", "r", "b")])
    for name in ("pyarrow", "zstandard"):
        monkeypatch.setitem(sys.modules, name, None)
    for act in (
        lambda: read(path),
        lambda: parquet.write(path, [("a", "r", "b")]),
        lambda: delimited.write(tmp_path / "facts.csv.zst", [("a", "r", "b")]),
    ):
        with pytest.raises(ValueError, match=r"not installed; pip install 'mocme\[tables\]'"):
            act()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_formats_are_known_by_their_endings() -> None:
    for name, right in [
        ("a.csv", "CSV"),
        ("a.CSV.GZ", "CSV"),
        ("a.ndjson.zst", "JSON lines"),
        ("a.jsonl", "JSON lines"),
        ("a.parquet", "Parquet"),
        ("a.txt", "TSV"),
        ("a.cypher", "Cypher"),
    ]:
        assert format_of(name).name == right
    assert ".cypher" not in ENDINGS
    with pytest.raises(ValueError, match=r"known: \.tsv, \.txt, \.csv, \.jsonl, \.ndjson, \.parq"):
        format_of("a.xlsx")
    with pytest.raises(ValueError, match="columns of TSV have no names"):
        format_of("a.tsv").facts("a.tsv", Report("a.tsv"), FactColumns("h", "r", "t"))
    with pytest.raises(ValueError, match="Cypher is written, not read"):
        format_of("a.cypher").facts("a.cypher", Report("a.cypher"))


# Columns by name.


def table(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    """A small table in the format that the path ends with."""
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    elif path.suffix == ".jsonl":
        put(path, "".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows))
    else:
        columns = [pyarrow.array(column) for column in zip(*rows, strict=True)]
        pyarrow_parquet.write_table(pyarrow.Table.from_arrays(columns, header), path)
    return path


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_columns_are_found_by_their_names(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"facts{ending}"
    for known in HEADERS:
        for header in (list(known), [name.title() for name in known]):
            table(path, [header[2], "note", *header[:2]], [["t", "x", "h", "r"]] * 2)
            assert read(path)[0] == [("h", "r", "t")] * 2
    table(path, ["start", "kind", "end", "h", "r", "t"], [list("123456")])
    assert read(path)[0] == [("4", "5", "6")]
    assert read(path, FactColumns("start", "kind", "end"))[0] == [("1", "2", "3")]
    assert read(path, FactColumns("end", "r", "start"))[0] == [("3", "5", "1")]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_columns_that_cannot_be_told(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"facts{ending}"
    for header, columns, problem in [
        (["x", "r", "t"], None, "none of the usual names .*say which.*here are 'x', 'r', 't'"),
        (["H", "h", "r", "t"], None, "2 columns named 'h', one is needed"),
        (["h", "r", "t", "s", "p", "o"], None, "both h r t and s p o are columns; say which"),
        (
            ["h", "r", "t"],
            FactColumns("h", "r", "T"),
            "no column named 'T'.*here are 'h', 'r', 't'",
        ),
    ]:
        table(path, header, [["x"] * len(header)])
        with pytest.raises(ValueError, match=problem) as caught:
            read(path, columns)
        assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(ValueError, match="three different columns"):
        FactColumns("h", "r", "h")


# CSV.


def naive(data: bytes) -> tuple[list[tuple[int, list[bytes]]], list[int], list[int]]:
    """Rows with their lines, lines of misplaced quotes, blank lines: character by character."""
    data = data.removeprefix(BOM)
    data += b"" if data.endswith(b"\n") or not data else b"\n"
    rows, bad, blank = [], [], []
    at, line = 0, 1
    while at < len(data):
        cells, cell, state, end = [], b"", "start", at
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
            end = data.index(b"\n", at) + 1
        elif data[at:end] in (b"\n", b"\r\n"):
            blank.append(line)
        else:
            rows.append((line, cells))
        line += data.count(b"\n", at, end)
        at = end
    return rows, bad, blank


def check_csv(path: Path, data: bytes) -> None:
    """The same as the naive reading, under a header in line 1."""
    rows, bad, blank = naive(data)
    good, wrong = [], []
    for line, cells in rows:
        try:
            names = [cell.decode() for cell in cells]
        except UnicodeDecodeError:
            names = []
        fits = len(names) == 3 and all(names)
        good += [(line + 1, tuple(names))] if fits else []
        wrong += [] if fits else [line + 1]
    found, lines, report = read(put(path, BOM + b"h,r,t\n" + data.removeprefix(BOM)))
    assert list(zip(lines, found, strict=True)) == good
    assert sorted(reject.line for reject in report.rejects) == sorted(
        [*wrong, *(line + 1 for line in bad)]
    )
    assert (report.blank, report.comments) == (len(blank), 1)
    assert [reject.line for reject in report.rejects] == sorted(r.line for r in report.rejects)


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
        check_csv(tmp_path / "facts.csv", data)


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
        ("head,relation,tail\n".encode("utf-16"), "line 1: the header is not UTF-8"),
    ],
)
def test_headers_that_cannot_be_read(tmp_path: Path, header: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read(put(tmp_path / "facts.csv", header + b"a,r,b\n"))


# JSON lines.


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
    found = dict(rejects(report))
    assert list(found) == [*range(3, 18), 19, 20]
    for line, reason in [
        (3, "no key 't'"),
        (4, "'r' is a number, not a string"),
        (5, "'r' is null, not a string"),
        (6, "'r' is true or false, not a string"),
        (7, "'h' is a list, not a string"),
        (8, "'h' is an object, not a string"),
        (9, "an empty name"),
        (10, "a list where an object is expected"),
        (11, "the key 'h' stands twice"),
        (15, "'h' holds half a surrogate pair, which is no character"),
        (20, "not valid UTF-8"),
    ]:
        assert found[line] == reason
    for line in (12, 13, 14, 17, 19):
        assert found[line].startswith("not valid JSON (")
    assert "deep" in found[16] or found[16].startswith("not valid JSON")


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
        (7, "'t' holds half a surrogate pair, which is no character"),
    ]


def test_json_lines_in_small_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "CHUNK", 100)
    facts = facts_of(NAMES[-300:])
    path = tmp_path / "facts.jsonl"
    jsonl.write(path, facts)
    rows, lines, _ = read(path)
    assert rows == facts
    assert lines == list(range(1, 301))


# Parquet.


def test_parquet_takes_strings_only(tmp_path: Path) -> None:
    path = tmp_path / "facts.parquet"

    def put_relations(relations: pyarrow.Array) -> None:
        columns = {"h": ["a", "b"], "r": relations, "t": ["x", "y"]}
        pyarrow_parquet.write_table(pyarrow.table(columns), path)

    text = pyarrow.string()
    for kind in (
        text,
        pyarrow.large_string(),
        pyarrow.string_view(),
        pyarrow.dictionary(pyarrow.int8(), text),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.large_string()),
    ):
        put_relations(pyarrow.array(["r", "s"], text).cast(kind))
        assert read(path)[0] == [("a", "r", "x"), ("b", "s", "y")]
    put_relations(pyarrow.array([["a"], ["b"]]))
    with pytest.raises(ValueError, match=r"the column 'r' holds list.*write a row for each value"):
        read(path)
    for values in ([7, 8], [1.0, float("nan")], [b"a", b"b"], [True, False], [None] * 2):
        put_relations(pyarrow.array(values))
        with pytest.raises(ValueError, match=r"the column 'r' holds .*cast it to string first"):
            read(path)


def test_other_columns_of_parquet_are_written_out(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    columns = {
        "name": ["a", "b", None],
        "year": [1999, None, 7],
        "share": [0.25, 1e22, None],
        "day": pyarrow.array([0, 1, None], pyarrow.date32()),
        "kind": pyarrow.array(["x", None, "x"]).dictionary_encode(),
        "list": [["a"], ["b"], None],
    }
    pyarrow_parquet.write_table(pyarrow.table(columns), path)
    names = list(columns)[:-1]
    (block,) = tables.cells(path, Report(str(path)), names)
    assert list(zip(*block.columns, strict=True)) == [
        ("a", "1999", "0.25", "1970-01-01", "x"),
        ("b", "", "1e+22", "1970-01-02", ""),
        ("", "7", "", "", "x"),
    ]
    with pytest.raises(ValueError, match=r"the column 'list' holds list.*a row for each value"):
        list(tables.cells(path, Report(str(path)), ["name", "list"]))


def test_parquet_rows_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "NAMES", 5)
    path = tmp_path / "odd [name]*~.parquet"
    heads: list[str | None] = [f"h{n}" for n in range(100)]
    tails: list[str | None] = [f"t{n}" for n in range(100)]
    heads[12], tails[50], heads[99] = None, "", None
    table = pyarrow.table({"h": heads, "r": ["r"] * 100, "t": tails})
    pyarrow_parquet.write_table(table, path, row_group_size=11)
    rows, lines, report = read(path)
    assert rejects(report) == [(13, "'h' is null"), (51, "an empty name"), (100, "'h' is null")]
    assert lines == [n for n in range(1, 101) if n not in (13, 51, 100)]
    assert rows == [(f"h{n - 1}", "r", f"t{n - 1}") for n in lines]


@pytest.mark.parametrize("dictionary", [True, False])
def test_text_in_parquet_that_is_no_utf8(tmp_path: Path, dictionary: bool) -> None:
    path = tmp_path / "facts.parquet"
    places = pyarrow.array([0, 1, 3], pyarrow.int32()).buffers()[1]
    odd = pyarrow.Array.from_buffers(
        pyarrow.string(), 2, [None, places, pyarrow.py_buffer(b"a\xff\xfe")]
    )
    table = pyarrow.table({"h": odd, "r": ["r", "r"], "t": ["x", "y"]})
    pyarrow_parquet.write_table(table, path, use_dictionary=dictionary)
    rows, lines, report = read(path)
    assert (rows, lines) == ([("a", "r", "x")], [1])
    assert rejects(report) == [(2, "not valid UTF-8")]


def test_parquet_is_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "BATCH", 64 // parquet.GROUP)
    path = tmp_path / "facts.parquet"
    facts = facts_of(NAMES[:1000])
    parquet.write(path, facts)
    groups = pyarrow_parquet.ParquetFile(path).metadata
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [64] * 15 + [40]
    assert read(path)[0] == facts
    parquet.write(path, [])
    assert read(path)[0] == []


def test_files_that_are_no_parquet(tmp_path: Path) -> None:
    path = tmp_path / "facts.parquet"
    parquet.write(path, [("a", "r", "b")] * 100)
    whole = path.read_bytes()
    for data in (b"", b"h,r,t\n", gzip.compress(whole)):
        with pytest.raises(ValueError, match="is no Parquet file"):
            read(put(path, data))
    for data in (whole[:-1], whole[:40], b"PAR1"):
        with pytest.raises(ValueError, match="cannot be read as Parquet"):
            read(put(path, data))
    with pytest.raises(ValueError, match=r"cannot be read .*check the path"):
        read(tmp_path / "absent.parquet")


def test_a_damaged_parquet_file_does_not_end_the_process(tmp_path: Path) -> None:
    # `damaged.parquet` came of scripts/fuzz_formats.py (seed 1, file 3020, written by polars). It
    # made a reader abort, which no test in its own process would outlive.
    path = Path(__file__).with_name("damaged.parquet")
    code = (
        "import sys\n"
        "from mocme.data.formats import parquet\n"
        "from mocme.data.formats.report import Report\n"
        "try:\n"
        "    list(parquet.facts(sys.argv[1], Report(sys.argv[1])))\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}: cannot be read as Parquet (")
    assert "export it again" in done.stdout


# OpenKE.


def graph(names: list[str], splits: dict[str, list[tuple[int, int, int]]]) -> Graph:
    facts = {s: torch.tensor(rows, dtype=torch.int64).reshape(-1, 3) for s, rows in splits.items()}
    return Graph(Vocabulary(names), Vocabulary(names[::-1], "relation"), facts)


def read_openke(folder: Path) -> tuple[FactIndexer, dict[str, Report]]:
    found = openke.read(folder)
    collector = FactIndexer(found.entities, found.relations, openke.LISTS)
    reports = {}
    for split, path in found.files.items():
        reports[split] = report = Report(str(path))
        for block in found.facts(split, report):
            collector.add(split, block, report)
        assert report.accounted
    assert all(report.accounted for report in found.reports)
    return collector, reports


def test_openke_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in NAMES if in_openke(name)]
    source, total = random.Random(1), len(names)
    rows = [tuple(source.randrange(total) for _ in range(3)) for _ in range(6000)]
    splits = {"train": rows[:4000], "valid": rows[4000:5000], "test": rows[5000:], "known": []}
    openke.write(tmp_path / "folder", graph(names, splits))  # type: ignore[arg-type]
    assert openke.is_folder(tmp_path / "folder")
    for chunk in (1 << 22, 1 << 10):
        monkeypatch.setattr(openke, "CHUNK", chunk)
        collector, reports = read_openke(tmp_path / "folder")
        entities, relations = collector.vocabularies()
        assert list(entities) == names
        assert list(relations) == names[::-1]
        for split, facts in splits.items():
            assert collector.split(split)[0].tolist() == list(map(list, dict.fromkeys(facts)))
            assert reports[split].rows == len(facts)


def test_openke_refuses_names_that_it_cannot_hold(tmp_path: Path) -> None:
    refused = [name for name in NAMES if not in_openke(name)]
    for name in refused[:: len(refused) // 100]:
        with pytest.raises(ValueError, match=r"an OpenKE list cannot hold; .*JSON") as caught:
            openke.write(tmp_path, graph(["a", name, "b"], {"train": [(0, 0, 1)]}))
        assert repr(name[:80])[:-1] in str(caught.value)
    assert not list(tmp_path.iterdir())
    openke.write(tmp_path, graph(["a", "b"], {"train": [(0, 1, 1)], "test": [(1, 1, 1)]}))
    with pytest.raises(ValueError, match=r"holds test2id.txt, but this graph has no split 'test'"):
        openke.write(tmp_path, graph(["a", "b"], {"train": [(0, 0, 1)]}))


GOOD = {
    "entity2id.txt": b"3\r\na  b\t\t1\r\n\tc d 7 2 \r\n e\t0\r\n\r\n",
    "relation2id.txt": b"\xef\xbb\xbf2\nr s 0\nr\ts\t1",
    "train2id.txt": b"3\n0 2 1\n 1\t0  0 \r\n\n2 2 1",
    "valid2id.txt": b"0\n",
}


def folder_of(folder: Path, **changed: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in {**GOOD, **{f"{key}2id.txt": data for key, data in changed.items()}}.items():
        put(folder / name, data)
    return folder


def test_openke_lines_are_head_tail_relation(tmp_path: Path) -> None:
    found = openke.read(folder_of(tmp_path))
    assert found.entities == [" e", "a  b", "\tc d 7"]
    assert found.relations == ["r s", "r\ts"]
    assert list(found.files) == ["train", "valid"]
    report = Report("train2id.txt")
    blocks = list(found.facts("train", report))
    assert [row for block in blocks for row in zip(*block.columns, strict=True)] == [
        (" e", "r\ts", "\tc d 7"),
        ("a  b", "r s", " e"),
        ("\tc d 7", "r\ts", "\tc d 7"),
    ]
    assert [line for block in blocks for line in block.lines] == [2, 3, 5]
    assert (report.lines, report.rows, report.blank, report.comments) == (5, 3, 1, 1)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"entity": b""}, "entity2id.txt: is empty; line 1 is the number of lines"),
        ({"entity": b"a 0\nb 1\n"}, "entity2id.txt: line 1: 'a 0' is not the number of lines"),
        ({"entity": b"2\na 0\n"}, "entity2id.txt: line 1: says that 2 lines follow, but 1 do"),
        ({"entity": b"1\na 0\nb 1\n"}, "line 1: says that 1 lines follow, but 2 do"),
        ({"entity": b"9" * 18 + b"\na 0\n"}, "lines follow, but 1 do; the file may be cut off"),
        ({"relation": b"2\nr 0\nr 1\n"}, "relation2id.txt: line 3: 'r' stands already in line 2"),
        ({"relation": b"2\nr 0\ns 0\n"}, "line 3: the id 0 of 's' is given already in line 2"),
        ({"relation": b"2\nr 2\ns 0\n"}, "line 2: the id 2 of 'r' is not below 2"),
        ({"relation": b"2\nr 0\n 1\n"}, "relation2id.txt: line 3: ' 1' is not NAME, space or tab"),
        ({"relation": b"2\nr 0\ns -1\n"}, "line 3: 's -1' is not NAME, space or tab, ID"),
        ({"relation": b"2\nr 0\ns\n"}, "line 3: 's' is not NAME"),
        ({"relation": b"2\nr 0\n\xff 1\n"}, "line 3: .* is not valid UTF-8"),
        ({"train": b""}, "train2id.txt: is empty"),
        ({"train": b"0 1 2\n"}, "train2id.txt: line 1: '0 1 2' is not the number of lines"),
        ({"train": b"2\n0 1 1\n"}, "train2id.txt: line 1: says that 2 lines follow, but 1 do"),
        ({"train": b"2\n0 1 1\n\n0 3 1\n"}, "line 4: the tail 3 is not in entity2id.txt, which en"),
        ({"train": b"1\n3 0 1\n"}, "line 2: the head 3 is not in entity2id.txt, which ends at 2"),
        ({"train": b"1\n0 1 2\n"}, "relation 2 is not in relation2id.txt.*line is HEAD TAIL REL"),
    ],
)
def test_openke_defects_are_named(tmp_path: Path, changed: dict[str, bytes], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        read_openke(folder_of(tmp_path, **changed))
    assert str(caught.value).startswith(f"{tmp_path}/")


def test_openke_rejects_have_their_lines(tmp_path: Path) -> None:
    data = b"6\n0 1 1\n0 1\n\n0 1 1 1\na b c\n-1 0 0\n0 1 9999999999999999999\n"
    _, reports = read_openke(folder_of(tmp_path, train=data))
    report = reports["train"]
    assert report.rows == 1
    assert [reject.line for reject in report.rejects] == [3, 5, 6, 7, 8]
    assert {reject.reason for reject in report.rejects} == {"not three ids (HEAD TAIL RELATION)"}


def test_openke_files_that_are_absent(tmp_path: Path) -> None:
    assert not openke.is_folder(tmp_path)
    for name in ("train2id.txt", "relation2id.txt"):
        folder = folder_of(tmp_path / "folder")
        (folder / name).unlink()
        with pytest.raises(ValueError, match=name):
            openke.read(folder)


# Cypher.


def unescaped(text: str) -> str:
    r"""What Neo4j does first: ``\uXXXX`` is a character, unless its backslash is escaped."""
    return re.sub(
        r"\\(?:u+([0-9A-Fa-f]{4})|.)",
        lambda match: chr(int(match[1], 16)) if match[1] else match[0],
        text,
        flags=re.DOTALL,
    )


def parse_cypher(text: str) -> list[Row]:
    """The facts in statements as ours, by a small tokeniser."""
    token = re.compile(r'"((?:[^"\\]|\\.)*)"|`((?:[^`]|``)*)`|(;)|[^"`;]+', re.DOTALL)
    back = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"'}
    rows: list[Row] = []
    names: list[str] = []
    kind = ""
    for match in token.finditer(unescaped(text)):
        name, found, end = match.groups()
        if name is not None:
            names.append(re.sub(r"\\(.)", lambda m: back[m[1]], name, flags=re.DOTALL))
        elif found is not None:
            kind = found.replace("``", "`")
        elif end:
            rows += [(h, kind, t) for h, t in zip(names[0::2], names[1::2], strict=True)]
            names = []
    return rows


def test_cypher_says_what_it_was_given(tmp_path: Path) -> None:
    facts = facts_of([name for name in NAMES if in_cypher(name)])
    facts += [(f"h{n}", "many", f"t{n}") for n in range(2500)]
    path = tmp_path / "facts.cypher"
    cypher.write(path, facts)
    text = path.read_bytes().decode()
    assert sorted(parse_cypher(text)) == sorted(facts)
    assert set(text) & set(map(chr, range(32))) == {"\n"}
    assert text.startswith("CREATE CONSTRAINT ")
    assert text.count("MERGE (head)-[:`many`]->(tail);") == 3
    cypher.write(path, facts)
    assert path.read_bytes().decode() == text


def test_cypher_limits(tmp_path: Path) -> None:
    path = tmp_path / "facts.cypher"
    for row, problem in [
        (("a", "r", "é" * 4001), "more than 8,000 bytes, which the index of Neo4j cannot hold"),
        (("a", "r" * 65_535, "b"), "more than 65,534 characters, which a type cannot hold"),
        (("a", "r\0", "b"), "a null character, which the type of a relationship cannot hold"),
    ]:
        with pytest.raises(ValueError, match=problem):
            cypher.write(path, [row])
    cypher.write(path, [("é" * 4000, "r" * 65_534, "\0")])


# Anything at all.


def test_damaged_files_are_accounted_for(tmp_path: Path) -> None:
    source = random.Random(2)
    facts = facts_of([name for name in NAMES[-300:] if in_tsv(name)])[:40]
    for known in FORMATS:
        path = tmp_path / f"facts{known.endings[0]}"
        known.write(path, facts)
        whole, messages = path.read_bytes(), []
        for _ in range(50):
            data = bytearray(whole)
            for _ in range(source.randrange(1, 4)):
                place = source.randrange(len(data))
                data[place : place + source.randrange(3)] = source.randbytes(source.randrange(3))
            put(path, bytes(data))
            try:
                read(path)
            except ValueError as error:
                messages.append(str(error))
        assert all(message.startswith(str(path)) for message in messages)


def test_the_pieces_hold_every_printable_sign() -> None:
    signs = set("".join(PIECES))
    assert {'"', "'", "`", "\\", ",", ";", "|", "\t", "\n", "\r", "\0", "\ufeff"} <= signs
    assert signs - set(string.printable)
