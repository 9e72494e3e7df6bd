"""Pairs of new entities, against those of a graph that has had them from the start."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mocme.data.features.sources import read_features
from mocme.data.load import load
from mocme.data.modality import FORMAT, Basis, Modality, Pairs, unpacked
from mocme.data.pairs.build import NewContent, grown, make, merged, of_texts, shared
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
    """Texts of some words; some entities have two, some none."""
    rng = random.Random(seed)
    return {
        entity: [
            " ".join(rng.choices(WORDS, k=rng.randint(1, longest)))
            for _ in range(rng.choice([1, 1, 2]))
        ]
        for entity in range(number)
        if rng.random() < 0.9
    }


def old_of(texts: Mapping[int, Sequence[str]]) -> dict[int, Sequence[str]]:
    return {entity: own for entity, own in texts.items() if entity < OLD}


def new_of(texts: Mapping[int, Sequence[str]]) -> dict[int, Sequence[str]]:
    return {entity: own for entity, own in texts.items() if entity >= OLD}


def listed(pairs: Pairs, kinds: Sequence[str]) -> Rows:
    """Rows of some kinds with a new entity."""
    rows = zip(pairs.kind.tolist(), pairs.head.tolist(), pairs.tail.tolist(), strict=True)
    found = [(pairs.kinds[k], h, t) for k, h, t in rows if max(h, t) >= OLD]
    return sorted(row for row in found if row[0] in kinds)


def named(pairs: Pairs, rows: torch.Tensor) -> Rows:
    return sorted((pairs.kinds[k], h, t) for k, h, t in rows.tolist())


@pytest.mark.parametrize("seed", range(12))
def test_mentions_of_new_entities_are_those_of_the_whole(seed: int) -> None:
    names, texts = phrases(seed, 2), phrases(seed + 100, 9)
    settings = {**LIMITS, "separator": None}
    basis = of_texts("mentions", settings, names=old_of(names), texts=old_of(texts))
    pairs = make(basis, OLD, {})
    assert pairs.digest() == mentions(old_of(names), old_of(texts), OLD, **LIMITS).digest()
    rows = grown(pairs, NewContent(NEW, new_of(names), new_of(texts)))
    # Contexts are the training's, so that the reference takes every context and leaves out others.
    whole = mentions(names, texts, OLD + NEW, **{**LIMITS, "contexts": 1})
    assert named(pairs, rows) == listed(whole, pairs.kinds)
    assert len(rows)


@pytest.mark.parametrize("seed", range(6))
def test_like_texts_of_new_entities_are_those_of_the_whole(seed: int) -> None:
    texts = phrases(seed, 7, OLD + NEW)
    pairs = make(of_texts("like texts", {"nearest": 2}, texts=old_of(texts)), OLD, {})
    rows = grown(pairs, NewContent(NEW, texts=new_of(texts)))
    whole = make(of_texts("like texts", {"nearest": 2}, texts=texts), OLD + NEW, {})
    assert named(pairs, rows) == listed(whole, pairs.kinds)
    assert {bool(h >= OLD) for _, h, t in named(pairs, rows) if t >= OLD} >= {False}


@pytest.mark.parametrize("seed", range(6))
def test_like_vectors_of_new_entities_are_those_of_the_whole(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(60)[torch.rand(60, generator=generator) < 0.8]
    values = torch.randn(len(rows), 4, generator=generator)
    values[::7] = values[0]  # ties, and vectors that none is nearer to than another
    values[5] = 0
    old = rows < 50
    held = Modality(values[old], rows[old], 50)
    pairs = make(Basis("like vectors", {"nearest": 3}, vectors=held), 50, {})
    vectors = dict(zip(rows[~old].tolist(), values[~old], strict=True))
    found = {(h, t) for _, h, t in grown(pairs, NewContent(10, vectors=vectors)).tolist()}
    head, tail = similar_vectors(values, rows, 3)
    whole = set(zip(head.tolist(), tail.tolist(), strict=True))
    assert found == {pair for pair in whole if max(pair) >= 50}
    assert any(h < 50 for h, _ in found)
    assert grown(pairs, NewContent(10)).shape == (0, 3)


def test_old_pairs_stay_where_a_new_entity_is_nearer() -> None:
    values = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    held = Modality(values, torch.arange(3), 3)
    pairs = make(Basis("like vectors", {"nearest": 1}, vectors=held), 3, {})
    rows = grown(pairs, NewContent(1, vectors={3: torch.tensor([1.0, 0.01])}))
    whole = merged(pairs, rows, 4)
    old = torch.stack([pairs.kind, pairs.head, pairs.tail], 1).tolist()
    both = torch.stack([whole.kind, whole.head, whole.tail], 1).tolist()
    assert [row for row in both if max(row) < 3] == old
    assert [0, 0, 1] in both  # 3 is nearer to 0 than 1 is: both are paired with it
    assert [0, 0, 3] in both
    assert whole.num_entities == 4


def test_names_are_taken_apart_as_they_were() -> None:
    names = {0: ["Lake Placid"], 1: ["Red Dog", "Hund"]}
    basis = of_texts("mentions", {**LIMITS, "separator": ";"}, names=names, texts=None)
    pairs = make(basis, 2, {})
    assert not pairs.kinds
    known = Pairs(("named within",), *(torch.zeros(0).long(),) * 3, 2, basis=basis)
    rows = grown(known, NewContent(1, {2: ["Great Red Dog;Lake Placid Park"]}, {2: ["Hund"]}))
    # No text was read in the training, so none is read now.
    assert rows.tolist() == [[0, 2, 0], [0, 2, 1]]


def test_without_a_basis_nothing_is_made() -> None:
    empty = torch.zeros(0).long()
    with pytest.raises(ValueError, match="do not say what they were made of"):
        grown(Pairs(("similar",), empty, empty, empty, 3), NewContent(1))


def test_texts_survive_being_tensors() -> None:
    texts = {7: ["ü", "", "東京 und"], 2: ["a\nb"], 3: []}
    packed = EntityTexts.of(texts).packed("x/")
    assert EntityTexts.unpacked(packed, "x/").by_entity() == {2: ["a\nb"], 7: ["ü", "", "東京 und"]}
    assert EntityTexts.of({}).by_entity() == {}


def test_a_basis_is_kept_with_the_pairs_and_no_part_of_their_digest() -> None:
    basis = of_texts("like texts", {"nearest": 2}, texts={0: ["a dog"], 1: ["a dog"]})
    pairs = make(basis, 3, {"source": "texts.tsv"})
    again = unpacked(*pairs.packed(), 3)
    assert isinstance(again, Pairs)
    assert again.basis is not None
    assert again.basis.texts["texts"].by_entity() == {0: ["a dog"], 1: ["a dog"]}
    assert again.provenance == pairs.provenance
    assert again.digest() == pairs.digest()
    older = {k: v for k, v in pairs.packed()[0].items() if not k.startswith("basis/")}
    metadata = {k: v for k, v in pairs.packed()[1].items() if k != "basis"}
    found = unpacked(older, metadata, 3)
    assert isinstance(found, Pairs)
    assert found.basis is None
    held = Modality(torch.randn(3, 2), torch.arange(3), 3, {"kind": "x"})
    pairs = make(Basis("like vectors", {"nearest": 2}, vectors=held), 3, {"kind": "x"})
    again = unpacked(*pairs.packed(), 3)
    assert isinstance(again, Pairs)
    assert again.basis is not None
    assert again.basis.vectors is not None
    assert again.basis.vectors.digest() == held.digest()


def test_vectors_of_a_modality_beside_the_pairs_are_not_kept_twice(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("a\tr\tb\nb\tr\tc\n")
    graph = load(tmp_path)
    tensors = {"values": torch.randn(3, 4), "rows": torch.arange(3)}
    metadata = {"format": FORMAT, "entities": graph.entities.digest()}
    save_file(tensors, tmp_path / "look.safetensors", metadata)
    alike = {"kind": "similar", "vectors": "look.safetensors", "nearest": 1}
    seen = {"kind": "encoded", "path": "look.safetensors"}
    found = read_features(graph, {"alike": alike, "look": seen}).pairs["alike"]
    assert found.basis is not None
    assert (found.basis.vectors, found.basis.modality) == (None, "look")
    # Beside a control, or alone, they are the pairs' own.
    for more in ({}, {"look": {**seen, "replace": "shuffled", "seed": 1}}):
        own = read_features(graph, {"alike": alike, **more})
        basis = own.pairs["alike"].basis
        assert basis is not None
        assert basis.vectors is not None
    assert shared(own.pairs["alike"], {}) is own.pairs["alike"]
    replaced = read_features(graph, {"alike": {**alike, "replace": "shuffled"}})
    assert replaced.pairs["alike"].basis is None
