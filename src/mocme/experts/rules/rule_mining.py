"""Rule mining: which bodies of one or two relations predict a head relation, and how well.

The body (k1, k2) connects h to t where some x has the edges (h, k1, x) and (x, k2, t); the body
(k1) where (h, k1, t) is an edge. A rule is a head relation r with a body. Its *support* is the
number of training facts (h, r, t) whose h and t the body connects; its *confidence* is
support / (pairs that the body connects + 5).

Meilicke, Chekol, Ruffinelli, Stuckenschmidt: Anytime Bottom-Up Rule Learning for Knowledge Graph
Completion, IJCAI 2019. They sample rules; here all of them are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int

from mocme.experts.rules.adjacency import (
    PATHS_PER_CHUNK,
    Adjacency,
    concatenate_ranges,
    split_by_cost,
)
from mocme.experts.rules.path_counting import ShareCallback, count_pairs

# Added to the pairs that a body connects (additive smoothing), so that a body that connects few
# pairs, all of them facts, does not have a confidence of 1.
PRIOR_PAIRS = 5
# From this support on, a rule's rank depends on its confidence alone.
FULL_SUPPORT = 10


@final
@dataclass(frozen=True, eq=False)
class RuleBodies:
    """n rules, sorted by head relation; second is -1 for a body of one relation."""

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
    progress: ShareCallback = lambda share: None,
) -> RuleBodies:
    """The best rules of each of the 2R directed links.

    Rules are ordered by confidence * min(1, support / 10), then by body. They are mined for r < R.
    The inverse of r has the same bodies reversed, with the same support and confidence.

    Args:
        support, confidence: a rule with less of either is left out.
        most: rules of a head relation.
        degree: where both ends of a fact have more neighbours, this many of one end are sampled.
        paths: a body with more paths is not multiplied out if a rule whose body connects that many
            pairs would have too little confidence.
    """
    bodies = count_supports(relations, degree, seed, lambda share: progress(share / 2))
    bodies = bodies[bodies.support >= support]
    # More pairs than this bring the confidence below the bound. The small term absorbs rounding,
    # so that no rule is lost here which the exact comparison below would keep.
    limits = bodies.support / max(confidence, 1e-12) - PRIOR_PAIRS + 1e-6
    pairs = count_pairs(
        relations,
        bodies.first,
        bodies.second,
        limits,
        paths,
        lambda share: progress((1 + share) / 2),
    )
    # Where counting gave up, pairs are infinite and the confidence is 0.
    confidences = bodies.support / (pairs + PRIOR_PAIRS)
    bodies = RuleBodies(bodies.relation, bodies.first, bodies.second, bodies.support, confidences)
    bodies = bodies[confidences >= confidence]
    # Confidence alone would prefer rules of three facts, whose confidence is mostly chance.
    merit = bodies.confidence * np.minimum(1, bodies.support / FULL_SUPPORT)
    bodies = bodies[np.lexsort((bodies.second, bodies.first, -merit, bodies.relation))]
    rank = np.arange(len(bodies)) - np.searchsorted(bodies.relation, bodies.relation)
    return _with_inverses(relations, bodies[rank < most])


def _with_inverses(relations: Adjacency, bodies: RuleBodies) -> RuleBodies:
    """These rules, then those of the inverse head relations with reversed bodies."""
    first, second = reverse_bodies(relations, bodies.first, bodies.second)
    relation = bodies.relation + relations.num_links
    inverses = (relation, first, second, bodies.support, bodies.confidence)
    columns = zip(vars(bodies).values(), inverses, strict=True)
    return RuleBodies(*(np.concatenate(column) for column in columns))


def reverse_bodies(
    relations: Adjacency, first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The body that connects t to h where (first, second) connects h to t."""
    composed = second >= 0
    inverse = relations.inverse
    start = inverse[np.where(composed, second, first)]
    return start, np.where(composed, inverse[first], -1)


