"""Which bodies foretell a relation: how often they hold beside a fact, and how often at all.

The body (k1, k2) leads from h to t where some x has the edges (h, k1, x) and (x, k2, t); the body
(k1) where (h, k1, t) is an edge. Its *support* for r is the number of training facts (h, r, t)
where it leads from h to t; its *confidence* is support / (pairs that it connects + 5).

Meilicke, Chekol, Ruffinelli, Stuckenschmidt: Anytime Bottom-Up Rule Learning for Knowledge Graph
Completion, IJCAI 2019 (sampled there; counted here).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mocme.experts.rules.adjacency import PATHS, Adjacency, expand, parts_of
from mocme.experts.rules.path_counting import connected

# Pairs that a body is taken to connect beside those it does, so that few do not look certain.
PRIOR = 5
Step = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class RuleBodies:
    """n bodies, each for a relation, ascending by relation; second = -1 for bodies of length 1."""

    relation: Int[np.ndarray, " n"]
    first: Int[np.ndarray, " n"]
    second: Int[np.ndarray, " n"]
    support: Int[np.ndarray, " n"]
    confidence: Float[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.relation)

    def __getitem__(
        self, index: Int[np.ndarray, " m"] | Bool[np.ndarray, " n"] | slice
    ) -> RuleBodies:
        return RuleBodies(
            self.relation[index],
            self.first[index],
            self.second[index],
            self.support[index],
            self.confidence[index],
        )


def mine(
    relations: Adjacency,
    *,
    support: int,
    confidence: float,
    most: int,
    degree: int,
    paths: float,
    seed: int,
    step: Step = lambda share: None,
) -> RuleBodies:
    """The `most` best bodies of each of the 2R directed links.

    Best is what has the greatest confidence * min(1, support / 10). Counts are made for r < R; the
    inverse of r has the same bodies walked backwards, with the same counts.

    Args:
        degree: where both ends of a fact have more neighbours, so many of them are drawn.
        paths: a body with more paths than this is not multiplied out if, were they to connect as
            many pairs, its confidence would be below the bound.
        step: is told the share of the work that is done.
    """
    found = supports(relations, degree, seed, lambda share: step(share / 2))
    bodies = found[found.support >= support]
    # With more pairs than this, the confidence is below the bound (a little room for rounding).
    enough = bodies.support / max(confidence, 1e-12) - PRIOR + 1e-6
    pairs = connected(
        relations,
        bodies.first,
        bodies.second,
        enough,
        paths,
        lambda share: step((1 + share) / 2),
    )
    sure = bodies.support / (pairs + PRIOR)
    bodies = RuleBodies(bodies.relation, bodies.first, bodies.second, bodies.support, sure)
    bodies = bodies[sure >= confidence]
    merit = bodies.confidence * np.minimum(1, bodies.support / 10)
    bodies = bodies[np.lexsort((bodies.second, bodies.first, -merit, bodies.relation))]
    place = np.arange(len(bodies)) - np.searchsorted(bodies.relation, bodies.relation)
    return _both(relations, bodies[place < most])


def _both(relations: Adjacency, bodies: RuleBodies) -> RuleBodies:
    """These bodies, then the same walked backwards, for the inverses."""
    back = backwards(relations, bodies.first, bodies.second)
    fields = (bodies.relation + relations.num_links, *back, bodies.support, bodies.confidence)
    own = (bodies.relation, bodies.first, bodies.second, bodies.support, bodies.confidence)
    return RuleBodies(*(np.concatenate(both) for both in zip(own, fields, strict=True)))


def backwards(
    relations: Adjacency, first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The body that leads from t to h where (first, second) leads from h to t."""
    long = second >= 0
    inverse = relations.inverse
    start = inverse[np.where(long, second, first)]
    return start, np.where(long, inverse[first], -1)


