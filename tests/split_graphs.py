"""Small graphs as rows by split: without defects, random, and with planted defects."""

from __future__ import annotations

import random
from pathlib import Path

from mocme.data.quality.raw_rows import RawGraph

Fact = tuple[str, str, str]
Rows = dict[str, list[Fact]]


def put(folder: Path, rows: Rows, **others: str) -> Path:
    """Write splits and other files to a folder; the argument `graph_toml` is graph.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, facts in rows.items():
        text = "".join("\t".join(fact) + "\n" for fact in facts)
        (folder / f"{split}.tsv").write_bytes(text.encode())
    for name, text in others.items():
        (folder / ".".join(name.rsplit("_", 1))).write_text(text, encoding="utf-8")
    return folder


def sound() -> Rows:
    """A graph without any defect: every pair of entities has at most one fact."""
    ring = [(f"e{n}", f"r{n % 3}", f"e{(n + 1) % 20}") for n in range(20)]
    chords = [(f"e{n}", f"r{n % 3}", f"e{(n + 5) % 20}") for n in range(10)]
    return {"train": ring + chords[:4], "valid": chords[4:7], "test": chords[7:]}


def noisy(seed: int, entities: int = 9, relations: int = 3, facts: int = 60) -> Rows:
    """Random rows with all defects at once."""
    source = random.Random(seed)
    names = [f"e{n}" for n in range(entities)]
    kinds = [f"r{n}" for n in range(relations)]

    def draw(count: int, known: int) -> list[Fact]:
        return [
            (source.choice(names[:known]), source.choice(kinds), source.choice(names[:known]))
            for _ in range(count)
        ]

    rows = {"train": draw(facts, entities - 2), "valid": draw(20, entities)}
    return {**rows, "test": draw(20, entities), "known": draw(5, entities)}


def named(raw: RawGraph, split: str) -> list[Fact]:
    """The rows of a split by name."""
    graph = raw.graph
    return [
        (graph.entities[h], graph.relations[r], graph.entities[t])
        for h, r, t in raw.rows[split].tolist()
    ]


def plant_repeated(rows: Rows) -> None:
    rows["train"] += rows["train"][:3] + rows["train"][:1]
    rows["test"].insert(0, rows["test"][1])


def plant_in_train(rows: Rows) -> None:
    rows["valid"] += rows["train"][3:5]
    rows["test"] += rows["train"][6:7]


def plant_shared(rows: Rows) -> None:
    rows["test"] += rows["valid"][:2]


def naive_components(facts: list[list[int]], entities: int) -> list[int]:
    label = list(range(entities))
    for h, _, t in facts:
        low, high = sorted((label[h], label[t]))
        label = [low if mark == high else mark for mark in label]
    return label
