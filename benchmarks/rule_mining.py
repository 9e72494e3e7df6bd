"""Rules of a graph: time of fitting and scoring, memory, and the validation MRR that they reach.

    python benchmarks/rule_mining.py MKG-Y [--pairs text=pairs.safetensors ...] [--plain]

`--plain` also does the same work without any optimisation (a loop over facts, a product for each
body), and prints the ratio. Files of pairs contain what `Pairs.packed` returns.
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
from mocme.experts.rules import Rules
from mocme.experts.rules.adjacency import Adjacency
from mocme.experts.rules.rule_mining import reverse_bodies
from mocme.experts.rules.rule_model import RuleModel
from mocme.experts.rules.rule_regression import Design, regress

Supports = Counter[tuple[int, int, int]]  # by link, first and second relation of the body


def read_pairs(path: str, entities: int) -> Pairs:
    with safe_open(path, "pt") as file:
        kinds = tuple(json.loads(file.metadata()["vocabulary"]))
        columns = (file.get_tensor(name) for name in ("kind", "head", "tail"))
        return Pairs(kinds, *columns, entities)


def plain_supports(adjacency: Adjacency, degree: int) -> Supports:
    """How many facts of each link are explained by each body, counted fact by fact.

    Args:
        degree: edges to sample at an entity that has more.
    """
    edges_of: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for k in range(len(adjacency)):
        for head, tail in zip(*adjacency.pairs(k), strict=True):
            edges_of[int(head)].append((k, int(tail)))
    generator = np.random.default_rng(0)
    supports: Supports = Counter()
    for link in range(adjacency.num_links):
        for head, tail in zip(*adjacency.pairs(link), strict=True):
            sides: list[dict[int, list[int]]] = []
            for node in (int(head), int(tail)):
                edges = edges_of[node]
                if len(edges) > degree:
                    sample = generator.choice(len(edges), degree, replace=False)
                    edges = [edges[i] for i in sample]
                by_end = defaultdict(list)
                for k, end in edges:
                    by_end[end].append(k)
                sides.append(by_end)
            bodies = {(k, -1) for k, end in edges_of[int(head)] if end == tail and k != link}
            for middle in sides[0].keys() & sides[1].keys():
                last = [int(adjacency.inverse[k]) for k in sides[1][middle]]
                bodies |= {(a, b) for a in sides[0][middle] for b in last}
            supports.update((link, *body) for body in bodies)
    return supports


def plain_fit(adjacency: Adjacency, settings: Rules) -> int:
    """Mine and fit without optimisation; returns the number of bodies."""
    matrices = [adjacency.matrix(k) for k in range(len(adjacency))]
    supports = {
        key: n
        for key, n in plain_supports(adjacency, settings.degree).items()
        if n >= settings.support
    }
    kept = confident_bodies(adjacency, settings, matrices, supports)
    total = 0
    for link, bodies in kept.items():
        bodies.sort(reverse=True)
        forwards = np.array([body[1:] for body in bodies[: settings.most]])
        inverse = np.stack(reverse_bodies(adjacency, forwards[:, 0], forwards[:, 1]), 1)
        for directed, relations in ((link, forwards), (link + adjacency.num_links, inverse)):
            regress(plain_design(matrices, directed, relations), settings.ridge)
            total += len(relations)
    return total


def confident_bodies(
    adjacency: Adjacency,
    settings: Rules,
    matrices: list[Any],
    supports: dict[tuple[int, int, int], int],
) -> dict[int, list[tuple[float, int, int]]]:
    """Bodies of each link with enough confidence, as (weight, first, second)."""
    in_degrees = [np.bincount(m.indices, minlength=adjacency.num_entities) for m in matrices]
    best: Counter[tuple[int, int]] = Counter()
    for (_, *body), n in supports.items():
        best[body[0], body[1]] = max(best[body[0], body[1]], n)
    sizes: dict[tuple[int, int], float] = {}
    kept: dict[int, list[tuple[float, int, int]]] = defaultdict(list)
    for (link, first, second), n in supports.items():
        if (first, second) not in sizes:
            paths = (
                float(in_degrees[first] @ np.diff(matrices[second].indptr)) if second >= 0 else 0
            )
            if paths > settings.paths and best[first, second] / (paths + 5) < settings.confidence:
                sizes[first, second] = np.inf
            else:
                product = matrices[first] @ matrices[second] if second >= 0 else matrices[first]
                sizes[first, second] = product.nnz - np.count_nonzero(product.diagonal())
        confidence = n / (sizes[first, second] + 5)
        if confidence >= settings.confidence:
            kept[link].append((confidence * min(1, n / 10), first, second))
    return kept


def plain_design(matrices: list[Any], link: int, bodies: np.ndarray) -> Design:
    """Design of a link's regression with a row for every pair."""
    heads = np.flatnonzero(np.diff(matrices[link].indptr))
    size = matrices[link].shape[0]
    keys, columns, values = [], [], []
    for column, (first, second) in enumerate(bodies):
        counts = matrices[first][heads]
        counts = (counts @ matrices[second] if second >= 0 else counts).tocoo()
        off_diagonal = heads[counts.row] != counts.col
        keys.append(
            heads[counts.row[off_diagonal]].astype(np.int64) * size + counts.col[off_diagonal]
        )
        columns.append(np.full(len(keys[-1]), column))
        values.append(np.log2(1 + counts.data[off_diagonal]))
    pairs, row = np.unique(np.concatenate(keys), return_inverse=True)
    entries = (np.concatenate(values), (row, np.concatenate(columns)))
    facts = matrices[link].tocoo()
    is_fact = np.isin(pairs, facts.row.astype(np.int64) * size + facts.col).astype(float)
    features = sparse.csr_matrix(entries, shape=(len(pairs), len(bodies)))
    return Design(features, np.ones(len(pairs)), is_fact)