@dataclass(frozen=True, eq=False)
class _Neighbours:
    """Which entities are neighbours, and over which relations.

    Attributes:
        pairs: node * N + neighbour, ascending.
        first: the first of a node's pairs, and of the next one's.
        start, relation: the relations of a pair are relation[start[p] : start[p + 1]].
        drawn, begin: pairs by node, at most `degree` of each.
    """

    pairs: Int[np.ndarray, " p"]
    first: Int[np.ndarray, " N1"]
    start: Int[np.ndarray, " p1"]
    relation: Int[np.ndarray, " e"]
    drawn: Int[np.ndarray, " d"]
    begin: Int[np.ndarray, " N1"]

    @staticmethod
    def of(relations: Adjacency, degree: int, seed: int) -> _Neighbours:
        size, kinds = relations.num_entities, len(relations)
        key = np.repeat(relations.keys, np.diff(relations.edges.indptr))
        head, kind = key % size, key // size
        order = np.sort((head * size + relations.edges.indices) * kinds + kind)
        pair = order // kinds
        start = np.flatnonzero(np.diff(pair, prepend=-1))
        pairs = pair[start]
        first = np.searchsorted(pairs, np.arange(size + 1) * size)
        kept = np.ones(len(pairs), bool)
        generator = np.random.default_rng(seed)
        for node in np.flatnonzero(np.diff(first) > degree):
            number = int(first[node + 1] - first[node])
            chosen = generator.choice(number, degree, replace=False)
            kept[first[node] : first[node + 1]] = False
            kept[first[node] + chosen] = True
        drawn = np.flatnonzero(kept)
        begin = np.searchsorted(drawn, first)
        return _Neighbours(pairs, first, np.append(start, len(pair)), order % kinds, drawn, begin)

    def find(self, pair: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
        """Which of some pairs there are, and where."""
        place = np.searchsorted(self.pairs, pair)
        place = np.minimum(place, max(0, len(self.pairs) - 1))
        there = np.flatnonzero(self.pairs[place] == pair)
        return there, place[there]


def supports(relations: Adjacency, degree: int, seed: int, step: Step) -> RuleBodies:
    """Every body that holds beside a fact, with its support, for r < R (confidence: 0)."""
    near = _Neighbours.of(relations, degree, seed)
    kinds = len(relations)
    columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for link in range(relations.num_links):
        head, tail = relations.pairs(link)
        found = [_direct(relations, near, link, head, tail)]
        found += _joined(relations, near, head, tail)
        code, count = tally(np.concatenate(found))
        columns.append((np.full(len(code), link), code, count))
        step((link + 1) / relations.num_links)
    if not columns:
        columns.append((np.empty(0, np.int64),) * 3)
    relation, code, count = (np.concatenate(column) for column in zip(*columns, strict=True))
    first, second = code // (kinds + 1), code % (kinds + 1) - 1
    return RuleBodies(relation, first, second, count, np.zeros(len(code)))


def _direct(
    relations: Adjacency, near: _Neighbours, link: int, head: np.ndarray, tail: np.ndarray
) -> Int[np.ndarray, " n"]:
    """Codes of the bodies of length 1 of each fact."""
    _, place = near.find(head * relations.num_entities + tail)
    count = near.start[place + 1] - near.start[place]
    kind = near.relation[expand(near.start[place], count)]
    codes: np.ndarray = kind[kind != link] * (len(relations) + 1)
    return codes


def _joined(
    relations: Adjacency, near: _Neighbours, head: np.ndarray, tail: np.ndarray
) -> Iterator[Int[np.ndarray, " n"]]:
    """Codes of the bodies of length 2 of each fact, each once a fact, in parts.

    The end with fewer neighbours is walked from; each neighbour is then sought at the other.
    """
    size, kinds = relations.num_entities, len(relations)
    number = np.diff(near.begin)
    swap = number[tail] < number[head]
    near_end, far_end = np.where(swap, tail, head), np.where(swap, head, tail)
    # One far end after the other, so that searches stay within a part of the table.
    order = np.lexsort((near_end, far_end))
    near_end, far_end, swap = near_end[order], far_end[order], swap[order]
    for part in parts_of(number[near_end], PATHS // 4):
        count = number[near_end[part]]
        own = np.repeat(np.arange(len(count)), count)
        one = near.drawn[expand(near.begin[near_end[part]], count)]
        there, two = near.find(far_end[part][own] * size + near.pairs[one] % size)
        own, one = own[there], one[there]
        many = (near.start[one + 1] - near.start[one]) * (near.start[two + 1] - near.start[two])
        # A fact is never cut in two, for each of its bodies counts once.
        cost = np.bincount(own, many, len(count))
        for facts in parts_of(cost, PATHS):
            piece = slice(*np.searchsorted(own, [facts.start, facts.stop]))
            yield _codes(relations, near, own[piece], swap[part], one[piece], two[piece], kinds)


def _codes(
    relations: Adjacency,
    near: _Neighbours,
    own: np.ndarray,
    swap: np.ndarray,
    one: np.ndarray,
    two: np.ndarray,
    kinds: int,
) -> Int[np.ndarray, " n"]:
    """Codes of bodies, given for each middle its fact and its pairs with both ends."""
    width = near.start[two + 1] - near.start[two]
    many = (near.start[one + 1] - near.start[one]) * width
    place = np.repeat(np.arange(len(own)), many)
    inner = np.arange(len(place)) - np.repeat(np.cumsum(many) - many, many)
    row, column = np.divmod(inner, width[place])
    left = near.relation[near.start[one][place] + row]
    right = near.relation[near.start[two][place] + column]
    own = own[place]
    back = swap[own]
    first, last = np.where(back, right, left), np.where(back, left, right)
    body = first * (kinds + 1) + relations.inverse[last] + 1
    codes = np.sort(own * (kinds * (kinds + 1)) + body)
    once: np.ndarray = codes[np.diff(codes, prepend=-1) != 0] % (kinds * (kinds + 1))
    return once


def tally(values: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    """Distinct values, ascending, and how often each occurs."""
    values = np.sort(values)
    start = np.flatnonzero(np.diff(values, prepend=-1))
    return values[start], np.diff(np.append(start, len(values)))
