"""Facts that the experts were not fitted on, as questions for a mixture to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt64
from torch import Tensor

from mocme.data.graph import AnswerIndex, Graph
from mocme.evaluation.ranking import batch_size_for
from mocme.experts.base import Expert, Progress
from mocme.mixture.fact_index import FactIndex
from mocme.mixture.pool import Pool, make_pool
from mocme.mixture.weight_search import Weight

# Groups of one question: one that has thousands of answers counts no more than this.
GROUPS = 64
# Bounds of the log of a factor of scores.
FACTORS = (-3.0, 3.0)
# Facts that have groups: more of them cost memory and time, and say little that is new.
FACTS = 10_000


def hold_out(graph: Graph, share: float, seed: int) -> tuple[Graph, Graph]:
    """Take some training facts out of a training view.

    Returns:
        The graph without them, to fit experts on; and the same with them as its valid split, to
        fit a mixture on.
    """
    facts = graph.facts("train")
    order = torch.randperm(len(facts), generator=torch.Generator().manual_seed(seed))
    count = round(share * len(facts))
    held, rest = facts[order[:count]], facts[order[count:]]
    return (
        replace(graph, splits={**graph.splits, "train": rest}),
        replace(graph, splits={"train": rest, "valid": held}),
    )


@final
@dataclass(frozen=True, eq=False)
class Groups:
    """One group of candidates for each (question, answer): the answer and what competes with it.

    Training answers of the question and its other held-out answers are left out, so that the
    reciprocal rank in a group is that of the filtered ranking.

    Attributes:
        features: (n, F), one row for each candidate in the pool of a question.
        row, member, rivals: of these rows: the question, as in `Pool`.
        relation: of these rows: the directed relation that is asked for.
        num_relations: number of directed relations.
        cell: which row of `features`, for each candidate of each group, group after group.
        start: (G + 1,) where each group begins in `cell`.
        answer: which place in `cell` is the answer; -1 where it is not in the pool.
        outside: reciprocal rank of an answer that is not in the pool.
        part: (G,) which part of the held-out facts; both directions of a fact have the same.
    """

    features: Float[np.ndarray, "n F"]
    row: Int[np.ndarray, " n"]
    member: Bool[np.ndarray, "n E"]
    rivals: Bool[np.ndarray, " n"]
    relation: Int[np.ndarray, " n"]
    num_relations: int
    cell: Int[np.ndarray, " m"]
    start: Int[np.ndarray, " G1"]
    answer: Int[np.ndarray, " G"]
    outside: Float[np.ndarray, " G"]
    part: Int[np.ndarray, " G"]

    def __len__(self) -> int:
        return len(self.answer)

    @property
    def covered(self) -> float:
        """Share of the answers that are in their pools."""
        return float((self.answer >= 0).mean())

    def reciprocal_ranks(self, score: Float[np.ndarray, " n"]) -> Float[np.ndarray, " G"]:
        """Realistic reciprocal rank of each answer, by scores of the rows of `features`."""
        inside = np.flatnonzero(self.answer >= 0)
        values = score[self.cell]
        group = np.repeat(np.arange(len(self)), np.diff(self.start))
        own = np.full(len(self), np.nan)
        own[inside] = values[self.answer[inside]]
        above = np.bincount(group, values > own[group], len(self))
        ties = np.bincount(group, values == own[group], len(self))
        ranks = np.where(self.answer >= 0, 1 / (0.5 + above + ties / 2), self.outside)
        return np.asarray(ranks, np.float64)

    def likeliest_factor(self, score: Float[np.ndarray, " m"]) -> float:
        """The factor of scores with which the answers have the largest mean log share.

        Args:
            score: of each candidate of each group, as in `cell`.
        """
        has = self.answer >= 0
        if not has.any():
            return 1.0
        group = np.repeat(np.arange(len(self)), np.diff(self.start))
        own = score[self.answer[has]]

        def loss(log_factor: float) -> float:
            scaled = np.exp(log_factor) * score
            top = np.full(len(self), -np.inf)
            np.maximum.at(top, group, scaled)
            mass = np.bincount(group, np.exp(scaled - top[group]), len(self))[has]
            return float((np.log(mass) + top[has] - np.exp(log_factor) * own).mean())

        from scipy.optimize import minimize_scalar

        return float(np.exp(minimize_scalar(loss, bounds=FACTORS, method="bounded").x))

    def rows(self, chosen: Bool[np.ndarray, " G"]) -> Int[np.ndarray, " r"]:
        """The rows of `features` that the chosen groups use."""
        used = np.zeros(len(self.features), bool)
        used[self.cell[np.repeat(chosen, np.diff(self.start))]] = True
        return np.flatnonzero(used)

    def learnable(self, chosen: Bool[np.ndarray, " G"], most: int, seed: int) -> Groups:
        """The chosen groups that have their answer, each with it and some others.

        Args:
            most: other candidates of a group, at most; they are drawn.
        """
        size = np.diff(self.start)
        group = np.repeat(np.arange(len(self)), size)
        has = chosen & (self.answer >= 0)
        drawn = np.random.default_rng(seed).random(len(self.cell))
        drawn[self.answer[has]] = -1.0
        order = np.lexsort((drawn, group))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order)) - np.repeat(self.start[:-1], size)
        kept = has[group] & (place <= most)
        position = np.cumsum(kept) - 1
        return replace(
            self,
            cell=self.cell[kept],
            start=np.concatenate(
                [[0], np.cumsum(np.bincount(group[kept], minlength=len(self))[has])]
            ),
            answer=position[self.answer[has]],
            outside=self.outside[has],
            part=self.part[has],
        )


def counted_answers(held: AnswerIndex, num_relations: int, seed: int) -> Bool[Tensor, " n"]:
    """Which answers have a group: at most `FACTS` facts, and of each question at most `GROUPS`.

    They are drawn by the seed; of a fact, both directions are.
    """
    question = torch.repeat_interleave(torch.arange(len(held)), held.offsets.diff())
    queries = held.queries[question]
    drawn = _numbers(queries.head, queries.relation, held.answers, num_relations, seed)
    order = np.lexsort((drawn, question.numpy()))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - held.offsets.numpy()[question.numpy()]
    counted = place < GROUPS
    distinct = np.unique(drawn)
    if len(distinct) > FACTS:
        counted &= drawn < distinct[FACTS]
    return torch.from_numpy(counted)


def parts_of(
    facts: Int[Tensor, "n 3"], num_relations: int, parts: int, seed: int
) -> Int[Tensor, " n"]:
    """The part, for cross-fitting, of directed facts; both directions of a fact have the same.

    It depends on the fact and the seed alone, so that it stays when other facts come or go.
    """
    head, relation, answer = facts.unbind(1)
    numbers = _numbers(head, relation, answer, num_relations, seed)
    return torch.from_numpy((numbers % np.uint64(parts)).astype(np.int64))


def _numbers(
    head: Int[Tensor, " n"],
    relation: Int[Tensor, " n"],
    answer: Int[Tensor, " n"],
    num_relations: int,
    seed: int,
) -> UInt64[np.ndarray, " n"]:
    """A random number of each directed fact, equal in both directions."""
    inverse = relation >= num_relations
    first, second = torch.where(inverse, answer, head), torch.where(inverse, head, answer)
    mixed = _mixed(np.full(len(head), seed, np.uint64))
    for ids in (first, relation % num_relations, second):
        mixed = _mixed(mixed ^ ids.numpy().astype(np.uint64))
    return mixed


def _mixed(value: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """The bits of each number, mixed (SplitMix64: Steele et al., 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(value ^ (value >> np.uint64(31)))


def make_groups(
    experts: Sequence[Expert],
    weights: Mapping[str, Weight],
    graph: Graph,
    size: int,
    parts: int,
    seed: int,
    memory: float,
    progress: Progress | None = None,
) -> Groups:
    """Pools and groups of the held-out facts.

    Args:
        experts: fitted on the train split of `graph`.
        weights: of each expert in the sum.
        graph: its valid split is the held-out facts.
        size: candidates that each expert brings to a pool.
        parts: number of parts for cross-fitting.
        seed: of the parts.
        memory: GiB for the scores of a batch.
    """
    facts, held = FactIndex.of(graph), graph.answers("valid")
    counted = counted_answers(held, graph.num_relations, seed)
    batch = max(1, batch_size_for(graph.num_entities, memory) // (2 * len(experts)))
    blocks: list[_Block] = []
    question = torch.repeat_interleave(torch.arange(len(held)), held.offsets.diff())
    asked = torch.unique(question[counted])
    for first in range(0, len(asked), batch):
        index = asked[first : first + batch]
        queries = held.queries[index]
        pool = make_pool(experts, weights, facts, queries, size)
        blocks.append(_Block.of(pool, held, index, counted, facts, parts, seed))
        if progress is not None:
            progress(first + len(index), len(asked))
    return _joined(blocks, 2 * graph.num_relations)


@dataclass(frozen=True, eq=False)
class _Block:
    """What is kept of a batch; scores of all entities are not."""

    questions: int
    row: Int[np.ndarray, " n"]
    member: Bool[np.ndarray, "n E"]
    rivals: Bool[np.ndarray, " n"]
    features: Float[np.ndarray, "n F"]
    relation: Int[np.ndarray, " n"]
    cells: list[Int[np.ndarray, " _"]]
    answer: list[int]
    outside: list[float]
    part: Int[np.ndarray, " G"]

    @staticmethod
    def of(
        pool: Pool,
        held: AnswerIndex,
        index: Int[Tensor, " B"],
        counted: Bool[Tensor, " n"],
        facts: FactIndex,
        parts: int,
        seed: int,
    ) -> _Block:
        queries = held.queries[index]
        row, answer = held.rows(index)
        known = np.zeros(tuple(pool.outside.shape), bool)
        known[tuple(part.numpy() for part in facts.known(queries))] = True
        known[row.numpy(), answer.numpy()] = True
        competes = ~known[pool.row, pool.column]
        # Outside the pool, candidates compete with what the sum says of them.
        outside = pool.outside.numpy()
        left = ~known
        left[pool.row, pool.column] = False
        start = np.searchsorted(pool.row, np.arange(len(index) + 1))
        kept = torch.cat([counted[slice(*held.offsets[i : i + 2].tolist())] for i in index])
        row, answer = row[kept], answer[kept]
        cells, places, ranks = [], [], []
        for i, a in zip(row.tolist(), answer.tolist(), strict=True):
            own = np.arange(start[i], start[i + 1])
            column = pool.column[own]
            of_group = competes[own] | (column == a)
            cells.append(own[of_group])
            at = np.flatnonzero(column[of_group] == a)
            places.append(int(at[0]) if len(at) else -1)
            ranks.append(0.0)
            if not len(at):
                others, mine = outside[i][left[i]], outside[i, a]
                above = (others > mine).sum() + (others == mine).sum() / 2
                ranks[-1] = float(1 / (1 + len(cells[-1]) + above))
        head, relation = queries.head[row], queries.relation[row]
        directed = torch.stack([head, relation, answer], 1)
        part = parts_of(directed, facts.num_relations, parts, seed).numpy()
        asked = queries.relation.numpy()[pool.row]
        kept_of_pool = pool.row, pool.member, pool.rivals, pool.features, asked
        return _Block(len(index), *kept_of_pool, cells, places, ranks, part)


def _joined(blocks: Sequence[_Block], num_relations: int) -> Groups:
    sizes = [len(cells) for block in blocks for cells in block.cells]
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    base, cells, rows, questions = 0, [], [], 0
    for block in blocks:
        cells += [part + base for part in block.cells]
        rows.append(block.row + questions)
        questions += block.questions
        base += len(block.row)
    answer = np.array([place for block in blocks for place in block.answer], np.int64)
    answer = np.where(answer >= 0, answer + start[:-1], -1)
    return Groups(
        np.concatenate([block.features for block in blocks]),
        np.concatenate(rows),
        np.concatenate([block.member for block in blocks]),
        np.concatenate([block.rivals for block in blocks]),
        np.concatenate([block.relation for block in blocks]),
        num_relations,
        np.concatenate(cells),
        start,
        answer,
        np.array([rank for block in blocks for rank in block.outside]),
        np.concatenate([block.part for block in blocks]),
    )
