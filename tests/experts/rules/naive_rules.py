"""Small graphs for tests of rules, and references that count paths, pairs and supports naively."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from mocme.data.modality import Pairs
from mocme.experts.rules.adjacency import Adjacency
from mocme.experts.rules.rule_mining import RuleBodies, mine

Edges = dict[int, set[tuple[int, int]]]
Body = tuple[int, int]
Fact = tuple[int, int, int]


def make_pairs(kinds: Mapping[str, Sequence[tuple[int, int]]], entities: int) -> Pairs:
    rows = sorted(
        {(kind, h, t) for kind, edges in enumerate(kinds.values()) for h, t in edges if h != t}
    )
    columns = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).unbind(1)
    return Pairs(tuple(kinds), *columns, entities)


def make_adjacency(
    facts: Sequence[Fact],
    links: int,
    entities: int,
    kinds: Mapping[str, Sequence[tuple[int, int]]] | None = None,
) -> Adjacency:
    pairs = {} if kinds is None else {"text": make_pairs(kinds, entities)}
    names = [f"r{link}" for link in range(links)]
    triples = torch.tensor(facts, dtype=torch.int64).reshape(-1, 3)
    return Adjacency.of(triples, links, entities, pairs, names)


@st.composite
def graphs(draw: Any) -> tuple[Any, ...]:
    """Arguments of `make_adjacency`: small, with loops, duplicates, a hub and sometimes pairs.

    Not the adjacency itself: its shape checks draw random numbers, which a strategy must not do.
    """
    entities, links = draw(st.integers(2, 9)), draw(st.integers(1, 3))
    node = st.integers(0, entities - 1)
    fact = st.tuples(node, st.integers(0, links - 1), node)
    facts = draw(st.lists(fact, max_size=40))
    if draw(st.booleans()):
        facts += [(0, 0, other) for other in range(entities)]
    facts += facts[: draw(st.integers(0, 3))]
    pair = st.lists(st.tuples(node, node), max_size=12)
    kinds = draw(st.none() | st.fixed_dictionaries({"mentions": pair, "similar": pair}))
    return facts, links, entities, kinds


def random_facts(seed: int, entities: int = 60, links: int = 3, count: int = 400) -> list[Fact]:
    generator = np.random.default_rng(seed)
    table = generator.integers(0, [entities, links, entities], (count, 3))
    return [(int(h), int(r), int(t)) for h, r, t in table]


def edges_of(adjacency: Adjacency) -> Edges:
    return {
        k: set(zip(*map(np.ndarray.tolist, adjacency.pairs(k)), strict=True))
        for k in range(len(adjacency))
    }


def all_bodies(adjacency: Adjacency) -> list[Body]:
    relations = range(len(adjacency))
    return [(k, -1) for k in relations] + list(itertools.product(relations, relations))


def naive_paths(edges: Edges, body: Body) -> Counter[tuple[int, int]]:
    """The number of paths from h to t, h != t, that pass through neither."""
    first, second = body
    if second < 0:
        return Counter(edges[first])
    return Counter(
        (h, t)
        for h, x in edges[first]
        for y, t in edges[second]
        if x == y and h != t and x not in (h, t)
    )


def naive_supports(adjacency: Adjacency) -> dict[tuple[int, int, int], int]:
    edges = edges_of(adjacency)
    supports = {}
    for body in all_bodies(adjacency):
        paths = naive_paths(edges, body)
        for link in range(2 * adjacency.num_links):
            if body != (link, -1):
                count = sum(pair in paths for pair in edges[link])
                if count:
                    supports[(link, *body)] = count
    return supports


def columns(bodies: RuleBodies, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(getattr(bodies, name).tolist() for name in names), strict=True))


def mine_all(adjacency: Adjacency, **changes: Any) -> RuleBodies:
    """Every rule, unless `changes` bound them."""
    settings: dict[str, Any] = {"support": 1, "confidence": 1e-9, "most": 10**6, "degree": 10**6}
    return mine(adjacency, **{**settings, "paths": 1e9, "seed": 0, **changes})


def rules_of(bodies: RuleBodies, link: int) -> RuleBodies:
    return bodies[bodies.relation == link]


def ignore_progress(share: float) -> None:
    pass
