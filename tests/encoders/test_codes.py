"""Codes of vectors and of their parts, compared with a naive search for the nearest centroid."""

from __future__ import annotations

import math
import re
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

from mocme.core.digest import file_digest
from mocme.core.extras import remedy
from mocme.core.interrupts import Interrupted
from mocme.core.registry import ConfigError
from mocme.data.graph import Graph, Vocabulary
from mocme.data.modality import Tokens
from mocme.data.modality_files import read_safetensors, unpack_modality
from mocme.encoders.base import EncodingJob, EncodingReport, encoded_file
from mocme.encoders.catalog import encoder_of
from mocme.encoders.codebooks import Codebook
from mocme.encoders.kinds import codes as codes_kind
from mocme.encoders.writer import write_vectors

N, ROWS = 60, np.arange(0, 60, 2)
Encode = Callable[..., tuple[EncodingReport, Tokens]]


def clusters(count: int, width: int, centres: int = 4, seed: int = 0) -> np.ndarray:
    """Vectors around a few centres that are far apart."""
    generator = np.random.default_rng(seed)
    centre = generator.normal(size=(centres, width)) * 9
    noise = generator.normal(size=(count, width))
    return (centre[np.arange(count) % centres] + noise).astype("f4")


def make_graph(modalities: Mapping[str, Any] = {}, folder: str | None = None) -> Graph:
    entities = Vocabulary([f"e{n}" for n in range(N)])
    return Graph(entities, Vocabulary(["r"], "relation"), {}, folder=folder, modalities=modalities)


@pytest.fixture
def encode(tmp_path: Path) -> Encode:
    def run(values: np.ndarray, patches: int = 1, **settings: Any) -> tuple[EncodingReport, Tokens]:
        job = EncodingJob(make_graph(), "codes", tmp_path, tmp_path)
        about = {"encoder": "hand"} | ({"patches": str(patches)} if patches > 1 else {})
        path = encoded_file(tmp_path, "picture")
        write_vectors(path, ROWS[: len(values)], values.shape[1], [values], job.bound(about))
        table = {"kind": "codes", "of": "picture", "codes": 4, "at_most": 1.0, **settings}
        report = encoder_of(table, "x").encode(job)
        tensors, metadata = read_safetensors(job.path)
        assert metadata["entities"] == job.graph.entities.digest()
        codebook = job.path.with_name("codes.codebook.safetensors")
        assert metadata["encoder_revision"] == f"sha256 {file_digest(codebook)}"
        assert metadata["of_sha256"] == file_digest(path)
        assert metadata["of_encoder"] == "hand"
        tokens = unpack_modality(tensors, metadata, N)
        assert isinstance(tokens, Tokens)
        assert report.items == report.encoded == len(values)
        assert report.present == int(tokens.present().sum())
        return report, tokens

    return run


def by_entity(tokens: Tokens) -> dict[int, set[str]]:
    sets: dict[int, set[str]] = {}
    for entity, token in zip(tokens.entity.tolist(), tokens.token.tolist(), strict=True):
        sets.setdefault(entity, set()).add(tokens.vocabulary[token])
    return sets


def nearest(folder: Path, vector: np.ndarray, scale: str) -> list[int]:
    """The code of each part, from the distances to every centroid in the written codebook."""
    tensors, metadata = read_safetensors(folder / "encoded" / "codes.codebook.safetensors")
    assert metadata["scale"] == scale
    rest = [float(x) - float(m) for x, m in zip(vector, tensors["mean"], strict=True)]
    length = math.sqrt(sum(x * x for x in rest)) if scale == "unit" else 1.0
    rest = [x / length for x in rest]
    codes = []
    for number in range(len(tensors) - 1):
        centroids = tensors[f"centroids.{number}"].tolist()
        part, rest = rest[: len(centroids[0])], rest[len(centroids[0]) :]
        distances = [sum((x - y) ** 2 for x, y in zip(part, c, strict=True)) for c in centroids]
        codes.append(distances.index(min(distances)))
    assert not rest
    return codes


# -- the nearest centroid ------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["unit", "none"])
def test_codes_are_those_of_the_nearest_centroid(
    tmp_path: Path, encode: Encode, scale: str
) -> None:
    values = clusters(30, 5)
    report, tokens = encode(values, scale=scale)
    expected = [{str(code) for code in nearest(tmp_path, v, scale)} for v in values]
    assert by_entity(tokens) == dict(zip(ROWS.tolist(), expected, strict=True))
    # Vectors share a code if and only if they share a cluster.
    cluster = [expected[n].pop() for n in range(30)]
    assert len(set(cluster)) == 4
    assert all(cluster[n] == cluster[n % 4] for n in range(30))
    assert report.counts["vectors that the centroids were computed from"] == 30


