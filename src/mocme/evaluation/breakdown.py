"""Where a result comes from: metrics by direction, relation, cardinality, modality and novelty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mocme.data.graph import Graph
from mocme.evaluation.metrics import of_ranks
from mocme.evaluation.ranking import Ranks

CARDINALITIES = ("1-1", "1-n", "n-1", "n-n")


def breakdown(
    ranks: Ranks, graph: Graph, present: Mapping[str, Tensor] | None = None
) -> dict[str, dict[str, Any]]:
    """Metrics (realistic ties) of parts of a ranking, with the count of each part.

    Args:
        present: modality name to which entities have it.
    """
    groups = {
        "direction": _labels(ranks.relation >= graph.num_relations, "head", "tail"),
        "relation": _by_relation(ranks, graph),
        "cardinality": _by_cardinality(ranks, graph),
        "answer": _labels(graph.linked()[ranks.answer], "seen in training", "unseen in training"),
        "head": _labels(graph.linked()[ranks.head], "seen in training", "unseen in training"),
    }
    if present:
        groups["answer has"] = _by_modalities(ranks, present)
    return {name: _parts(ranks, labels) for name, labels in groups.items()}


def cardinality(graph: Graph) -> list[str]:
    """Class of each relation by its training facts (Bordes et al., 2013).

    A side counts as "n" if questions for it have 1.5 answers or more on average.
    """
    index = graph.answers("train")
    counts = (index.offsets[1:] - index.offsets[:-1]).double()
    directed = 2 * graph.num_relations
    total = torch.zeros(directed).double().index_add_(0, index.queries.relation, counts)
    asked = torch.bincount(index.queries.relation, minlength=directed).clamp_min(1)
    many = (total / asked >= 1.5).tolist()
    classes = []
    for relation in range(graph.num_relations):
        tails, heads = many[relation], many[relation + graph.num_relations]
        classes.append(f"{'n' if heads else '1'}-{'n' if tails else '1'}")
    return classes


def _parts(ranks: Ranks, labels: list[str]) -> dict[str, Any]:
    realistic = ranks.realistic
    places: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    result: dict[str, Any] = {}
    for label in sorted(places):
        chosen = realistic[torch.tensor(places[label])]
        result[label] = {**of_ranks(chosen), "count": len(chosen)}
    return result


def _labels(mask: Tensor, yes: str, no: str) -> list[str]:
    return [yes if value else no for value in mask.tolist()]


def _by_relation(ranks: Ranks, graph: Graph) -> list[str]:
    return [graph.relations[r % graph.num_relations] for r in ranks.relation.tolist()]


def _by_cardinality(ranks: Ranks, graph: Graph) -> list[str]:
    classes = cardinality(graph)
    return [classes[r % graph.num_relations] for r in ranks.relation.tolist()]


def _by_modalities(ranks: Ranks, present: Mapping[str, Tensor]) -> list[str]:
    columns = {name: mask[ranks.answer].tolist() for name, mask in present.items()}
    labels = []
    for place in range(len(ranks)):
        has = [name for name, column in columns.items() if column[place]]
        labels.append(" + ".join(has) or "nothing")
    return labels
