"""Probabilities of a trained model's answers, fitted on all candidates of the valid split.

Candidates are counted in bins of their log share, none is sampled. Each relation gets the curve
that predicts the other half of its questions best: one of its own (isotonic, or logistic after
Platt, 1999) where it has answers enough, or the one of all relations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from mocme.calibration.curves import FEW, LOWEST, Calibration, Curve, log_shares
from mocme.data.graph import AnswerIndex, Graph
from mocme.evaluation.ranking import Ranked, batch_for

BINS = 3000
FOLDS = 2
# Bounds of predicted probability, for the table and diagram of reliability.
EDGES = (0.0, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
LIKELY = 0.01

Advance = Callable[[int, int], None]
Fit = Callable[["Counts"], Curve]


@dataclass(frozen=True, eq=False)
class Counts:
    """Candidates by bin of their log share: how many, and how many of them are answers."""

    all: Int[np.ndarray, "*G bins"]
    answers: Int[np.ndarray, "*G bins"]

    def __getitem__(self, place: Any) -> Counts:
        return Counts(self.all[place], self.answers[place])

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.all + other.all, self.answers + other.answers)

    def sum(self) -> Counts:
        """Of all groups together."""
        return Counts(self.all.sum(0), self.answers.sum(0))


def calibrate(
    model: Ranked, graph: Graph, memory: float = 0.5, advance: Advance | None = None
) -> Calibration:
    """Fit probabilities on a graph's valid split.

    Args:
        memory: GiB that scores of a batch may take.
        advance: is told (questions done, questions in all).

    Raises:
        ValueError: there is no valid split.
    """
    if not len(graph.facts("valid")):
        raise ValueError(
            "probabilities are fitted on the valid split, and the graph has none; put a valid.tsv "
            "beside its train.tsv and train again"
        )
    counts = count(model, graph, memory, advance)
    halves = [counts[fold] for fold in range(FOLDS)]
    rest = [_others(halves, fold).sum() for fold in range(FOLDS)]
    pooled_apart = [isotonic(part) for part in rest]
    whole = halves[0]
    for half in halves[1:]:
        whole = whole + half
    own: dict[int, Curve] = {}
    used: dict[str, int] = {"pooled": 0, "isotonic": 0, "logistic": 0}
    tables = [Reliability.empty(), Reliability.empty()]
    for relation in np.flatnonzero(whole.all.sum(1)).tolist():
        parts = [half[relation] for half in halves]
        tried: dict[str, list[Curve]] = {"pooled": pooled_apart}
        enough = whole.answers[relation].sum() >= FEW
        if enough and all(part.answers.sum() for part in parts):
            for name, fit in FITS.items():
                tried[name] = [fit(_others(parts, fold)) for fold in range(FOLDS)]
        loss = {name: _loss(curves, parts) for name, curves in tried.items()}
        best = min(loss, key=lambda name: loss[name])
        used[best] += 1
        if best != "pooled":
            own[relation] = FITS[best](whole[relation])
        for fold, part in enumerate(parts):
            tables[0].add(np.exp(centres()), part)
            tables[1].add(tried[best][fold](centres()), part)
    record = {
        "split": "valid",
        "questions": len(AnswerIndex(graph.directed("valid"))),
        "candidates": int(whole.all.sum()),
        "answers": int(whole.answers.sum()),
        "relations": used,
        "means": "probability that a candidate is a fact of the valid split; what is not known "
        "counts as false; only questions that have an answer were asked",
        "before": tables[0].record(),
        "after": tables[1].record(),
    }
    return Calibration(isotonic(whole.sum()), own, record)


def count(model: Ranked, graph: Graph, memory: float, advance: Advance | None = None) -> Counts:
    """Candidates of the valid split's questions, by fold of questions and directed relation.

    Known answers of train are no candidates, and a question's own entity is none unless the
    relation has such facts.
    """
    asked, known = AnswerIndex(graph.directed("valid")), graph.answers("train")
    groups = 2 * graph.num_relations
    shape = (FOLDS, groups, BINS)
    everyone, answers = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    lots = torch.randperm(len(asked), generator=torch.Generator().manual_seed(0)) % FOLDS
    reflexive = graph.reflexive()
    device = model.device
    batch = max(1, batch_for(graph.num_entities, memory) // 2)
    for first in range(0, len(asked), batch):
        index = torch.arange(first, min(first + batch, len(asked)))
        queries = asked.queries[index]
        with torch.no_grad():
            scores = model.score(queries.to(device)).float().cpu()
        own = queries.relation % graph.num_relations
        barred = ~torch.isin(own, reflexive)
        scores[barred.nonzero().flatten(), queries.head[barred]] = -torch.inf
        place, answer = asked.rows(index)
        right = scores[place, answer].clone()
        scores[known.lookup(queries)] = -torch.inf
        scores[place, answer] = right
        # Bins of candidates; one bin more for what is none.
        column = _bins(log_shares(scores))
        column[scores.isneginf()] = BINS
        group = lots[index] * groups + queries.relation
        cell = group.unsqueeze(1) * (BINS + 1) + column
        total = torch.bincount(cell.flatten(), minlength=FOLDS * groups * (BINS + 1))
        hits = torch.bincount(cell[place, answer], minlength=len(total))
        for kept, found in ((everyone, total), (answers, hits)):
            kept += found.view(FOLDS, groups, BINS + 1)[:, :, :BINS].numpy()
        if advance is not None:
            advance(int(index[-1]) + 1, len(asked))
    return Counts(everyone, answers)


def centres() -> Float[np.ndarray, " bins"]:
    """Log shares in the middle of the bins."""
    return LOWEST + (np.arange(BINS) + 0.5) * (-LOWEST / BINS)


def isotonic(counts: Counts) -> Curve:
    """The rising step function that fits best, each step's frequency with one failure added.

    The failure keeps a step of a few candidates that all are answers from promising certainty.
    """
    from sklearn.isotonic import IsotonicRegression

    held = np.flatnonzero(counts.all)
    x, total, hits = centres()[held], counts.all[held], counts.answers[held]
    fitted = IsotonicRegression().fit_transform(x, hits / total, sample_weight=total)
    _, step = np.unique(fitted, return_inverse=True)
    careful = np.bincount(step, hits) / (np.bincount(step, total) + 1)
    y = np.maximum.accumulate(careful)[step]
    # Points inside a step say nothing.
    ends = np.ones(len(y), bool)
    ends[1:-1] = (y[1:-1] != y[:-2]) | (y[1:-1] != y[2:])
    return Curve(x[ends], y[ends])


def logistic(counts: Counts) -> Curve:
    """P = 1 / (1 + e^-(a x + b)), by likelihood, a at least 0."""
    from sklearn.linear_model import LogisticRegression

    held = np.flatnonzero(counts.all)
    x = np.concatenate([centres()[held]] * 2)[:, None]
    hits = counts.answers[held]
    weight = np.concatenate([hits, counts.all[held] - hits])
    label = np.repeat([1, 0], len(held))
    # Far from any penalty: two numbers for at least a hundred candidates.
    fitted = LogisticRegression(C=1e6, max_iter=1000).fit(x, label, sample_weight=weight)
    slope = max(0.0, float(fitted.coef_[0, 0]))
    grid = centres()[:: BINS // 300]
    return Curve(grid, 1 / (1 + np.exp(-(slope * grid + float(fitted.intercept_[0])))))


FITS: dict[str, Fit] = {"isotonic": isotonic, "logistic": logistic}


@dataclass(frozen=True, eq=False)
class Reliability:
    """Candidates by predicted probability: how many, the sum of predictions, and answers."""

    count: Float[np.ndarray, " E"]
    predicted: Float[np.ndarray, " E"]
    observed: Float[np.ndarray, " E"]

    @staticmethod
    def empty() -> Reliability:
        return Reliability(*np.zeros((3, len(EDGES) - 1)))

    def add(self, chance: Float[np.ndarray, " bins"], counts: Counts) -> None:
        """Count candidates whose probability was predicted."""
        place = np.clip(np.searchsorted(EDGES, chance, "right") - 1, 0, len(EDGES) - 2)
        np.add.at(self.count, place, counts.all)
        np.add.at(self.predicted, place, chance * counts.all)
        np.add.at(self.observed, place, counts.answers)

    def record(self) -> dict[str, Any]:
        """The table, and the expected calibration error of all candidates and of likely ones."""
        size = np.maximum(self.count, 1)
        apart = np.abs(self.predicted - self.observed)
        likely = np.array(EDGES[:-1]) >= LIKELY
        rows = zip(self.count, self.predicted / size, self.observed / size, strict=True)
        return {
            "error": float(apart.sum() / max(self.count.sum(), 1)),
            "error_of_likely": float(apart[likely].sum() / max(self.count[likely].sum(), 1)),
            "bins": [
                {"from": low, "to": high, "count": int(n), "predicted": p, "observed": o}
                for low, high, (n, p, o) in zip(EDGES[:-1], EDGES[1:], rows, strict=True)
            ],
        }


def _bins(shares: torch.Tensor) -> torch.Tensor:
    return ((shares - LOWEST) * (BINS / -LOWEST)).long().clamp_(0, BINS - 1)


def _others(parts: list[Counts], fold: int) -> Counts:
    """All folds but one."""
    left = [part for place, part in enumerate(parts) if place != fold]
    total = left[0]
    for part in left[1:]:
        total = total + part
    return total


def _loss(curves: list[Curve], parts: list[Counts]) -> float:
    """Log loss of the folds, each by the curve that was fitted without it."""
    total = 0.0
    for curve, part in zip(curves, parts, strict=True):
        chance = np.clip(curve(centres()), 1e-12, 1 - 1e-9)
        misses = part.all - part.answers
        total -= float(part.answers @ np.log(chance) + misses @ np.log1p(-chance))
    return total
