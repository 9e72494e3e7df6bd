"""Similar texts and vectors, compared with a computation pair by pair."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from mocme.data.features.kinds.similar import Similar
from mocme.data.features.sources import needs_encoding, read_features
from mocme.data.graph import Graph
from mocme.data.load import load
from mocme.data.modality import Modality, Tokens
from mocme.data.pairs import similarity
from mocme.data.pairs.similarity import IdPairs, similar_texts, similar_vectors
from mocme.data.words import running

WORDS = ["red", "dog", "sun", "é", "हिन्दी", "東京", "lake", "old", "of", "a"]


def listed(pairs: IdPairs) -> list[tuple[int, int]]:
    head, tail = pairs
    return list(zip(head.tolist(), tail.tolist(), strict=True))


def nearest_of(cosine: Mapping[tuple[int, int], float], nearest: int) -> list[tuple[int, int]]:
    """Return the nearest by sorting all pairs; `cosine` has those above the limit."""
    nearest_pairs = []
    for head in sorted({head for head, _ in cosine}):
        ranked = sorted(
            (-round(value, 5), tail) for (start, tail), value in cosine.items() if start == head
        )
        nearest_pairs += sorted((head, tail) for _, tail in ranked[:nearest])
    return nearest_pairs


def weighted(texts: Mapping[int, Sequence[str]], at_least: int, at_most: float) -> dict[int, Any]:
    """Return tf-idf vectors of unit length, as dictionaries."""
    counts: dict[int, Counter[str]] = {}
    for entity, lines in texts.items():
        if any(lines):
            counts[entity] = Counter()
            for words in map(running, lines):
                counts[entity] += Counter(words) + Counter(f"{a} {b}" for a, b in pairwise(words))
    number = len(counts)
    df = Counter(term for terms in counts.values() for term in terms)
    result = {}
    for entity, terms in counts.items():
        vector = {
            term: (1 + math.log(tf)) * (1 + math.log((1 + number) / (1 + df[term])))
            for term, tf in terms.items()
            if df[term] >= at_least and df[term] / number <= at_most
        }
        length = math.sqrt(sum(value**2 for value in vector.values()))
        result[entity] = {term: value / length for term, value in vector.items()}
    return result


TEXTS = st.dictionaries(
    st.integers(0, 30),
    st.lists(st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join), max_size=2),
    max_size=14,
)


@given(TEXTS, st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([0.3, 1.0]))
def test_similar_texts_equal_those_of_all_pairs_compared(
    texts: dict[int, list[str]], nearest: int, least: float, at_most: float
) -> None:
    vectors = weighted(texts, 2, at_most)
    cosine = {
        (a, b): value
        for a, one in vectors.items()
        for b, other in vectors.items()
        if a != b and (value := sum(v * other.get(t, 0) for t, v in one.items())) > least
    }
    # Close to the limit, rounding errors may decide.
    if any(abs(value - least) < 1e-6 for value in cosine.values()):
        return
    pairs = listed(similar_texts(texts, nearest, least=least, at_most=at_most))
    assert_as_near(pairs, nearest_of(cosine, nearest), cosine)


def assert_as_near(
    pairs: list[tuple[int, int]],
    expected: list[tuple[int, int]],
    cosine: Mapping[tuple[int, int], float],
) -> None:
    """Assert that pairs are equal, or have other tails that are as near to five decimals."""
    assert sorted(set(pairs)) == pairs
    assert Counter(head for head, _ in pairs) == Counter(head for head, _ in expected)
    for (head, tail), expected_pair in zip(pairs, expected, strict=True):
        if (head, tail) != expected_pair:
            cosines = sorted(cosine[p] for p in pairs if p[0] == head)
            expected_cosines = sorted(cosine[p] for p in expected if p[0] == head)
            assert cosines == pytest.approx(expected_cosines, abs=2e-5)


def test_weights_equal_those_of_scikit_learn() -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    rng = random.Random(0)
    words = [f"w{n}" for n in range(40)]
    texts = [" ".join(rng.choices(words, k=rng.randint(3, 12))) for _ in range(60)]
    vectorizer = text.TfidfVectorizer(min_df=2, max_df=0.2, sublinear_tf=True, ngram_range=(1, 2))
    vectors = vectorizer.fit_transform(texts).toarray()
    cosine = vectors @ vectors.T
    near = {
        (a, b): float(cosine[a, b])
        for a in range(60)
        for b in range(60)
        if a != b and cosine[a, b] > 0.1
    }
    pairs = listed(similar_texts({n: [t] for n, t in enumerate(texts)}))
    assert_as_near(pairs, nearest_of(near, 5), near)


def test_ties_are_broken_by_id_whatever_the_order_of_texts() -> None:
    texts = {n: ["red dog"] for n in (9, 3, 7, 5)} | {n: [f"w{n}"] for n in range(20, 60)}
    pairs = similar_texts(texts, 2)
    assert listed(pairs) == [(3, 5), (3, 7), (5, 3), (5, 7), (7, 3), (7, 5), (9, 3), (9, 5)]
    again = similar_texts(dict(sorted(texts.items(), reverse=True)), 2)
    assert listed(again) == listed(pairs)


def test_a_pair_of_words_is_within_one_text() -> None:
    others = {n: [f"w{n}"] for n in range(20, 40)}
    texts = {0: ["red dog"], 1: ["red", "dog"], 2: ["red dog"], **others}
    assert (0, 2) in listed(similar_texts(texts))
    vectors = weighted(texts, 2, 0.2)
    assert "red dog" in vectors[0]
    assert "red dog" not in vectors[1]


@given(
    st.integers(0, 10_000),
    st.integers(1, 12),
    st.integers(1, 5),
    st.sampled_from([0.0, 1e-3, 0.6]),
)
def test_similar_vectors_equal_those_of_all_pairs_compared(
    seed: int, number: int, nearest: int, least: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Integers, so that there are ties and zero vectors.
    values = torch.randint(-1, 2, (number, 3), generator=generator).float()
    rows = torch.randperm(40, generator=generator)[:number].sort().values
    cosine = {}
    for a in range(number):
        for b in range(number):
            lengths = float(values[a].double().norm() * values[b].double().norm())
            value = float(values[a] @ values[b]) / lengths if lengths else 0.0
            # Rounding errors may put orthogonal vectors above 0.
            if lengths and value == least:
                return
            if a != b and value > least:
                cosine[int(rows[a]), int(rows[b])] = value
    assert listed(similar_vectors(values, rows, nearest, least=least)) == nearest_of(
        cosine, nearest
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_length_of_a_vector_does_not_matter(dtype: torch.dtype) -> None:
    values = torch.randn(30, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows = torch.arange(30)
    plain = listed(similar_vectors(values, rows, 3))
    assert listed(similar_vectors(values * 64, rows, 3)) == plain
    if dtype != torch.float16:
        assert listed(similar_vectors(values * 2.0**80, rows, 3)) == plain
        assert listed(similar_vectors(values * 2.0**-80, rows, 3)) == plain


@pytest.mark.parametrize("similar", ["texts", "vectors"])
def test_blocks_do_not_change_the_result(similar: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    texts = {n: [" ".join(rng.choices("abcdefghijklmnop", k=6))] for n in range(70)}
    values = torch.randn(70, 5, generator=torch.Generator().manual_seed(0)).round()

    def pairs() -> list[tuple[int, int]]:
        if similar == "texts":
            return listed(similar_texts(texts, 4, at_most=1.0))
        return listed(similar_vectors(values, torch.arange(70), 4))

    in_one_block = pairs()
    for cells in (1, 700, 71 * 69):
        monkeypatch.setattr(similarity, "_CELLS", cells)
        assert pairs() == in_one_block


def test_empty_and_zero_content_has_no_pairs() -> None:
    assert listed(similar_texts({})) == listed(similar_texts({3: [], 4: ["", ""]})) == []
    assert listed(similar_texts({3: ["alone here"]})) == []
    assert listed(similar_vectors(torch.zeros(0, 3), torch.arange(0))) == []
    assert listed(similar_vectors(torch.zeros(4, 3), torch.arange(4))) == []


# -- the source ----------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    names = [f"e{n}" for n in range(12)]
    facts = "".join(f"{a}\tr\t{b}\n" for a, b in pairwise(names))
    (tmp_path / "train.tsv").write_text(facts)
    (tmp_path / "entities.txt").write_text("".join(f"{name}\n" for name in names))
    (tmp_path / "t.tsv").write_text("e1\tred dog\ne7\tthe red dog\n" + "e3\tsun\n" * 2)
    (tmp_path / "u.tsv").write_text("".join(f"e{n}\tx\tw{n}\n" for n in range(12)))
    return tmp_path


def encoded(home: Path, modality: Modality | Tokens) -> Graph:
    graph = load(home)
    (home / "encoded").mkdir(exist_ok=True)
    tensors, metadata = modality.packed()
    path = home / "encoded" / "image.safetensors"
    save_file(tensors, path, {**metadata, "entities": graph.entities.digest()})
    return graph


def test_a_graph_declares_similar_texts(home: Path) -> None:
    (home / "graph.toml").write_text(
        '[modalities.near]\nkind = "similar"\npaths = ["t.tsv", "u.tsv"]\ncolumns = [2, 3]\n'
    )
    graph = load(home)
    features = read_features(graph, graph.modalities)
    pairs = features.pairs["near"]
    assert pairs.kinds == ("similar",)
    assert listed((pairs.head, pairs.tail)) == [(1, 7), (7, 1)]
    assert any("10 of 12 entities are similar to no other" in note for note in features.notes)
    assert pairs.provenance["source"] == "t.tsv\tu.tsv"


def test_a_graph_declares_similar_pictures(home: Path, tmp_path: Path) -> None:
    values = torch.tensor([[1.0, 0], [0, 1], [2, 0.1], [-1, 0]])
    table = {"kind": "similar", "vectors": "encoded/image.safetensors"}
    assert needs_encoding(table, load(home))
    with pytest.raises(ValueError, match=r"image.safetensors: there is no such file; make it with"):
        read_features(load(home), {"near": table})
    graph = encoded(home, Modality(values, torch.tensor([0, 2, 5, 11]), 12))
    assert not needs_encoding(table, graph)
    for folder in (None, tmp_path / "elsewhere"):
        pairs = read_features(graph, {"near": table}, folder).pairs["near"]
        assert listed((pairs.head, pairs.tail)) == [(0, 5), (2, 5), (5, 0), (5, 2)]
    assert "sha256" in pairs.provenance
    changed = read_features(graph, {"near": {**table, "replace": "shuffled"}}).pairs["near"]
    assert changed.digest() != pairs.digest()
    assert len(changed.head) <= len(pairs.head)


def test_content_without_pairs_is_an_error_that_names_the_file(home: Path) -> None:
    with pytest.raises(ValueError, match=r"u.tsv: none of the 12 .*check the file and columns"):
        Similar(paths=["u.tsv"], columns=[3]).load(load(home), home)
    tokens = Tokens(("x",), torch.tensor([1]), torch.tensor([0]), 12)
    graph = encoded(home, tokens)
    with pytest.raises(ValueError, match=r"image.safetensors: contains no vectors"):
        Similar(vectors="encoded/image.safetensors").load(graph, home)
    graph = encoded(home, Modality(torch.eye(3), torch.arange(3), 12))
    with pytest.raises(ValueError, match=r"image.safetensors: none of the 3 entities"):
        Similar(vectors="encoded/image.safetensors").load(graph, home)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "exactly one of paths"),
        ({"paths": ["a"], "vectors": "b"}, "exactly one of paths"),
        ({"paths": ["a"], "columns": [1]}, "2 or more"),
        ({"paths": ["a"], "nearest": 0}, "1 or more"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Similar(**settings)
