"""Search of an expert's weight in a sum, by the MRR of the valid split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.graph import AnswerIndex, Graph, Queries
from mocme.evaluation.ranking import Rankable, batch_size_for, filtered_answers
from mocme.experts.base import DenseExpert, Expert, SparseExpert

STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
SHARPNESSES = (3.0, 10.0, 30.0, 100.0, 300.0)
# Of a dense expert; at 0 it does not count, so that the sum is never worse on the valid split.
DENSE_STRENGTHS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)


class Weight(NamedTuple):
    """How much an expert counts.

    Attributes:
        strength: factor of the expert's score, or of log(1 + sharpness * odds).
        sharpness: of a sparse expert.
    """

    strength: float
    sharpness: float = 1.0

    def gain(self, odds: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The contribution of odds to a score."""
        return self.strength * torch.log1p(self.sharpness * odds)

    def as_list(self, expert: Expert) -> list[float]:
        """The numbers that matter for an expert."""
        return (
            [self.strength, self.sharpness] if isinstance(expert, SparseExpert) else [self.strength]
        )

    def as_dict(self) -> dict[str, float]:
        """By name."""
        return {"strength": self.strength, "sharpness": self.sharpness}


@dataclass(frozen=True)
class Search:
    """MRR of each weight on the valid split.

    Attributes:
        without: MRR without the expert.
        tried: MRR of every weight.
    """

    without: float
    tried: tuple[tuple[Weight, float], ...]

    @property
    def best(self) -> Weight:
        """The first of the best ones."""
        return max(self.tried, key=lambda row: row[1])[0]


