"""Pairs of new entities equal those of a graph that had them from the start."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mocme.data.features.sources import read_features
from mocme.data.load import load
from mocme.data.modality import FORMAT, Basis, Modality, Pairs
from mocme.data.modality_files import unpack_modality
from mocme.data.pairs.build import (
    NewContent,
    basis_of_texts,
    build_pairs,
    merge_pairs,
    pairs_of_new_entities,
    share_vectors,
)
from mocme.data.pairs.mentions import mentions
from mocme.data.pairs.similarity import similar_vectors
from mocme.data.strings import EntityTexts

WORDS = [
    "Paris",
    "Lake",
    "red",
    "born",
    "in",
    "of",
    "St.",
    "Louis",
    "dog",
    "東京",
    "and",
    ",",
    "on",
]
LIMITS = {"contexts": 2, "part": 2, "share": 3, "shortest": 3}
OLD, NEW = 14, 3
Rows = list[tuple[str, int, int]]


def phrases(seed: int, longest: int, number: int = OLD + NEW) -> dict[int, list[str]]:
    """Return random texts by entity; some entities have two, some none."""
    rng = random.Random(seed)
    return {
        entity: [
            " ".join(rng.choices(WORDS, k=rng.randint(1, longest)))
            for _ in range(rng.choice([1, 1, 2]))
        ]
        for entity in range(number)
        if rng.random() < 0.9
    }


def of_old(texts: Mapping[int, Sequence[str]]) -> dict[int, Sequence[str]]:
    return {entity: lines for entity, lines in texts.items() if entity < OLD}


def of_new(texts: Mapping[int, Sequence[str]]) -> dict[int, Sequence[str]]:
    return {entity: lines for entity, lines in texts.items() if entity >= OLD}


def rows_with_new(pairs: Pairs, kinds: Sequence[str]) -> Rows:
    """Return the rows of some kinds that have a new entity."""
    rows = zip(pairs.kind.tolist(), pairs.head.tolist(), pairs.tail.tolist(), strict=True)
    named = [(pairs.kinds[k], h, t) for k, h, t in rows if max(h, t) >= OLD]
    return sorted(row for row in named if row[0] in kinds)


def named(pairs: Pairs, rows: torch.Tensor) -> Rows:
    return sorted((pairs.kinds[k], h, t) for k, h, t in rows.tolist())


@pytest.mark.parametrize("seed", range(12))
def test_mentions_of_new_entities_equal_those_of_the_whole_graph(seed: int) -> None:
    names, texts = phrases(seed, 2), phrases(seed + 100, 9)
    settings = {**LIMITS, "separator": None}
    basis = basis_of_texts("mentions", settings, names=of_old(names), texts=of_old(texts))
    pairs = build_pairs(basis, OLD, {})
    assert pairs.digest() == mentions(of_old(names), of_old(texts), OLD, **LIMITS).digest()
    rows = pairs_of_new_entities(pairs, NewContent(NEW, of_new(names), of_new(texts)))
    # The contexts are those of the training, so the reference finds all contexts and keeps these.
    whole = mentions(names, texts, OLD + NEW, **{**LIMITS, "contexts": 1})
    assert named(pairs, rows) == rows_with_new(whole, pairs.kinds)
    assert len(rows)


@pytest.mark.parametrize("seed", range(6))
def test_similar_texts_of_new_entities_equal_those_of_the_whole_graph(seed: int) -> None:
    texts = phrases(seed, 7, OLD + NEW)
    pairs = build_pairs(basis_of_texts("like texts", {"nearest": 2}, texts=of_old(texts)), OLD, {})
    rows = pairs_of_new_entities(pairs, NewContent(NEW, texts=of_new(texts)))
    whole = build_pairs(basis_of_texts("like texts", {"nearest": 2}, texts=texts), OLD + NEW, {})
    assert named(pairs, rows) == rows_with_new(whole, pairs.kinds)
    assert {bool(h >= OLD) for _, h, t in named(pairs, rows) if t >= OLD} >= {False}


@pytest.mark.parametrize("seed", range(6))
def test_similar_vectors_of_new_entities_equal_those_of_the_whole_graph(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(60)[torch.rand(60, generator=generator) < 0.8]
    values = torch.randn(len(rows), 4, generator=generator)
    values[::7] = values[0]  # ties
    values[5] = 0
    old = rows < 50
    modality = Modality(values[old], rows[old], 50)
    pairs = build_pairs(Basis("like vectors", {"nearest": 3}, vectors=modality), 50, {})
    vectors = dict(zip(rows[~old].tolist(), values[~old], strict=True))
    new_pairs = {
        (h, t) for _, h, t in pairs_of_new_entities(pairs, NewContent(10, vectors=vectors)).tolist()
    }
    head, tail = similar_vectors(values, rows, 3)
    whole = set(zip(head.tolist(), tail.tolist(), strict=True))
    assert new_pairs == {pair for pair in whole if max(pair) >= 50}
    assert any(h < 50 for h, _ in new_pairs)
    assert pairs_of_new_entities(pairs, NewContent(10)).shape == (0, 3)


def test_old_pairs_stay_although_a_new_entity_is_nearer() -> None:
    values = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    modality = Modality(values, torch.arange(3), 3)
    pairs = build_pairs(Basis("like vectors", {"nearest": 1}, vectors=modality), 3, {})
    rows = pairs_of_new_entities(pairs, NewContent(1, vectors={3: torch.tensor([1.0, 0.01])}))
    whole = merge_pairs(pairs, rows, 4)
    old = torch.stack([pairs.kind, pairs.head, pairs.tail], 1).tolist()
    both = torch.stack([whole.kind, whole.head, whole.tail], 1).tolist()
    assert [row for row in both if max(row) < 3] == old
    assert [0, 0, 1] in both  # 3 is nearer to 0 than 1 is: both are paired with it
    assert [0, 0, 3] in both
    assert whole.num_entities == 4


def test_names_of_new_entities_are_split_by_the_separator() -> None:
    names = {0: ["Lake Placid"], 1: ["Red Dog", "Hund"]}
    basis = basis_of_texts("mentions", {**LIMITS, "separator": ";"}, names=names, texts=None)
    pairs = build_pairs(basis, 2, {})
    assert not pairs.kinds
    known = Pairs(("named within",), *(torch.zeros(0).long(),) * 3, 2, basis=basis)
    rows = pairs_of_new_entities(
        known, NewContent(1, {2: ["Great Red Dog;Lake Placid Park"]}, {2: ["Hund"]})
    )
    # The training read no texts, so the text of the new entity is not read.
    assert rows.tolist() == [[0, 2, 0], [0, 2, 1]]


def test_pairs_without_a_basis_cannot_grow() -> None:
    empty = torch.zeros(0).long()
    with pytest.raises(ValueError, match="do not say how they were built"):
        pairs_of_new_entities(Pairs(("similar",), empty, empty, empty, 3), NewContent(1))


def test_texts_survive_as_tensors() -> None:
    texts = {7: ["ü", "", "東京 und"], 2: ["a\nb"], 3: []}
    packed = EntityTexts.of(texts).packed("x/")
    assert EntityTexts.unpacked(packed, "x/", 8).by_entity() == {
        2: ["a\nb"],
        7: ["ü", "", "東京 und"],
    }
    assert EntityTexts.of({}).by_entity() == {}


def test_a_basis_is_stored_with_the_pairs_but_not_in_their_digest() -> None:
    basis = basis_of_texts("like texts", {"nearest": 2}, texts={0: ["a dog"], 1: ["a dog"]})
    pairs = build_pairs(basis, 3, {"source": "texts.tsv"})
    again = unpack_modality(*pairs.packed(), 3)
    assert isinstance(again, Pairs)
    assert again.basis is not None
    assert again.basis.texts["texts"].by_entity() == {0: ["a dog"], 1: ["a dog"]}
    assert again.provenance == pairs.provenance
    assert again.digest() == pairs.digest()
    older = {k: v for k, v in pairs.packed()[0].items() if not k.startswith("basis/")}
    metadata = {k: v for k, v in pairs.packed()[1].items() if k != "basis"}
    without = unpack_modality(older, metadata, 3)
    assert isinstance(without, Pairs)
    assert without.basis is None
    modality = Modality(torch.randn(3, 2), torch.arange(3), 3, {"kind": "x"})
    pairs = build_pairs(Basis("like vectors", {"nearest": 2}, vectors=modality), 3, {"kind": "x"})
    again = unpack_modality(*pairs.packed(), 3)
    assert isinstance(again, Pairs)
    assert again.basis is not None
    assert again.basis.vectors is not None
    assert again.basis.vectors.digest() == modality.digest()


def test_vectors_that_are_a_modality_too_are_stored_once(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("a\tr\tb\nb\tr\tc\n")
    graph = load(tmp_path)
    # Of positive numbers, so that there are pairs: cosines above 0.
    tensors = {"values": torch.rand(3, 4), "rows": torch.arange(3)}
    metadata = {"format": FORMAT, "entities": graph.entities.digest()}
    save_file(tensors, tmp_path / "look.safetensors", metadata)
    similar = {"kind": "similar", "vectors": "look.safetensors", "nearest": 1}
    seen = {"kind": "encoded", "path": "look.safetensors"}
    pairs = read_features(graph, {"similar": similar, "look": seen}).pairs["similar"]
    assert pairs.basis is not None
    assert (pairs.basis.vectors, pairs.basis.modality) == (None, "look")
    # Without the modality, or with an ablation of it, the pairs have the vectors themselves.
    for more in ({}, {"look": {**seen, "replace": "shuffled", "seed": 1}}):
        pairs = read_features(graph, {"similar": similar, **more}).pairs["similar"]
        assert pairs.basis is not None
        assert pairs.basis.vectors is not None
    assert share_vectors(pairs, {}) is pairs
    replaced = read_features(graph, {"similar": {**similar, "replace": "shuffled"}})
    assert replaced.pairs["similar"].basis is None
