"""The numbering of relations, rows of edges, and walks against a naive count of paths."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from naive_rules import all_bodies, edges_of, graphs, make_adjacency, make_pairs, naive_paths

from mocme.experts.rules import adjacency as adjacency_module
from mocme.experts.rules.adjacency import Adjacency, Walks


def test_relations_are_numbered_and_named() -> None:
    facts = [(0, 0, 1), (0, 0, 1), (1, 1, 1), (2, 1, 0)]
    adjacency = make_adjacency(facts, 2, 3, {"mentions": [(0, 2)]})
    assert adjacency.names[:4] == ["r0", "r1", "inverse of r0", "inverse of r1"]
    assert adjacency.names[4:] == ["text: mentions", "inverse of text: mentions"]
    assert adjacency.inverse.tolist() == [2, 3, 0, 1, 5, 4]
    # A duplicate counts once, a loop not at all.
    edges = edges_of(adjacency)
    assert edges == {
        0: {(0, 1)},
        1: {(2, 0)},
        2: {(1, 0)},
        3: {(0, 2)},
        4: {(0, 2)},
        5: {(2, 0)},
    }
    for k in range(6):
        matrix = adjacency.matrix(k)
        assert matrix.dtype == np.float32
        assert matrix.has_sorted_indices
        assert set(zip(*map(np.ndarray.tolist, matrix.nonzero()), strict=True)) == edges[k]
        assert (adjacency.matrix(int(adjacency.inverse[k])) != matrix.T).nnz == 0


def test_invalid_input_is_refused() -> None:
    with pytest.raises(ValueError, match="outside the 3 entities"):
        make_adjacency([(0, 0, 3)], 1, 3)
    with pytest.raises(ValueError, match="1 names for 2 relations"):
        Adjacency.of(torch.empty(0, 3, dtype=torch.int64), 2, 3, {}, ["r"])
    with pytest.raises(ValueError, match="'text' belong to 4 entities, but the graph has 3"):
        Adjacency.of(torch.empty(0, 3, dtype=torch.int64), 1, 3, {"text": make_pairs({}, 4)}, ["r"])


@given(graphs())
def test_rows_are_found_with_and_without_a_table(graph: Any) -> None:
    adjacency = make_adjacency(*graph)
    cells = np.arange(len(adjacency) * adjacency.num_entities)
    relation, head = np.divmod(cells, adjacency.num_entities)
    rows_by_table = adjacency.find_rows(relation, head)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adjacency_module, "MAX_TABLE_CELLS", 0)
        fields = {name: value for name, value in vars(adjacency).items() if name != "_row_table"}
        without_table = Adjacency(**fields)
        assert (without_table.find_rows(relation, head) == rows_by_table).all()


@given(graphs(), st.sampled_from([1, 3, 1 << 22]))
def test_walks_count_paths(graph: Any, paths_per_chunk: int) -> None:
    adjacency = make_adjacency(*graph)
    edges = edges_of(adjacency)
    walks = [(h, *body) for h in range(adjacency.num_entities) for body in all_bodies(adjacency)]
    head, first, second = np.array(walks).T
    counts: Counter[tuple[int, int]] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adjacency_module, "PATHS_PER_CHUNK", paths_per_chunk)
        for walk, end, paths in Walks.of(adjacency, head, first, second).endpoints():
            counts.update(
                {(w, t): int(n) for w, t, n in zip(walk.tolist(), end.tolist(), paths, strict=True)}
            )
    expected = {
        (walk, t): count
        for walk, (h, *body) in enumerate(walks)
        for (start, t), count in naive_paths(edges, (body[0], body[1])).items()
        if start == h
    }
    assert counts == expected
