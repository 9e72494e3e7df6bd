"""One bad value costs one value: it is counted and named, and the rest is used."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from mocme.cli import main
from mocme.data.features.numeric import Scale, read_scales, scale_columns, scales_json
from mocme.data.features.sources import Bins, Encoded, Numbers, Vectors
from mocme.data.features.tokens import TrainingFacts
from mocme.data.graph import Graph, Vocabulary
from mocme.data.ingest.importer import import_recipe
from mocme.data.modality import FORMAT, Modality, Tokens
from mocme.data.numbers import LARGEST, finite_number, number_problem
from mocme.encoders.base import EncodingJob
from mocme.encoders.catalog import encoder_of
from mocme.experts.embedding import Embedding
from mocme.experts.embedding.model import EmbeddingModel

NAMES = [f"e{n}" for n in range(6)]
BAD = ["1,234", "2024-05-01", "", "n/a", "1e999", "NaN", "1e308", "-1e308", "inf", "1_000"]
GOOD = [("e1", "size", "1"), ("e2", "size", "2.5"), ("e3", "size", "4")]


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    names = Vocabulary(NAMES)
    return Graph(names, Vocabulary(["r"], "relation"), {}, folder=str(tmp_path))


def write(path: Path, rows: list[tuple[str, ...]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("cell", BAD)
@pytest.mark.parametrize("kind", [Numbers, Bins])
def test_a_bad_number_is_a_reject(kind: type, cell: str, tmp_path: Path, graph: Graph) -> None:
    source = kind(path="n.tsv")
    write(tmp_path / "n.tsv", GOOD)
    without = source.load(graph, tmp_path)[0]
    write(tmp_path / "n.tsv", [GOOD[0], ("e4", "size", cell), *GOOD[1:]])
    modality, notes = source.load(graph, tmp_path)
    assert modality.digest() == without.digest()
    (note,) = [note for note in notes if "1 value is not used" in note]
    assert f"n.tsv: 1 value is not used, first line 2: {cell!r} is " in note
    assert "remove the line" in note
    assert any("4 lines = 3 rows" in note and "1 reject" in note for note in notes)


@pytest.mark.parametrize("kind", ["numeric", "bins"])
def test_a_bad_number_is_a_failure_of_an_encoding(kind: str, tmp_path: Path, graph: Graph) -> None:
    rows = [GOOD[0], *(("e4", "size", cell) for cell in BAD if cell), *GOOD[1:]]
    write(tmp_path / "n.tsv", rows)
    job = EncodingJob(graph, "x", tmp_path, tmp_path)
    report = encoder_of({"kind": kind, "paths": ["n.tsv"]}, "x").encode(job)
    assert report.present == 3
    assert [failure.place.rpartition("line ")[2] for failure in report.failures] == [
        str(line) for line in range(2, 2 + len(BAD) - 1)
    ]
    assert Encoded(path="encoded/x.safetensors").load(graph, tmp_path)[0].present().sum() == 3


@pytest.mark.parametrize("cell", [cell for cell in BAD if cell])
def test_a_bad_number_is_a_reject_of_an_import(cell: str, tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("head,relation,tail\na,r,b\nb,r,c\n")
    (tmp_path / "n.csv").write_text(f'id,size\na,1\nb,"{cell}"\nc,3\n')
    text = '[[facts]]\npath = "f.csv"\n[[numbers]]\nname = "x"\npath = "n.csv"\nentity = "id"\n'
    (tmp_path / "r.toml").write_text(f'{text}columns = ["size"]\n')
    report = import_recipe(tmp_path / "r.toml", tmp_path / "graph")
    (reject,) = report.reports[-1].rejects
    assert reject.line == 3
    assert repr(cell) in reject.reason
    assert report.values == {"x": 2}


@given(st.lists(st.floats(-LARGEST, LARGEST), min_size=1, max_size=20))
def test_columns_are_finite_whatever_the_numbers(numbers: list[float]) -> None:
    values = torch.tensor(numbers, dtype=torch.float64)
    for bins in (0, 3):
        columns = scale_columns(values, bins)
        assert bool(columns.float().isfinite().all())
        order = values.argsort()
        assert bool((columns[order, 0].diff() >= 0).all())
    scale = read_scales(scales_json({"x": (range(len(values)), values)}, 0))["x"]
    extremes = torch.tensor([-1.7e308, 1.7e308, 5e-324], dtype=torch.float64)
    assert bool(scale(extremes).float().isfinite().all())


def test_the_columns_of_numbers_of_any_size_stay_apart() -> None:
    numbers = torch.tensor([1.0, 2.0, 3.0, LARGEST, -LARGEST], dtype=torch.float64)
    assert len(scale_columns(numbers)[:, 0].float().unique()) == 5
    assert Scale.of(numbers).spread == 2


@given(st.text(max_size=12))
def test_a_cell_is_a_number_or_has_a_problem(cell: str) -> None:
    number = finite_number(cell)
    if number is None:
        assert repr(cell) in number_problem(cell)
    else:
        assert abs(number) <= LARGEST


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", ["named", "rows", "npy", "encoded"])
def test_an_entity_with_a_bad_vector_has_none(
    kind: str, bad: float, tmp_path: Path, graph: Graph
) -> None:
    values = torch.arange(6.0).view(3, 2)
    values[1, 1] = bad
    bound = {"entities": graph.entities.digest(), "format": FORMAT}
    source: Vectors | Encoded = Vectors(path="v.safetensors")
    if kind == "named":
        save_file({f"e{n}": values[n].clone() for n in range(3)}, tmp_path / "v.safetensors")
    elif kind == "npy":
        np.save(tmp_path / "v.npy", values.numpy())
        (tmp_path / "names.txt").write_text("e0\ne1\ne2\n")
        source = Vectors(path="v.npy", entities="names.txt")
    else:
        save_file({"values": values, "rows": torch.arange(3)}, tmp_path / "v.safetensors", bound)
        source = source if kind == "rows" else Encoded(path="v.safetensors")
    modality, notes = source.load(graph, tmp_path)
    assert isinstance(modality, Modality)
    assert modality.rows.tolist() == [0, 2]
    assert torch.equal(modality.values, values[[0, 2]])
    (note,) = [note for note in notes if "contain NaN" in note]
    assert "1 vectors" in note
    assert "'e1'" in note


def test_a_number_where_a_text_is_wanted_says_how_to_quote(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("x\tr\ty\n")
    write(tmp_path / "n.tsv", [("x", "size", "3")])
    words = ["encode", "numeric", str(tmp_path), "--from", str(tmp_path / "n.tsv")]
    result = CliRunner().invoke(main, [*words, "--set", "attribute=2"])
    assert result.exit_code == 1
    message = " ".join(result.output.split())
    assert "must be a string, not 2; put it in quotes" in message
    assert "--set 'attribute=\"2\"'" in message
    quoted = ["--set", 'attribute="2"', "--set", 'value="3"']
    assert CliRunner().invoke(main, [*words, *quoted]).exit_code == 0


def test_bins_of_good_numbers_do_not_depend_on_bad_ones(tmp_path: Path, graph: Graph) -> None:
    write(tmp_path / "n.tsv", [*GOOD, ("e5", "size", "1e39"), ("e5", "other", "7")])
    tokens, _ = Bins(path="n.tsv", bins=2).load(graph, tmp_path)
    assert isinstance(tokens, Tokens)
    assert {word.partition("#")[0] for word in tokens.vocabulary} == {"size", "other"}


@pytest.mark.parametrize("size", [1e5, 1e30, 3e38])
def test_a_vector_beside_which_the_others_vanish_is_told(
    size: float, tmp_path: Path, graph: Graph
) -> None:
    values = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    bound = {"entities": graph.entities.digest()}
    save_file({"values": values, "rows": torch.arange(5)}, tmp_path / "v.safetensors", bound)
    assert Vectors(path="v.safetensors").load(graph, tmp_path)[1] == []
    values[2, 1] = size
    save_file({"values": values, "rows": torch.arange(5)}, tmp_path / "v.safetensors", bound)
    modality, notes = Vectors(path="v.safetensors").load(graph, tmp_path)
    assert isinstance(modality, Modality)
    assert len(modality.rows) == 5
    (note,) = notes
    assert "the vector of 'e2' is" in note
    model = EmbeddingModel(
        Embedding(embedding_dim=4), TrainingFacts.of(with_fact(graph), {}), {"x": modality}, 0
    )
    assert bool(model.modality_vectors("x")[1].isfinite().all())


def with_fact(graph: Graph) -> Graph:
    return replace(graph, splits={"train": torch.tensor([[0, 0, 1]])})


@pytest.mark.parametrize("kind", ["numbers", "bins", "numeric", "encoded bins"])
def test_a_number_of_bins_that_fills_the_memory_is_refused(kind: str) -> None:
    table = {"kind": kind.split()[-1], "paths": ["n.tsv"], "bins": 10**9}
    makers = {
        "numbers": lambda: Numbers(path="n.tsv", bins=10**9),
        "bins": lambda: Bins(path="n.tsv", bins=10**9),
    }
    make = makers.get(kind, lambda: encoder_of(table, "encode.n", trust_code=False))
    with pytest.raises(ValueError, match=r"at least 2, and at most 10,000"):
        make()


def test_a_table_of_numbers_that_fills_the_memory_is_refused(
    tmp_path: Path, graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "n.tsv", [(name, f"a{name}", "1") for name in NAMES])
    Numbers(path="n.tsv").load(graph, tmp_path)
    monkeypatch.setattr("mocme.data.features.numeric.memory_of_machine", lambda: 500)
    with pytest.raises(ValueError, match=r"6 entities in 6 attributes.*use fewer bins"):
        Numbers(path="n.tsv").load(graph, tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("experts.embedding.embedding_dim", 10**12, "Error: out of memory; give"),
        ("seed", 10**25, "Error: seed: must fit in 64 bits"),
    ],
)
def test_a_huge_setting_is_one_line(name: str, value: int, problem: str, tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", [(f"e{n}", "r", f"e{n + 1}") for n in range(20)])
    write(tmp_path / "valid.tsv", [("e1", "r", "e9")])
    arguments = ["train", "structure", "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(main, [*arguments, "--set", f"{name}={value}"])
    assert result.exit_code == 1
    assert problem in result.output


@pytest.mark.parametrize("kind", ["npy", "safetensors"])
def test_a_pipe_is_no_file_of_vectors(kind: str, tmp_path: Path, graph: Graph) -> None:
    os.mkfifo(tmp_path / f"v.{kind}")
    write(tmp_path / "names.txt", [(name,) for name in NAMES])
    entities = "names.txt" if kind == "npy" else None
    for by in ("name", "row"):
        with pytest.raises(ValueError, match=r"is a pipe|no such file"):
            Vectors(path=f"v.{kind}", entities=entities if by == "name" else None, by=by).load(
                graph, tmp_path
            )
