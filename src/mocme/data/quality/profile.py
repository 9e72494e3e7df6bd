"""The shape of a graph: degrees of its entities, kinds of its relations, connected components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from mocme.data.quality.raw_rows import RawGraph, Rows
from mocme.data.quality.relation_overlap import Partners

PERCENTILES = (0, 10, 25, 50, 75, 90, 99, 100)


@dataclass(frozen=True)
class Degrees:
    """How many distinct training facts an entity stands in, over all entities.

    A fact of an entity with itself counts twice.

    Attributes:
        histogram: entities by degree: 0, 1, 2-3, 4-7 and so on, up to the largest.
    """

    mean: float
    percentiles: dict[str, int]
    histogram: dict[str, int]


@dataclass(frozen=True)
class Components:
    """Connected components of the training facts, which entities without one are no part of."""

    count: int
    largest: int
    largest_share: float


@dataclass(frozen=True)
class Partner:
    """Another relation between the same entities, and which share of the facts have it."""

    name: str
    facts: int
    share: float


@dataclass(frozen=True)
class RelationProfile:
    """A relation.

    Attributes:
        facts: distinct ones, all splits together.
        train: those in train.
        cardinality: of the training facts.
        loops: facts of an entity with itself, all splits.
        symmetric: share of the other facts whose inverse is a fact of the same relation.
        inverse: the relation that most of the inverses are facts of, itself aside.
        twin: the relation that most of the same pairs, in the same order, are facts of.
    """

    name: str
    facts: int
    train: int
    cardinality: str
    loops: int
    symmetric: float
    inverse: Partner | None
    twin: Partner | None


def percentiles(values: Int[np.ndarray, " n"]) -> dict[str, int]:
    """Values that the given percentages do not exceed; nothing of nothing."""
    if not len(values):
        return {}
    found = np.percentile(values, PERCENTILES, method="inverted_cdf")
    return {str(p): int(value) for p, value in zip(PERCENTILES, found, strict=True)}


def degrees(released: RawGraph) -> Degrees:
    """Degrees by the training facts."""
    train = released.distinct("train")
    degree = np.bincount(train[:, [0, 2]].ravel(), minlength=released.graph.num_entities)
    # The exponent of a whole number is its number of binary digits.
    counts = np.bincount(np.frexp(degree.astype(np.float64))[1])
    histogram = {_span(digits): int(count) for digits, count in enumerate(counts)}
    mean = float(degree.mean()) if len(degree) else 0.0
    return Degrees(mean, percentiles(degree), histogram)


def components(released: RawGraph) -> Components:
    """Connected components of the training facts."""
    train = released.distinct("train")
    label = component_labels(train, released.graph.num_entities)
    linked = np.zeros(released.graph.num_entities, bool)
    linked[train[:, [0, 2]]] = True
    sizes = np.bincount(label[linked]) if linked.any() else np.zeros(1, np.int64)
    largest = int(sizes.max())
    return Components(int((sizes > 0).sum()), largest, largest / max(1, int(linked.sum())))


def component_labels(facts: Rows, num_entities: int) -> Int[np.ndarray, " N"]:
    """The smallest entity that each entity is connected with.

    Roots are hooked onto smaller ones next to them, then all paths are shortened, until nothing
    changes (Shiloach and Vishkin, 1982).
    """
    label = np.arange(num_entities)
    left, right = facts[:, 0], facts[:, 2]
    while True:
        one, other = label[left], label[right]
        apart = one != other
        if not apart.any():
            return label
        left, right, one, other = (ends[apart] for ends in (left, right, one, other))
        np.minimum.at(label, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(label, shorter := label[label]):
            label = shorter


def relations(
    released: RawGraph, classes: Sequence[str], reversed_: Partners, same: Partners
) -> list[RelationProfile]:
    """What each relation is like, in the order of ids.

    Args:
        classes: the cardinality class of each.
        reversed_, same: `pairs.inverses` and `pairs.twins` of all distinct facts.
    """
    graph = released.graph
    everything, train = released.distinct(), released.distinct("train")
    trained = np.bincount(train[:, 1], minlength=graph.num_relations)
    loops = same.facts - reversed_.facts
    symmetric = reversed_.of_itself()
    inverse, twin = reversed_.best(), same.best()
    facts = np.bincount(everything[:, 1], minlength=graph.num_relations)

    def partner(found: dict[int, tuple[int, int, float]], relation: int) -> Partner | None:
        if relation not in found:
            return None
        other, count, share = found[relation]
        return Partner(graph.relations[other], count, share)

    return [
        RelationProfile(
            name,
            int(facts[r]),
            int(trained[r]),
            classes[r],
            int(loops[r]),
            float(symmetric[r]),
            partner(inverse, r),
            partner(twin, r),
        )
        for r, name in enumerate(graph.relations)
    ]


def _span(digits: int) -> str:
    """Numbers with so many binary digits."""
    low, high = (1 << digits) >> 1, (1 << digits) - 1
    return str(low) if low == high else f"{low}-{high}"
