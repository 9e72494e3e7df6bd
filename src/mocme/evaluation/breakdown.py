"""Metrics by direction, relation, cardinality, modality, and novelty of head and answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from mocme.data.graph import Graph
from mocme.evaluation.metrics import rank_metrics
from mocme.evaluation.ranking import Ranks

CARDINALITIES = ("1-1", "1-n", "n-1", "n-n")
# Mean number of answers from which a side counts as "n" (Bordes et al., 2013).
MANY = 1.5


def breakdown(
    ranks: Ranks, graph: Graph, present: Mapping[str, Bool[Tensor, " N"]] | None = None
) -> dict[str, dict[str, Any]]:
    """Metrics (realistic ties) and the number of answers of each part of a ranking.

    Args:
        present: by modality, which entities have it.

    Returns:
        By criterion, then by part.
    """
    linked = graph.linked()
    seen, unseen = "seen in training", "unseen in training"
    labels = {
        "direction": _labels(ranks.relation >= graph.num_relations, "head", "tail"),
        "relation": _by_relation(ranks, graph, list(graph.relations)),
        "cardinality": _by_relation(ranks, graph, cardinality(graph)),
        "answer": _labels(linked[ranks.answer], seen, unseen),
        "head": _labels(linked[ranks.head], seen, unseen),
    }
    if present:
        labels["answer has"] = _by_modalities(ranks, present)
    return {name: _metrics_by_label(ranks, values) for name, values in labels.items()}


def cardinality(graph: Graph) -> list[str]:
    """Class of each relation by its training facts (Bordes et al., 2013).

    A side counts as "n" if its questions have 1.5 answers or more on average.
    """
    index = graph.answers("train")
    num_answers = (index.offsets[1:] - index.offsets[:-1]).double()
    directed = 2 * graph.num_relations
    total = torch.zeros(directed).double().index_add_(0, index.queries.relation, num_answers)
    num_questions = torch.bincount(index.queries.relation, minlength=directed).clamp_min(1)
    many = (total / num_questions >= MANY).tolist()
    classes = []
    for relation in range(graph.num_relations):
        # r asks for tails, r + R for heads.
        tails, heads = many[relation], many[relation + graph.num_relations]
        classes.append(f"{'n' if heads else '1'}-{'n' if tails else '1'}")
    return classes


def _metrics_by_label(ranks: Ranks, labels: Sequence[str]) -> dict[str, Any]:
    realistic = ranks.realistic
    positions: dict[str, list[int]] = {}
    for position, label in enumerate(labels):
        positions.setdefault(label, []).append(position)
    result: dict[str, Any] = {}
    for label in sorted(positions):
        part = realistic[torch.tensor(positions[label])]
        result[label] = {**rank_metrics(part), "count": len(part)}
    return result


def _labels(mask: Bool[Tensor, " n"], yes: str, no: str) -> list[str]:
    return [yes if value else no for value in mask.tolist()]


def _by_relation(ranks: Ranks, graph: Graph, labels: Sequence[str]) -> list[str]:
    """The label of each answer's relation, given those of the R relations."""
    return [labels[relation % graph.num_relations] for relation in ranks.relation.tolist()]


def _by_modalities(ranks: Ranks, present: Mapping[str, Tensor]) -> list[str]:
    """The modalities of each answer, joined by " + "."""
    columns = {name: mask[ranks.answer].tolist() for name, mask in present.items()}
    labels = []
    for position in range(len(ranks)):
        modalities = [name for name, column in columns.items() if column[position]]
        labels.append(" + ".join(modalities) or "nothing")
    return labels
