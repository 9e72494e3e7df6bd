"""Reading modalities from files: vectors, tokens and pairs, or errors that name the file."""

from __future__ import annotations

import inspect
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mocme.core.registry import ConfigError
from mocme.data.features.base import FileSource, Source
from mocme.data.features.kinds.bins import Bins
from mocme.data.features.kinds.encoded import Encoded
from mocme.data.features.kinds.mentions import Mentions
from mocme.data.features.kinds.numbers import Numbers
from mocme.data.features.kinds.similar import Similar
from mocme.data.features.kinds.vectors import Vectors
from mocme.data.features.kinds.words import Words
from mocme.data.features.sources import read_features
from mocme.data.graph import Graph, Vocabulary
from mocme.data.load import load
from mocme.data.modality import Modality, Tokens

NAMES = ["nan", "007", " b", "c.d", "é", "f"]


@pytest.fixture
def graph() -> Graph:
    splits = {"train": torch.tensor([[0, 0, 1]])}
    return Graph(Vocabulary(NAMES), Vocabulary(["r"], "relation"), splits)


def lines(path: Path, rows: list[Any]) -> Path:
    cells = [row if isinstance(row, tuple) else (row,) for row in rows]
    text = "".join("\t".join(map(str, row)) + "\n" for row in cells)
    path.write_bytes(text.encode())
    return path


def vectors(count: int = 6, width: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


# -- vectors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f2", "f8", "i4", "u1", "?"])
def test_an_array_with_a_list_of_names(tmp_path: Path, graph: Graph, dtype: str) -> None:
    array = (vectors(4).numpy() * 3).astype(dtype)
    np.save(tmp_path / "v.npy", array)
    lines(tmp_path / "names.txt", ["f", "stranger", "nan", "é"])
    modality, notes = Vectors(path="v.npy", entities="names.txt").load(graph, tmp_path)
    assert modality.rows.tolist() == [0, 4, 5]
    expected = torch.from_numpy(array[[2, 3, 0]].astype("f8"))
    assert torch.equal(modality.values.double(), expected)
    assert any("1 row names no entity of the graph, the first 'stranger'" in n for n in notes)
    assert modality.provenance["sha256"]


def test_an_array_in_the_order_of_the_graph_is_memory_mapped(tmp_path: Path, graph: Graph) -> None:
    np.save(tmp_path / "v.npy", vectors().numpy())
    lines(tmp_path / "names.txt", NAMES)
    modality, notes = Vectors(path="v.npy", entities="names.txt").load(graph, tmp_path)
    assert torch.equal(modality.values, vectors())
    assert notes == []
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list what is mapped")
    address = modality.values.data_ptr()
    spans = [line.split() for line in maps.read_text().splitlines() if "v.npy" in line]
    spans = [[int(end, 16) for end in span[0].split("-")] for span in spans]
    assert any(start <= address < stop for start, stop in spans)
    # Copy on write: changing the tensor does not change the file.
    modality.values.zero_()
    assert np.load(tmp_path / "v.npy").any()


def test_one_vector_per_name(tmp_path: Path, graph: Graph) -> None:
    table = vectors()
    named = {NAMES[n]: table[n] for n in (4, 1, 3)} | {"stranger": table[0]}
    save_file(named, tmp_path / "v.safetensors", {"encoder": "hand"})
    modality, notes = Vectors(path="v.safetensors").load(graph, tmp_path)
    assert modality.rows.tolist() == [1, 3, 4]
    assert torch.equal(modality.values, table[[1, 3, 4]])
    assert modality.provenance["encoder"] == "hand"
    assert len(notes) == 1
    assert "'stranger'" in notes[0]


@pytest.mark.parametrize("id_type", [torch.int64, torch.int32, torch.uint8])
def test_values_with_rows_are_bound_to_the_list_of_entities(
    tmp_path: Path, graph: Graph, id_type: torch.dtype
) -> None:
    path = tmp_path / "v.safetensors"
    tensors = {"values": vectors(2), "rows": torch.tensor([1, 5], dtype=id_type)}
    save_file(tensors, path, {"entities": graph.entities.digest(), "encoder": "hand"})
    modality, notes = Vectors(path="v.safetensors").load(graph, tmp_path)
    assert torch.equal(modality.values, vectors(2))
    assert modality.rows.tolist() == [1, 5]
    assert notes == []
    save_file(tensors, path)
    assert "does not say for which list" in Vectors(path=path.name).load(graph, tmp_path)[1][0]
    save_file(tensors, path, {"entities": Vocabulary(NAMES[::-1]).digest()})
    with pytest.raises(ValueError, match=r"v.safetensors: .*another list of entities.*encode"):
        Vectors(path=path.name).load(graph, tmp_path)


def wrong(tensors: dict[str, torch.Tensor], problem: str) -> Any:
    return pytest.param(tensors, problem, id=problem)


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        wrong({"values": vectors(2), "rows": torch.tensor([1])}, r"shape \(2, 3\) with rows"),
        wrong({"values": vectors(2)[0], "rows": torch.tensor([1])}, r"shape \(3,\) with rows"),
        wrong({"values": vectors(2), "rows": torch.tensor([1.0, 2.0])}, "integers"),
        wrong({"values": vectors(2), "rows": torch.tensor([1, 6])}, "within 0 .. 5"),
        wrong({"values": vectors(2), "rows": torch.tensor([1, 1])}, "must ascend"),
        wrong({"values": vectors(2) / 0, "rows": torch.tensor([1, 2])}, "2 vectors contain NaN"),
        wrong({"values": vectors(0), "rows": torch.arange(0)}, "contains no vector"),
        wrong({"values": vectors(2, 0), "rows": torch.arange(2)}, "contains no vector"),
        wrong({"nan": vectors()[0], "007": vectors()[0, :2]}, "one vector of the same length"),
        wrong({"nan": vectors()}, "one vector of the same length"),
        wrong({"x": vectors()[0]}, "none of its 1 names is an entity of the graph"),
        wrong({}, "one vector of the same length"),
    ],
)
def test_errors_about_vectors_name_the_file(
    tmp_path: Path, graph: Graph, tensors: dict[str, torch.Tensor], problem: str
) -> None:
    save_file(tensors, tmp_path / "v.safetensors")
    with pytest.raises(ValueError, match=rf"v.safetensors: .*{problem}"):
        Vectors(path="v.safetensors").load(graph, tmp_path)