def search(
    part: Rankable,
    expert: Expert,
    graph: Graph,
    memory: float,
    strength: float | None = None,
    sharpness: float | None = None,
) -> Search:
    """Try weights of an expert on the valid split.

    Args:
        part: the mixture of the experts that have their weights.
        expert: to weigh.
        graph: a training view with a valid split.
        memory: GiB for the scores of a batch.
        strength: the only one to try.
        sharpness: the only one to try.
    """
    grid = weight_grid(expert, strength, sharpness)
    # Sorting copies the scores, so the batch is half of that of a ranking.
    batch = max(1, batch_size_for(graph.num_entities, memory) // 2)
    index = AnswerIndex(graph.directed("valid"))
    known = filtered_answers(graph, "valid")
    sums = torch.zeros(1 + len(grid), dtype=torch.float64)
    for first in range(0, len(index), batch):
        chosen = torch.arange(first, min(first + batch, len(index)))
        competition = _Competition.of(part, index, known, chosen)
        if isinstance(expert, SparseExpert):
            sums += _sparse_sums(competition, expert, grid)
        else:
            assert isinstance(expert, DenseExpert)
            sums += _dense_sums(competition, expert, grid)
    means = (sums / len(index.answers)).tolist()
    return Search(means[0], tuple(zip(grid, means[1:], strict=True)))


def weight_grid(
    expert: Expert, strength: float | None = None, sharpness: float | None = None
) -> list[Weight]:
    """The weights to try for an expert; those that are given are the only ones."""
    if isinstance(expert, DenseExpert):
        return [Weight(s) for s in (DENSE_STRENGTHS if strength is None else (strength,))]
    strengths = STRENGTHS if strength is None else (strength,)
    sharpnesses = SHARPNESSES if sharpness is None else (sharpness,)
    # Last, so that evidence is dropped only where this is better, not where it is equal.
    none = [Weight(0.0, sharpnesses[0])] if strength is None else []
    return [*(Weight(s, c) for s in strengths for c in sharpnesses), *none]


@dataclass(frozen=True, eq=False)
class _Competition:
    """A batch of B queries with n (query, answer) pairs.

    Attributes:
        queries: B queries on the CPU.
        scores: of all entities, by the part of the mixture that has its weights.
        excluded: entities that do not compete: known answers and the answers themselves.
        row: which query a pair belongs to.
        answer: of each pair.
    """

    queries: Queries
    scores: Float[Tensor, "B N"]
    excluded: Tensor
    row: Int[Tensor, " n"]
    answer: Int[Tensor, " n"]

    @staticmethod
    def of(
        part: Rankable, index: AnswerIndex, known: AnswerIndex, chosen: Int[Tensor, " B"]
    ) -> _Competition:
        queries = index.queries[chosen]
        with torch.no_grad():
            scores = part.score(queries.to(part.device)).float().cpu()
        row, answer = index.rows(chosen)
        excluded = torch.zeros_like(scores, dtype=torch.bool)
        excluded[known.lookup(queries)] = True
        excluded[row, answer] = True
        return _Competition(queries, scores, excluded, row, answer)


def _dense_sums(
    competition: _Competition, expert: DenseExpert, grid: Sequence[Weight]
) -> Float[Tensor, " G"]:
    """Sums of reciprocal ranks: without the expert, then for each weight."""
    with torch.no_grad():
        expert_scores = expert.score(competition.queries.to(expert.device)).float().cpu()
    sums = []
    for strength in (0.0, *(weight.strength for weight in grid)):
        scores = competition.scores + strength * expert_scores
        answer_scores = scores[competition.row, competition.answer]
        competing = scores.masked_fill(competition.excluded, -torch.inf).sort(1).values
        above, ties = _count(competing, answer_scores, competition.row)
        sums.append((1 / (1 + above + ties / 2)).sum())
    return torch.stack(sums)


def _sparse_sums(
    competition: _Competition, expert: SparseExpert, grid: Sequence[Weight]
) -> Float[Tensor, " G"]:
    """Sums of reciprocal ranks: without the expert, then for each weight.

    A row of scores is sorted once. Evidence moves few of its candidates, so for each weight only
    these are compared again.
    """
    lifted = _Lifted.of(competition, expert)
    answer_scores = competition.scores[competition.row, competition.answer]
    competing = competition.scores.masked_fill_(competition.excluded, -torch.inf).sort(1).values
    weights: list[Weight | None] = [None, *grid]
    sums = [_sum(competing, answer_scores, competition.row, lifted, w) for w in weights]
    return torch.stack(sums)


@dataclass(frozen=True, eq=False)
class _Lifted:
    """Candidates that a sparse expert has evidence for.

    Attributes:
        pair: which (query, answer) pair a candidate competes with.
        score: of the candidate without the expert.
        odds: of the candidate.
        answer_odds: of each pair's answer.
    """

    pair: Int[Tensor, " m"]
    score: Float[Tensor, " m"]
    odds: Float[Tensor, " m"]
    answer_odds: Float[Tensor, " n"]

    @staticmethod
    def of(competition: _Competition, expert: SparseExpert) -> _Lifted:
        scores, pair_row = competition.scores, competition.row
        row, column, odds = expert.odds(competition.queries.to(expert.device))
        row, column, odds = row.cpu(), column.cpu(), odds.cpu()
        dense = torch.zeros_like(scores)
        dense[row, column] = odds
        answer_odds = dense[pair_row, competition.answer]
        competes = ~competition.excluded[row, column]
        row, column, odds = row[competes], column[competes], odds[competes]
        # Every pair meets all candidates of its query's row: expand rows to (pair, candidate).
        counts = torch.bincount(row, minlength=len(scores))
        first = torch.cumsum(counts, 0) - counts
        order = torch.argsort(row, stable=True)
        repeats = counts[pair_row]
        pair = torch.repeat_interleave(torch.arange(len(pair_row)), repeats)
        offset = torch.arange(len(pair)) - (torch.cumsum(repeats, 0) - repeats)[pair]
        entry = order[first[pair_row][pair] + offset]
        return _Lifted(pair, scores[row, column][entry], odds[entry], answer_odds)


def _sum(
    competing: Float[Tensor, "B N"],
    answer_scores: Float[Tensor, " n"],
    row: Int[Tensor, " n"],
    lifted: _Lifted,
    weight: Weight | None,
) -> Float[Tensor, ""]:
    """Sum of reciprocal ranks at one weight; None: without the expert."""
    threshold = answer_scores
    if weight is not None:
        threshold = answer_scores + weight.gain(lifted.answer_odds)
    above, ties = _count(competing, threshold, row)
    if weight is not None:
        # Correct the counts of the sorted rows by the candidates that the expert moves.
        before, after = lifted.score, lifted.score + weight.gain(lifted.odds)
        limit = threshold[lifted.pair]
        above.index_add_(0, lifted.pair, (after > limit).double() - (before > limit).double())
        ties.index_add_(0, lifted.pair, (after == limit).double() - (before == limit).double())
    return (1 / (1 + above + ties / 2)).sum()


def _count(
    competing: Float[Tensor, "B N"], threshold: Float[Tensor, " n"], row: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """How many scores of a pair's sorted row are above its threshold, and how many equal it."""
    above, ties = torch.empty_like(threshold).double(), torch.empty_like(threshold).double()
    for first in range(0, len(row), 64):
        part = slice(first, first + 64)
        rows, values = competing[row[part]], threshold[part].unsqueeze(1)
        right = torch.searchsorted(rows, values, right=True).squeeze(1)
        left = torch.searchsorted(rows, values).squeeze(1)
        above[part] = competing.shape[1] - right
        ties[part] = right - left
    return above, ties
