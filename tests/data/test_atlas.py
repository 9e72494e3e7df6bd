"""The embedded data set Atlas is as its data card says; its files are read directly."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ATLAS = Path(__file__).parents[2] / "src" / "mocme" / "data" / "atlas"
SPLITS = ("train", "valid", "test")


@cache
def lines(name: str) -> tuple[str, ...]:
    """Return the lines of a file, which must end in a line feed and have no other line ends."""
    text = (ATLAS / name).read_bytes().decode("utf-8")
    assert text.endswith("\n")
    assert "\r" not in text
    return tuple(text[:-1].split("\n"))


@cache
def rows(name: str) -> tuple[tuple[str, ...], ...]:
    """Return the rows of a tab-separated file."""
    return tuple(tuple(line.split("\t")) for line in lines(name))


def named(name: str) -> set[str]:
    """Return the entities in a file of facts."""
    return {entity for head, _, tail in rows(name) for entity in (head, tail)}


def pairs(name: str) -> set[frozenset[str]]:
    """Return the unordered pairs of entities in a file of facts."""
    return {frozenset((head, tail)) for head, _, tail in rows(name)}


@cache
def safetensors(name: str) -> tuple[dict, bytes]:
    """Return header and data of a safetensors file."""
    data = (ATLAS / "encoded" / f"{name}.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def unpacked(name: str, key: str, code: str) -> tuple[list[int], tuple]:
    """Return shape and values of a tensor."""
    header, data = safetensors(name)
    begin, end = header[key]["data_offsets"]
    count = math.prod(header[key]["shape"])
    return header[key]["shape"], struct.unpack(f"<{count}{code}", data[begin:end])


def test_files_are_small() -> None:
    files = [path for path in ATLAS.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < 3_000_000
    assert sum(path.stat().st_size for path in files) < 6_000_000


def test_counts_are_within_bounds() -> None:
    kinds = Counter(kind for _, kind in rows("types.tsv"))
    assert 2000 <= len(lines("entities.txt")) <= 4000
    assert 8 <= len(lines("relations.txt")) <= 30
    assert 1500 <= kinds["city"] <= 2500
    assert 230 <= kinds["country"] <= 250
    counts = {split: len(rows(f"{split}.tsv")) for split in SPLITS}
    total = sum(counts.values())
    assert total > 5000
    assert 0.75 < counts["train"] / total < 0.85
    assert 0.08 < counts["valid"] / total < 0.12
    assert 0.08 < counts["test"] / total < 0.12


def test_names_are_unique_and_ordered_by_type() -> None:
    entities = lines("entities.txt")
    assert len(set(entities)) == len(entities)
    assert all(name and name == name.strip() for name in entities)
    assert tuple(name for name, _ in rows("types.tsv")) == entities
    assert list(lines("relations.txt")) == sorted(set(lines("relations.txt")))
    assert all(re.fullmatch("[a-z ]+", relation) for relation in lines("relations.txt"))


@pytest.mark.parametrize("split", [*SPLITS, "known"])
def test_facts_use_known_names(split: str) -> None:
    assert all(len(row) == 3 for row in rows(f"{split}.tsv"))
    assert named(f"{split}.tsv") <= set(lines("entities.txt"))
    assert {row[1] for row in rows(f"{split}.tsv")} <= set(lines("relations.txt"))


def test_facts_are_distinct() -> None:
    facts = [row for split in (*SPLITS, "known") for row in rows(f"{split}.tsv")]
    assert len(set(facts)) == len(facts)
    assert all(head != tail for head, _, tail in facts)


@pytest.mark.parametrize(
    ("one", "other"), [("train", "valid"), ("train", "test"), ("valid", "test")]
)
def test_no_pair_is_in_two_splits(one: str, other: str) -> None:
    assert not pairs(f"{one}.tsv") & pairs(f"{other}.tsv")


@pytest.mark.parametrize("split", SPLITS)
def test_every_relation_is_in_every_split(split: str) -> None:
    assert {relation for _, relation, _ in rows(f"{split}.tsv")} == set(lines("relations.txt"))


def test_borders_are_mirrored_in_train() -> None:
    borders = {(h, t) for h, r, t in rows("train.tsv") if r == "borders"}
    assert borders
    assert borders == {(t, h) for h, t in borders}


def test_borders_of_valid_and_test_have_one_direction() -> None:
    facts = [row for split in ("valid", "test") for row in rows(f"{split}.tsv")]
    borders = [(h, t) for h, r, t in facts if r == "borders"]
    assert borders
    assert len({frozenset(pair) for pair in borders}) == len(borders)
    assert set(rows("known.tsv")) == {(t, "borders", h) for h, t in borders}


def test_train_has_all_entities_but_the_unseen_ones() -> None:
    unseen, trained = set(lines("unseen.txt")), named("train.tsv")
    assert not unseen & trained
    assert unseen | trained == set(lines("entities.txt"))
    assert unseen <= named("valid.tsv") | named("test.tsv")
    assert 0.04 <= len(unseen) / len(lines("entities.txt")) <= 0.06


def test_unseen_entities_have_several_types_and_no_common_fact() -> None:
    unseen, kinds = set(lines("unseen.txt")), dict(rows("types.tsv"))
    counts = Counter(kinds[name] for name in unseen)
    assert len(counts) >= 4
    assert counts["country"] >= 2
    assert counts["city"] > len(unseen) / 2
    assert all(
        not {head, tail} <= unseen
        for split in ("valid", "test")
        for head, _, tail in rows(f"{split}.tsv")
    )


def test_relations_have_the_right_types() -> None:
    kinds, expected = dict(rows("types.tsv")), {
        "borders": ("country", "country"),
        "capital of": ("city", "country"),
        "continent": ("country", "continent"),
        "currency": ("country", "currency"),
        "located in": ("city", "country"),
        "official language": ("country", "language"),
        "time zone": ("city", "time zone"),
        "written in": ("language", "script"),
    }  # fmt: skip
    for split in SPLITS:
        for head, relation, tail in rows(f"{split}.tsv"):
            assert expected.get(relation) in (None, (kinds[head], kinds[tail]))


@pytest.mark.parametrize(
    "fact",
    [
        ("N'Djamena", "capital of", "Chad"),
        ("France", "official language", "French"),
        ("Japan", "currency", "Japanese Yen"),
        ("Kenya", "continent", "Africa"),
        ("Phoenix", "time zone", "America/Phoenix"),
        ("Poland", "borders", "Germany"),
        ("Greek", "written in", "Greek script"),
        ("Asia/Kathmandu", "standard offset", "UTC+05:45"),
    ],
)
def test_well_known_facts_are_there(fact: tuple[str, str, str]) -> None:
    assert any(fact in rows(f"{split}.tsv") for split in (*SPLITS, "known"))


def test_cities_have_one_country_and_zone_and_member_states_one_capital() -> None:
    facts = [row for split in SPLITS for row in rows(f"{split}.tsv")]
    cities = sorted(name for name, kind in rows("types.tsv") if kind == "city")
    for relation in ("located in", "time zone"):
        assert sorted(h for h, r, _ in facts if r == relation) == cities
    states = {h for h, r, t in facts if (r, t) == ("member of", "United Nations")}
    assert len(states) == 193
    capitals = Counter(t for _, r, t in facts if r == "capital of")
    assert states <= capitals.keys()
    assert set(capitals.values()) == {1}


def test_texts_have_plain_names() -> None:
    assert tuple(name for name, _ in rows("names.tsv")) == lines("entities.txt")
    texts = dict(rows("names.tsv"))
    assert all(text.strip() for text in texts.values())
    assert texts["Georgetown (Guyana)"].startswith("Georgetown ; ")
    assert "Guyana" not in texts["Georgetown (Guyana)"]
    assert not any("capital" in text.casefold().split() for text in texts.values())


def test_numbers_are_within_bounds() -> None:
    assert len({row[:2] for row in rows("numbers.tsv")}) == len(rows("numbers.tsv"))
    bounds = {"latitude": 90, "longitude": 180, "literacy": 100, "hours": 14}
    for name, attribute, value in rows("numbers.tsv"):
        assert re.fullmatch(r"-?\d+(\.\d+)?", value), (name, value)
        assert abs(float(value)) <= bounds.get(attribute, math.inf)
    assert {row[0] for row in rows("numbers.tsv")} <= set(lines("entities.txt"))


def test_pictures_are_the_flags_of_countries() -> None:
    kinds = dict(rows("types.tsv"))
    assert {kinds[name] for name, _ in rows("pictures.tsv")} == {"country"}
    paths = [path for _, path in rows("pictures.tsv")]
    assert sorted(paths) == sorted(f"flags/{path.name}" for path in ATLAS.glob("flags/*"))
    for path in paths:
        data = (ATLAS / path).read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        assert max(struct.unpack(">II", data[16:24])) == 128


@pytest.mark.parametrize(("name", "width"), [("text", 384), ("image", 1280)])
def test_features_match_their_metadata(name: str, width: int) -> None:
    header, _ = safetensors(name)
    meta = header["__metadata__"]
    assert meta["format"] == "mocme-modality-1"
    assert meta["entities"] == hashlib.sha256((ATLAS / "entities.txt").read_bytes()).hexdigest()
    assert meta["encoder"]
    assert meta["encoder_revision"]
    assert meta["sources"]
    assert (header["values"]["dtype"], header["rows"]["dtype"]) == ("F16", "I64")
    (count,), ids = unpacked(name, "rows", "q")
    shape, values = unpacked(name, "values", "e")
    assert shape == [count, width]
    assert list(ids) == sorted(set(ids))
    assert all(map(math.isfinite, values))
    assert all(any(values[n * width : (n + 1) * width]) for n in range(count))
    source = {"text": "names.tsv", "image": "pictures.tsv"}[name]
    entities = lines("entities.txt")
    assert {entities[n] for n in ids} == {row[0] for row in rows(source)}


def test_graph_file_names_files_that_exist() -> None:
    graph = tomllib.loads((ATLAS / "graph.toml").read_text(encoding="utf-8"))
    assert graph["name"] == "Atlas"
    assert graph["licence"]
    tables = [*graph["modalities"].values(), *graph["encode"].values()]
    tables += [graph["pictures"], graph["types"]]
    for table in tables:
        single = [table[key] for key in ("path", "vectors") if key in table]
        files = [*table.get("paths", []), *table.get("names", []), *single]
        assert files
        assert all((ATLAS / file).is_file() for file in files)
    assert set(graph["encode"]) == {"text", "image"}
    assert set(graph["modalities"]) == {"number", "like-names", "like-pictures", "names-in-names"}


@pytest.mark.parametrize(
    "word",
    ["CC BY 4.0", "GeoNames", "UNICODE LICENSE V3", "Unicode-3.0", "public domain", "Apache-2.0"],
)
def test_licences_are_named(word: str) -> None:
    assert word in (ATLAS / "LICENSES.md").read_text(encoding="utf-8")


def test_counts_of_the_card_are_those_of_the_files() -> None:
    card = (ATLAS / "DATACARD.md").read_text(encoding="utf-8")
    for relation in lines("relations.txt"):
        splits = [rows(f"{split}.tsv") for split in (*SPLITS, "known")]
        counts = [sum(r == relation for _, r, _ in split) for split in splits]
        assert f"| {relation} | {' | '.join(map(str, counts))} |" in card
