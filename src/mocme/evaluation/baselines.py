"""What can be reached without learning: rankings that any model has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.graph import AnswerIndex, Graph, Queries
from mocme.data.quality.raw_rows import RawGraph, numbered
from mocme.evaluation.metrics import of_ranks
from mocme.evaluation.ranking import Ranks, Scores, batch_for, hidden, rank

# GiB that scores and their work memory take.
MEMORY = 0.1


@dataclass(frozen=True)
class Baseline:
    """Metrics with realistic ties, both directions together.

    Attributes:
        facts: each distinct fact counts once, as when a run is evaluated.
        rows: every row as released counts, so that a repeated fact weighs more.
    """

    facts: dict[str, float]
    rows: dict[str, float]


class Frequency:
    """A candidate scores how many distinct facts of train it answers the relation in."""

    def __init__(self, graph: Graph) -> None:
        directed = graph.directed("train")
        self.num_entities = graph.num_entities
        keys = directed[:, 1] * self.num_entities + directed[:, 2]
        self.keys, self.counts = torch.unique(keys, return_counts=True)

    def __call__(self, queries: Queries) -> Float[Tensor, "B N"]:
        asked, place = torch.unique(queries.relation, return_inverse=True)
        first = torch.searchsorted(self.keys, asked * self.num_entities)
        last = torch.searchsorted(self.keys, (asked + 1) * self.num_entities)
        row = torch.repeat_interleave(torch.arange(len(asked)), last - first)
        start = torch.cumsum(last - first, 0) - (last - first)
        found = first[row] + torch.arange(len(row)) - start[row]
        scores = torch.zeros(len(asked), self.num_entities)
        scores[row, self.keys[found] % self.num_entities] = self.counts[found].float()
        return scores[place]


class Lookup:
    """Candidates whose fact stands in train come first; among equals, the more frequent one.

    A fact that is asked for and stands in train too is found, which is what this is made to show.
    """

    def __init__(self, graph: Graph) -> None:
        self.frequency = Frequency(graph)
        self.index = AnswerIndex(graph.directed("train"))
        # Whole numbers, and exact as long as no count exceeds 2^23.
        self.bonus = float(self.frequency.counts.max()) + 1

    def __call__(self, queries: Queries) -> Float[Tensor, "B N"]:
        scores = self.frequency(queries)
        # Every (question, answer) stands in the index once.
        scores[self.index.lookup(queries)] += self.bonus
        return scores


def floors(released: RawGraph) -> dict[str, dict[str, Baseline]]:
    """Filtered ranks of what needs no learning.

    Returns:
        By split (valid, test, where there are any rows) and by floor (``frequency``, ``lookup``).
    """
    graph = released.graph
    batch = batch_for(graph.num_entities, MEMORY)
    result: dict[str, dict[str, Baseline]] = {}
    for split in ("valid", "test"):
        asked = graph.answers(split)
        if not len(asked):
            continue
        known = hidden(graph, split)
        rankers: dict[str, Scores] = {"frequency": Frequency(graph), "lookup": Lookup(graph)}
        result[split] = {}
        for name, score in rankers.items():
            ranks = rank(score, asked, known, batch=batch)
            times = _repetitions(ranks, released, split)
            by_row = torch.repeat_interleave(ranks.realistic, times)
            result[split][name] = Baseline(of_ranks(ranks.realistic), of_ranks(by_row))
    return result


def _repetitions(ranks: Ranks, released: RawGraph, split: str) -> Int[Tensor, " n"]:
    """How many rows of a split state the fact that each rank is of."""
    graph = released.graph
    turned = ranks.relation >= graph.num_relations
    heads = torch.where(turned, ranks.answer, ranks.head)
    tails = torch.where(turned, ranks.head, ranks.answer)
    facts = torch.stack([heads, ranks.relation % graph.num_relations, tails], 1)
    asked, rows = numbered([facts.numpy(), released.rows[split]], graph)
    distinct, counts = np.unique(rows, return_counts=True)
    return torch.from_numpy(counts[np.searchsorted(distinct, asked)])
