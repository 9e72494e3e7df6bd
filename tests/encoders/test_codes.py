"""Vectors become codes: the nearest centroids of a naive search, of whole vectors and of parts."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from mocme.core.device import Interrupted
from mocme.core.registry import ConfigError
from mocme.data.graph import Graph, Vocabulary
from mocme.data.modality import Tokens, read_safetensors, unpacked
from mocme.encoders.base import EncodingJob, EncodingReport, encoded_file
from mocme.encoders.catalog import encoder_of
from mocme.encoders.codebooks import Codebook
from mocme.encoders.kinds import codes as module
from mocme.encoders.pretrained import sha256
from mocme.encoders.writer import write_vectors

N, ROWS = 60, np.arange(0, 60, 2)
Encode = Callable[..., tuple[EncodingReport, Tokens]]


def clouds(count: int, width: int, centres: int = 4, seed: int = 0) -> np.ndarray:
    """Vectors around a few centres that lie far apart."""
    drawn = np.random.default_rng(seed)
    middle = drawn.normal(size=(centres, width)) * 9
    return (middle[np.arange(count) % centres] + drawn.normal(size=(count, width))).astype("f4")


def make_graph(modalities: Mapping[str, Any] = {}, folder: str | None = None) -> Graph:
    entities = Vocabulary([f"e{n}" for n in range(N)])
    return Graph(entities, Vocabulary(["r"], "relation"), {}, folder=folder, modalities=modalities)


@pytest.fixture
def encode(tmp_path: Path) -> Encode:
    def made(
        values: np.ndarray, patches: int = 1, **settings: Any
    ) -> tuple[EncodingReport, Tokens]:
        job = EncodingJob(make_graph(), "seen", tmp_path, tmp_path)
        described = {"encoder": "hand"} | ({"patches": str(patches)} if patches > 1 else {})
        path = encoded_file(tmp_path, "picture")
        write_vectors(path, ROWS[: len(values)], values.shape[1], [values], job.bound(described))
        table = {"kind": "codes", "of": "picture", "codes": 4, "at_most": 1.0, **settings}
        outcome = encoder_of(table, "x").encode(job)
        tensors, metadata = read_safetensors(job.path)
        assert metadata["entities"] == job.graph.entities.digest()
        book = job.path.with_name("seen.codebook.safetensors")
        assert metadata["encoder_revision"] == f"sha256 {sha256(book)}"
        assert metadata["of_sha256"] == sha256(path)
        assert metadata["of_encoder"] == "hand"
        found = unpacked(tensors, metadata, N)
        assert isinstance(found, Tokens)
        assert outcome.items == outcome.encoded == len(values)
        assert outcome.present == int(found.present().sum())
        return outcome, found

    return made


def read(tokens: Tokens) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for entity, token in zip(tokens.entity.tolist(), tokens.token.tolist(), strict=True):
        found.setdefault(entity, set()).add(tokens.vocabulary[token])
    return found


def nearest(folder: Path, vector: np.ndarray, scale: str) -> list[int]:
    """The code of each part by looking at every centroid of the codebook that was kept."""
    tensors, metadata = read_safetensors(folder / "encoded" / "seen.codebook.safetensors")
    assert metadata["scale"] == scale
    moved = [float(x) - float(m) for x, m in zip(vector, tensors["mean"], strict=True)]
    length = math.sqrt(sum(x * x for x in moved)) if scale == "unit" else 1.0
    moved = [x / length for x in moved]
    found = []
    for part in range(len(tensors) - 1):
        centroids = tensors[f"centroids.{part}"].tolist()
        own, moved = moved[: len(centroids[0])], moved[len(centroids[0]) :]
        far = [sum((x - c) ** 2 for x, c in zip(own, held, strict=True)) for held in centroids]
        found.append(far.index(min(far)))
    assert not moved
    return found


# -- the nearest centroid ------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["unit", "none"])
def test_codes_are_those_of_the_nearest_centroid(
    tmp_path: Path, encode: Encode, scale: str
) -> None:
    values = clouds(30, 5)
    outcome, found = encode(values, scale=scale)
    expected = [{str(code) for code in nearest(tmp_path, v, scale)} for v in values]
    assert read(found) == dict(zip(ROWS.tolist(), expected, strict=True))
    # Vectors of one cloud have one code, those of two clouds have two.
    cloud = [expected[n].pop() for n in range(30)]
    assert len(set(cloud)) == 4
    assert all(cloud[n] == cloud[n % 4] for n in range(30))
    assert outcome.counts["vectors that the centroids were computed from"] == 30


@pytest.mark.parametrize("scale", ["unit", "none"])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_product_codes_are_those_of_the_nearest_centroid_of_each_part(
    tmp_path: Path, encode: Encode, parts: int, scale: str
) -> None:
    values = clouds(30, 7)
    limits = {"method": "product", "parts": parts, "scale": scale, "at_least": 1}
    _, found = encode(values, **limits)
    expected = {}
    for row, vector in zip(ROWS.tolist(), values, strict=True):
        own = enumerate(nearest(tmp_path, vector, scale), 1)
        expected[row] = {f"{part}#{code}" for part, code in own}
        assert len(expected[row]) == parts
    assert read(found) == expected


@pytest.mark.parametrize("method", ["kmeans", "product"])
@pytest.mark.parametrize("block", [1, 40, 1 << 23])
def test_patches_share_a_codebook_and_make_one_set(
    tmp_path: Path, encode: Encode, method: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    values = clouds(90, 4, 5).reshape(30, 12)
    settings = {"method": method, "parts": 2, "codes": 5, "scale": "none", "at_least": 1}
    outcome, found = encode(values, patches=3, **settings)
    assert outcome.counts["vectors that the centroids were computed from"] == 90
    for row, vector in zip(ROWS.tolist(), values, strict=True):
        expected = set()
        for patch in vector.reshape(3, 4):
            own = nearest(tmp_path, patch, "none")
            named = {f"{part}#{code}" for part, code in enumerate(own, 1)}
            expected |= named if method == "product" else set(map(str, own))
        assert read(found)[row] == expected


@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 3), st.sampled_from(["unit", "none"]))
def test_a_codebook_gives_the_nearest_of_its_centroids(
    codes: int, parts: int, seed: int, scale: Any
) -> None:
    drawn = np.random.default_rng(seed)
    shapes = [len(part) for part in np.array_split(np.arange(6), parts)]
    # Far from the origin, where float32 would lose the distances.
    mean = (drawn.normal(size=6) + 3000).astype("f4")
    centroids = tuple(drawn.normal(size=(codes, width)).astype("f4") for width in shapes)
    vectors = (mean + drawn.normal(size=(20, 6))).astype("f4")
    found = Codebook(scale, mean, centroids).codes(vectors)
    moved = vectors.astype(float) - mean
    moved /= np.linalg.norm(moved, axis=1, keepdims=True) if scale == "unit" else 1
    split = np.split(moved, np.cumsum(shapes)[:-1], axis=1)
    for part, (own, held) in enumerate(zip(split, centroids, strict=True)):
        far = np.linalg.norm(own[:, None] - held.astype(float), axis=2)
        assert np.allclose(far[np.arange(20), found[:, part]], far.min(1), atol=1e-5)


# -- limits, samples, runs -----------------------------------------------------------------------


def test_codes_beyond_the_limits_are_left_out(encode: Encode) -> None:
    # Clouds of 15, 10 and 4 vectors, and one alone.
    middle = np.array([[9, 0], [0, 9], [-9, 0], [0, -9]])
    cloud = [0] * 15 + [1] * 10 + [2] * 4 + [3]
    noise = np.random.default_rng(0).normal(size=(30, 2)) / 9
    values = (middle[cloud] + noise).astype("f4")
    _, whole = encode(values, at_least=1, scale="none")
    assert sorted(Counter(whole.token.tolist()).values()) == [1, 4, 10, 15]
    outcome, found = encode(values, at_least=2, at_most=0.4, scale="none")
    assert sorted(Counter(found.token.tolist()).values()) == [4, 10]
    assert (outcome.encoded, outcome.present) == (30, 14)
    assert outcome.counts["entities without a code within the limits"] == 16
    with pytest.raises(ValueError, match=r"picture.safetensors: no code belongs to 20 entities"):
        encode(values, at_least=20, scale="none")


@pytest.mark.parametrize("method", ["kmeans", "product"])
def test_centroids_come_from_a_sample_drawn_by_a_seed(
    tmp_path: Path, encode: Encode, method: str
) -> None:
    values = clouds(30, 4)
    settings = {"method": method, "parts": 2, "sample": 20}
    outcome, found = encode(values, seed=1, **settings)
    assert outcome.counts["vectors that the centroids were computed from"] == 20
    files = [encoded_file(tmp_path, n) for n in ("seen", "seen.codebook")]
    first = [path.read_bytes() for path in files]
    _, again = encode(values, seed=1, **settings)
    assert [path.read_bytes() for path in files] == first
    assert found.digest() == again.digest()
    encode(values, seed=2, **settings)
    assert files[1].read_bytes() != first[1]


def test_half_precision_and_strange_values(tmp_path: Path, encode: Encode) -> None:
    values = clouds(30, 5)
    job = EncodingJob(make_graph(), "seen", tmp_path, tmp_path)
    table = {"kind": "codes", "of": "picture", "codes": 4, "at_most": 1.0}
    path = encoded_file(tmp_path, "picture")
    path.parent.mkdir()
    tensors = {"values": torch.from_numpy(values).half(), "rows": torch.from_numpy(ROWS)}
    save_file(tensors, path)
    encoder_of(table, "x").encode(job)
    found = unpacked(*read_safetensors(job.path), N)
    assert isinstance(found, Tokens)
    rounded = values.astype("f2").astype("f4")
    assert found.digest() == encode(rounded)[1].digest()
    values[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"picture.safetensors: a vector holds NaN or infinity"):
        encode(values)


def test_modalities_that_the_graph_declares(tmp_path: Path, encode: Encode) -> None:
    _, expected = encode(clouds(30, 5))
    encoded_file(tmp_path, "picture").rename(tmp_path / "p.safetensors")
    (tmp_path / "t.tsv").write_text("e0\t1\n")
    declared = {
        "picture": {"kind": "vectors", "path": "p.safetensors"},
        "other": {"kind": "encoded", "path": "p.safetensors"},
        "absent": {"kind": "encoded", "path": "q.safetensors"},
        "age": {"kind": "numbers", "path": "t.tsv"},
    }
    job = EncodingJob(make_graph(declared, str(tmp_path)), "seen", tmp_path, tmp_path / "out")
    table = {"kind": "codes", "codes": 4, "at_most": 1.0}
    encoder = encoder_of({**table, "of": "picture"}, "x")
    assert list(encoder.needs()) == ["picture"]
    encoder.encode(job)
    found = unpacked(*read_safetensors(job.path), N)
    assert found.digest() == expected.digest()
    encoder_of({**table, "of": "other"}, "x").encode(job)
    assert unpacked(*read_safetensors(job.path), N).digest() == expected.digest()
    with pytest.raises(ValueError, match=r"absent.safetensors: .*make it first .* encode all"):
        encoder_of({**table, "of": "absent"}, "x").encode(job)
    with pytest.raises(ValueError, match=r"modalities.age: is no modality of vectors"):
        encoder_of({**table, "of": "age"}, "x").encode(job)
    with pytest.raises(ValueError, match=r"sound.safetensors: .*'sound' is no mod.*: mocme encode"):
        encoder_of({**table, "of": "sound"}, "x").encode(job)
    with pytest.raises(ValueError, match=r"'seen' cannot be made of itself"):
        encoder_of({**table, "of": "seen"}, "x").encode(job)


def test_vectors_of_another_graph(tmp_path: Path, encode: Encode) -> None:
    encode(clouds(30, 5))
    graph = Graph(Vocabulary(["a", "b"]), Vocabulary(["r"], "relation"), {})
    job = EncodingJob(graph, "other", tmp_path, tmp_path)
    with pytest.raises(ValueError, match=r"picture.safetensors: .*another list of entities"):
        encoder_of({"kind": "codes", "of": "picture"}, "x").encode(job)


def test_tokens_have_no_codes(tmp_path: Path, encode: Encode) -> None:
    encode(clouds(30, 5))
    job = EncodingJob(make_graph(), "twice", tmp_path, tmp_path)
    with pytest.raises(ValueError, match=r"seen.safetensors: holds no vectors"):
        encoder_of({"kind": "codes", "of": "seen"}, "x").encode(job)


def test_more_codes_than_vectors(encode: Encode) -> None:
    values = clouds(30, 5)
    values[2:] = values[1]
    with pytest.raises(ValueError, match=r"picture.*: there are only 2 distinct vectors for 4 cod"):
        encode(values)
    values = clouds(30, 5)
    values[:, 3:] = 0
    settings = {"method": "product", "parts": 2, "scale": "none"}
    with pytest.raises(ValueError, match=r"part 2 of 2 .* only 1 distinct vectors .* set codes"):
        encode(values, **settings)
    with pytest.raises(ValueError, match=r"6 parts of vectors of width 5; set parts"):
        encode(values, method="product", parts=6)
    with pytest.raises(ValueError, match=r"says that it has '4' patches, which 5 columns are not"):
        encode(values, patches=4)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"codes": 1}, "at least 2"),
        ({"parts": 0}, "at least 1"),
        ({"sample": 255}, "at least as large"),
        ({"at_least": 0}, "1 or more"),
        ({"at_most": 0.0}, "a share"),
        ({"seed": -1}, "seed must lie"),
        ({"method": "hash"}, "none of kmeans, product"),
        ({"scale": "white"}, "none of unit, none"),
        ({"per_entity": 3}, "unknown setting"),
    ],
)
def test_settings_in_range(table: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"x.*{problem}"):
        encoder_of({"kind": "codes", "of": "v", **table}, "x")


def test_it_stops_when_asked(tmp_path: Path, encode: Encode) -> None:
    encode(clouds(30, 5))
    files = [encoded_file(tmp_path, n) for n in ("seen", "seen.codebook")]
    first = [path.read_bytes() for path in files]
    job = EncodingJob(make_graph(), "seen", tmp_path, tmp_path)
    job.stopped.set()
    with pytest.raises(Interrupted, match="stopped"):
        encoder_of({"kind": "codes", "of": "picture", "codes": 3}, "x").encode(job)
    # What was made before stays, with its own codebook.
    assert [path.read_bytes() for path in files] == first


def test_a_missing_library_is_named_with_its_extra(
    encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ValueError, match=r"scikit-learn is not installed.*mocme\[tokens\]"):
        encode(clouds(30, 5))
