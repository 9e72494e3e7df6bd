"""Patterns of a graph: seconds of fitting and asking, memory, and the validation MRR they give.

    python benchmarks/patterns.py MKG-Y [--pairs text=pairs.safetensors ...] [--plain]

`--plain` does the same work as one would write it down, a loop over facts and a product for each
body, in the same run; it gives a ratio. The files of pairs are what `Pairs.packed` holds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from scipy import sparse

import mocme
from mocme.core.device import peak_memory
from mocme.data.graph import Graph, Queries
from mocme.data.modality import Pairs
from mocme.experts.rules.adjacency import Adjacency
from mocme.experts.rules.rule_mining import backwards
from mocme.experts.rules.rule_model import RuleModel, RuleSettings
from mocme.experts.rules.rule_regression import Design, regress


def read_pairs(path: str, entities: int) -> Pairs:
    with safe_open(path, "pt") as file:
        kinds = tuple(json.loads(file.metadata()["vocabulary"]))
        columns = (file.get_tensor(name) for name in ("kind", "head", "tail"))
        return Pairs(kinds, *columns, entities)


def plain_supports(known: Adjacency, degree: int) -> Counter[tuple[int, int, int]]:
    around: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for k in range(len(known)):
        for head, tail in zip(*known.pairs(k), strict=True):
            around[int(head)].append((k, int(tail)))
    generator = np.random.default_rng(0)
    found: Counter[tuple[int, int, int]] = Counter()
    for link in range(known.num_links):
        for head, tail in zip(*known.pairs(link), strict=True):
            sides: list[dict[int, list[int]]] = []
            for node in (int(head), int(tail)):
                own = around[node]
                if len(own) > degree:
                    own = [own[i] for i in generator.choice(len(own), degree, replace=False)]
                by_end = defaultdict(list)
                for k, end in own:
                    by_end[end].append(k)
                sides.append(by_end)
            bodies = {(k, -1) for k, end in around[int(head)] if end == tail and k != link}
            for middle in sides[0].keys() & sides[1].keys():
                last = [int(known.inverse[k]) for k in sides[1][middle]]
                bodies |= {(a, b) for a in sides[0][middle] for b in last}
            found.update((link, *body) for body in bodies)
    return found


def plain_fit(known: Adjacency, settings: RuleSettings) -> int:
    """Mine and weigh without any of the short cuts; returns the number of bodies."""
    matrix = [known.matrix(k) for k in range(len(known))]
    into = [np.bincount(m.indices, minlength=known.num_entities) for m in matrix]
    sizes: dict[tuple[int, int], float] = {}
    kept: dict[int, list[tuple[float, int, int]]] = defaultdict(list)
    counted = plain_supports(known, settings.degree)
    enough = {key: n for key, n in counted.items() if n >= settings.support}
    best: Counter[tuple[int, int]] = Counter()
    for (_, *body), n in enough.items():
        best[body[0], body[1]] = max(best[body[0], body[1]], n)
    for (link, first, second), n in enough.items():
        if (first, second) not in sizes:
            most = float(into[first] @ np.diff(matrix[second].indptr)) if second >= 0 else 0
            if most > settings.paths and best[first, second] / (most + 5) < settings.confidence:
                sizes[first, second] = np.inf
            else:
                over = matrix[first] @ matrix[second] if second >= 0 else matrix[first]
                sizes[first, second] = over.nnz - np.count_nonzero(over.diagonal())
        sure = n / (sizes[first, second] + 5)
        if sure >= settings.confidence:
            kept[link].append((sure * min(1, n / 10), first, second))
    total = 0
    for link, bodies in kept.items():
        bodies.sort(reverse=True)
        own = np.array([body[1:] for body in bodies[: settings.most]])
        turned = np.stack(backwards(known, own[:, 0], own[:, 1]), 1)
        for directed, walked in ((link, own), (link + known.num_links, turned)):
            regress(plain_design(matrix, directed, walked), settings.ridge)
            total += len(walked)
    return total


def plain_design(matrix: list[Any], link: int, bodies: np.ndarray) -> Design:
    heads = np.flatnonzero(np.diff(matrix[link].indptr))
    size = matrix[link].shape[0]
    keys, columns, values = [], [], []
    for column, (first, second) in enumerate(bodies):
        found = matrix[first][heads]
        found = (found @ matrix[second] if second >= 0 else found).tocoo()
        away = heads[found.row] != found.col
        keys.append(heads[found.row[away]].astype(np.int64) * size + found.col[away])
        columns.append(np.full(len(keys[-1]), column))
        values.append(np.log2(1 + found.data[away]))
    pairs, row = np.unique(np.concatenate(keys), return_inverse=True)
    parts = (np.concatenate(values), (row, np.concatenate(columns)))
    facts = matrix[link].tocoo()
    true = np.isin(pairs, facts.row.astype(np.int64) * size + facts.col).astype(float)
    features = sparse.csr_matrix(parts, shape=(len(pairs), len(bodies)))
    return Design(features, np.ones(len(pairs)), true)


def validation_mrr(graph: Graph, evidence: RuleModel) -> float:
    """Filtered by train and valid, ties broken by how often a relation has an answer, then half."""
    train = graph.directed("train").numpy()
    popular = np.zeros((2 * graph.num_relations, graph.num_entities))
    np.add.at(popular, (train[:, 1], train[:, 2]), 1)
    popular *= 1e-3 / (popular.sum(1, keepdims=True) + 1)
    known = defaultdict(list)
    for head, link, tail in graph.directed("train", "valid").tolist():
        known[head, link].append(tail)
    facts = graph.directed("valid")
    total = 0.0
    for part in facts.split(512):
        scores = evidence.chances(Queries(part[:, 0], part[:, 1])).toarray() + popular[part[:, 1]]
        for row, (head, link, tail) in zip(scores, part.tolist(), strict=True):
            own = row[tail]
            row[known[head, link]] = -1
            total += 1 / (1 + (row > own).sum() + (row == own).sum() / 2)
    return total / len(facts)


def main() -> None:
    """Print what was measured, a line each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("graph")
    parser.add_argument("--pairs", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--confidence", type=float, default=RuleSettings().confidence)
    parser.add_argument("--plain", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    graph = mocme.load(given.graph)
    files = dict(named.split("=", 1) for named in given.pairs)
    pairs = {name: read_pairs(path, graph.num_entities) for name, path in files.items()}
    settings = RuleSettings(confidence=given.confidence)
    before, started = peak_memory() >> 20, time.perf_counter()
    sizes = (graph.num_relations, graph.num_entities)
    known = Adjacency.of(graph.facts("train"), *sizes, pairs, list(graph.relations))
    evidence = RuleModel.fit(known, settings)
    own = time.perf_counter() - started
    print(f"{len(known)} relations, {known.edges.nnz} edges, {len(evidence.bodies)} bodies")
    print(f"fit: {own:.1f} s; peak memory {before} MB before, {peak_memory() >> 20} MB after")
    if given.plain:
        started = time.perf_counter()
        bodies = plain_fit(known, settings)
        plain = time.perf_counter() - started
        print(f"plainly: {plain:.1f} s, {bodies} bodies; ratio {plain / own:.1f}")
    asked = graph.directed("valid")
    asked = asked[torch.randperm(len(asked), generator=torch.Generator().manual_seed(0))][:512]
    started = time.perf_counter()
    found = evidence.chances(Queries(asked[:, 0], asked[:, 1]))
    seconds = time.perf_counter() - started
    print(f"{len(asked)} mixed questions: {seconds:.3f} s, {found.nnz} candidates")
    print(f"validation MRR of chances alone: {validation_mrr(graph, evidence):.4f}")


if __name__ == "__main__":
    main()
