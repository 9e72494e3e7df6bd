"""Defects of splits: repeated rows, rows that another split gives away, names unseen in train."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from mocme.data.quality.raw_rows import RawGraph
from mocme.data.quality.relation_overlap import PairIndex, Partners, under_another, with_inverse

ASKED = ("valid", "test")
# What a row of valid or test can suffer from, with what a reader is told of it.
DEFECTS = {
    "in train": "the same fact is in train",
    "in valid": "the same fact is in valid",
    "in test": "the same fact is in test",
    "inverse in train": "train holds the inverse fact, under a relation that implies this one",
    "pair in train": "train links the same two entities by another relation, in either order",
    "unseen entity": "head or tail is in no training fact",
    "unseen relation": "the relation is in no training fact",
}
# Those that give an answer away, which no repaired split has.
LEAKS = ("in train", "in valid", "in test")


@dataclass(frozen=True)
class SplitCounts:
    """Rows of a split as released, distinct facts among them, and rows that repeat another."""

    rows: int
    distinct: int
    repeated: int


@dataclass(frozen=True)
class Defect:
    """Rows of a split that suffer from a defect.

    Attributes:
        split: whose rows they are.
        kind: a key of `DEFECTS`.
        rows: how many, repeated ones included.
        distinct: how many facts these are.
        share: of all rows of the split.
    """

    split: str
    kind: str
    rows: int
    distinct: int
    share: float


@dataclass(frozen=True)
class UnseenNames:
    """Names that no training fact holds.

    Attributes:
        asked: entities (or relations) among them that valid or test hold.
        nowhere: entities among them that no split holds.
    """

    entities: int
    entities_asked: int
    entities_nowhere: int
    relations: int
    relations_asked: int


def splits(released: RawGraph) -> dict[str, SplitCounts]:
    """Rows of each split."""
    result = {}
    for name, keys in released.keys.items():
        distinct = len(np.unique(keys))
        result[name] = SplitCounts(len(keys), distinct, len(keys) - distinct)
    return result


def defects(released: RawGraph, inverses: Partners) -> list[Defect]:
    """What is wrong with the rows of valid and test, with zeros where nothing is.

    Args:
        inverses: `pairs.inverses` of all distinct facts.
    """
    train = released.distinct("train")
    index = PairIndex(train, released.graph.num_entities)
    entities, relations = _seen(released, "train")
    found = []
    for split in ASKED:
        if split not in released.rows:
            continue
        rows, keys = released.rows[split], released.keys[split]
        masks = {
            f"in {other}": np.isin(keys, released.keys[other])
            for other in ("train", *ASKED)
            if other != split and other in released.keys
        }
        masks["inverse in train"] = with_inverse(rows, index, inverses)
        masks["pair in train"] = under_another(rows, index)
        masks["unseen entity"] = ~(entities[rows[:, 0]] & entities[rows[:, 2]])
        masks["unseen relation"] = ~relations[rows[:, 1]]
        for kind, mask in masks.items():
            count = int(mask.sum())
            distinct = len(np.unique(keys[mask]))
            found.append(Defect(split, kind, count, distinct, count / max(1, len(rows))))
    return found


def unseen(released: RawGraph) -> UnseenNames:
    """Entities and relations that no training fact holds."""
    entities, relations = _seen(released, "train")
    asked_entities, asked_relations = _seen(released, *ASKED)
    anywhere, _ = _seen(released, *released.rows)
    return UnseenNames(
        int((~entities).sum()),
        int((asked_entities & ~entities).sum()),
        int((~anywhere).sum()),
        int((~relations).sum()),
        int((asked_relations & ~relations).sum()),
    )


def _seen(released: RawGraph, *names: str) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " R"]]:
    """Which entities and relations some splits hold."""
    entities = np.zeros(released.graph.num_entities, bool)
    relations = np.zeros(released.graph.num_relations, bool)
    for name in names:
        if name in released.rows:
            rows = released.rows[name]
            entities[rows[:, [0, 2]]] = True
            relations[rows[:, 1]] = True
    return entities, relations
