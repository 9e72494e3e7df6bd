"""Neighbours of a query and their answers, one entity at a time."""

from __future__ import annotations

import math
from collections import Counter

from mocme.data.graph import Graph
from mocme.data.modality import Features


def vectors_of(features: Features) -> dict[str, dict[int, dict[int, float]]]:
    """By modality and entity, a sparse vector: centred values, or weights of tokens."""
    spaces: dict[str, dict[int, dict[int, float]]] = {}
    for name, modality in features.dense.items():
        centre = modality.values.double().mean(0)
        spaces[name] = {
            int(entity): dict(enumerate((values.double() - centre).tolist()))
            for entity, values in zip(modality.rows, modality.values, strict=True)
        }
    for name, tokens in features.tokens.items():
        pairs = list(zip(tokens.entity.tolist(), tokens.token.tolist(), strict=True))
        frequency = Counter(token for _, token in pairs)
        number = len({entity for entity, _ in pairs})
        space: dict[int, dict[int, float]] = {}
        for entity, token in pairs:
            space.setdefault(entity, {})[token] = math.log(1 + number / frequency[token])
        spaces[name] = space
    return spaces


def cosine(one: dict[int, float], other: dict[int, float]) -> float:
    """The cosine of two sparse vectors; 0 with one that is 0."""
    lengths = math.hypot(*one.values()) * math.hypot(*other.values())
    product = sum(value * other.get(key, 0.0) for key, value in one.items())
    return product / lengths if lengths else 0.0


def neighbours(
    graph: Graph, features: Features, head: int, relation: int, k: int
) -> list[tuple[int, float]]:
    """The k most similar entities with a relation and their similarity, nearest first."""
    spaces = vectors_of(features)
    heads = {h for h, r, _ in graph.directed("train").tolist() if r == relation} - {head}
    similar = []
    for other in sorted(heads):
        both = [s for s in spaces.values() if head in s and other in s]
        if both:
            mean = sum(cosine(space[head], space[other]) for space in both) / len(both)
            similar.append((other, mean))
    # Equal content is equally similar, however its sums are rounded.
    return sorted(similar, key=lambda pair: (-round(pair[1], 5), pair[0]))[:k]


def chances(
    graph: Graph, features: Features, head: int, relation: int, k: int, sharpness: float
) -> dict[int, float]:
    """P of each answer of a neighbour."""
    near = neighbours(graph, features, head, relation, k)
    weights = [math.exp(sharpness * similarity) for _, similarity in near]
    total: dict[int, float] = {}
    facts = {tuple(fact) for fact in graph.directed("train").tolist()}
    for (other, _), weight in zip(near, weights, strict=True):
        for h, r, tail in facts:
            if (h, r) == (other, relation):
                total[tail] = total.get(tail, 0.0) + weight / sum(weights)
    return total


def reciprocal_rank(
    graph: Graph, features: Features, fact: tuple[int, int, int], k: int, sharpness: float
) -> float:
    """Of the tail of a directed training fact, among all but other answers; ties are shared."""
    head, relation, tail = fact
    found = chances(graph, features, head, relation, k, sharpness)
    found = {t: float(f"{p:.7g}") for t, p in found.items()}  # sums differ in their last digits
    own = found.get(tail, 0.0)
    if not own:
        return 0.0
    known = {t for h, r, t in graph.directed("train").tolist() if (h, r) == (head, relation)}
    rest = [p for t, p in found.items() if t not in known]
    return 1 / (1 + sum(p > own for p in rest) + sum(p == own for p in rest) / 2)
