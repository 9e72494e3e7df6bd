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
    """Distinct training facts per entity, over all entities.

    A fact of an entity with itself counts twice.

    Attributes:
        histogram: entities by degree: 0, 1, 2-3, 4-7 and so on, up to the largest.
    """

    mean: float
    percentiles: dict[str, int]
    histogram: dict[str, int]


@dataclass(frozen=True)
class Components:
    """Connected components of the training facts; entities without one are left out."""

    count: int
    largest: int
    largest_share: float


@dataclass(frozen=True)
class Partner:
    """Another relation between the same entities, and the share of facts that have it."""

    name: str
    facts: int
    share: float


@dataclass(frozen=True)
class RelationProfile:
    """A relation.

    Attributes:
        facts: distinct facts of all splits; train: those in train.
        cardinality: class of the training facts.
        loops: facts of an entity with itself, in all splits.
        symmetric: share of the other facts whose inverse is a fact of the same relation.
        inverse: the other relation that has most of the inverse facts.
        twin: the other relation that has most of the same pairs, in the same order.
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
    """The values at `PERCENTILES`, by percentage; empty without values."""
    if not len(values):
        return {}
    chosen = np.percentile(values, PERCENTILES, method="inverted_cdf")
    return {str(p): int(value) for p, value in zip(PERCENTILES, chosen, strict=True)}


def degrees(raw: RawGraph) -> Degrees:
    """Degrees in the training facts."""
    train = raw.distinct("train")
    degree = np.bincount(train[:, [0, 2]].ravel(), minlength=raw.graph.num_entities)
    # frexp(n) gives the number of binary digits of an integer n, and 0 for 0.
    counts = np.bincount(np.frexp(degree.astype(np.float64))[1])
    histogram = {_span(digits): int(count) for digits, count in enumerate(counts)}
    mean = float(degree.mean()) if len(degree) else 0.0
    return Degrees(mean, percentiles(degree), histogram)


def components(raw: RawGraph) -> Components:
    """Connected components of the training facts."""
    train = raw.distinct("train")
    label = component_labels(train, raw.graph.num_entities)
    linked = np.zeros(raw.graph.num_entities, bool)
    linked[train[:, [0, 2]]] = True
    sizes = np.bincount(label[linked]) if linked.any() else np.zeros(1, np.int64)
    largest = int(sizes.max())
    return Components(int((sizes > 0).sum()), largest, largest / max(1, int(linked.sum())))


def component_labels(facts: Rows, num_entities: int) -> Int[np.ndarray, " N"]:
    """The smallest entity of each entity's component.

    Roots are hooked onto smaller adjacent roots, then all paths are shortened to their root, until
    nothing changes (Shiloach and Vishkin, 1982).
    """
    label = np.arange(num_entities)
    heads, tails = facts[:, 0], facts[:, 2]
    while True:
        head_roots, tail_roots = label[heads], label[tails]
        unmerged = head_roots != tail_roots
        if not unmerged.any():
            return label
        # A fact within one component stays there, so it need not be looked at again.
        heads, tails = heads[unmerged], tails[unmerged]
        head_roots, tail_roots = head_roots[unmerged], tail_roots[unmerged]
        smaller, larger = np.minimum(head_roots, tail_roots), np.maximum(head_roots, tail_roots)
        np.minimum.at(label, larger, smaller)
        while not np.array_equal(label, shorter := label[label]):
            label = shorter


def relation_profiles(
    raw: RawGraph, classes: Sequence[str], inverses: Partners, twins: Partners
) -> list[RelationProfile]:
    """The profile of each relation, in the order of ids.

    Args:
        classes: the cardinality class of each relation.
        inverses, twins: `relation_overlap.inverses` and `relation_overlap.twins` of all distinct
            facts.
    """
    graph = raw.graph
    facts = np.bincount(raw.distinct()[:, 1], minlength=graph.num_relations)
    train = np.bincount(raw.distinct("train")[:, 1], minlength=graph.num_relations)
    # Only `inverses` leaves out facts of an entity with itself.
    loops = twins.facts - inverses.facts
    symmetric = inverses.self_share()
    inverse, twin = inverses.best(), twins.best()

    def partner(best: dict[int, tuple[int, int, float]], relation: int) -> Partner | None:
        if relation not in best:
            return None
        other, count, share = best[relation]
        return Partner(graph.relations[other], count, share)

    return [
        RelationProfile(
            name,
            int(facts[r]),
            int(train[r]),
            classes[r],
            int(loops[r]),
            float(symmetric[r]),
            partner(inverse, r),
            partner(twin, r),
        )
        for r, name in enumerate(graph.relations)
    ]


def _span(digits: int) -> str:
    """The range of numbers with a number of binary digits."""
    low, high = (1 << digits) >> 1, (1 << digits) - 1
    return str(low) if low == high else f"{low}-{high}"
