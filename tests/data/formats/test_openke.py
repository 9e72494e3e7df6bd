"""OpenKE folders give back a graph with its ids, and every defect is named."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from fact_files import NAMES, fits_openke, put
from mocme.data.formats import openke
from mocme.data.formats.report import Report
from mocme.data.graph import Graph, Vocabulary
from mocme.data.ingest.indexer import FactIndexer


def graph(names: list[str], splits: dict[str, list[tuple[int, int, int]]]) -> Graph:
    facts = {s: torch.tensor(rows, dtype=torch.int64).reshape(-1, 3) for s, rows in splits.items()}
    return Graph(Vocabulary(names), Vocabulary(names[::-1], "relation"), facts)


def read_openke(folder: Path) -> tuple[FactIndexer, dict[str, Report]]:
    source = openke.read(folder)
    indexer = FactIndexer(source.entities, source.relations, openke.LISTS)
    reports = {}
    for split, path in source.files.items():
        reports[split] = report = Report(str(path))
        for block in source.facts(split, report):
            indexer.add(split, block, report)
        assert report.accounted
    assert all(report.accounted for report in source.reports)
    return indexer, reports


def test_openke_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in NAMES if fits_openke(name)]
    source, total = random.Random(1), len(names)
    rows = [tuple(source.randrange(total) for _ in range(3)) for _ in range(6000)]
    splits = {"train": rows[:4000], "valid": rows[4000:5000], "test": rows[5000:], "known": []}
    openke.write(tmp_path / "folder", graph(names, splits))  # type: ignore[arg-type]
    assert openke.is_folder(tmp_path / "folder")
    for chunk in (1 << 22, 1 << 10):
        monkeypatch.setattr(openke, "CHUNK", chunk)
        indexer, reports = read_openke(tmp_path / "folder")
        entities, relations = indexer.vocabularies()
        assert list(entities) == names
        assert list(relations) == names[::-1]
        for split, facts in splits.items():
            assert indexer.split(split)[0].tolist() == list(map(list, dict.fromkeys(facts)))
            assert reports[split].rows == len(facts)


def test_openke_refuses_names_that_it_cannot_hold(tmp_path: Path) -> None:
    refused = [name for name in NAMES if not fits_openke(name)]
    for name in refused[:: len(refused) // 100]:
        with pytest.raises(ValueError, match=r"an OpenKE list cannot hold; .*JSON") as caught:
            openke.write(tmp_path, graph(["a", name, "b"], {"train": [(0, 0, 1)]}))
        assert repr(name[:80])[:-1] in str(caught.value)
    assert not list(tmp_path.iterdir())
    openke.write(tmp_path, graph(["a", "b"], {"train": [(0, 1, 1)], "test": [(1, 1, 1)]}))
    with pytest.raises(
        ValueError, match=r"contains test2id.txt, but this graph has no split 'test'"
    ):
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
    source = openke.read(folder_of(tmp_path))
    assert source.entities == [" e", "a  b", "\tc d 7"]
    assert source.relations == ["r s", "r\ts"]
    assert list(source.files) == ["train", "valid"]
    report = Report("train2id.txt")
    blocks = list(source.facts("train", report))
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
        ({"entity": b"2\na 0\n"}, "entity2id.txt: line 1: says that 2 lines follow, but 1 does"),
        ({"entity": b"1\na 0\nb 1\n"}, "line 1: says that 1 line follows, but 2 do"),
        ({"entity": b"9" * 18 + b"\na 0\n"}, "lines follow, but 1 does; the file may be cut off"),
        ({"relation": b"2\nr 0\nr 1\n"}, "relation2id.txt: line 3: 'r' is already in line 2"),
        ({"relation": b"2\nr 0\ns 0\n"}, "line 3: the id 0 of 's' is already used in line 2"),
        ({"relation": b"2\nr 2\ns 0\n"}, "line 2: the id 2 of 'r' is not below 2"),
        ({"relation": b"2\nr 0\n 1\n"}, "relation2id.txt: line 3: ' 1' is not NAME, space or tab"),
        ({"relation": b"2\nr 0\ns -1\n"}, "line 3: 's -1' is not NAME, space or tab, ID"),
        ({"relation": b"2\nr 0\ns\n"}, "line 3: 's' is not NAME"),
        ({"relation": b"2\nr 0\n\xff 1\n"}, "line 3: .* is not valid UTF-8"),
        ({"train": b""}, "train2id.txt: is empty"),
        ({"train": b"0 1 2\n"}, "train2id.txt: line 1: '0 1 2' is not the number of lines"),
        ({"train": b"2\n0 1 1\n"}, "train2id.txt: line 1: says that 2 lines follow, but 1 does"),
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
