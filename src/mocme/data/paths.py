"""Facts and short paths between two entities, through the rarest intermediate entities first."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from jaxtyping import Int

from mocme.core.deadline import Check, unlimited
from mocme.data.graph import Graph
from mocme.data.quality import relation_overlap

Fact = tuple[int, int, int]
# The largest number of edges to inspect for the paths between two entities.
EDGES = 1 << 20


@dataclass(frozen=True)
class Paths:
    """Paths between two entities, shortest first.

    Attributes:
        paths: the facts of each path from head to tail, each fact in its own direction.
        left_out: number of neighbours that were not followed, because together with the rarer
            ones they have more than `EDGES` facts.
    """

    paths: tuple[tuple[Fact, ...], ...]
    left_out: int


class FactNetwork:
    """The neighbours of each entity, in both directions; self-loops are left out.

    Args:
        splits: the splits with the facts.
        symmetric: relations for which (h, r, t) and (t, r, h) say the same; by default, those that
            are symmetric in the training facts.

    Attributes:
        degree: number of facts of each entity.
    """

    def __init__(
        self, graph: Graph, *splits: str, symmetric: Collection[int] | None = None
    ) -> None:
        if symmetric is None:
            train = graph.facts("train").numpy()
            symmetric = relation_overlap.symmetric(train, graph.num_entities, graph.num_relations)
        self.symmetric = symmetric
        facts = graph.directed(*splits).numpy()
        facts = facts[facts[:, 0] != facts[:, 2]]
        # Compressed sparse rows by head; within a head by tail, then relation.
        facts = facts[np.lexsort((facts[:, 1], facts[:, 2], facts[:, 0]))]
        self.relation, self.end = facts[:, 1], facts[:, 2]
        self.start = np.searchsorted(facts[:, 0], np.arange(graph.num_entities + 1))
        self.degree = np.diff(self.start)
        self.num_relations = graph.num_relations

    def near(self, entity: int) -> Int[np.ndarray, " n"]:
        """Return the distinct neighbours of an entity, ascending."""
        ends: np.ndarray = self.end[self.start[entity] : self.start[entity + 1]]
        distinct: np.ndarray = ends[np.diff(ends, prepend=-1) != 0]
        return distinct

    def between(self, head: int, tail: int) -> list[Fact]:
        """Return the facts between two entities, each in its own direction."""
        # Called for each answer of a question: Python numbers and a method of the array cost half
        # of NumPy's numbers and its function.
        first, last = self.start[head : head + 2].tolist()
        low, high = self.end[first:last].searchsorted((tail, tail + 1)).tolist()
        facts = []
        for relation in self.relation[first + low : first + high].tolist():
            forward = relation < self.num_relations
            facts.append(
                (head, relation, tail) if forward else (tail, relation - self.num_relations, head)
            )
        return facts

    def links(self, start: int, end: int, without: Fact | None = None) -> list[Fact]:
        """Return the facts between two entities, one direction of each symmetric relation.

        Of a symmetric relation with both facts, the one from start to end is kept.

        Args:
            without: a fact to leave out.
        """
        facts = [fact for fact in self.between(start, end) if fact != without]
        forward = {relation for head, relation, _ in facts if head == start}
        return [
            (head, relation, tail)
            for head, relation, tail in facts
            if head == start or relation not in self.symmetric or relation not in forward
        ]

    def paths(
        self, head: int, tail: int, without: Fact, most: int = 10, check: Check = unlimited
    ) -> Paths:
        """Find up to `most` shortest paths of one to three facts that visit no entity twice.

        Paths of equal length are ordered by the product of the degrees of their intermediate
        entities, then by ids. All paths of one and two facts are considered, by intersecting
        neighbours. Paths of three facts start from the end whose neighbours have fewer facts in
        total and follow its rarest neighbours, as long as these have at most `EDGES` facts
        together.

        Args:
            without: a fact that no path may use.
            check: called before each path; what it raises ends the search.
        """
        paths: list[tuple[Fact, ...]] = []
        left_out = 0
        if head == tail:
            return Paths((), 0)
        for length in (1, 2, 3):
            if len(paths) >= most:
                break
            check()
            if length == 3:
                inner, left_out = self._two_between(head, tail)
            else:
                inner = self._at_most_one_between(head, tail, length)
            for path in self._paths_through(head, tail, inner, without, check):
                paths.append(path)
                if len(paths) >= most:
                    break
        return Paths(tuple(paths), left_out)

    def _at_most_one_between(self, head: int, tail: int, length: int) -> Int[np.ndarray, "n k"]:
        """Return the intermediate entities of paths of one (k = 0) or two facts (k = 1)."""
        if length == 1:
            return np.empty((1, 0), np.int64)
        shared = np.intersect1d(self.near(head), self.near(tail), assume_unique=True)
        return self._by_rarity(shared[:, None])

    def _two_between(self, head: int, tail: int) -> tuple[Int[np.ndarray, "n 2"], int]:
        """Return pairs (a, b) with head - a - b - tail, and the number of skipped neighbours."""
        directions = [(head, tail), (tail, head)]
        costs = [int(self.degree[self.near(start)].sum()) for start, _ in directions]
        reverse = costs[1] < costs[0]
        start, end = directions[reverse]
        near = self.near(start)
        near = near[near != end]
        near = near[np.lexsort((near, self.degree[near]))]
        count = int(np.searchsorted(self.degree[near].cumsum(), EDGES, "right"))
        followed = near[:count]
        neighbours = [self.near(int(entity)) for entity in followed]
        first = np.repeat(followed, [len(entities) for entities in neighbours])
        second = np.concatenate([*neighbours, np.empty(0, np.int64)]).astype(np.int64)
        reaches_end = np.isin(second, self.near(end)) & (second != start)
        pairs = np.stack([first, second], 1)[reaches_end]
        return self._by_rarity(pairs[:, ::-1] if reverse else pairs), len(near) - count

    def _by_rarity(self, inner: Int[np.ndarray, "n k"]) -> Int[np.ndarray, "n k"]:
        """Sort rows of intermediate entities by the product of their degrees, then by ids."""
        cost = self.degree[inner].astype(np.float64).prod(1)
        columns = [inner[:, column] for column in range(inner.shape[1] - 1, -1, -1)]
        return inner[np.lexsort((*columns, cost))]

    def _paths_through(
        self, head: int, tail: int, inner: Int[np.ndarray, "n k"], without: Fact, check: Check
    ) -> Iterator[tuple[Fact, ...]]:
        """Yield every path through the intermediate entities of each row, in order."""
        for row in inner.tolist():
            check()
            entities = [head, *row, tail]
            steps = [self.links(a, b, without) for a, b in pairwise(entities)]
            yield from product(*steps)