@final
@dataclass(frozen=True, eq=False)
class _NeighbourIndex:
    """Neighbours of each entity, and the relations of each pair (node, neighbour).

    Attributes:
        pairs: node * N + neighbour, ascending.
        start, relation: the relations of pair p are relation[start[p] : start[p + 1]].
        sampled: indices into `pairs` of at most `degree` neighbours of each node.
        sample_start: the sample of node n is sampled[sample_start[n] : sample_start[n + 1]].
    """

    pairs: Int[np.ndarray, " p"]
    start: Int[np.ndarray, " p1"]
    relation: Int[np.ndarray, " e"]
    sampled: Int[np.ndarray, " s"]
    sample_start: Int[np.ndarray, " N1"]

    @staticmethod
    def of(relations: Adjacency, degree: int, seed: int) -> _NeighbourIndex:
        size, num_relations = relations.num_entities, len(relations)
        keys = np.repeat(relations.keys, np.diff(relations.edges.indptr))
        node, relation = keys % size, keys // size
        # One code for (node, neighbour, relation): a single sort groups the relations of a pair.
        codes = np.sort((node * size + relations.edges.indices) * num_relations + relation)
        pair_of_edge = codes // num_relations
        start = np.flatnonzero(np.diff(pair_of_edge, prepend=-1))
        pairs = pair_of_edge[start]
        first = np.searchsorted(pairs, np.arange(size + 1) * size)
        # A fact costs as many lookups as its end with fewer neighbours has, so facts between two
        # hubs dominate the cost. The neighbours of a hub are sampled once and not by fact, so that
        # supports do not depend on the order of facts.
        keep = np.ones(len(pairs), bool)
        generator = np.random.default_rng(seed)
        for hub in np.flatnonzero(np.diff(first) > degree):
            count = int(first[hub + 1] - first[hub])
            chosen = generator.choice(count, degree, replace=False)
            keep[first[hub] : first[hub + 1]] = False
            keep[first[hub] + chosen] = True
        sampled = np.flatnonzero(keep)
        sample_start = np.searchsorted(sampled, first)
        start = np.append(start, len(pair_of_edge))
        return _NeighbourIndex(pairs, start, codes % num_relations, sampled, sample_start)

    def relation_counts(self, pair: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """How many relations each pair has, given its index."""
        counts: np.ndarray = self.start[pair + 1] - self.start[pair]
        return counts

    def find(self, pairs: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
        """Which of some pairs exist: their positions in the argument, and in `self.pairs`."""
        position = np.searchsorted(self.pairs, pairs)
        position = np.minimum(position, max(0, len(self.pairs) - 1))
        exists = np.flatnonzero(self.pairs[position] == pairs)
        return exists, position[exists]


def count_supports(
    relations: Adjacency, degree: int, seed: int, progress: ShareCallback
) -> RuleBodies:
    """Every body that connects both ends of some fact of r < R, with its support (confidence: 0).

    A body is encoded as one integer, first * (K + 1) + second + 1, so that counting supports is
    counting equal integers. A body of one relation has second = -1, and so the last digit 0.
    """
    neighbours = _NeighbourIndex.of(relations, degree, seed)
    base = len(relations) + 1
    columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for link in range(relations.num_links):
        head, tail = relations.pairs(link)
        codes = [_single_codes(relations, neighbours, link, head, tail)]
        codes += _composed_codes(relations, neighbours, head, tail)
        code, count = np.unique(np.concatenate(codes), return_counts=True)
        columns.append((np.full(len(code), link), code, count))
        progress((link + 1) / relations.num_links)
    if not columns:
        columns.append((np.empty(0, np.int64),) * 3)
    relation, code, count = (np.concatenate(column) for column in zip(*columns, strict=True))
    return RuleBodies(relation, code // base, code % base - 1, count, np.zeros(len(code)))


def _single_codes(
    relations: Adjacency,
    neighbours: _NeighbourIndex,
    link: int,
    head: np.ndarray,
    tail: np.ndarray,
) -> Int[np.ndarray, " n"]:
    """Codes of the bodies of one relation of each fact: its other relations from head to tail."""
    _, pair = neighbours.find(head * relations.num_entities + tail)
    ids = concatenate_ranges(neighbours.start[pair], neighbours.relation_counts(pair))
    relation = neighbours.relation[ids]
    # The head relation itself is no body: a fact must not be evidence for itself.
    codes: np.ndarray = relation[relation != link] * (len(relations) + 1)
    return codes


def _composed_codes(
    relations: Adjacency, neighbours: _NeighbourIndex, head: np.ndarray, tail: np.ndarray
) -> Iterator[Int[np.ndarray, " n"]]:
    """Codes of the bodies of two relations of each fact, each once a fact, in chunks.

    The (sampled) neighbours of the end that has fewer are enumerated, and each is looked up among
    all neighbours of the other end. That costs min(degree) lookups a fact; a sparse product of the
    relations would enumerate the paths of all pairs, facts or not.
    """
    size = relations.num_entities
    degree = np.diff(neighbours.sample_start)
    swapped = degree[tail] < degree[head]
    near, far = np.where(swapped, tail, head), np.where(swapped, head, tail)
    # Facts with the same far end follow each other, so that lookups stay within a part of the
    # table of pairs that fits in the cache.
    order = np.lexsort((near, far))
    near, far, swapped = near[order], far[order], swapped[order]
    for part in split_by_cost(degree[near], PATHS_PER_CHUNK // 4):
        count = degree[near[part]]
        fact = np.repeat(np.arange(len(count)), count)
        near_pair = neighbours.sampled[
            concatenate_ranges(neighbours.sample_start[near[part]], count)
        ]
        middle = neighbours.pairs[near_pair] % size
        exists, far_pair = neighbours.find(far[part][fact] * size + middle)
        fact, near_pair = fact[exists], near_pair[exists]
        # A middle entity gives one body for each combination of its relations to both ends.
        near_count, far_count = map(neighbours.relation_counts, (near_pair, far_pair))
        # Chunks never split a fact: a body counts once a fact, however many middles it has.
        cost = np.bincount(fact, near_count * far_count, len(count))
        for facts in split_by_cost(cost, PATHS_PER_CHUNK):
            chunk = slice(*np.searchsorted(fact, [facts.start, facts.stop]))
            yield _distinct_codes(
                relations,
                neighbours,
                fact[chunk],
                swapped[part],
                near_pair[chunk],
                far_pair[chunk],
            )


def _distinct_codes(
    relations: Adjacency,
    neighbours: _NeighbourIndex,
    fact: Int[np.ndarray, " n"],
    swapped: Bool[np.ndarray, " f"],
    near_pair: Int[np.ndarray, " n"],
    far_pair: Int[np.ndarray, " n"],
) -> Int[np.ndarray, " c"]:
    """Codes of the bodies of some facts, each once a fact.

    Args:
        fact: which fact each of n middle entities belongs to, ascending.
        swapped: whether the near end of a fact is its tail.
        near_pair, far_pair: index of (near end, middle) and of (far end, middle).
    """
    num_relations = len(relations)
    far_count = neighbours.relation_counts(far_pair)
    combinations = neighbours.relation_counts(near_pair) * far_count
    # Enumerate all combinations (near relation, far relation) of each middle entity: number n of
    # them is n // far_count and n % far_count.
    middle = np.repeat(np.arange(len(fact)), combinations)
    number = concatenate_ranges(np.zeros(len(fact), np.int64), combinations)
    near_offset, far_offset = np.divmod(number, far_count[middle])
    near_relation = neighbours.relation[neighbours.start[near_pair][middle] + near_offset]
    far_relation = neighbours.relation[neighbours.start[far_pair][middle] + far_offset]
    fact = fact[middle]
    # Both relations lead from an end to the middle. A body goes from the head through the middle
    # to the tail, so that the relation from the tail enters as its inverse.
    from_head = np.where(swapped[fact], far_relation, near_relation)
    from_tail = np.where(swapped[fact], near_relation, far_relation)
    body = from_head * (num_relations + 1) + relations.inverse[from_tail] + 1
    # With the fact as the leading digits, a sort brings the repeated bodies of a fact together.
    base = num_relations * (num_relations + 1)
    codes = np.sort(fact * base + body)
    distinct: np.ndarray = codes[np.diff(codes, prepend=-1) != 0] % base
    return distinct
