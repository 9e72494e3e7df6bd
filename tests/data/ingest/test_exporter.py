"""A graph that is written and read again is the same graph, or is refused by name."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from mocme.data.formats.registry import KINDS
from mocme.data.graph import Graph, Vocabulary
from mocme.data.ingest.exporter import export
from mocme.data.load import load


def graph(last: str = "x\\y") -> Graph:
    entities = Vocabulary(["unused", "a b", "007", '"q", r', "😀", last])
    facts = torch.tensor([[1, 0, 2], [3, 1, 4], [5, 0, 1]])
    splits = {"train": facts, "test": facts[:1], "known": facts[1:2]}
    return Graph(entities, Vocabulary(["r 1", "=s"], "relation"), splits)


@pytest.mark.parametrize(
    "kind", [None, "openke", *(k for k in KINDS if k not in ("ttl", "cypher"))]
)
def test_a_folder_is_the_same_graph(tmp_path: Path, kind: str | None) -> None:
    export(graph(), tmp_path / "out", kind=kind)
    exported = load(tmp_path / "out")
    assert exported.listed
    assert exported.digest() == graph().digest()
    assert exported.entities.names == graph().entities.names


@pytest.mark.parametrize("name", ["f.csv", "f.jsonl.gz", "f.parquet", "f.nt.zst", "f.tsv"])
def test_a_file_gets_the_requested_splits(tmp_path: Path, name: str) -> None:
    last = "x\\y" if name.endswith("tsv") else "x\ny\tz"
    export(graph(last), tmp_path / name, ["train"])
    exported = load(tmp_path / name, ratios=(1.0, 0.0, 0.0))
    facts = exported.facts().tolist()
    names = {tuple(exported.entities[n] for n in (h, t)) for h, _, t in facts}
    assert names == {("a b", "007"), ('"q", r', "😀"), (last, "a b")}


def test_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    export(graph(), "-", ["test"], "csv")
    assert io.BytesIO(capfdbinary.readouterr().out).readlines()[1] == b"a b,r 1,007\r\n"


@pytest.mark.parametrize(
    ("out", "splits", "kind", "problem"),
    [
        ("f.tsv", ["valid"], None, "has no split 'valid'; it has train, test, known"),
        ("f.tsv", [], "csv", "its ending names the format"),
        ("f.xyz", [], None, "belongs to no known format"),
        ("f.nq", [], None, "not written as N-Quads; name it .nt"),
        ("-", [], "xyz", f"a format is one of {', '.join(KINDS)}, not 'xyz'"),
        ("folder", ["train"], None, "a folder gets all splits"),
        ("full", [], None, "full: already exists"),
    ],
)
def test_an_invalid_export_is_an_error(
    tmp_path: Path, out: str, splits: list[str], kind: str | None, problem: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    with pytest.raises(ValueError, match=problem):
        export(graph(), out if out == "-" else tmp_path / out, splits, kind)


def test_a_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    (tmp_path / "f.tsv").write_text("mine")
    with pytest.raises(ValueError, match=r"f.tsv: already exists"):
        export(graph(), tmp_path / "f.tsv")
    assert (tmp_path / "f.tsv").read_text() == "mine"
    export(graph(), tmp_path / "f.tsv", force=True)
    assert len(load(tmp_path / "f.tsv").facts()) == 3


def test_a_name_that_a_list_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the name 'x\\ny' holds a line feed"):
        export(graph("x\ny"), tmp_path / "out")
