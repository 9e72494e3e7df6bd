"""Files are replaced atomically, or an error says why not."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from fact_files import read
from mocme.core.extras import remedy
from mocme.data.formats.kinds import delimited, parquet, tsv


def test_tsv_does_not_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "facts.tsv"
    rows = [("a", "\ufeffr", "t"), ("\ufeffa", "r", "t")]
    tsv.write(path, rows)
    assert read(path)[0] == rows
    with pytest.raises(ValueError, match="byte order mark where the file starts"):
        tsv.write(path, rows[::-1])
    assert read(path)[0] == rows


def test_an_unwritable_path_is_an_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for path, problem in [
        (tmp_path / "absent" / "facts.csv", "cannot be written .*check the folder"),
        (tmp_path / "folder.csv", "is not a regular file"),
        (Path("/dev/null"), "is not a regular file"),
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
    for action in (
        lambda: read(path),
        lambda: parquet.write(path, [("a", "r", "b")]),
        lambda: delimited.write(tmp_path / "facts.csv.zst", [("a", "r", "b")]),
    ):
        with pytest.raises(ValueError, match=re.escape(f"not installed; {remedy('tables')}")):
            action()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
