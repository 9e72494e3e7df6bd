"""Parquet is read as strings, row by row, and damage is an error."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet as pyarrow_parquet
import pytest

from fact_files import NAMES, facts_of, put, read, rejects
from mocme.data.formats import tables, writers
from mocme.data.formats.kinds import parquet
from mocme.data.formats.report import Report


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
    monkeypatch.setattr(parquet, "NAME_ROWS", 5)
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
def test_text_in_parquet_that_is_not_utf8(tmp_path: Path, dictionary: bool) -> None:
    path = tmp_path / "facts.parquet"
    offsets = pyarrow.array([0, 1, 3], pyarrow.int32()).buffers()[1]
    invalid = pyarrow.Array.from_buffers(
        pyarrow.string(), 2, [None, offsets, pyarrow.py_buffer(b"a\xff\xfe")]
    )
    table = pyarrow.table({"h": invalid, "r": ["r", "r"], "t": ["x", "y"]})
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


def test_files_that_are_not_parquet(tmp_path: Path) -> None:
    path = tmp_path / "facts.parquet"
    parquet.write(path, [("a", "r", "b")] * 100)
    intact = path.read_bytes()
    for data in (b"", b"h,r,t\n", gzip.compress(intact)):
        with pytest.raises(ValueError, match="is not a Parquet file"):
            read(put(path, data))
    for data in (intact[:-1], intact[:40], b"PAR1"):
        with pytest.raises(ValueError, match="cannot be read as Parquet"):
            read(put(path, data))
    with pytest.raises(ValueError, match=r"cannot be read .*check the path"):
        read(tmp_path / "absent.parquet")


def test_a_damaged_parquet_file_does_not_end_the_process(tmp_path: Path) -> None:
    # `damaged.parquet` is a file of scripts/fuzz_formats.py (seed 1, file 3020, written by polars).
    # It made a reader abort, which ends the process, so it is read in another process.
    path = Path(__file__).with_name("damaged.parquet")
    code = (
        "import sys\n"
        "from mocme.data.formats.kinds import parquet\n"
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