def validation_mrr(graph: Graph, rules: RuleModel) -> float:
    """MRR filtered by train and valid; ties by frequency of the answer, then at their middle."""
    train = graph.directed("train").numpy()
    frequency = np.zeros((2 * graph.num_relations, graph.num_entities))
    np.add.at(frequency, (train[:, 1], train[:, 2]), 1)
    frequency *= 1e-3 / (frequency.sum(1, keepdims=True) + 1)
    known = defaultdict(list)
    for head, link, tail in graph.directed("train", "valid").tolist():
        known[head, link].append(tail)
    facts = graph.directed("valid")
    total = 0.0
    for block in facts.split(512):
        probabilities = rules.chances(Queries(block[:, 0], block[:, 1])).toarray()
        scores = probabilities + frequency[block[:, 1]]
        for row, (head, link, tail) in zip(scores, block.tolist(), strict=True):
            answer_score = row[tail]
            row[known[head, link]] = -1
            total += 1 / (1 + (row > answer_score).sum() + (row == answer_score).sum() / 2)
    return total / len(facts)


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("graph")
    parser.add_argument("--pairs", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--confidence", type=float, default=Rules().confidence)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    graph = mocme.load(options.graph)
    files = dict(item.split("=", 1) for item in options.pairs)
    pairs = {name: read_pairs(path, graph.num_entities) for name, path in files.items()}
    settings = Rules(confidence=options.confidence)
    memory_before, started = peak_memory() >> 20, time.perf_counter()
    sizes = (graph.num_relations, graph.num_entities)
    adjacency = Adjacency.of(graph.facts("train"), *sizes, pairs, list(graph.relations))
    rules = RuleModel.fit(adjacency, settings)
    seconds = time.perf_counter() - started
    print(f"{len(adjacency)} relations, {adjacency.edges.nnz} edges, {len(rules.bodies)} bodies")
    print(
        f"fit: {seconds:.1f} s; peak memory {memory_before} MB before, "
        f"{peak_memory() >> 20} MB after"
    )
    if options.plain:
        started = time.perf_counter()
        bodies = plain_fit(adjacency, settings)
        plain_seconds = time.perf_counter() - started
        print(f"plain: {plain_seconds:.1f} s, {bodies} bodies; ratio {plain_seconds / seconds:.1f}")
    questions = graph.directed("valid")
    order = torch.randperm(len(questions), generator=torch.Generator().manual_seed(0))
    questions = questions[order][:512]
    started = time.perf_counter()
    answers = rules.chances(Queries(questions[:, 0], questions[:, 1]))
    seconds = time.perf_counter() - started
    print(f"{len(questions)} mixed questions: {seconds:.3f} s, {answers.nnz} candidates")
    print(f"validation MRR of the rules alone: {validation_mrr(graph, rules):.4f}")


if __name__ == "__main__":
    main()
