"""Baselines that need no learning: rankings that any model has to exceed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.graph import AnswerIndex, Graph, Queries
from mocme.data.quality.raw_rows import RawGraph, keys_of
from mocme.evaluation.metrics import rank_metrics
from mocme.evaluation.ranking import Ranks, ScoreFunction, batch_size_for, filtered_answers, rank

# GiB that scores and their working memory take.
MEMORY = 0.1


@final
@dataclass(frozen=True)
class Baseline:
    """Metrics with realistic ties, both directions together.

    Attributes:
        facts: each distinct fact counts once, as when a run is evaluated.
        rows: every row as released counts, so that a repeated fact has more weight.
    """

    facts: dict[str, float]
    rows: dict[str, float]


@final
class Frequency:
    """The score of a candidate is how many training facts it answers the relation in."""

    def __init__(self, graph: Graph) -> None:
        directed = graph.directed("train")
        self.num_entities = graph.num_entities
        # One key for (relation, answer): the candidates of a relation are a range of keys.
        keys = directed[:, 1] * self.num_entities + directed[:, 2]
        self.keys, self.counts = torch.unique(keys, return_counts=True)

    def __call__(self, queries: Queries) -> Float[Tensor, "B N"]:
        relations, row_of_query = torch.unique(queries.relation, return_inverse=True)
        first = torch.searchsorted(self.keys, relations * self.num_entities)
        last = torch.searchsorted(self.keys, (relations + 1) * self.num_entities)
        count = last - first
        row = torch.repeat_interleave(torch.arange(len(relations)), count)
        start = torch.cumsum(count, 0) - count
        position = first[row] + torch.arange(len(row)) - start[row]
        scores = torch.zeros(len(relations), self.num_entities)
        scores[row, self.keys[position] % self.num_entities] = self.counts[position].float()
        return scores[row_of_query]


@final
class Lookup:
    """Candidates whose fact is in train come first; among equals, the more frequent one.

    A fact of another split that is also in train is ranked first. That leak is what this baseline
    shows.
    """

    def __init__(self, graph: Graph) -> None:
        self.frequency = Frequency(graph)
        self.index = AnswerIndex(graph.directed("train"))
        # More than any frequency. Whole numbers, exact in float32 while no count exceeds 2^23.
        self.bonus = float(self.frequency.counts.max()) + 1

    def __call__(self, queries: Queries) -> Float[Tensor, "B N"]:
        scores = self.frequency(queries)
        # The index has every (question, answer) once, so that += meets no cell twice.
        scores[self.index.lookup(queries)] += self.bonus
        return scores


def floors(released: RawGraph) -> dict[str, dict[str, Baseline]]:
    """Filtered metrics of the baselines.

    Returns:
        By split (valid and test, if they have rows) and by baseline (``frequency``, ``lookup``).
    """
    graph = released.graph
    batch = batch_size_for(graph.num_entities, MEMORY)
    baselines: dict[str, dict[str, Baseline]] = {}
    for split in ("valid", "test"):
        questions = graph.answers(split)
        if not len(questions):
            continue
        known = filtered_answers(graph, split)
        rankers: dict[str, ScoreFunction] = {"frequency": Frequency(graph), "lookup": Lookup(graph)}
        baselines[split] = {}
        for name, score in rankers.items():
            ranks = rank(score, questions, known, batch=batch)
            repetitions = _repetitions(ranks, released, split)
            by_row = torch.repeat_interleave(ranks.realistic, repetitions)
            baselines[split][name] = Baseline(rank_metrics(ranks.realistic), rank_metrics(by_row))
    return baselines


def _repetitions(ranks: Ranks, released: RawGraph, split: str) -> Int[Tensor, " n"]:
    """The number of rows of a split that state each ranked fact."""
    graph = released.graph
    inverse = ranks.relation >= graph.num_relations
    heads = torch.where(inverse, ranks.answer, ranks.head)
    tails = torch.where(inverse, ranks.head, ranks.answer)
    facts = torch.stack([heads, ranks.relation % graph.num_relations, tails], 1)
    ranked, rows = keys_of([facts.numpy(), released.rows[split]], graph)
    distinct, counts = np.unique(rows, return_counts=True)
    return torch.from_numpy(counts[np.searchsorted(distinct, ranked)])
