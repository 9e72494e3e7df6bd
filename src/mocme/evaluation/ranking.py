"""Filtered ranks of known answers among all entities, in both directions.

The score of an answer is gathered from the row in which it competes. The same triple scored in a
matrix of another shape rarely has the same last bit, and ties would be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.core.table import data_frame
from mocme.data.graph import SPLITS, AnswerIndex, Graph, Queries

if TYPE_CHECKING:
    import pandas

ProgressCallback = Callable[[int, int], None]
# Answers whose rows of scores are compared at once on the CPU, and how many times more elsewhere.
COUNT_CHUNK = 32
GPU_CHUNKS = 64


@runtime_checkable
class ScoreFunction(Protocol):
    """A function that scores every entity as the answer of each query."""

    def __call__(self, queries: Queries) -> Float[Tensor, "B N"]: ...


@runtime_checkable
class Rankable(Protocol):
    """A mixture, a single expert, or anything else that scores and can be ranked."""

    @property
    def device(self) -> torch.device:
        """The device that queries have to be on."""
        ...

    def score(self, queries: Queries) -> Float[Tensor, "B N"]:
        """Scores of every entity as the answer of each query."""
        ...


@runtime_checkable
class CrossFitted(Rankable, Protocol):
    """A model that may have been fitted on facts that are ranked, with parts that were not."""

    def unseen(self, graph: Graph, split: str) -> Sequence[tuple[Rankable, Int[Tensor, "n 3"]]]:
        """Models that were not fitted on the facts of a split, with the directed facts of each."""
        ...


def unseen(model: Rankable, graph: Graph, split: str) -> Sequence[tuple[Rankable, Tensor]]:
    """The directed facts (n, 3) of a split, each with a model that was not fitted on it."""
    if isinstance(model, CrossFitted):
        return model.unseen(graph, split)
    return [(model, graph.directed(split))]


class NaNScoreError(ValueError):
    """A score is NaN, so that the model has no ranking."""


@final
@dataclass(frozen=True)
class Ranks:
    """Ranks of n answers, each to a question.

    Attributes:
        head, relation, answer: of each; relations are directed (r + R asks for a head).
        above: candidates with a higher score.
        ties: other candidates with the same score.
        candidates: candidates that compete, the answer included (known answers are left out).
    """

    head: Int[Tensor, " n"]
    relation: Int[Tensor, " n"]
    answer: Int[Tensor, " n"]
    above: Int[Tensor, " n"]
    ties: Int[Tensor, " n"]
    candidates: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.answer)

    @property
    def optimistic(self) -> Float[Tensor, " n"]:
        return (1 + self.above).double()

    @property
    def pessimistic(self) -> Float[Tensor, " n"]:
        return (1 + self.above + self.ties).double()

    @property
    def realistic(self) -> Float[Tensor, " n"]:
        """The mean of the optimistic and the pessimistic rank."""
        return 1 + self.above.double() + self.ties.double() / 2

    def to_pandas(self) -> pandas.DataFrame:
        """A data frame with a row for each pair: its ids, counts and the three ranks.

        Raises:
            MissingLibrary: pandas is not installed.
        """
        counted = ("head", "relation", "answer", "above", "ties", "candidates")
        ranks = ("optimistic", "pessimistic", "realistic")
        return data_frame({name: getattr(self, name).numpy() for name in (*counted, *ranks)})


def filtered_answers(graph: Graph, split: str) -> AnswerIndex:
    """Known answers that do not compete when a split is ranked.

    For valid those of train and valid, for test those of every fact of the graph.
    """
    return graph.answers(*(("train", "valid") if split == "valid" else SPLITS))


def rank(
    score: ScoreFunction,
    questions: AnswerIndex,
    known: AnswerIndex,
    *,
    batch: int = 512,
    device: torch.device | str = "cpu",
    progress: ProgressCallback | None = None,
) -> Ranks:
    """Rank every answer of every question.

    Args:
        score: compared in float32.
        questions: with the answers that are ranked.
        known: answers that do not compete, except the one that is ranked.
        batch: questions scored at once; their scores and a mask, both (batch, N), are in memory.
        progress: called with (questions done, questions in all).

    Raises:
        NotANumber: with the number of NaN scores, and the first question that has one.
    """
    parts: list[tuple[Tensor, ...]] = []
    for first in range(0, len(questions), batch):
        index = torch.arange(first, min(first + batch, len(questions)))
        parts.append(_rank_batch(score, questions, known, index, torch.device(device)))
        if progress is not None:
            progress(int(index[-1]) + 1, len(questions))
    if not parts:
        return Ranks(*(torch.empty(0, dtype=torch.int64) for _ in range(6)))
    return Ranks(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _rank_batch(
    score: ScoreFunction,
    questions: AnswerIndex,
    known: AnswerIndex,
    index: Int[Tensor, " B"],
    device: torch.device,
) -> tuple[Tensor, ...]:
    """The columns of `Ranks` of the questions at `index`, on the CPU."""
    queries = questions.queries[index]
    with torch.no_grad():
        scores_BN = score(queries.to(device)).float()
    check_scores(scores_BN, queries)
    num_entities = scores_BN.shape[1]
    question, answer = questions.rows(index)
    question_on_device = question.to(device)
    answer_scores = scores_BN[question_on_device, answer.to(device)]
    known_question, known_answer = known.lookup(queries)
    # The answers that are asked for do not compete with each other, whether or not `known` has
    # them.
    masked_question = torch.cat([known_question, question]).to(device)
    masked_answer = torch.cat([known_answer, answer]).to(device)
    # NaN is neither above a score nor equal to it; -inf would tie with answers that score -inf.
    scores_BN[masked_question, masked_answer] = float("nan")
    # Both sources may mask the same cell, which counts once.
    cells = torch.unique(masked_question * num_entities + masked_answer)
    num_masked = torch.bincount(cells // num_entities, minlength=len(index))
    above, ties = _count(scores_BN, question_on_device, answer_scores)
    # The answer itself is masked, and competes.
    candidates = num_entities - num_masked[question_on_device] + 1
    counts = (above.cpu(), ties.cpu(), candidates.cpu())
    return queries.head[question], queries.relation[question], answer, *counts


def check_scores(scores: Float[Tensor, "B N"], queries: Queries) -> None:
    """Refuse scores that are NaN.

    Raises:
        NaNScoreError: with their number, and the first question that has one.
    """
    # A sum is NaN if any score is, and needs no mask of (B, N). It also is where infinities of both
    # signs meet, which is no error.
    if not (bool(scores.sum().isnan()) and bool(scores.isnan().any())):
        return
    question = int(scores.isnan().any(1).nonzero()[0])
    raise NaNScoreError(
        f"{int(scores.isnan().sum())} scores are NaN, first for head "
        f"{int(queries.head[question])} and relation {int(queries.relation[question])}: "
        f"the model has diverged"
    )


def _count(
    scores: Float[Tensor, "B N"],
    question: Int[Tensor, " n"],
    answer_scores: Float[Tensor, " n"],
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """How many scores of an answer's row are above the answer's, and how many equal it.

    Rows are compared in chunks that stay in the cache. The comparison writes 0.0 and 1.0 and is
    summed as floats: on a CPU that is ten times as fast as a sum of booleans. It is exact below
    2^24 entities in float32, and beyond in float64.
    """
    num_entities = scores.shape[1]
    dtype = torch.float32 if num_entities < 2**24 else torch.float64
    chunk = COUNT_CHUNK if scores.device.type == "cpu" else GPU_CHUNKS * COUNT_CHUNK
    size = (min(chunk, len(question)), num_entities)
    comparison = torch.empty(size, dtype=dtype, device=scores.device)
    above = torch.empty(len(question), dtype=dtype, device=scores.device)
    ties = torch.empty_like(above)
    for first in range(0, len(question), chunk):
        part = slice(first, first + chunk)
        rows, threshold = scores[question[part]], answer_scores[part].unsqueeze(1)
        out = comparison[: len(rows)]
        torch.sum(torch.gt(rows, threshold, out=out), 1, out=above[part])
        torch.sum(torch.eq(rows, threshold, out=out), 1, out=ties[part])
    return above.long(), ties.long()


def batch_size_for(num_entities: int, memory: float) -> int:
    """Questions a batch whose scores and working memory fit in `memory` GiB."""
    # Scores in float32, their rows once more for the comparison, and two masks of one byte.
    bytes_per_question = num_entities * (4 + 4 + 2)
    return max(1, min(1024, int(memory * 2**30 // (bytes_per_question + 1))))


def rank_split(
    model: Rankable,
    graph: Graph,
    split: str,
    memory: float,
    progress: ProgressCallback | None = None,
    only: int | None = None,
) -> Ranks:
    """Filtered ranks of a split, in both directions; see `filtered_answers` for the filter.

    Facts that the model was fitted on are ranked by the part of it that has not seen them.

    Args:
        memory: GiB that scores of a batch may take.
        only: rank this many answers and no more.

    Returns:
        The ranks in the order of `AnswerIndex`.
    """
    known, batch = filtered_answers(graph, split), batch_size_for(graph.num_entities, memory)
    parts = [(part, AnswerIndex(facts[:only])) for part, facts in unseen(model, graph, split)]
    done, total = 0, sum(len(questions) for _, questions in parts)
    ranked = []
    for part, questions in parts:
        shown = None if progress is None else _after(progress, done, total)
        ranked.append(
            rank(part.score, questions, known, batch=batch, device=part.device, progress=shown)
        )
        done += len(questions)
    return _in_order(ranked)


def _after(progress: ProgressCallback, done: int, total: int) -> ProgressCallback:
    """The callback for a part that comes after others."""
    return lambda count, _: progress(done + count, total)


def _in_order(parts: Sequence[Ranks]) -> Ranks:
    if len(parts) == 1:
        return parts[0]
    names = Ranks.__dataclass_fields__
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    keys = (columns[name].numpy() for name in ("answer", "head", "relation"))
    order = torch.from_numpy(np.lexsort(tuple(keys)))
    return Ranks(**{name: column[order] for name, column in columns.items()})