def test_zero_vectors_are_noted(tmp_path: Path, graph: Graph) -> None:
    tensors = {"values": torch.tensor([[0.0, 0.0], [0.0, 1.0]]), "rows": torch.tensor([1, 2])}
    metadata = {"entities": graph.entities.digest()}
    save_file(tensors, tmp_path / "v.safetensors", metadata)
    _, notes = Vectors(path="v.safetensors").load(graph, tmp_path)
    assert ["1 vectors are all zero" in note for note in notes] == [True]


@pytest.mark.parametrize(
    ("array", "names", "problem"),
    [
        (np.zeros((2, 3)), ["nan", "f", "é"], r"shape \(2, 3\), but .*names.txt names 3 entities"),
        (np.zeros(3), ["nan", "f", "é"], r"shape \(3,\)"),
        (np.zeros((3, 1)), ["nan", "f", "nan"], "line 3: 'nan' is already in line 1"),
        (np.zeros((3, 1)), ["nan", "", "f"], "line 2: blank"),
        (np.zeros((1, 1)), ["x"], "none of its 1 names"),
        (np.zeros((0, 1)), [], "none of its 0 names"),
        (np.full((1, 1), np.nan), ["f"], "1 vectors contain NaN"),
        (np.array([["a"]]), ["f"], "not numbers"),
        (np.array([[1j]]), ["f"], "not numbers"),
        (np.array([[{}]], dtype=object), ["f"], "cannot be read as .npy"),
    ],
)
def test_errors_about_arrays_name_the_file(
    tmp_path: Path, graph: Graph, array: np.ndarray, names: list[str], problem: str
) -> None:
    np.save(tmp_path / "v.npy", array)
    lines(tmp_path / "names.txt", names)
    with pytest.raises(ValueError, match=problem) as caught:
        Vectors(path="v.npy", entities="names.txt").load(graph, tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_missing_files_are_named_with_a_remedy(tmp_path: Path, graph: Graph) -> None:
    with pytest.raises(ValueError, match=r"v.npy: there is no such file; encode the modality"):
        Vectors(path="v.npy").load(graph, tmp_path)
    np.save(tmp_path / "v.npy", vectors().numpy())
    with pytest.raises(ValueError, match=r"v.npy: needs entities = FILE"):
        Vectors(path="v.npy").load(graph, tmp_path)
    for source in (
        Vectors(path="v.npy", entities="n.tsv"),
        Numbers(path="n.tsv"),
        Words(paths=["n.tsv"]),
        Bins(path="n.tsv"),
        Mentions(names=["n.tsv"]),
        Similar(paths=["n.tsv"]),
    ):
        with pytest.raises(ValueError, match=r"n.tsv: cannot be read"):
            source.load(graph, tmp_path)


# -- numbers and bins ----------------------------------------------------------------------------

CELLS = [
    ("nan", "height", "1"),
    ("007", "height", "2.5"),
    ("é", "height", "-3e2"),
    ("f", "height", "4"),
    ("f", "born", "1900"),
    ("stranger", "born", "1901"),
]


def test_numbers_are_scaled_by_attribute(tmp_path: Path, graph: Graph) -> None:
    lines(tmp_path / "n.tsv", CELLS)
    modality, notes = Numbers(path="n.tsv").load(graph, tmp_path)
    assert modality.rows.tolist() == [0, 1, 4, 5]
    height = np.array([1, 2.5, -300, 4])
    low, middle, high = np.quantile(height, [0.25, 0.5, 0.75])
    expected = np.arcsinh((height - middle) / (high - low))
    assert np.allclose(modality.values[:, 0], expected, atol=1e-6)
    assert modality.values[:, 1].tolist() == [1, 1, 1, 1]
    assert modality.values[:, 2:].tolist() == [[0, 0], [0, 0], [0, 0], [0, 1]]
    assert any("'stranger'" in note for note in notes)
    assert modality.provenance["attributes"] == "height\tborn"


def test_numbers_of_two_columns_and_repeated_ones(tmp_path: Path, graph: Graph) -> None:
    lines(tmp_path / "n.tsv", [("nan", 1), ("f", 5), ("nan", 3)])
    modality, notes = Numbers(path="n.tsv").load(graph, tmp_path)
    assert modality.rows.tolist() == [0, 5]
    assert modality.values[:, 0].tolist() == pytest.approx([-math.asinh(1), math.asinh(1)])
    assert any("1 value repeats an attribute of an entity" in note for note in notes)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([("f", "x")], "line 1: 'x' is not a finite number; remove the line"),
        ([("é", "NaN"), ("f", "nan")], "line 1: 'NaN' is not a finite number"),
        ([("f", "-inf")], "not a finite number"),
        ([("f", "")], "not a finite number"),
        ([("f",)], r"has 1 columns; needs \(entity, value\)"),
        ([("f", "a", "1", "2")], "has 4 columns"),
        ([("x", "1")], "no number belongs to an entity"),
        ([], "no number belongs to an entity"),
        (
            [(name, "-1.7e308") for name in NAMES[:3]] + [(n, "1.7e308") for n in NAMES[3:5]],
            "line 1: '-1.7e308' is beyond 3.4e38",
        ),
    ],
)
def test_errors_about_numbers_name_the_file(
    tmp_path: Path, graph: Graph, rows: list[Any], problem: str
) -> None:
    lines(tmp_path / "n.tsv", rows)
    with pytest.raises(ValueError, match=rf"n.tsv: .*{problem}"):
        Numbers(path="n.tsv").load(graph, tmp_path)


