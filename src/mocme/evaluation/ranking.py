"""Filtered ranks of known answers among all entities, in both directions.

The score of an answer is gathered from the row it competes in: the same triple scored through a
matrix of another shape is rarely equal to the last bit, and ties would be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.core.table import data_frame
from mocme.data.graph import SPLITS, AnswerIndex, Graph, Queries

if TYPE_CHECKING:
    import pandas

Advance = Callable[[int, int], None]
# Rows of scores that are counted at a time.
COUNT_CHUNK = 32


@runtime_checkable
class Scores(Protocol):
    """What gives scores: `Model.score` and everything with its meaning."""

    def __call__(self, queries: Queries) -> Float[Tensor, "B N"]: ...


@runtime_checkable
class Ranked(Protocol):
    """What can be ranked: a mixture, a single expert, or anything else that scores."""

    @property
    def device(self) -> torch.device:
        """Where the queries have to lie."""
        ...

    def score(self, queries: Queries) -> Float[Tensor, "B N"]:
        """Scores of every entity as the answer of each query."""
        ...


class NotANumber(ValueError):
    """A score that is NaN: such a model has no ranking."""


@dataclass(frozen=True)
class Ranks:
    """Ranks of n (question, answer) pairs.

    Attributes:
        head, relation, answer: of each pair; relations are directed (r + R asks for a head).
        above: candidates with a higher score; ties: other candidates with the same one.
        candidates: how many compete, the answer included (known answers are left out).
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
            ImportError: pandas is not installed.
        """
        counted = ("head", "relation", "answer", "above", "ties", "candidates")
        ranks = ("optimistic", "pessimistic", "realistic")
        return data_frame({name: getattr(self, name).numpy() for name in (*counted, *ranks)})


def hidden(graph: Graph, split: str) -> AnswerIndex:
    """Answers that do not compete when a split is ranked.

    Train and valid hide answers of valid, every fact of the graph those of test.
    """
    return graph.answers(*(("train", "valid") if split == "valid" else SPLITS))


def rank(
    score: Scores,
    asked: AnswerIndex,
    known: AnswerIndex,
    *,
    batch: int = 512,
    device: torch.device | str = "cpu",
    advance: Advance | None = None,
) -> Ranks:
    """Rank every answer of every asked question.

    Args:
        score: gives scores of all N entities; float32 at least.
        known: answers that do not compete, except the one that is ranked.
        batch: questions scored at once; a score and a mask of (batch, N) are held.
        advance: called with (questions done, questions in all).

    Raises:
        NotANumber: naming how many scores of which question.
    """
    parts: list[tuple[Tensor, ...]] = []
    for first in range(0, len(asked), batch):
        index = torch.arange(first, min(first + batch, len(asked)))
        parts.append(_rank_batch(score, asked, known, index, torch.device(device)))
        if advance is not None:
            advance(int(index[-1]) + 1, len(asked))
    if not parts:
        return Ranks(*(torch.empty(0, dtype=torch.int64) for _ in range(6)))
    return Ranks(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _rank_batch(
    score: Scores, asked: AnswerIndex, known: AnswerIndex, index: Tensor, device: torch.device
) -> tuple[Tensor, ...]:
    queries = asked.queries[index]
    with torch.no_grad():
        scores = score(queries.to(device)).float()
    total = scores.sum()
    # One sum finds a NaN anywhere; infinities of both signs would also make one, so look closer.
    if bool(total.isnan()) and bool(scores.isnan().any()):
        bad = scores.isnan().any(1).nonzero().flatten()
        question = int(bad[0])
        raise NotANumber(
            f"{int(scores.isnan().sum())} scores are NaN, first for head "
            f"{int(queries.head[question])} and relation {int(queries.relation[question])}: "
            f"the model has diverged"
        )
    place, answer = asked.rows(index)
    place_on, answer_on = place.to(device), answer.to(device)
    own = scores[place_on, answer_on]
    hidden_place, hidden = known.lookup(queries)
    everyone = scores.shape[1]
    # What is asked is known too, whether or not the caller's filter holds it.
    mask_place = torch.cat([hidden_place, place]).to(device)
    mask_node = torch.cat([hidden, answer]).to(device)
    scores[mask_place, mask_node] = float("nan")  # equal to nothing, above nothing
    distinct = torch.unique(mask_place * everyone + mask_node) // everyone
    left_out = torch.bincount(distinct, minlength=len(index))
    above, ties = _count(scores, place_on, own)
    competing = everyone - left_out[place_on] + 1
    on_cpu = (above.cpu(), ties.cpu(), competing.cpu())
    return queries.head[place], queries.relation[place], answer, *on_cpu


def _count(
    scores: Float[Tensor, "B N"], place: Int[Tensor, " n"], own: Float[Tensor, " n"]
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """How many scores of a pair's row are above its own, and how many equal it.

    In chunks that stay in the cache, by sums of 0.0 and 1.0: ten times as fast on a processor as a
    sum of truth values, and exact below 2^24 entities (in float64 beyond).
    """
    everyone = scores.shape[1]
    kind = torch.float32 if everyone < 2**24 else torch.float64
    chunk = COUNT_CHUNK if scores.device.type == "cpu" else 64 * COUNT_CHUNK
    hits = torch.empty(min(chunk, len(place)), everyone, dtype=kind, device=scores.device)
    above = torch.empty(len(place), dtype=kind, device=scores.device)
    ties = torch.empty_like(above)
    for low in range(0, len(place), chunk):
        part = slice(low, low + chunk)
        rows, threshold = scores[place[part]], own[part].unsqueeze(1)
        held = hits[: len(rows)]
        torch.sum(torch.gt(rows, threshold, out=held), 1, out=above[part])
        torch.sum(torch.eq(rows, threshold, out=held), 1, out=ties[part])
    return above.long(), ties.long()


def batch_for(num_entities: int, memory: float) -> int:
    """Questions a batch whose scores and work memory fit in `memory` GiB."""
    # Scores in float32, their rows once more for counting, and two masks of a byte.
    return max(1, min(1024, int(memory * 2**30 // (num_entities * (4 + 4 + 2) + 1))))


def rank_split(
    model: Ranked,
    graph: Graph,
    split: str,
    memory: float,
    advance: Callable[[int, int], None] | None = None,
    only: int | None = None,
) -> Ranks:
    """Filtered ranks of a split, both directions; `hidden` says which answers do not compete.

    Args:
        only: rank this many answers and no more.
    """
    asked = AnswerIndex(graph.directed(split)[:only])
    batch = batch_for(graph.num_entities, memory)
    return rank(
        model.score, asked, hidden(graph, split), batch=batch, device=model.device, advance=advance
    )
