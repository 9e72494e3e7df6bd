"""Which relations hold between the same two entities, in either order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mocme.data.quality.raw_rows import Rows

# Pairs of facts per chunk of a join.
CHUNK = 1 << 21
# The share of a relation's facts that must have an inverse for it to be strong: the threshold of
# Akrami et al. (SIGMOD 2020) for near-duplicate and near-reverse relations.
STRONG = 0.8
# A relation counts as symmetric if it has at least FEWEST facts and at least the share SYMMETRIC of
# them has its inverse in the same relation. If every fact is recorded in both directions, a random
# training split of 80 % has the inverse of 80 % of its facts; one half allows for facts that are
# recorded once.
SYMMETRIC, FEWEST = 0.5, 10

Indices = Int[np.ndarray, " n"]


class PairIndex:
    """The relations of every ordered pair (head, tail) of some facts.

    Attributes:
        pairs: ``head * num_entities + tail`` of each fact, ascending; `relations`: of these facts.
    """

    def __init__(self, facts: Rows, num_entities: int) -> None:
        self.num_entities = num_entities
        pairs = facts[:, 0] * num_entities + facts[:, 2]
        order = np.argsort(pairs, kind="stable")
        self.pairs, self.relations = pairs[order], facts[order, 1]

    def join(self, heads: Indices, tails: Indices) -> Iterator[tuple[Indices, Indices]]:
        """All relations from each head to its tail.

        Yields:
            Chunks of (index in `heads` and `tails`, relation), both of shape (n,). A chunk has at
            most `CHUNK` elements unless a single pair has more.
        """
        queries = heads * self.num_entities + tails
        low = np.searchsorted(self.pairs, queries, "left")
        counts = np.searchsorted(self.pairs, queries, "right") - low
        ends = np.cumsum(counts)
        first = 0
        while first < len(queries):
            done = int(ends[first - 1]) if first else 0
            last = max(int(np.searchsorted(ends, done + CHUNK, "right")), first + 1)
            index = np.repeat(np.arange(first, last), counts[first:last])
            # The number of each element among those of its query.
            within = done + np.arange(len(index)) - (ends - counts)[index]
            yield index, self.relations[low[index] + within]
            first = last


@dataclass(frozen=True)
class Partners:
    """For relations r and s: how many facts (h, r, t) have a fact of s between the same entities.

    Attributes:
        relation, partner, count: r, s and that number if it is not 0; ordered by r, then s.
        facts: per relation, the number of facts that were looked at.
    """

    relation: Indices
    partner: Indices
    count: Indices
    facts: Int[np.ndarray, " R"]

    @property
    def share(self) -> Float[np.ndarray, " n"]:
        """`count` as a share of the facts of `relation`."""
        share: Float[np.ndarray, " n"] = self.count / self.facts[self.relation]
        return share

    def best(self) -> dict[int, tuple[int, int, float]]:
        """By relation, the other relation with the largest count: partner, count, share.

        Among equals, the partner with the smallest id.
        """
        other = np.flatnonzero(self.relation != self.partner)
        order = other[np.lexsort((-self.count[other], self.relation[other]))]
        relations, first = np.unique(self.relation[order], return_index=True)
        chosen = order[first]
        columns = (self.partner[chosen], self.count[chosen], self.share[chosen])
        return dict(
            zip(relations.tolist(), zip(*(c.tolist() for c in columns), strict=True), strict=True)
        )

    def self_share(self) -> Float[np.ndarray, " R"]:
        """The share of each relation with itself as the partner."""
        shares = np.zeros(len(self.facts))
        same = self.relation == self.partner
        shares[self.relation[same]] = self.share[same]
        return shares


def inverses(facts: Rows, num_entities: int, num_relations: int) -> Partners:
    """How many facts (h, r, t) have a fact (t, s, h); s may equal r.

    Facts of an entity with itself are left out on both sides, because each is its own inverse.
    """
    facts = facts[facts[:, 0] != facts[:, 2]]
    return _partners(facts, facts[:, 2], facts[:, 0], num_entities, num_relations)


def symmetric(
    facts: Int[np.ndarray, "n 3"], num_entities: int, num_relations: int
) -> frozenset[int]:
    """The relations that count as symmetric (see `SYMMETRIC`) in some distinct facts."""
    partners = inverses(facts, num_entities, num_relations)
    chosen = (partners.facts >= FEWEST) & (partners.self_share() >= SYMMETRIC)
    return frozenset(np.flatnonzero(chosen).tolist())


def twins(facts: Rows, num_entities: int, num_relations: int) -> Partners:
    """How many facts (h, r, t) have a fact (h, s, t); all of them for s = r."""
    return _partners(facts, facts[:, 0], facts[:, 2], num_entities, num_relations)


def under_another(facts: Int[np.ndarray, "n 3"], index: PairIndex) -> Bool[np.ndarray, " n"]:
    """Which facts (h, r, t) have (h, s, t) or (t, s, h) in the index for another relation s."""
    mask = np.zeros(len(facts), bool)
    heads, relations, tails = facts.T
    for ends in ((heads, tails), (tails, heads)):
        for rows, partners in index.join(*ends):
            mask[rows[partners != relations[rows]]] = True
    return mask


def with_inverse(
    facts: Int[np.ndarray, "n 3"], index: PairIndex, partners: Partners
) -> Bool[np.ndarray, " n"]:
    """Which facts (h, r, t) follow from a rule: (t, s, h) is in the index, and s implies r.

    s implies r if at least the share `STRONG` of the facts of s has its inverse under r. s may
    equal r (a symmetric relation).

    Args:
        partners: `inverses` of the facts that the rules come from.
    """
    num_relations = len(partners.facts)
    strong = partners.share >= STRONG
    # A rule "s implies r" as the integer s * num_relations + r.
    rules = partners.relation[strong] * num_relations + partners.partner[strong]
    mask = np.zeros(len(facts), bool)
    heads, relations, tails = facts.T
    for rows, implying in index.join(tails, heads):
        implied = np.isin(implying * num_relations + relations[rows], rules)
        mask[rows[implied & (heads[rows] != tails[rows])]] = True
    return mask


def _partners(
    facts: Rows, heads: Indices, tails: Indices, num_entities: int, num_relations: int
) -> Partners:
    """Partners of the facts' relations among the relations from each head to its tail."""
    index = PairIndex(facts, num_entities)
    # Counts by relation * num_relations + partner; those of each chunk are merged into them.
    keys, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for rows, partner in index.join(heads, tails):
        chunk_keys, chunk_counts = np.unique(
            facts[rows, 1] * num_relations + partner, return_counts=True
        )
        keys, position = np.unique(np.concatenate([keys, chunk_keys]), return_inverse=True)
        merged = np.zeros(len(keys), np.int64)
        np.add.at(merged, position, np.concatenate([counts, chunk_counts]))
        counts = merged
    sizes = np.bincount(facts[:, 1], minlength=num_relations)
    return Partners(keys // num_relations, keys % num_relations, counts, sizes)