def test_bins_have_equal_shares(tmp_path: Path) -> None:
    names = [f"e{n}" for n in range(40)]
    graph = Graph(Vocabulary(names), Vocabulary(["r"], "relation"), {})
    rng = random.Random(0)
    ages = {name: rng.choice([1, 1, 1, 2, 5, 9, 30, 31, 32]) for name in names[:30]}
    sizes = {name: rng.random() for name in names[10:]}
    rows = [(n, "age", v) for n, v in ages.items()] + [(n, "size", v) for n, v in sizes.items()]
    lines(tmp_path / "n.tsv", rows)
    tokens, _ = Bins(path="n.tsv", bins=4).load(graph, tmp_path)
    expected = set()
    for attribute, cells in (("age", ages), ("size", sizes)):
        edges = sorted(set(np.quantile(list(cells.values()), [0.25, 0.5, 0.75])))
        for name, value in cells.items():
            expected.add((name, f"{attribute}#{sum(edge <= value for edge in edges)}"))
    pairs = zip(tokens.entity.tolist(), tokens.token.tolist(), strict=True)
    assert {(names[e], tokens.vocabulary[t]) for e, t in pairs} == expected
    with pytest.raises(ValueError, match="at least 2"):
        Bins(path="n.tsv", bins=1)


# -- words ---------------------------------------------------------------------------------------


