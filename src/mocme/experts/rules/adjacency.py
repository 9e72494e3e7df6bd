"""What patterns walk along: links and kinds of pairs, both directions, in one numbering.

All of them lie in one table of edges, sorted by relation, head and tail. The edges of one relation
from one entity are a *row* of it; only rows that hold an edge exist.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mocme.data.graph import Graph
from mocme.data.modality import Features, Pairs
from mocme.data.quality import relation_overlap as both_ways

# Up to so many (relation, entity), a table says where a row is; beyond, it is searched for.
TABLE = 1 << 26
# Paths that are made at a time.
PATHS = 1 << 22


@dataclass(frozen=True, eq=False)
class Adjacency:
    """K relations between N entities, each with its inverse.

    Numbering: links 0..R-1 and their inverses R..2R-1, then each kind of pairs of each modality and
    its inverse, 2R + 2m and 2R + 2m + 1. Loops (an entity linked to itself) are left out: a path
    over a loop would pass through its own start or end, and so could hold the very fact it is to
    foretell.

    Attributes:
        names: "P161", "inverse of P161", "text: mentions", "inverse of text: mentions".
        inverse: of each relation.
        keys: relation * N + head of each row of `edges`, ascending.
        edges: a 1 for each tail, sorted.
    """

    num_links: int
    num_entities: int
    names: list[str]
    inverse: Int[np.ndarray, " K"]
    keys: Int[np.ndarray, " rows"]
    edges: Any

    @staticmethod
    def of(
        facts: Int[Tensor, "n 3"],
        num_relations: int,
        num_entities: int,
        pairs: Mapping[str, Pairs],
        names: Sequence[str],
    ) -> Adjacency:
        """The relations of training facts and of pairs by modality.

        Args:
            facts: training triples (head, relation, tail) in one direction; duplicates count once.
            names: of the R relations.

        Raises:
            ValueError: ids are out of range, names are missing, or pairs were made for another
                number of entities.
        """
        triples = facts.numpy()
        _check(triples, num_relations, num_entities, pairs, names)
        directed = [triples, triples[:, ::-1] + [0, num_relations, 0]]
        all_names = [*names, *(f"inverse of {name}" for name in names)]
        links = np.arange(2 * num_relations)
        inverse = [(links + num_relations) % max(1, 2 * num_relations)]
        for modality, own in pairs.items():
            first = len(all_names)
            kind = 2 * own.kind.numpy() + first
            head, tail = own.head.numpy(), own.tail.numpy()
            directed += [np.stack([head, kind, tail], 1), np.stack([tail, kind + 1, head], 1)]
            for name in own.kinds:
                all_names += [f"{modality}: {name}", f"inverse of {modality}: {name}"]
            inverse.append(np.arange(first, len(all_names)) ^ 1)
        keys, edges = _rows(np.concatenate(directed), num_entities)
        return Adjacency(
            num_relations, num_entities, all_names, np.concatenate(inverse), keys, edges
        )

    def __len__(self) -> int:
        return len(self.names)

    def span(self, relation: int) -> slice:
        """Which rows are those of a relation."""
        ends = np.array([relation, relation + 1]) * self.num_entities
        first, stop = np.searchsorted(self.keys, ends)
        return slice(int(first), int(stop))

    def matrix(self, relation: int) -> Any:
        """The (N, N) CSR matrix of a relation: 1 (float32) from head to tail, sorted indices."""
        rows, size = self.span(relation), self.num_entities
        start = self.edges.indptr[rows.start : rows.stop + 1]
        counts = np.zeros(size + 1, np.int64)
        counts[self.keys[rows] - relation * size + 1] = np.diff(start)
        edges = slice(int(start[0]), int(start[-1]))
        parts = (self.edges.data[edges], self.edges.indices[edges], counts.cumsum())
        return csr(parts, (size, size))

    def pairs(self, relation: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Heads and tails of a relation, ascending."""
        rows = self.span(relation)
        start = self.edges.indptr[rows.start : rows.stop + 1]
        head = np.repeat(self.keys[rows] - relation * self.num_entities, np.diff(start))
        return head, self.edges.indices[int(start[0]) : int(start[-1])].astype(np.int64)

    def rows(
        self, relation: Int[np.ndarray, " n"], head: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        """The row of edges of each (relation, head); -1 where there is none."""
        wanted = relation * self.num_entities + head
        if self._table is not None:
            found: np.ndarray = self._table[wanted]
            return found
        place = np.minimum(np.searchsorted(self.keys, wanted), max(0, len(self.keys) - 1))
        if not len(self.keys):
            return np.full(len(wanted), -1)
        return np.where(self.keys[place] == wanted, place, -1)

    @cached_property
    def _table(self) -> Int[np.ndarray, " KN"] | None:
        if len(self) * self.num_entities > TABLE:
            return None
        table = np.full(len(self) * self.num_entities, -1, np.int32)
        table[self.keys] = np.arange(len(self.keys))
        return table

    @cached_property
    def told(self) -> Int[np.ndarray, " K"]:
        """As what each relation is told: an inverse that says the same, as the relation itself.

        Those of relations that are symmetric (`mocme.data.quality.relation_overlap.SYMMETRIC`);
        all others stand for themselves.
        """
        ids = np.arange(len(self))
        rows = [np.empty((0, 3), np.int64)]
        for relation in np.flatnonzero(ids < self.inverse).tolist():
            head, tail = self.pairs(relation)
            rows.append(np.stack([head, np.full(len(head), relation), tail], 1))
        same = both_ways.symmetric(np.concatenate(rows), self.num_entities, len(self))
        return np.where(np.isin(self.inverse, list(same)), self.inverse, ids)

    def digest(self) -> str:
        """SHA-256 of names and edges."""
        total = hashlib.sha256("\n".join(map(repr, self.names)).encode())
        for part in (self.keys, self.edges.indptr, self.edges.indices):
            total.update(part.astype(np.int64).tobytes())
        return total.hexdigest()


@dataclass(frozen=True, eq=False)
class Walks:
    """m walks, each from an entity over a body, before they are made.

    Attributes:
        walk: which of the walks asked for; those that lead nowhere are left out.
        head: where each starts.
        hops: a 1 for each row of edges that a walk ends with, (m, rows).
        paths: how many paths each walk has.
    """

    relations: Adjacency
    walk: Int[np.ndarray, " m"]
    head: Int[np.ndarray, " m"]
    hops: Any
    paths: Int[np.ndarray, " m"]

    @staticmethod
    def of(
        relations: Adjacency,
        head: Int[np.ndarray, " n"],
        first: Int[np.ndarray, " n"],
        second: Int[np.ndarray, " n"],
    ) -> Walks:
        """The walks from `head` over `first`, then over `second` (-1: over `first` only)."""
        start = relations.rows(first, head)
        walk = np.flatnonzero(start >= 0)
        start, over = start[walk].astype(np.int64), second[walk]
        pointer = relations.edges.indptr.astype(np.int64)
        # A walk over a single relation ends with the row that it starts from.
        count = np.where(over < 0, 1, pointer[start + 1] - pointer[start])
        own = np.repeat(np.arange(len(walk)), count)
        short = over[own] < 0
        place = expand(pointer[start], count)
        middle = relations.edges.indices[place]
        row = np.where(short, start[own], relations.rows(np.maximum(over, 0)[own], middle))
        kept = row >= 0
        own, row = own[kept], row[kept].astype(np.int64)
        size = len(walk)
        paths = np.bincount(own, pointer[row + 1] - pointer[row], size).astype(np.int64)
        starts = np.concatenate([[0], np.bincount(own, minlength=size).cumsum()])
        parts = (np.ones(len(row), np.float32), row, starts)
        hops = csr(parts, (size, len(relations.keys)))
        return Walks(relations, walk, head[walk], hops, paths)

    def take(self, stop: int) -> Walks:
        """The first `stop` of them."""
        return Walks(
            self.relations, self.walk[:stop], self.head[:stop], self.hops[:stop], self.paths[:stop]
        )

    def made(
        self,
    ) -> Iterator[tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
        """In parts: (walk, where it ends, number of paths), where that is not where it starts."""
        for part in parts_of(self.paths, PATHS):
            found = self.hops[part] @ self.relations.edges
            own = np.repeat(np.arange(part.start, part.stop), np.diff(found.indptr))
            away = found.indices != self.head[own]
            yield self.walk[own[away]], found.indices[away], found.data[away]


def csr(parts: Any, shape: tuple[int, int]) -> Any:
    """A CSR matrix of what `scipy.sparse.csr_matrix` takes."""
    # Loading it costs a fifth of a second, which only what makes a matrix should pay.
    from scipy.sparse import csr_matrix

    return csr_matrix(parts, shape=shape)


def parts_of(cost: Shaped[np.ndarray, " n"], most: int) -> Iterator[slice]:
    """Slices whose costs sum to `most` or little more; a single one may cost more."""
    total = cost.cumsum()
    first = 0
    while first < len(cost):
        before = int(total[first - 1]) if first else 0
        stop = max(first + 1, int(np.searchsorted(total, before + most, "right")))
        yield slice(first, stop)
        first = stop


def expand(start: Int[np.ndarray, " n"], count: Int[np.ndarray, " n"]) -> Int[np.ndarray, " total"]:
    """start, start + 1, ... (`count` of them) for each, one after the other."""
    shift = start - (np.cumsum(count) - count)
    places: np.ndarray = np.arange(int(count.sum())) + np.repeat(shift, count)
    return places


def _rows(edges: Int[np.ndarray, "n 3"], size: int) -> tuple[np.ndarray, Any]:
    """Keys and CSR matrix of distinct edges (head, relation, tail) that are no loops."""
    edges = edges[edges[:, 0] != edges[:, 2]]
    flat = np.sort((edges[:, 1] * size + edges[:, 0]) * size + edges[:, 2])
    flat = flat[np.diff(flat, prepend=-1) != 0]
    key, tail = flat // size, flat % size
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    parts = (np.ones(len(tail), np.float32), tail, np.append(starts, len(tail)))
    matrix = csr(parts, (len(starts), size))
    matrix.has_sorted_indices = True
    return key[starts], matrix


def _check(
    facts: np.ndarray, links: int, size: int, pairs: Mapping[str, Pairs], names: Sequence[str]
) -> None:
    limit = np.array([size, links, size])
    if len(facts) and (facts.min() < 0 or bool((facts >= limit).any())):
        raise ValueError(f"facts hold ids outside the {size} entities and {links} relations")
    if len(names) != links:
        raise ValueError(f"{len(names)} names for {links} relations")
    total = 2 * links + 2 * sum(len(own.kinds) for own in pairs.values())
    if total * size * size >= 2**63:
        raise ValueError(f"{total} relations between {size} entities are too many to number edges")
    for modality, own in pairs.items():
        if own.num_entities != size:
            raise ValueError(
                f"modality {modality!r} was made for {own.num_entities} entities, but the graph "
                f"has {size}; read it again for this graph"
            )


def relations_of(graph: Graph, features: Features) -> Adjacency:
    """What patterns walk along: training links and pairs."""
    return Adjacency.of(
        graph.facts("train"),
        graph.num_relations,
        graph.num_entities,
        features.pairs,
        list(graph.relations),
    )
