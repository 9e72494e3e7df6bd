"""After a training: patterns are fitted, and how much they count is chosen on validation.

Embedding and patterns are trained apart and meet in the score. Trained with the patterns' evidence
in its score, an embedding learns only what they leave, and both together rank worse (docs/results).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.graph import AnswerIndex, Graph, Queries
from mocme.data.modality import Features
from mocme.evaluation.ranking import Scores, batch_for, hidden
from mocme.experts.embedding.model import Model
from mocme.experts.rules.adjacency import relations_of
from mocme.experts.rules.rule_model import RuleModel, RuleSettings

Advance = Callable[[int, int], None]

STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
SHARPNESSES = (3.0, 10.0, 30.0, 100.0, 300.0)
# Where there is nothing to choose by: the middle of what three benchmarks chose.
UNCHOSEN = (1.5, 30.0)


@dataclass(frozen=True)
class Weighed:
    """What each weight of the evidence gave on validation.

    Attributes:
        without: MRR of the embedding alone.
        tried: (strength, sharpness, MRR) of every pair that was tried.
    """

    without: float
    tried: tuple[tuple[float, float, float], ...]

    @property
    def best(self) -> tuple[float, float, float]:
        """The first of the best ones."""
        return max(self.tried, key=lambda row: row[2])


def fit(
    model: Model,
    graph: Graph,
    features: Features,
    settings: RuleSettings,
    memory: float,
    advance: Advance | None = None,
) -> tuple[RuleModel, dict[str, Any]]:
    """Patterns of a graph, weighed for a trained model, and what the run should say of them.

    Args:
        graph: its valid split chooses the weights that `settings` leave open; test is not looked
            at.
        memory: GiB that scores of a batch may take.
    """
    started = time.perf_counter()
    evidence = RuleModel.fit(relations_of(graph, features), settings, advance)
    seconds = round(time.perf_counter() - started, 3)
    record: dict[str, Any] = {"patterns": len(evidence.bodies), "seconds_of_fitting": seconds}
    strength, sharpness = settings.strength, settings.sharpness
    if strength is not None and sharpness is not None:
        record["chosen_by"] = "settings"
    elif len(graph.facts("valid")):
        found = weigh(model, evidence, graph, settings, memory)
        strength, sharpness, _ = found.best
        record |= {"chosen_by": "valid", "without": found.without, "tried": found.tried}
    else:
        strength = UNCHOSEN[0] if strength is None else strength
        sharpness = UNCHOSEN[1] if sharpness is None else sharpness
        record["chosen_by"] = "nothing: there is no valid split"
    record |= {"strength": strength, "sharpness": sharpness}
    record["seconds"] = round(time.perf_counter() - started, 3)
    return evidence.weighed(strength, sharpness), record


def weigh(
    model: Model, evidence: RuleModel, graph: Graph, settings: RuleSettings, memory: float
) -> Weighed:
    """Try weights of the evidence on the valid split."""
    strengths = STRENGTHS if settings.strength is None else (settings.strength,)
    sharpnesses = SHARPNESSES if settings.sharpness is None else (settings.sharpness,)
    grid = [(b, c) for b in strengths for c in sharpnesses]
    # Sorted scores and their rows once more, so half of what a ranking may ask at a time.
    batch = max(1, batch_for(graph.num_entities, memory) // 2)
    asked = AnswerIndex(graph.directed("valid"))
    known = hidden(graph, "valid")
    sums = torch.zeros(1 + len(grid), dtype=torch.float64)
    device = model.device
    for first in range(0, len(asked), batch):
        index = torch.arange(first, min(first + batch, len(asked)))
        sums += _reciprocals(model.embedding_score, evidence, asked, known, index, grid, device)
    means = (sums / len(asked.answers)).tolist()
    tried = tuple((b, c, mrr) for (b, c), mrr in zip(grid, means[1:], strict=True))
    return Weighed(means[0], tried)


def _reciprocals(
    score: Scores,
    evidence: RuleModel,
    asked: AnswerIndex,
    known: AnswerIndex,
    index: Tensor,
    grid: Sequence[tuple[float, float]],
    device: torch.device,
) -> Float[Tensor, " G"]:
    """Sums of reciprocal realistic ranks of a batch: without evidence, then for each weight.

    A row of scores is sorted once; evidence moves few of its candidates, and for each weight only
    those are looked at again.
    """
    queries = asked.queries[index]
    with torch.no_grad():
        scores = score(queries.to(device)).float().cpu()
    place, answer = asked.rows(index)
    own = scores[place, answer]
    hidden_place, hidden_node = known.lookup(queries)
    gone = torch.zeros_like(scores, dtype=torch.bool)
    gone[hidden_place, hidden_node] = True
    gone[place, answer] = True
    moved = _Moved.of(evidence, queries, scores, gone, place, answer)
    competing = scores.masked_fill_(gone, -torch.inf).sort(1).values
    found = [_sum(competing, own, place, moved, None)]
    found += [_sum(competing, own, place, moved, weight) for weight in grid]
    return torch.stack(found)


@dataclass(frozen=True)
class _Moved:
    """Candidates that evidence speaks for.

    Attributes:
        pair: which (question, answer) pair a candidate competes with.
        score, odds: of the candidate.
        own: odds of each pair's answer.
    """

    pair: Int[Tensor, " m"]
    score: Float[Tensor, " m"]
    odds: Float[Tensor, " m"]
    own: Float[Tensor, " n"]

    @staticmethod
    def of(
        evidence: RuleModel,
        queries: Queries,
        scores: Tensor,
        gone: Tensor,
        place: Tensor,
        answer: Tensor,
    ) -> _Moved:
        rows, columns, odds = evidence.odds(queries)
        dense = torch.zeros_like(scores)
        dense[rows, columns] = odds
        own = dense[place, answer]
        free = ~gone[rows, columns]
        rows, columns, odds = rows[free], columns[free], odds[free]
        # Every pair of a question meets all candidates of that question's row.
        counts = torch.bincount(rows, minlength=len(scores))
        first = torch.cumsum(counts, 0) - counts
        order = torch.argsort(rows, stable=True)
        times = counts[place]
        pair = torch.repeat_interleave(torch.arange(len(place)), times)
        within = torch.arange(len(pair)) - (torch.cumsum(times, 0) - times)[pair]
        entry = order[first[place][pair] + within]
        return _Moved(pair, scores[rows, columns][entry], odds[entry], own)


def _sum(
    competing: Float[Tensor, "B N"],
    own: Float[Tensor, " n"],
    place: Int[Tensor, " n"],
    moved: _Moved,
    weight: tuple[float, float] | None,
) -> Float[Tensor, ""]:
    """Sum of reciprocal ranks at one weight of the evidence."""
    score = moved.score
    threshold = own
    if weight is not None:
        strength, sharpness = weight
        threshold = own + strength * torch.log1p(sharpness * moved.own)
    above, ties = _count(competing, threshold, place)
    if weight is not None:
        lifted = score + strength * torch.log1p(sharpness * moved.odds)
        limit = threshold[moved.pair]
        above.index_add_(0, moved.pair, (lifted > limit).double() - (score > limit).double())
        ties.index_add_(0, moved.pair, (lifted == limit).double() - (score == limit).double())
    return (1 / (1 + above + ties / 2)).sum()


def _count(
    competing: Float[Tensor, "B N"], threshold: Float[Tensor, " n"], place: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """How many of a pair's sorted row are above its threshold, and how many equal it."""
    above, ties = torch.empty_like(threshold).double(), torch.empty_like(threshold).double()
    for first in range(0, len(place), 64):
        part = slice(first, first + 64)
        rows, values = competing[place[part]], threshold[part].unsqueeze(1)
        right = torch.searchsorted(rows, values, right=True).squeeze(1)
        left = torch.searchsorted(rows, values).squeeze(1)
        above[part] = competing.shape[1] - right
        ties[part] = right - left
    return above, ties