def test_words_of_several_files_and_columns(tmp_path: Path, graph: Graph) -> None:
    lines(tmp_path / "a.tsv", [("nan", "x", "red dog"), ("f", "y", "red cat"), ("z", "y", "red")])
    lines(tmp_path / "b.tsv", [("f", "Dog!"), ("é", ""), ("nan", "dog, sun")])
    source = Words(paths=["a.tsv", "b.tsv"], columns=[3, 2], at_least=2, at_most=1.0)
    tokens, notes = source.load(graph, tmp_path)
    assert tokens.vocabulary == ("dog", "red")
    assert tokens.entity.tolist() == [0, 0, 5, 5]
    assert tokens.token.tolist() == [0, 1, 0, 1]
    assert any("a.tsv: 1 row names no entity of the graph, the first 'z'" in n for n in notes)
    second = Words(paths=["a.tsv"], at_least=1, at_most=0.5, per_entity=1)
    assert second.load(graph, tmp_path)[0].vocabulary == ("x", "y")


def test_bigrams_instead_of_words(tmp_path: Path, graph: Graph) -> None:
    lines(tmp_path / "a.tsv", [("nan", "a red dog"), ("f", "red dog red")])
    lines(tmp_path / "b.tsv", [("f", "sun")])
    limits = {"at_least": 1, "at_most": 1.0}
    source = Words(paths=["a.tsv", "b.tsv"], unit="bigrams", **limits)
    tokens, _ = source.load(graph, tmp_path)
    assert tokens.vocabulary == ("a red", "dog red", "red dog")
    with pytest.raises(ValueError, match="no bigram occurs in 3 entities"):
        Words(paths=["a.tsv"], unit="bigrams").load(graph, tmp_path)


