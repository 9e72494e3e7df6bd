"""Edges that rule bodies traverse: training facts and entity pairs, in both directions.

All edges are in one CSR matrix, sorted by relation, head and tail. Its rows are the non-empty
(relation, head) combinations, so its size grows with the edges and not with K * N.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mocme.data.graph import Graph
from mocme.data.modality import Features, Pairs
from mocme.data.quality import relation_overlap

# Up to this many (relation, entity) cells, a dense int32 table (256 MiB) maps a cell to its row.
# Above it, rows are found by binary search.
MAX_TABLE_CELLS = 1 << 26
# Paths enumerated at once. This bounds the memory of a sparse product.
PATHS_PER_CHUNK = 1 << 22


@final
@dataclass(frozen=True, eq=False)
class Adjacency:
    """Edges of K relations between N entities. Each relation is followed by its inverse.

    Relations are numbered so: links (the graph's relations) 0..R-1, their inverses R..2R-1, then
    kind m of the pairs of all modalities 2R + 2m, and its inverse 2R + 2m + 1.

    Loops (h, r, h) are left out. A path over a loop visits its own start or end, so it could
    contain the fact that it is to predict.

    Attributes:
        num_links: R.
        names: "P161", "inverse of P161", "text: mentions", "inverse of text: mentions".
        inverse: id of each relation's inverse.
        keys: relation * N + head of each row of `edges`, ascending.
        edges: (rows, N) CSR matrix with a 1 (float32) for each tail, indices sorted.
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
        """Index training facts, and pairs by modality.

        Args:
            facts: training triples (head, relation, tail) in one direction; duplicates count once.
            names: of the R relations.

        Raises:
            ValueError: ids are out of range, the number of names is not R, or pairs belong to
                another number of entities.
        """
        triples = facts.numpy()
        _check_input(triples, num_relations, num_entities, pairs, names)
        # Reversed columns are (tail, relation, head): the edge of the inverse relation.
        directed = [triples, triples[:, ::-1] + [0, num_relations, 0]]
        all_names = [*names, *(f"inverse of {name}" for name in names)]
        links = np.arange(2 * num_relations)
        inverse = [(links + num_relations) % max(1, 2 * num_relations)]
        for modality, modality_pairs in pairs.items():
            first = len(all_names)
            relation = 2 * modality_pairs.kind.numpy() + first
            head, tail = modality_pairs.head.numpy(), modality_pairs.tail.numpy()
            directed.append(np.stack([head, relation, tail], 1))
            directed.append(np.stack([tail, relation + 1, head], 1))
            for kind in modality_pairs.kinds:
                all_names += [f"{modality}: {kind}", f"inverse of {modality}: {kind}"]
            # `first` is even (2R names and two a kind), so that ^ 1 swaps a kind and its inverse.
            inverse.append(np.arange(first, len(all_names)) ^ 1)
        keys, edges = _index_edges(np.concatenate(directed), num_entities)
        return Adjacency(
            num_relations, num_entities, all_names, np.concatenate(inverse), keys, edges
        )

    def __len__(self) -> int:
        return len(self.names)

    def matrix(self, relation: int) -> Any:
        """The (N, N) CSR matrix of a relation: 1 (float32) from head to tail, sorted indices."""
        rows, size = self._row_range(relation), self.num_entities
        indptr = self.edges.indptr[rows.start : rows.stop + 1]
        # The rows of a relation skip entities without an edge; a matrix has a row for each.
        counts = np.zeros(size + 1, np.int64)
        counts[self.keys[rows] - relation * size + 1] = np.diff(indptr)
        entries = slice(int(indptr[0]), int(indptr[-1]))
        parts = (self.edges.data[entries], self.edges.indices[entries], counts.cumsum())
        return csr(parts, (size, size))

    def pairs(self, relation: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Heads and tails of a relation's edges, sorted by head, then tail."""
        rows = self._row_range(relation)
        indptr = self.edges.indptr[rows.start : rows.stop + 1]
        head = np.repeat(self.keys[rows] - relation * self.num_entities, np.diff(indptr))
        return head, self.edges.indices[int(indptr[0]) : int(indptr[-1])].astype(np.int64)

    def find_rows(
        self, relation: Int[np.ndarray, " n"], head: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        """The row of `edges` of each (relation, head); -1 where there is no edge."""
        keys = relation * self.num_entities + head
        if self._row_table is not None:
            rows: np.ndarray = self._row_table[keys]
            return rows
        if not len(self.keys):
            return np.full(len(keys), -1)
        position = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[position] == keys, position, -1)

    @cached_property
    def _row_table(self) -> Int[np.ndarray, " KN"] | None:
        if len(self) * self.num_entities > MAX_TABLE_CELLS:
            return None
        table = np.full(len(self) * self.num_entities, -1, np.int32)
        table[self.keys] = np.arange(len(self.keys))
        return table

    @cached_property
    def display(self) -> Int[np.ndarray, " K"]:
        """The relation that names each relation in an explanation.

        For the inverse of a symmetric relation
        (`mocme.data.quality.relation_overlap.SYMMETRIC`) that is the relation itself, because both
        have the same edges. Any other relation stands for itself.
        """
        ids = np.arange(len(self))
        triples = [np.empty((0, 3), np.int64)]
        for relation in np.flatnonzero(ids < self.inverse).tolist():
            head, tail = self.pairs(relation)
            triples.append(np.stack([head, np.full(len(head), relation), tail], 1))
        symmetric = relation_overlap.symmetric(
            np.concatenate(triples), self.num_entities, len(self)
        )
        return np.where(np.isin(self.inverse, list(symmetric)), self.inverse, ids)

    def digest(self) -> str:
        """SHA-256 of names and edges."""
        total = hashlib.sha256("\n".join(map(repr, self.names)).encode())
        for part in (self.keys, self.edges.indptr, self.edges.indices):
            total.update(part.astype(np.int64).tobytes())
        return total.hexdigest()

    def _row_range(self, relation: int) -> slice:
        """The rows of `edges` of a relation."""
        ends = np.array([relation, relation + 1]) * self.num_entities
        first, stop = np.searchsorted(self.keys, ends)
        return slice(int(first), int(stop))


@final
@dataclass(frozen=True, eq=False)
class Walks:
    """m walks, each from an entity over a rule body, stopped one edge before their ends.

    The last edge of a walk is not enumerated here: `hops` has the rows of `edges` that it may take.
    A product of `hops` with `edges` then counts the paths to each end, and can be made in chunks.

    Attributes:
        walk: index of each walk among the requested ones; those without a path are left out.
        head: the entity where each starts.
        hops: (m, rows) CSR matrix with a 1 for each row of `edges` that a walk ends with.
        paths: number of paths of each walk.
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
        start_row = relations.find_rows(first, head)
        walk = np.flatnonzero(start_row >= 0)
        start_row, last = start_row[walk].astype(np.int64), second[walk]
        indptr = relations.edges.indptr.astype(np.int64)
        # A body of one relation ends with the row that it starts from. A body of two ends with one
        # row for each middle entity, which is a tail of the start row.
        count = np.where(last < 0, 1, indptr[start_row + 1] - indptr[start_row])
        source = np.repeat(np.arange(len(walk)), count)
        single = last[source] < 0
        middle = relations.edges.indices[concatenate_ranges(indptr[start_row], count)]
        # For a body of one relation `middle` is the row's first tail, which is not used.
        row = np.where(
            single,
            start_row[source],
            relations.find_rows(np.maximum(last, 0)[source], middle),
        )
        exists = row >= 0
        source, row = source[exists], row[exists].astype(np.int64)
        size = len(walk)
        paths = np.bincount(source, indptr[row + 1] - indptr[row], size).astype(np.int64)
        starts = np.concatenate([[0], np.bincount(source, minlength=size).cumsum()])
        parts = (np.ones(len(row), np.float32), row, starts)
        hops = csr(parts, (size, len(relations.keys)))
        return Walks(relations, walk, head[walk], hops, paths)

    def take(self, stop: int) -> Walks:
        """The first `stop` walks."""
        return Walks(
            self.relations, self.walk[:stop], self.head[:stop], self.hops[:stop], self.paths[:stop]
        )

    def endpoints(
        self,
    ) -> Iterator[tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
        """Enumerate the ends of all walks, in chunks of about `PATHS_PER_CHUNK` paths.

        Yields:
            (walk, end entity, number of paths); a walk that returns to its start is left out.
        """
        for part in split_by_cost(self.paths, PATHS_PER_CHUNK):
            counts = self.hops[part] @ self.relations.edges
            source = np.repeat(np.arange(part.start, part.stop), np.diff(counts.indptr))
            # An entity is never its own answer. No path passes through its own start or end, since
            # that takes a loop.
            away = counts.indices != self.head[source]
            yield self.walk[source[away]], counts.indices[away], counts.data[away]


def csr(parts: Any, shape: tuple[int, int]) -> Any:
    """A CSR matrix of what `scipy.sparse.csr_matrix` takes."""
    # Importing scipy.sparse takes a fifth of a second, so it is deferred until a matrix is made.
    from scipy.sparse import csr_matrix

    return csr_matrix(parts, shape=shape)


def split_by_cost(cost: Shaped[np.ndarray, " n"], limit: int) -> Iterator[slice]:
    """Consecutive slices, each with a total cost of at most `limit` or with a single element."""
    total = cost.cumsum()
    first = 0
    while first < len(cost):
        before = int(total[first - 1]) if first else 0
        stop = max(first + 1, int(np.searchsorted(total, before + limit, "right")))
        yield slice(first, stop)
        first = stop


def concatenate_ranges(
    start: Int[np.ndarray, " n"], count: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " total"]:
    """The ranges start, ..., start + count - 1, one after the other."""
    shift = start - (np.cumsum(count) - count)
    ids: np.ndarray = np.arange(int(count.sum())) + np.repeat(shift, count)
    return ids


def _index_edges(edges: Int[np.ndarray, "n 3"], size: int) -> tuple[np.ndarray, Any]:
    """Keys and CSR matrix of the distinct edges (head, relation, tail), without loops."""
    edges = edges[edges[:, 0] != edges[:, 2]]
    # One int64 code an edge: sorting codes is five times as fast as a lexsort of the columns.
    # `_check_input` makes sure that codes do not overflow.
    flat = np.sort((edges[:, 1] * size + edges[:, 0]) * size + edges[:, 2])
    flat = flat[np.diff(flat, prepend=-1) != 0]
    key, tail = flat // size, flat % size
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    parts = (np.ones(len(tail), np.float32), tail, np.append(starts, len(tail)))
    matrix = csr(parts, (len(starts), size))
    matrix.has_sorted_indices = True
    return key[starts], matrix


def _check_input(
    facts: np.ndarray, links: int, size: int, pairs: Mapping[str, Pairs], names: Sequence[str]
) -> None:
    limit = np.array([size, links, size])
    if len(facts) and (facts.min() < 0 or bool((facts >= limit).any())):
        raise ValueError(f"facts hold ids outside the {size} entities and {links} relations")
    if len(names) != links:
        raise ValueError(f"{len(names)} names for {links} relations")
    total = 2 * links + 2 * sum(len(modality_pairs.kinds) for modality_pairs in pairs.values())
    if total * size * size >= 2**63:
        raise ValueError(
            f"edges of {total} relations between {size} entities cannot be numbered in 64 bits; "
            f"leave out kinds of pairs"
        )
    for modality, modality_pairs in pairs.items():
        if modality_pairs.num_entities != size:
            raise ValueError(
                f"pairs of modality {modality!r} belong to {modality_pairs.num_entities} entities, "
                f"but the graph has {size}; read the modality again for this graph"
            )


def adjacency_of(graph: Graph, features: Features) -> Adjacency:
    """The adjacency of a graph's training facts and of the pairs of its modalities."""
    return Adjacency.of(
        graph.facts("train"),
        graph.num_relations,
        graph.num_entities,
        features.pairs,
        list(graph.relations),
    )
