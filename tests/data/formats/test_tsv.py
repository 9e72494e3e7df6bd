"""Every line of a file is counted, and names are kept byte for byte."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocme.data.formats import tsv
from mocme.data.formats.streams import BOM

HOSTILE_NAMES = [
    "nan",
    "None",
    "007",
    "10280",
    " a",
    "a ",
    " ",
    '"a"',
    "'",
    'a"b',
    "\\t",
    "a\u2028b",
    "a\u0085b",
    "a\x0bb\x0cc\x1c",
    "a\0b",
    "a\rb",
    "\r",
    "#a",
    "\ufeffa",
    "Jūrmala",
    "名",
    "😀",
]


def write(folder: Path, data: bytes) -> Path:
    path = folder / "file.tsv"
    path.write_bytes(data)
    return path


def naive(data: bytes, columns: int) -> dict[str, list]:
    """The format line by line, by regular expressions."""
    data = re.sub(rb"\A\xef\xbb\xbf", b"", data)
    lines = [m[0] for m in re.finditer(rb"[^\n]*\n|[^\n]+\Z", data)]
    expected: dict[str, list] = {"rows": [], "blank": [], "comments": [], "rejects": []}
    for number, line in enumerate(lines, 1):
        line = re.sub(rb"\r?\n\Z", b"", line)
        tabs = line.count(b"\t")
        if not line:
            expected["blank"].append(number)
        elif line[:1] == b"#" and tabs != columns - 1:
            expected["comments"].append(number)
        else:
            try:
                row = tuple(line.decode("utf-8").split("\t"))
            except UnicodeDecodeError:
                row = ()
            is_row = len(row) == columns and "" not in row
            expected["rows" if is_row else "rejects"].append((number, row) if is_row else number)
    expected["lines"] = lines
    return expected


def check(data: bytes, columns: int) -> None:
    table, expected = tsv.parse(data, columns, "file.tsv"), naive(data, columns)
    report = table.report
    assert list(zip(table.lines, table.rows, strict=True)) == expected["rows"]
    assert [reject.line for reject in report.rejects] == expected["rejects"]
    assert (report.blank, report.comments) == (len(expected["blank"]), len(expected["comments"]))
    assert report.lines == len(expected["lines"])
    assert report.lines == report.rows + report.blank + report.comments + len(report.rejects)
    assert report.bom == data.startswith(BOM)
    counts = re.findall(
        r"(\d+) (?:lines?|rows?|duplicates?|blank|rejects?)\b", str(report).split("\n")[0]
    )
    assert report.lines == int(counts[0]) == sum(map(int, counts[1:]))
    assert len(counts) == 5


def test_every_line_of_random_bytes_is_accounted_for() -> None:
    pieces = [b"\t", b"\n", b"\r\n", b"\r", b"#", b"a", b"b", b"\xc3\xa9", b"\xff", b"\0", b'"']
    weights = [6, 3, 2, 1, 1, 3, 3, 1, 1, 1, 1]
    source = random.Random(0)
    for trial in range(4000):
        data = b"".join(source.choices(pieces, weights, k=source.randrange(30)))
        check(BOM * (trial % 7 == 0) + data, trial % 3 + 1)


@given(st.binary(max_size=60), st.integers(1, 3))
def test_every_line_of_any_bytes_is_accounted_for(data: bytes, columns: int) -> None:
    check(data, columns)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_are_kept_byte_for_byte(tmp_path: Path, name: str, end: str) -> None:
    rows = [(name, "r", "t"), ("h", name, "t"), ("h", "r", name + "!"), ("h", "r", "last")]
    text = "".join("\t".join(row) + end for row in rows)
    # Not the first row, because a byte order mark at the start of a file is not part of a name.
    table = tsv.read(write(tmp_path, ("x\tr\tt" + end + text).encode()), 3)
    assert table.rows == [("x", "r", "t"), *rows]
    assert not table.report.rejects


@given(
    st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\t\n"), min_size=1),
            min_size=3,
            max_size=3,
        ),
        max_size=8,
    )
)
def test_any_rows_survive_a_round_trip(rows: list[list[str]]) -> None:
    # A carriage return at the end of a line belongs to the line end.
    rows = [row if not row[-1].endswith("\r") else [*row[:-1], row[-1] + "."] for row in rows]
    data = BOM + "".join("\t".join(row) + "\n" for row in rows).encode()
    table = tsv.parse(data, 3, "file.tsv")
    assert [list(row) for row in table.rows] == rows
    assert table.report.sha256 == hashlib.sha256(data).hexdigest()


def test_a_carriage_return_without_a_line_feed_belongs_to_the_name(tmp_path: Path) -> None:
    table = tsv.read(write(tmp_path, b"a\tb\tc\r\na\tb\tc\r\r\na\tb\tc\r"), 3)
    assert [row[2] for row in table.rows] == ["c", "c\r", "c\r"]


def test_byte_order_mark_is_dropped_and_reported(tmp_path: Path) -> None:
    table = tsv.read(write(tmp_path, BOM + b"a\tb\tc\n"), 3)
    assert table.rows == [("a", "b", "c")]
    assert "byte order mark" in str(table.report)
    assert "byte order mark" not in str(tsv.read(write(tmp_path, b"a\tb\tc\n"), 3).report)


def test_rejects_have_number_reason_and_text(tmp_path: Path) -> None:
    data = b"a\tb\tc\n\nx\ty\n# note\na\t\tc\na\tb\t\xff\na\tb\tc\td\n"
    report = tsv.read(write(tmp_path, data), 3).report
    assert [(r.line, r.reason) for r in report.rejects] == [
        (3, "2 columns where 3 are expected"),
        (5, "an empty name"),
        (6, "not valid UTF-8"),
        (7, "4 columns where 3 are expected"),
    ]
    assert (report.rows, report.blank, report.comments) == (1, 1, 1)
    assert "line 3: 2 columns where 3 are expected: 'x\\ty'" in str(report)


def test_many_rejects_are_counted_and_some_shown(tmp_path: Path) -> None:
    text = str(tsv.read(write(tmp_path, b"x\n" * 1234), 3).report)
    assert "1,234 rejects" in text
    assert text.count("line ") == 5
    assert "and 1,229 more" in text


def test_the_first_row_determines_the_number_of_columns(tmp_path: Path) -> None:
    data = b"# made by hand\na\ttext\n\nb\t\nc\n#d\te\n# end\n"
    table = tsv.read(write(tmp_path, data), None)
    assert table.rows == [("a", "text"), ("b", ""), ("#d", "e")]
    assert [r.line for r in table.report.rejects] == [5]
    assert table.report.comments == 2


def test_unreadable_files_are_named_with_a_remedy(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.tsv", tmp_path):
        with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: .*check the path"):
            tsv.read(path, 3)


def test_lists_of_names_have_an_id_in_every_line(tmp_path: Path) -> None:
    names = tsv.read_names(write(tmp_path, b"#a\nnan\r\n a\n\n\n"))
    assert names.rows == [("#a",), ("nan",), (" a",)]
    assert tsv.read_names(write(tmp_path, b"")).rows == []
    for data, problem in [
        (b"a\n\nb\n", "line 2: blank or a comment"),
        (b"\na\n", "line 1: blank or a comment"),
        (b"a\n#b\tc\nd\n", "line 2: blank or a comment"),
        (b"a\nb\nb\n", "line 3: 'b' is already in line 2"),
        (b"a\nb\t1\n", "line 2: 2 columns"),
        (b"a\n\xff\n", "line 2: not valid UTF-8"),
    ]:
        with pytest.raises(ValueError, match=problem) as caught:
            tsv.read_names(write(tmp_path, data))
        assert "file.tsv" in str(caught.value)
