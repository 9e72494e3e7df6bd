"""Vectors and bins of numbers in tables, compared with a naive computation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from pyarrow import parquet

from mocme.core.interrupts import Interrupted
from mocme.core.registry import ConfigError
from mocme.data.features.numeric import bin_sets, scale_columns
from mocme.data.features.sources import Bins, Numbers
from mocme.data.graph import Graph, Vocabulary
from mocme.data.modality import Modality, Tokens
from mocme.data.modality_files import read_safetensors, unpack_modality
from mocme.encoders.base import EncodingJob, EncodingReport
from mocme.encoders.catalog import encoder_of
from mocme.encoders.kinds import numeric as numeric_kind

NAMES = ["nan", "007", " b", "c.d", "é", "f"]
LONG = [
    ("nan", "height", "1"),
    ("007", "height", "2.5"),
    ("f", "born", "1900"),
    ("é", "height", "-3e2"),
    ("f", "height", "4"),
    ("nan", "born", "1850"),
]
Encode = Callable[..., tuple[EncodingReport, Modality | Tokens]]


@pytest.fixture
def graph() -> Graph:
    return Graph(Vocabulary(NAMES), Vocabulary(["r"], "relation"), {})


@pytest.fixture
def encode(tmp_path: Path, graph: Graph) -> Encode:
    def run(kind: str, *paths: str, **settings: Any) -> tuple[EncodingReport, Modality | Tokens]:
        table = {"kind": kind, "paths": list(paths), **settings}
        job = EncodingJob(graph, f"my-{kind}", tmp_path, tmp_path / "out")
        report = encoder_of(table, "x").encode(job)
        tensors, metadata = read_safetensors(job.path)
        assert metadata["entities"] == graph.entities.digest()
        assert report.items == report.encoded + len(report.failures)
        modality = unpack_modality(tensors, metadata, graph.num_entities)
        assert report.present == int(modality.present().sum())
        return report, modality

    return run


def put(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Write cells, none with a tab, comma or quote, in the format of the path's ending."""
    cells = [list(row) for row in rows]
    if path.suffix == ".tsv":
        path.write_text("".join("\t".join(row) + "\n" for row in cells), encoding="utf-8")
    elif path.suffix == ".csv":
        text = "".join(",".join(row) + "\n" for row in [list(header), *cells])
        path.write_text(text, encoding="utf-8")
    elif path.suffix == ".jsonl":
        objects = [json.dumps(dict(zip(header, row, strict=True))) for row in cells]
        path.write_text("".join(f"{line}\n" for line in objects), encoding="utf-8")
    else:
        columns = {name: [row[n] for row in cells] for n, name in enumerate(header)}
        parquet.write_table(pyarrow.table(columns), path)
    return path.name


# -- the computation -----------------------------------------------------------------------------