def test_texts_without_tokens_are_errors(tmp_path: Path, graph: Graph) -> None:
    lines(tmp_path / "a.tsv", [("nan", "red dog"), ("f", "sun"), ("z", "red")])
    with pytest.raises(ValueError, match=r"a.tsv: no word occurs in 3 entities or more"):
        Words(paths=["a.tsv"]).load(graph, tmp_path)
    with pytest.raises(ValueError, match=r"a.tsv: has 2 columns, so there is no column 3"):
        Words(paths=["a.tsv"], columns=[3]).load(graph, tmp_path)
    lines(tmp_path / "a.tsv", ["nan"])
    with pytest.raises(ValueError, match=r"a.tsv: has 1 columns, so there is no column 2"):
        Words(paths=["a.tsv"]).load(graph, tmp_path)
    lines(tmp_path / "a.tsv", [])
    with pytest.raises(ValueError, match=r"a.tsv: no word"):
        Words(paths=["a.tsv"]).load(graph, tmp_path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"paths": []}, "at least one"),
        ({"columns": [1]}, "2 or more"),
        ({"columns": [2, 2]}, "one for all files or one per file of paths"),
        ({"per_entity": 0}, "1 or more"),
        ({"at_least": 0}, "1 or more"),
        ({"at_most": 0.0}, "a share"),
        ({"at_most": 1.5}, "a share"),
    ],
)
def test_settings_of_words_are_checked(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Words(**{"paths": ["a.tsv"], **changes})


# -- all of a graph ------------------------------------------------------------------------------


def test_features_of_the_embedded_graph() -> None:
    graph = load("atlas")
    features = read_features(graph, graph.modalities)
    assert features.names == list(features.present())
    assert set(features.names) == set(graph.modalities)
    assert features.digest() == read_features(graph, graph.modalities).digest()


def test_files_are_looked_for_in_both_folders(tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    for folder in (home, other):
        folder.mkdir()
        lines(folder / "train.tsv", [("a", "r", "b")])
    lines(home / "n.tsv", [("a", 1)])
    lines(home / "both.tsv", [("a", "old")])
    lines(other / "both.tsv", [("b", "new")])
    graph = load(home)
    tables = {
        "n": {"kind": "numbers", "path": "n.tsv"},
        "t": {"kind": "Words", "paths": ["both.tsv"], "at_least": 1, "at_most": 1.0},
    }
    features = read_features(graph, tables, other)
    assert features.dense["n"].rows.tolist() == [0]
    assert features.tokens["t"].vocabulary == ("new",)
    assert read_features(graph, tables).tokens["t"].vocabulary == ("old",)
    with pytest.raises(ValueError, match=r"other.absent.tsv"):
        read_features(graph, {"x": {"kind": "numbers", "path": "absent.tsv"}}, other)


@pytest.mark.parametrize(
    "source",
    [
        Vectors(path="a", entities="b"),
        Encoded(path="a"),
        Numbers(path="a"),
        Words(paths=["a", "b"]),
        Bins(path="a"),
        Mentions(names=["a"], texts=["b", "c"]),
        Similar(paths=["a", "b"]),
        Similar(vectors="a"),
    ],
    ids=lambda source: type(source).__name__,
)
def test_files_returns_every_path_in_the_settings(source: Source) -> None:
    values = [[v] if isinstance(v, str) else v for v in vars(source).values()]
    strings = {item for items in values if isinstance(items, list) for item in items}
    assert set(source.files()) == strings & {"a", "b", "c"}


def test_every_kind_of_source_is_discovered_tested_and_has_ablations() -> None:
    assert Source.kinds == (Bins, Encoded, Mentions, Numbers, Similar, Vectors, Words)
    for kind in Source.kinds:
        assert {"replace", "replace_share", "seed"} <= set(inspect.signature(kind).parameters)
        assert kind.files is not Source.files


class Ones(Source):
    """A source of the user without settings of its own."""

    def load(self, graph: Graph, folder: Path) -> tuple[Modality | Tokens, list[str]]:
        rows = torch.arange(graph.num_entities)
        return Modality(torch.ones(len(rows), 1), rows, len(rows)), ["made up"]


@dataclass(frozen=True, kw_only=True)
class Constant(FileSource):
    """A source of the user with inherited settings."""

    level: float = 2.0

    def load(self, graph: Graph, folder: Path) -> tuple[Modality | Tokens, list[str]]:
        rows = torch.arange(graph.num_entities)
        values = self.level + torch.arange(len(rows)).float().unsqueeze(1)
        return Modality(values, rows, len(rows)), [self.path]


class Handwritten(Ones):
    """A source of the user with a constructor, which decides what its settings are."""

    def __init__(self, *, level: int = 3) -> None:
        self.level = level


def test_a_source_of_the_user(graph: Graph) -> None:
    features = read_features(graph, {"ones": {"kind": f"{__name__}:Ones"}}, trust_code=True)
    assert features.dense["ones"].width == 1
    assert list(features.notes) == ["made up"]


def test_a_source_of_the_user_inherits_paths_and_ablations(graph: Graph) -> None:
    table = {"kind": f"{__name__}:Constant", "path": "x", "level": 3}
    whole = read_features(graph, {"x": table}, trust_code=True).dense["x"]
    assert whole.values.flatten().tolist() == [3, 4, 5, 6, 7, 8]
    hidden = {**table, "replace": "hidden", "replace_share": 0.5}
    half = read_features(graph, {"x": hidden}, trust_code=True)
    assert len(half.dense["x"].rows) == 3
    assert list(half.notes) == ["x"]


def test_a_source_of_the_user_may_have_a_constructor(graph: Graph) -> None:
    table = {"kind": f"{__name__}:Handwritten", "level": 4}
    assert read_features(graph, {"x": table}, trust_code=True).dense["x"].width == 1
    with pytest.raises(ConfigError, match=r"modalities.x.replace: unknown setting; known: level"):
        read_features(graph, {"x": {**table, "replace": "random"}}, trust_code=True)


@pytest.mark.parametrize(
    ("name", "table", "problem"),
    [
        ("structure", {"kind": "numbers", "path": "x"}, "is the modality that every graph has"),
        ("default", {"kind": "numbers", "path": "x"}, "means all modalities"),
        ("../x", {"kind": "numbers", "path": "x"}, "letters, digits"),
        ("a.b", {"kind": "numbers", "path": "x"}, "letters, digits"),
        ("x", {"path": "x"}, r"modalities.x: must be a table with a kind, one of Bins, Encoded"),
        ("x", {"kind": 3}, "must be a table with a kind"),
        ("x", {"kind": "numbrs", "path": "x"}, r"modalities.x.kind: 'Numbrs' is none of"),
        ("x", {"kind": "numbers", "pth": "x"}, r"modalities.x.pth: unknown.*mean 'path'"),
        ("x", {"kind": "numbers"}, r"modalities.x.path: is missing"),
        ("x", {"kind": "numbers", "path": "x", "replace": "all"}, "none of nothing, random"),
        ("x", {"kind": "bins", "path": "x", "bins": 1}, r"modalities.x: bins must be"),
    ],
)
def test_errors_about_tables_name_the_setting(
    graph: Graph, name: str, table: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        read_features(graph, {name: table})


def test_bins_of_numbers_are_piecewise_linear(tmp_path: Path) -> None:
    """Columns fill up one after the other, and their sum is the position among the quantiles."""
    (tmp_path / "n.tsv").write_text("".join(f"e{i}\t{i * i}\n" for i in range(9)))
    facts = torch.tensor([[i, 0, (i + 1) % 9] for i in range(9)])
    graph = Graph(
        Vocabulary(f"e{i}" for i in range(9)), Vocabulary(["r"], "relation"), {"train": facts}
    )
    modality, _ = Numbers(path="n.tsv", bins=4).load(graph, tmp_path)
    assert isinstance(modality, Modality)
    assert modality.width == 6
    filled = modality.values[:, 2:]
    assert filled.min() == 0
    assert filled.max() == 1
    # The squares 0, 4, 16, 36, 64 are the quantiles: every second entity is on an edge.
    torch.testing.assert_close(filled.sum(1)[::2], torch.tensor([0.0, 1, 2, 3, 4]))
    # A column is above 0 only if all earlier ones are 1.
    assert ((filled[:, 1:] == 0) | (filled[:, :-1] == 1)).all()
    plain, _ = Numbers(path="n.tsv").load(graph, tmp_path)
    assert isinstance(plain, Modality)
    assert torch.equal(plain.values, modality.values[:, :2])