@pytest.mark.parametrize("scale", ["unit", "none"])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_product_codes_are_those_of_the_nearest_centroid_of_each_part(
    tmp_path: Path, encode: Encode, parts: int, scale: str
) -> None:
    values = clusters(30, 7)
    limits = {"method": "product", "parts": parts, "scale": scale, "at_least": 1}
    _, tokens = encode(values, **limits)
    expected = {}
    for row, vector in zip(ROWS.tolist(), values, strict=True):
        codes = enumerate(nearest(tmp_path, vector, scale), 1)
        expected[row] = {f"{part}#{code}" for part, code in codes}
        assert len(expected[row]) == parts
    assert by_entity(tokens) == expected


@pytest.mark.parametrize("method", ["kmeans", "product"])
@pytest.mark.parametrize("block", [1, 40, 1 << 23])
def test_patches_share_a_codebook_and_an_entity_has_the_codes_of_all(
    tmp_path: Path, encode: Encode, method: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes_kind, "BLOCK", block)
    values = clusters(90, 4, 5).reshape(30, 12)
    settings = {"method": method, "parts": 2, "codes": 5, "scale": "none", "at_least": 1}
    report, tokens = encode(values, patches=3, **settings)
    assert report.counts["vectors that the centroids were computed from"] == 90
    for row, vector in zip(ROWS.tolist(), values, strict=True):
        expected = set()
        for patch in vector.reshape(3, 4):
            codes = nearest(tmp_path, patch, "none")
            by_part = {f"{part}#{code}" for part, code in enumerate(codes, 1)}
            expected |= by_part if method == "product" else set(map(str, codes))
        assert by_entity(tokens)[row] == expected


@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 3), st.sampled_from(["unit", "none"]))
def test_a_codebook_gives_the_nearest_of_its_centroids(
    codes: int, parts: int, seed: int, scale: Any
) -> None:
    generator = np.random.default_rng(seed)
    widths = [len(part) for part in np.array_split(np.arange(6), parts)]
    # Far from the origin, where float32 would lose the distances.
    mean = (generator.normal(size=6) + 3000).astype("f4")
    centroids = tuple(generator.normal(size=(codes, width)).astype("f4") for width in widths)
    vectors = (mean + generator.normal(size=(20, 6))).astype("f4")
    nearest_codes = Codebook(scale, mean, centroids).codes(vectors)
    centred = vectors.astype(float) - mean
    centred /= np.linalg.norm(centred, axis=1, keepdims=True) if scale == "unit" else 1
    columns = np.split(centred, np.cumsum(widths)[:-1], axis=1)
    for part, (x, c) in enumerate(zip(columns, centroids, strict=True)):
        distances = np.linalg.norm(x[:, None] - c.astype(float), axis=2)
        chosen = distances[np.arange(20), nearest_codes[:, part]]
        assert np.allclose(chosen, distances.min(1), atol=1e-5)


# -- limits, samples, inputs ---------------------------------------------------------------------


def test_codes_outside_the_limits_are_left_out(encode: Encode) -> None:
    # Clusters of 15, 10, 4 vectors and of a single one.
    centre = np.array([[9, 0], [0, 9], [-9, 0], [0, -9]])
    cluster = [0] * 15 + [1] * 10 + [2] * 4 + [3]
    noise = np.random.default_rng(0).normal(size=(30, 2)) / 9
    values = (centre[cluster] + noise).astype("f4")
    _, tokens = encode(values, at_least=1, scale="none")
    assert sorted(Counter(tokens.token.tolist()).values()) == [1, 4, 10, 15]
    report, tokens = encode(values, at_least=2, at_most=0.4, scale="none")
    assert sorted(Counter(tokens.token.tolist()).values()) == [4, 10]
    assert (report.encoded, report.present) == (30, 14)
    assert report.counts["entities without a code within the limits"] == 16
    with pytest.raises(ValueError, match=r"picture.safetensors: no code belongs to 20 entities"):
        encode(values, at_least=20, scale="none")


@pytest.mark.parametrize("method", ["kmeans", "product"])
def test_the_seed_decides_the_sample_for_the_centroids(
    tmp_path: Path, encode: Encode, method: str
) -> None:
    values = clusters(30, 4)
    settings = {"method": method, "parts": 2, "sample": 20}
    report, tokens = encode(values, seed=1, **settings)
    assert report.counts["vectors that the centroids were computed from"] == 20
    files = [encoded_file(tmp_path, n) for n in ("codes", "codes.codebook")]
    first = [path.read_bytes() for path in files]
    _, again = encode(values, seed=1, **settings)
    assert [path.read_bytes() for path in files] == first
    assert tokens.digest() == again.digest()
    encode(values, seed=2, **settings)
    assert files[1].read_bytes() != first[1]


def test_half_precision_is_accepted_and_nan_is_an_error(tmp_path: Path, encode: Encode) -> None:
    values = clusters(30, 5)
    job = EncodingJob(make_graph(), "codes", tmp_path, tmp_path)
    table = {"kind": "codes", "of": "picture", "codes": 4, "at_most": 1.0}
    path = encoded_file(tmp_path, "picture")
    path.parent.mkdir()
    tensors = {"values": torch.from_numpy(values).half(), "rows": torch.from_numpy(ROWS)}
    save_file(tensors, path)
    encoder_of(table, "x").encode(job)
    tokens = unpack_modality(*read_safetensors(job.path), N)
    assert isinstance(tokens, Tokens)
    rounded = values.astype("f2").astype("f4")
    assert tokens.digest() == encode(rounded)[1].digest()
    values[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"picture.safetensors: a vector holds NaN or infinity"):
        encode(values)


