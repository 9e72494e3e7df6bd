"""Columns are found by the names in the header, or named by the caller."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet as pyarrow_parquet
import pytest

from fact_files import put, read
from mocme.data.formats.columns import HEADERS, FactColumns


def table(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    """A small table in the format of the path's ending."""
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
    for names in HEADERS:
        for header in (list(names), [name.title() for name in names]):
            table(path, [header[2], "note", *header[:2]], [["t", "x", "h", "r"]] * 2)
            assert read(path)[0] == [("h", "r", "t")] * 2
    table(path, ["start", "kind", "end", "h", "r", "t"], [list("123456")])
    assert read(path)[0] == [("4", "5", "6")]
    assert read(path, FactColumns("start", "kind", "end"))[0] == [("1", "2", "3")]
    assert read(path, FactColumns("end", "r", "start"))[0] == [("3", "5", "1")]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_ambiguous_and_missing_columns_are_errors(tmp_path: Path, ending: str) -> None:
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
