"""Which relations hold between the same two entities, in either order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mocme.data.quality.raw_rows import Rows

# Pairs of facts that are held at a time.
CHUNK = 1 << 21
# An inverse is strong if this share of a relation's facts has it. The share that Akrami et al.
# (SIGMOD 2020) call a near-duplicate or near-reverse relation.
STRONG = 0.8
# A relation is taken for symmetric if it has so many facts, and this share of them its inverse in
# the same relation. Of one that is recorded in both directions, a training split of 80 % that was
# drawn at random holds the inverse of 80 %; half leaves room for what is recorded once.
SYMMETRIC, FEWEST = 0.5, 10

Places = Int[np.ndarray, " n"]


class PairIndex:
    """The relations of every ordered pair (head, tail) of some facts."""

    def __init__(self, facts: Rows, num_entities: int) -> None:
        self.num_entities = num_entities
        pairs = facts[:, 0] * num_entities + facts[:, 2]
        order = np.argsort(pairs, kind="stable")
        self.pairs, self.relations = pairs[order], facts[order, 1]

    def join(self, heads: Places, tails: Places) -> Iterator[tuple[Places, Places]]:
        """Relations from each head to its tail.

        Yields:
            place in `heads` and `tails`, relation; both (n,), in parts.
        """
        asked = heads * self.num_entities + tails
        low = np.searchsorted(self.pairs, asked, "left")
        counts = np.searchsorted(self.pairs, asked, "right") - low
        ends = np.cumsum(counts)
        first = 0
        while first < len(asked):
            done = int(ends[first - 1]) if first else 0
            last = max(int(np.searchsorted(ends, done + CHUNK, "right")), first + 1)
            chosen = counts[first:last]
            place = np.repeat(np.arange(first, last), chosen)
            within = done + np.arange(len(place)) - (ends - counts)[place]
            yield place, self.relations[low[place] + within]
            first = last


@dataclass(frozen=True)
class Partners:
    """For relations r and s: how many facts (h, r, t) have a fact of s between the same entities.

    Attributes:
        relation, partner, count: r, s and that number, where it is not 0; by r, then s.
        facts: of each relation, out of which the numbers are; a share is `count / facts`.
    """

    relation: Places
    partner: Places
    count: Places
    facts: Int[np.ndarray, " R"]

    @property
    def share(self) -> Float[np.ndarray, " n"]:
        share: Float[np.ndarray, " n"] = self.count / self.facts[self.relation]
        return share

    def best(self) -> dict[int, tuple[int, int, float]]:
        """Another relation with the largest number for each: partner, number, share.

        Of several the one with the smallest id.
        """
        other = np.flatnonzero(self.relation != self.partner)
        order = other[np.lexsort((-self.count[other], self.relation[other]))]
        relations, first = np.unique(self.relation[order], return_index=True)
        chosen = order[first]
        columns = (self.partner[chosen], self.count[chosen], self.share[chosen])
        return dict(
            zip(relations.tolist(), zip(*(c.tolist() for c in columns), strict=True), strict=True)
        )

    def of_itself(self) -> Float[np.ndarray, " R"]:
        """The share of each relation with itself."""
        result = np.zeros(len(self.facts))
        same = self.relation == self.partner
        result[self.relation[same]] = self.share[same]
        return result


def inverses(facts: Rows, num_entities: int, num_relations: int) -> Partners:
    """How many facts (h, r, t) have a fact (t, s, h); s may be r itself.

    Facts of an entity with itself are left out on both sides: each is its own inverse.
    """
    facts = facts[facts[:, 0] != facts[:, 2]]
    return _partners(facts, facts[:, 2], facts[:, 0], num_entities, num_relations)


def symmetric(
    facts: Int[np.ndarray, "n 3"], num_entities: int, num_relations: int
) -> frozenset[int]:
    """The relations that are taken for symmetric, by distinct facts alone: see `SYMMETRIC`."""
    found = inverses(facts, num_entities, num_relations)
    chosen = (found.facts >= FEWEST) & (found.of_itself() >= SYMMETRIC)
    return frozenset(np.flatnonzero(chosen).tolist())


def twins(facts: Rows, num_entities: int, num_relations: int) -> Partners:
    """How many facts (h, r, t) have a fact (h, s, t); with s = r these are all."""
    return _partners(facts, facts[:, 0], facts[:, 2], num_entities, num_relations)


def under_another(facts: Int[np.ndarray, "n 3"], index: PairIndex) -> Bool[np.ndarray, " n"]:
    """Which facts (h, r, t) have (h, s, t) or (t, s, h) in the index, s another relation."""
    found = np.zeros(len(facts), bool)
    heads, relations, tails = facts.T
    for ends in ((heads, tails), (tails, heads)):
        for place, relation in index.join(*ends):
            found[place[relation != relations[place]]] = True
    return found


def with_inverse(
    facts: Int[np.ndarray, "n 3"], index: PairIndex, found: Partners
) -> Bool[np.ndarray, " n"]:
    """Which facts (h, r, t) a rule gives away: (t, s, h) is in the index, and s implies r.

    s implies r if at least the share `STRONG` of the facts of s has its inverse under r, by
    `inverses`. s may be r itself (a symmetric relation).
    """
    relations = len(found.facts)
    strong = found.share >= STRONG
    rules = found.relation[strong] * relations + found.partner[strong]
    result = np.zeros(len(facts), bool)
    heads, asked, tails = facts.T
    for place, relation in index.join(tails, heads):
        implied = np.isin(relation * relations + asked[place], rules)
        result[place[implied & (heads[place] != tails[place])]] = True
    return result


def _partners(
    facts: Rows, heads: Places, tails: Places, num_entities: int, num_relations: int
) -> Partners:
    index = PairIndex(facts, num_entities)
    keys, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for place, partner in index.join(heads, tails):
        more, number = np.unique(facts[place, 1] * num_relations + partner, return_counts=True)
        keys, where = np.unique(np.concatenate([keys, more]), return_inverse=True)
        total = np.zeros(len(keys), np.int64)
        np.add.at(total, where, np.concatenate([counts, number]))
        counts = total
    size = np.bincount(facts[:, 1], minlength=num_relations)
    return Partners(keys // num_relations, keys % num_relations, counts, size)