def quantile(numbers: Sequence[float], share: float) -> float:
    """By linear interpolation between the sorted numbers."""
    ranked = sorted(numbers)
    position = share * (len(ranked) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (position - low) * (ranked[high] - ranked[low])


few = st.lists(
    st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=9
)


@given(few, st.sampled_from([0, 2, 5]))
def test_columns_equal_those_of_a_naive_computation(numbers: list[float], bins: int) -> None:
    columns = scale_columns(torch.tensor(numbers, dtype=torch.float64), bins)
    assert columns.shape == (len(numbers), 2 + bins)
    mean = math.fsum(numbers) / len(numbers)
    spread = quantile(numbers, 0.75) - quantile(numbers, 0.25)
    spread = spread or math.sqrt(math.fsum((x - mean) ** 2 for x in numbers) / len(numbers)) or 1.0
    edges = [quantile(numbers, n / bins) for n in range(bins + 1)] if bins else []
    for row, number in zip(columns.tolist(), numbers, strict=True):
        expected = math.asinh((number - quantile(numbers, 0.5)) / spread)
        assert row[0] == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert row[1] == 1
        for low, high, filled in zip(edges, edges[1:], row[2:], strict=False):
            if high - low > 1e-3:
                share = min(max((number - low) / (high - low), 0), 1)
                assert filled == pytest.approx(share, abs=1e-6)
        assert row[2:] == sorted(row[2:], reverse=True) or len(set(edges)) < len(edges)


@given(few, st.integers(2, 5))
def test_bins_equal_those_of_a_naive_count(numbers: list[float], bins: int) -> None:
    columns = {"a": (list(range(len(numbers))), torch.tensor(numbers, dtype=torch.float64))}
    edges = [quantile(numbers, n / bins) for n in range(1, bins)]
    # Two computations of an edge may round to different sides of a number, or of another edge.
    between = sorted({*edges, *numbers})
    assume(all(high - low > 1e-6 for low, high in pairwise(between)))
    sets = bin_sets(columns, bins)
    for entity, number in enumerate(numbers):
        assert sets[entity] == [f"a#{sum(edge <= number for edge in set(edges))}"]


def test_the_modality_numbers_equals_a_dense_computation_to_the_bit(
    tmp_path: Path, graph: Graph
) -> None:
    def dense(numbers: torch.Tensor, bins: int) -> torch.Tensor:
        low, middle, high = numbers.quantile(torch.tensor([0.25, 0.5, 0.75]).double())
        spread = float(high - low) or float(numbers.std(correction=0)) or 1.0
        first = ((numbers - middle) / spread).asinh()
        edges = numbers.quantile(torch.linspace(0, 1, bins + 1).double())
        lengths = edges.diff().clamp_min(1e-12)
        filled = ((numbers.unsqueeze(1) - edges[:-1]) / lengths).clamp(0, 1)
        return torch.cat([first.unsqueeze(1), torch.ones(len(numbers), 1), filled], 1).float()

    put(tmp_path / "n.tsv", LONG)
    modality, _ = Numbers(path="n.tsv", bins=3).load(graph, tmp_path)
    expected = torch.zeros(6, 10)
    expected[[0, 1, 4, 5], :5] = dense(torch.tensor([1, 2.5, -3e2, 4]).double(), 3)
    expected[[5, 0], 5:] = dense(torch.tensor([1900.0, 1850]).double(), 3)
    assert isinstance(modality, Modality)
    assert torch.equal(modality.values, expected[[0, 1, 4, 5]])


# -- numeric -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [0, 4])
@pytest.mark.parametrize("page", [1, 2, 100])
def test_vectors_equal_those_of_the_modality_numbers_to_the_bit(
    tmp_path: Path, graph: Graph, encode: Encode, bins: int, page: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(numeric_kind, "PAGE", page)
    put(tmp_path / "n.tsv", LONG)
    expected, _ = Numbers(path="n.tsv", bins=bins).load(graph, tmp_path)
    report, modality = encode("numeric", "n.tsv", bins=bins)
    assert isinstance(modality, Modality)
    assert isinstance(expected, Modality)
    assert modality.digest() == expected.digest()
    assert modality.values.dtype == torch.float32
    assert json.loads(modality.provenance["attributes"]) == ["height", "born"]
    assert (report.width, report.items, report.entities) == (2 * (2 + bins), 6, 6)


@pytest.mark.parametrize("kind", ["numeric", "bins"])
def test_every_format_and_shape_of_table_gives_the_same_modality(
    tmp_path: Path, encode: Encode, kind: str
) -> None:
    digests = set()
    for suffix in (".tsv", ".csv", ".jsonl", ".parquet"):
        header = ("entity", "attribute", "value")
        name = put(tmp_path / f"long{suffix}", LONG, header)
        digests.add(encode(kind, name)[1].digest())
        wide = {entity: ["", ""] for entity, _, _ in LONG}
        for entity, attribute, value in LONG:
            wide[entity][attribute == "born"] = value
        rows = [[entity, *cells] for entity, cells in wide.items()]
        columns = ("entity", "height", "born")
        name = put(tmp_path / f"wide{suffix}", rows, columns)
        if suffix != ".tsv":
            report, modality = encode(kind, name, attributes=["height", "born"])
            digests.add(modality.digest())
        else:  # columns have no names, so attributes are named by the numbers of their columns
            report, _ = encode(kind, name, attributes=["2", "3"])
        assert report.counts["empty cells, where a number is missing"] == 2
    assert len(digests) == 1


def test_cells_of_typed_formats_are_numbers(tmp_path: Path, encode: Encode) -> None:
    text = '{"entity": "f", "a": 1.50}\n{"entity": "é", "a": null}\n{"entity": "nan", "a": 3}\n'
    (tmp_path / "n.jsonl").write_text(text, encoding="utf-8")
    frame = pyarrow.table({"entity": ["f", "é", "nan"], "a": [1.5, None, 3]})
    parquet.write_table(frame, tmp_path / "n.parquet")
    one, other = (encode("numeric", f"n.{e}", attributes=["a"])[1] for e in ("jsonl", "parquet"))
    assert one.digest() == other.digest()
    assert one.rows.tolist() == [0, 5]  # type: ignore[union-attr]


def test_unusable_cells_are_listed_and_skipped(tmp_path: Path, encode: Encode) -> None:
    rows = [
        ("f", "a", "1"),
        ("f", "a", "many"),
        ("nan", "a", "nan"),
        ("é", "a", "-inf"),
        ("é", "", "1"),
        ("unknown", "a", "1"),
        ("007", "a", "5"),
        ("f", "a", "3"),
        ("é", "a", ""),
        ("", "a", "2"),
    ]
    put(tmp_path / "n.csv", rows, ("entity", "attribute", "value"))
    report, modality = encode("numeric", "n.csv")
    assert isinstance(modality, Modality)
    assert modality.rows.tolist() == [1, 5]
    assert modality.values[:, 0].tolist() == pytest.approx([math.asinh(1), -math.asinh(1)])
    listed = [(f.entity, f.place.split(", ")[1], f.reason) for f in report.failures]
    assert listed == [
        ("f", "line 3", "'many' is not a finite number"),
        ("nan", "line 4", "'nan' is not a finite number"),
        ("é", "line 5", "'-inf' is not a finite number"),
        ("é", "line 6", "the number's attribute has no name"),
    ]
    assert (report.unknown, report.strange) == (2, ["unknown", ""])
    assert report.counts == {
        "empty cells, where a number is missing": 1,
        "earlier values of an attribute with several values; the last one counts": 1,
        "attributes": 1,
    }
    assert (report.items, report.encoded) == (6, 2)


def test_several_tables_make_one_modality(tmp_path: Path, encode: Encode) -> None:
    put(tmp_path / "a.tsv", LONG[:3])
    put(tmp_path / "b.csv", LONG[3:], ("entity", "attribute", "value"))
    put(tmp_path / "n.tsv", LONG)
    together = encode("numeric", "a.tsv", "b.csv")[1]
    assert together.digest() == encode("numeric", "n.tsv")[1].digest()
    assert together.provenance["sources"] == "a.tsv\tb.csv"
    assert len(together.provenance["sources_sha256"].split("\t")) == 2


@pytest.mark.parametrize("kind", ["numeric", "bins"])
def test_a_second_run_makes_the_same_bytes(tmp_path: Path, encode: Encode, kind: str) -> None:
    put(tmp_path / "n.tsv", LONG)
    path = Path(encode(kind, "n.tsv")[0].path)
    first = path.read_bytes()
    path.unlink()
    encode(kind, "n.tsv")
    assert path.read_bytes() == first


@pytest.mark.parametrize("kind", ["numeric", "bins"])
@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (
            [("x", "a", "1")],
            r"not one finite number belongs to an entity .* \(1 row names no entity",
        ),
        ([("f", "a", "x")], "1 cell is not a number"),
        ([("f", "a", "")], "not one finite number"),
        ([], "not one finite number"),
        ([("f", "2")], "has 2 columns, but column 3 is needed"),
        (
            [("f", "a", "-1.7e308"), ("é", "a", "1.7e308")],
            "2 cells are not a number",
        ),
    ],
)
def test_unusable_tables_are_named(
    tmp_path: Path, encode: Encode, kind: str, rows: list[Any], problem: str
) -> None:
    put(tmp_path / "n.tsv", rows)
    with pytest.raises(ValueError, match=rf"n.tsv: .*{problem}"):
        encode(kind, "n.tsv")
    with pytest.raises(ValueError, match=r"m.tsv: there is no such file"):
        encode(kind, "m.tsv")
    assert not (tmp_path / "out" / "encoded" / f"my-{kind}.safetensors").exists()


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"paths": []}, "at least one"),
        ({"attributes": ["a", "a"]}, "each once"),
        ({"attributes": ["a"], "value": "b"}, "one or the other"),
        ({"bins": 1}, "at least 2"),
        ({"bins": -1}, "at least 2"),
        ({"color": 1}, "unknown setting"),
    ],
)
@pytest.mark.parametrize("kind", ["numeric", "bins"])
def test_a_setting_out_of_range_is_an_error(kind: str, table: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"x.*{problem}"):
        encoder_of({"kind": kind, "paths": ["n.tsv"], **table}, "x")


def test_a_job_can_be_stopped(tmp_path: Path, graph: Graph) -> None:
    put(tmp_path / "n.tsv", LONG)
    job = EncodingJob(graph, "n", tmp_path, tmp_path)
    job.stopped.set()
    with pytest.raises(Interrupted, match="stopped"):
        encoder_of({"kind": "numeric", "paths": ["n.tsv"]}, "x").encode(job)


# -- bins ----------------------------------------------------------------------------------------


def test_tokens_equal_those_of_the_modality_bins(
    tmp_path: Path, graph: Graph, encode: Encode
) -> None:
    put(tmp_path / "n.tsv", LONG)
    expected, _ = Bins(path="n.tsv", bins=3).load(graph, tmp_path)
    report, tokens = encode("bins", "n.tsv", bins=3)
    assert tokens.digest() == expected.digest()
    assert report.width == 0
    assert report.counts["tokens of entities"] == 6