def test_codes_of_modalities_that_the_graph_declares(tmp_path: Path, encode: Encode) -> None:
    _, expected = encode(clusters(30, 5))
    encoded_file(tmp_path, "picture").rename(tmp_path / "p.safetensors")
    (tmp_path / "t.tsv").write_text("e0\t1\n")
    declared = {
        "picture": {"kind": "vectors", "path": "p.safetensors"},
        "other": {"kind": "encoded", "path": "p.safetensors"},
        "absent": {"kind": "encoded", "path": "q.safetensors"},
        "age": {"kind": "numbers", "path": "t.tsv"},
    }
    job = EncodingJob(make_graph(declared, str(tmp_path)), "codes", tmp_path, tmp_path / "out")
    table = {"kind": "codes", "codes": 4, "at_most": 1.0}
    encoder = encoder_of({**table, "of": "picture"}, "x")
    assert list(encoder.needs()) == ["picture"]
    encoder.encode(job)
    tokens = unpack_modality(*read_safetensors(job.path), N)
    assert tokens.digest() == expected.digest()
    encoder_of({**table, "of": "other"}, "x").encode(job)
    assert unpack_modality(*read_safetensors(job.path), N).digest() == expected.digest()
    with pytest.raises(ValueError, match=r"absent.safetensors: .*make it first .* encode all"):
        encoder_of({**table, "of": "absent"}, "x").encode(job)
    with pytest.raises(ValueError, match=r"modalities.age: is no modality of vectors"):
        encoder_of({**table, "of": "age"}, "x").encode(job)
    with pytest.raises(ValueError, match=r"sound.safetensors: .*'sound' is no mod.*: mocme encode"):
        encoder_of({**table, "of": "sound"}, "x").encode(job)
    with pytest.raises(ValueError, match=r"'codes' cannot be made of itself"):
        encoder_of({**table, "of": "codes"}, "x").encode(job)


def test_vectors_of_another_graph_are_an_error(tmp_path: Path, encode: Encode) -> None:
    encode(clusters(30, 5))
    graph = Graph(Vocabulary(["a", "b"]), Vocabulary(["r"], "relation"), {})
    job = EncodingJob(graph, "other", tmp_path, tmp_path)
    with pytest.raises(ValueError, match=r"picture.safetensors: .*another list of entities"):
        encoder_of({"kind": "codes", "of": "picture"}, "x").encode(job)


def test_codes_of_tokens_are_an_error(tmp_path: Path, encode: Encode) -> None:
    encode(clusters(30, 5))
    job = EncodingJob(make_graph(), "twice", tmp_path, tmp_path)
    with pytest.raises(ValueError, match=r"codes.safetensors: holds no vectors"):
        encoder_of({"kind": "codes", "of": "codes"}, "x").encode(job)


def test_more_codes_than_distinct_vectors_are_an_error(encode: Encode) -> None:
    values = clusters(30, 5)
    values[2:] = values[1]
    with pytest.raises(ValueError, match=r"picture.*: there are only 2 distinct vectors for 4 cod"):
        encode(values)
    values = clusters(30, 5)
    values[:, 3:] = 0
    settings = {"method": "product", "parts": 2, "scale": "none"}
    with pytest.raises(ValueError, match=r"part 2 of 2 .* only 1 distinct vectors .* set codes"):
        encode(values, **settings)
    with pytest.raises(ValueError, match=r"6 parts of vectors of width 5; set parts"):
        encode(values, method="product", parts=6)
    with pytest.raises(ValueError, match=r"declares '4' patches, by which its 5 columns cannot be"):
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
def test_a_setting_out_of_range_is_an_error(table: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"x.*{problem}"):
        encoder_of({"kind": "codes", "of": "v", **table}, "x")


def test_a_stopped_job_keeps_the_older_result(tmp_path: Path, encode: Encode) -> None:
    encode(clusters(30, 5))
    files = [encoded_file(tmp_path, n) for n in ("codes", "codes.codebook")]
    first = [path.read_bytes() for path in files]
    job = EncodingJob(make_graph(), "codes", tmp_path, tmp_path)
    job.stopped.set()
    with pytest.raises(Interrupted, match="stopped"):
        encoder_of({"kind": "codes", "of": "picture", "codes": 3}, "x").encode(job)
    assert [path.read_bytes() for path in files] == first


def test_a_missing_library_is_named_with_its_extra(
    encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(
        ValueError, match=rf"scikit-learn is not installed.*{re.escape(remedy('tokens'))}"
    ):
        encode(clusters(30, 5))
