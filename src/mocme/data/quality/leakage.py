"""Defects of splits: repeated rows, rows leaked by another split, names unseen in train."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from mocme.data.quality.raw_rows import RawGraph
from mocme.data.quality.relation_overlap import PairIndex, Partners, under_another, with_inverse

EVALUATED = ("valid", "test")
# The defects that a row of valid or test can have, with their description.
DEFECTS = {
    "in train": "the same fact is in train",
    "in valid": "the same fact is in valid",
    "in test": "the same fact is in test",
    "inverse in train": "train holds the inverse fact, under a relation that implies this one",
    "pair in train": "train links the same two entities by another relation, in either order",
    "unseen entity": "head or tail is in no training fact",
    "unseen relation": "the relation is in no training fact",
}
# Defects that leak an answer; a repaired split has none of them.
LEAKS = ("in train", "in valid", "in test")


@dataclass(frozen=True)
class SplitCounts:
    """Rows of a split as published, distinct facts among them, and rows that repeat another."""

    rows: int
    distinct: int
    repeated: int


@dataclass(frozen=True)
class Defect:
    """Rows of a split that have a defect.

    Attributes:
        kind: a key of `DEFECTS`.
        rows: their number, with repetitions.
        distinct: the number of distinct facts among them.
        share: of all rows of the split.
    """

    split: str
    kind: str
    rows: int
    distinct: int
    share: float


@dataclass(frozen=True)
class UnseenNames:
    """Numbers of entities and relations that are in no training fact.

    Attributes:
        entities_asked, relations_asked: those in a fact of valid or test.
        entities_nowhere: those in no fact at all.
    """

    entities: int
    entities_asked: int
    entities_nowhere: int
    relations: int
    relations_asked: int


def split_counts(raw: RawGraph) -> dict[str, SplitCounts]:
    """Rows of each split."""
    counts = {}
    for split, keys in raw.keys.items():
        distinct = len(np.unique(keys))
        counts[split] = SplitCounts(len(keys), distinct, len(keys) - distinct)
    return counts


def defects(raw: RawGraph, inverses: Partners) -> list[Defect]:
    """All defects of the rows of valid and test, including those with zero rows.

    Args:
        inverses: `relation_overlap.inverses` of all distinct facts.
    """
    train = raw.distinct("train")
    index = PairIndex(train, raw.graph.num_entities)
    entities, relations = _names_in(raw, "train")
    all_defects = []
    for split in EVALUATED:
        if split not in raw.rows:
            continue
        rows, keys = raw.rows[split], raw.keys[split]
        masks = {
            f"in {other}": np.isin(keys, raw.keys[other])
            for other in ("train", *EVALUATED)
            if other != split and other in raw.keys
        }
        masks["inverse in train"] = with_inverse(rows, index, inverses)
        masks["pair in train"] = under_another(rows, index)
        masks["unseen entity"] = ~(entities[rows[:, 0]] & entities[rows[:, 2]])
        masks["unseen relation"] = ~relations[rows[:, 1]]
        for kind, mask in masks.items():
            count = int(mask.sum())
            distinct = len(np.unique(keys[mask]))
            all_defects.append(Defect(split, kind, count, distinct, count / max(1, len(rows))))
    return all_defects


def unseen_names(raw: RawGraph) -> UnseenNames:
    """Entities and relations that are in no training fact."""
    entities, relations = _names_in(raw, "train")
    evaluated_entities, evaluated_relations = _names_in(raw, *EVALUATED)
    entities_anywhere, _ = _names_in(raw, *raw.rows)
    return UnseenNames(
        int((~entities).sum()),
        int((evaluated_entities & ~entities).sum()),
        int((~entities_anywhere).sum()),
        int((~relations).sum()),
        int((evaluated_relations & ~relations).sum()),
    )


def _names_in(
    raw: RawGraph, *split_counts: str
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " R"]]:
    """Which entities and relations are in the rows of some splits."""
    entities = np.zeros(raw.graph.num_entities, bool)
    relations = np.zeros(raw.graph.num_relations, bool)
    for split in split_counts:
        if split in raw.rows:
            rows = raw.rows[split]
            entities[rows[:, [0, 2]]] = True
            relations[rows[:, 1]] = True
    return entities, relations
