"""Links and short paths between two entities, the rarest in between first."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from jaxtyping import Int

from mocme.data.graph import Graph
from mocme.data.quality import relation_overlap as pairs

Fact = tuple[int, int, int]
# Edges that are looked at for one question, at most.
EDGES = 1 << 20


@dataclass(frozen=True)
class Paths:
    """Paths, shortest first.

    Attributes:
        paths: each a list of facts in their own direction, from head to tail.
        left_out: neighbours that were not followed, because they and those before them have too
            many facts.
    """

    paths: tuple[tuple[Fact, ...], ...]
    left_out: int


class FactNetwork:
    """Facts as neighbours, both directions; facts from an entity to itself are left out.

    Args:
        splits: of these facts.
        symmetric: relations whose facts say the same turned around; left out, those that the
            training facts show to be so.

    Attributes:
        degree: neighbours of each entity, one for each fact.
    """

    def __init__(
        self, graph: Graph, *splits: str, symmetric: Collection[int] | None = None
    ) -> None:
        if symmetric is None:
            train = graph.facts("train").numpy()
            symmetric = pairs.symmetric(train, graph.num_entities, graph.num_relations)
        self.symmetric = symmetric
        facts = graph.directed(*splits).numpy()
        facts = facts[facts[:, 0] != facts[:, 2]]
        facts = facts[np.lexsort((facts[:, 1], facts[:, 2], facts[:, 0]))]
        self.relation, self.end = facts[:, 1], facts[:, 2]
        self.start = np.searchsorted(facts[:, 0], np.arange(graph.num_entities + 1))
        self.degree = np.diff(self.start)
        self.num_relations = graph.num_relations

    def near(self, entity: int) -> Int[np.ndarray, " n"]:
        """Distinct neighbours, ascending."""
        own: np.ndarray = self.end[self.start[entity] : self.start[entity + 1]]
        distinct: np.ndarray = own[np.diff(own, prepend=-1) != 0]
        return distinct

    def between(self, head: int, tail: int) -> list[Fact]:
        """Facts that link two entities, each in its own direction."""
        first = int(self.start[head])
        own = self.end[first : self.start[head + 1]]
        low, high = np.searchsorted(own, [tail, tail + 1])
        found = []
        for relation in self.relation[first + low : first + high].tolist():
            forward = relation < self.num_relations
            found.append(
                (head, relation, tail) if forward else (tail, relation - self.num_relations, head)
            )
        return found

    def links(self, start: int, end: int, without: Fact | None = None) -> list[Fact]:
        """As `between`, each thing told once: of a symmetric relation the fact from start to end.

        Args:
            without: a fact that is left out.
        """
        facts = [fact for fact in self.between(start, end) if fact != without]
        along = {relation for head, relation, _ in facts if head == start}
        return [
            (head, relation, tail)
            for head, relation, tail in facts
            if head == start or relation not in self.symmetric or relation not in along
        ]

    def paths(self, head: int, tail: int, without: Fact, most: int = 10) -> Paths:
        """Up to `most` shortest paths of one to three facts that visit no entity twice.

        Of equal length, those come first whose entities in between have the fewest facts (their
        product), then by ids. Paths of one and two facts are all found, by intersecting neighbours.
        For three the rarest neighbours of one end are followed (of that end whose neighbours have
        fewer facts in all) as long as they have at most
        `EDGES` facts together.

        Args:
            without: a fact that no path may use.
        """
        found: list[tuple[Fact, ...]] = []
        left_out = 0
        if head == tail:
            return Paths((), 0)
        for length in (1, 2, 3):
            if len(found) >= most:
                break
            if length == 3:
                inner, left_out = self._longest(head, tail)
            else:
                inner = self._shorter(head, tail, length)
            for path in self._facts(head, tail, inner, without):
                found.append(path)
                if len(found) >= most:
                    break
        return Paths(tuple(found), left_out)

    def _shorter(self, head: int, tail: int, length: int) -> Int[np.ndarray, "n k"]:
        if length == 1:
            return np.empty((1, 0), np.int64)
        shared = np.intersect1d(self.near(head), self.near(tail), assume_unique=True)
        return self._rarest(shared[:, None])

    def _longest(self, head: int, tail: int) -> tuple[Int[np.ndarray, "n 2"], int]:
        """Pairs (a, b) with head - a - b - tail, and how many neighbours were not followed."""
        sides = [(head, tail), (tail, head)]
        costs = [int(self.degree[self.near(one)].sum()) for one, _ in sides]
        turned = costs[1] < costs[0]
        one, other = sides[turned]
        near = self.near(one)
        near = near[near != other]
        near = near[np.lexsort((near, self.degree[near]))]
        kept = int(np.searchsorted(self.degree[near].cumsum(), EDGES, "right"))
        followed = near[:kept]
        ends = [self.near(int(entity)) for entity in followed]
        first = np.repeat(followed, [len(own) for own in ends])
        second = np.concatenate([*ends, np.empty(0, np.int64)]).astype(np.int64)
        fits = np.isin(second, self.near(other)) & (second != one)
        pairs = np.stack([first, second], 1)[fits]
        return self._rarest(pairs[:, ::-1] if turned else pairs), len(near) - kept

    def _rarest(self, inner: Int[np.ndarray, "n k"]) -> Int[np.ndarray, "n k"]:
        cost = self.degree[inner].astype(np.float64).prod(1)
        columns = [inner[:, place] for place in range(inner.shape[1] - 1, -1, -1)]
        return inner[np.lexsort((*columns, cost))]

    def _facts(
        self, head: int, tail: int, inner: Int[np.ndarray, "n k"], without: Fact
    ) -> Iterator[tuple[Fact, ...]]:
        for row in inner.tolist():
            stops = [head, *row, tail]
            steps = [self.links(a, b, without) for a, b in pairwise(stops)]
            yield from product(*steps)
