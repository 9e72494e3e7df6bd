"""Experts whose answers are given as tables, and random graphs for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mocme.data.graph import Graph, Queries, Vocabulary
from mocme.experts.base import DenseExpert, Extension, Packed, Reason, SparseExpert, SparseOdds


def random_graph(entities: int = 14, relations: int = 2, facts: int = 60, seed: int = 0) -> Graph:
    """A graph with random facts; about a fifth of them is the valid split."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (entities, relations, entities)
    columns = [torch.randint(size, (facts,), generator=generator) for size in sizes]
    drawn = torch.unique(torch.stack(columns, 1), dim=0)
    drawn = drawn[torch.randperm(len(drawn), generator=generator)]
    cut = len(drawn) // 5
    names = [f"e{n}" for n in range(entities)]
    return Graph(
        Vocabulary(names),
        Vocabulary([f"r{n}" for n in range(relations)], "relation"),
        {"train": drawn[cut:], "valid": drawn[:cut]},
    )


class _Table:
    """Answers by query: row relation * N + head of a table of N candidates."""

    reads = ()

    def __init__(self, name: str, table: Tensor) -> None:
        self.name, self.table = name, table

    def rows(self, queries: Queries) -> Tensor:
        entities = self.table.shape[1]
        return self.table[queries.relation * entities + queries.head]

    def explain(self, head: int, relation: int, answer: int) -> Sequence[Reason]:
        return ()

    def extended(self, extension: Extension) -> _Table:
        raise NotImplementedError

    def packed(self) -> Packed:
        return {"table": self.table}, {}


class DenseTable(_Table, DenseExpert):  # type: ignore[misc]
    """Scores (2R * N, N)."""

    def score(self, queries: Queries, candidates: Tensor | None = None) -> Tensor:
        scores = self.rows(queries).clone()
        if candidates is None:
            return scores
        return scores[:, candidates] if candidates.ndim == 1 else scores.gather(1, candidates)


class SparseTable(_Table, SparseExpert):  # type: ignore[misc]
    """Odds (2R * N, N); NaN where the expert is silent."""

    def odds(self, queries: Queries) -> SparseOdds:
        rows = self.rows(queries)
        row, column = (~rows.isnan()).nonzero().unbind(1)
        return SparseOdds(row, column, rows[row, column])


def random_experts(graph: Graph, seed: int = 0, ties: bool = False) -> list:
    """Two dense experts and a sparse one, with random answers."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2 * graph.num_relations * graph.num_entities, graph.num_entities)

    def draw() -> Tensor:
        values = torch.randn(shape, generator=generator)
        return values.round() if ties else values

    odds = draw().abs()
    odds[torch.rand(shape, generator=generator) < 0.6] = torch.nan
    return [
        DenseTable("first", draw()),
        SparseTable("rules", odds),
        DenseTable("second", 3 * draw()),
    ]
