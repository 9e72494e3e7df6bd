"""Probabilities of a trained model's answers, fitted on all candidates of the valid split.

All candidates are counted, none is sampled. They are counted in bins of their log share: the curves
depend on nothing else, and 3,000 bins take the place of N candidates for each question.

The questions are split in two folds. Each relation gets the curve that predicts the other fold
best, by log loss: one of its own, isotonic or logistic (Platt, 1999), if it has enough answers, or
the one pooled over all relations. An isotonic curve fits any shape and needs many answers; a
logistic one has two parameters; relations differ too much for one curve, and many of them have too
few answers for their own.

Only relations with enough answers have bins of their own; all others are counted together. Memory
follows the answers of the valid split (100 kB for `FEW` of them), not the number of relations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mocme.calibration.curves import FEW, LOWEST, Calibration, Curve, log_shares
from mocme.data.graph import AnswerIndex, Graph, Queries
from mocme.evaluation.ranking import (
    ProgressCallback,
    Rankable,
    batch_size_for,
    check_scores,
    unseen,
)

# Bins of log shares between `LOWEST` and 0: each one hundredth wide, one percent of a share.
BINS = 3000
FOLDS = 2
# Bounds of predicted probabilities in the table of reliability. Most candidates are far below 1 %.
EDGES = (0.0, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# Probability from which a candidate is likely: the error of all is dominated by the others.
LIKELY = 0.01
# Points of a logistic curve.
LOGISTIC_POINTS = 300


@final
@dataclass(frozen=True, eq=False)
class BinCounts:
    """Candidates by bin of their log share: how many, and how many of them are answers.

    Attributes:
        all, answers: the last dimension is the bin; those before it, if any, are groups.
        relations: the directed relations that are a group of their own, in the order of the groups;
            the group after them holds all others. None where each group is a relation.
    """

    all: Int[np.ndarray, "*G bins"]
    answers: Int[np.ndarray, "*G bins"]
    relations: Sequence[int] | None = None

    def __getitem__(self, index: Any) -> BinCounts:
        return BinCounts(self.all[index], self.answers[index])

    def __add__(self, other: BinCounts) -> BinCounts:
        return BinCounts(self.all + other.all, self.answers + other.answers)

    def sum(self) -> BinCounts:
        """The sum over the first dimension."""
        return BinCounts(self.all.sum(0), self.answers.sum(0))


FitCurve = Callable[[BinCounts], Curve]


def calibrate(
    model: Rankable, graph: Graph, memory: float = 0.5, progress: ProgressCallback | None = None
) -> Calibration:
    """Fit probabilities on a graph's valid split.

    Args:
        memory: GiB that scores of a batch may take.
        progress: called with (questions done, questions in all).

    Raises:
        ValueError: there is no valid split, or no fact of it is left by `Graph.training_view`.
        NaNScoreError: the model has a score that is NaN.
    """
    if not len(graph.facts("valid")):
        raise ValueError(
            "probabilities are fitted on facts of the valid split that are not in train, and the "
            "graph has none; put a valid.tsv beside its train.tsv and train again"
        )
    # Shapes: (FOLDS, G, bins), then (G, bins).
    by_fold = count_candidates(model, graph, memory, progress, FEW)
    total = by_fold.sum()
    own = range(len(total.all)) if by_fold.relations is None else by_fold.relations
    # The pooled curve competes with the others, so it is fitted without each fold too.
    pooled = [isotonic(_without(by_fold, fold).sum()) for fold in range(FOLDS)]
    by_relation: dict[int, Curve] = {}
    chosen = dict.fromkeys(("pooled", *FITS), 0)
    before, after = Reliability.empty(), Reliability.empty()
    for group in np.flatnonzero(total.all.sum(1)).tolist():
        folds, name, curves = by_fold[:, group], "pooled", pooled
        if group < len(own):
            name, curves = _choose(folds, pooled)
            chosen[name] += 1
        else:
            chosen[name] += len(graph.directed("valid")[:, 1].unique()) - len(own)
        if name != "pooled":
            by_relation[own[group]] = FITS[name](total[group])
        # Each fold is predicted by the curve that was fitted without it.
        for fold in range(FOLDS):
            before.add(np.exp(bin_centres()), folds[fold])
            after.add(curves[fold](bin_centres()), folds[fold])
    record = {
        "split": "valid",
        "questions": len(graph.answers("valid")),
        "candidates": int(total.all.sum()),
        "answers": int(total.answers.sum()),
        "relations": chosen,
        "means": "probability that a candidate is a fact of the valid split; unknown facts count "
        "as false; only questions that have an answer were asked",
        "before": before.record(),
        "after": after.record(),
    }
    return Calibration(isotonic(total.sum()), by_relation, record)


def _choose(folds: BinCounts, pooled: list[Curve]) -> tuple[str, list[Curve]]:
    """The kind of curve that predicts a relation best, and its curves without each fold.

    Args:
        folds: counts of the relation, (FOLDS, bins).
        pooled: curves over all relations, without each fold.
    """
    curves = {"pooled": pooled}
    # Each fold needs an answer: an isotonic curve without any is 0, and a logistic one undefined.
    if folds.answers.sum() >= FEW and folds.answers.sum(1).all():
        for name, fit in FITS.items():
            curves[name] = [fit(_without(folds, fold)) for fold in range(FOLDS)]
    loss = {name: _log_loss(fitted, folds) for name, fitted in curves.items()}
    # The first of the best: the simpler choice wins a tie.
    best = min(loss, key=lambda name: loss[name])
    return best, curves[best]


def count_candidates(
    model: Rankable,
    graph: Graph,
    memory: float,
    progress: ProgressCallback | None = None,
    least: int = 0,
) -> BinCounts:
    """Candidates of the valid split's questions, by fold of questions and directed relation.

    Known answers of train are no candidates. A question's own entity is a candidate only if the
    relation has facts between an entity and itself.

    Args:
        least: relations with fewer answers are counted together, as the last group.
    """
    counting = _Counting.of(graph, least)
    # Shares and bins are as large as the scores, so a batch is half that of a ranking.
    batch = max(1, batch_size_for(graph.num_entities, memory) // 2)
    parts = [(part, AnswerIndex(facts)) for part, facts in unseen(model, graph, "valid")]
    done, total = 0, sum(len(questions) for _, questions in parts)
    for part, questions in parts:
        for first in range(0, len(questions), batch):
            index = torch.arange(first, min(first + batch, len(questions)))
            queries = questions.queries[index]
            with torch.no_grad():
                scores_BN = part.score(queries.to(part.device)).float().cpu()
            check_scores(scores_BN, queries)
            counting.add(queries, scores_BN, *questions.rows(index))
            done += len(index)
            if progress is not None:
                progress(done, total)
    return counting.counts


@dataclass(frozen=True, eq=False)
class _Counting:
    """Counts candidates of questions, batch after batch.

    A question whose answers are scored by several parts of a model comes once for each: each answer
    is counted there, and all other candidates where the question comes first.
    """

    questions: AnswerIndex
    known: AnswerIndex
    reflexive: Int[Tensor, " r"]
    num_relations: int
    fold: Int[Tensor, " Q"]
    group_of: Int[Tensor, " R2"]
    counts: BinCounts
    asked: Bool[Tensor, " Q"]

    @staticmethod
    def of(graph: Graph, least: int) -> _Counting:
        questions = graph.answers("valid")
        group_of, own = _groups(graph, least)
        shape = (FOLDS, len(own) + (least > 0), BINS)
        fold = torch.randperm(len(questions), generator=torch.Generator().manual_seed(0)) % FOLDS
        zeros = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        return _Counting(
            questions,
            graph.answers("train"),
            graph.reflexive(),
            graph.num_relations,
            fold,
            group_of,
            BinCounts(*zeros, own if least else None),
            torch.zeros(len(questions), dtype=torch.bool),
        )

    def add(
        self,
        queries: Queries,
        scores_BN: Float[Tensor, "B N"],
        question: Int[Tensor, " n"],
        answer: Int[Tensor, " n"],
    ) -> None:
        """Count the candidates of B questions; the scores are overwritten.

        Args:
            question, answer: the answers that these scores are for, by position in `queries`.
        """
        irreflexive = ~torch.isin(queries.relation % self.num_relations, self.reflexive)
        scores_BN[irreflexive.nonzero().flatten(), queries.head[irreflexive]] = -torch.inf
        # An answer of valid stays a candidate where it is known from train too.
        answer_scores = scores_BN[question, answer].clone()
        scores_BN[self.known.lookup(queries)] = -torch.inf
        scores_BN[question, answer] = answer_scores
        # One histogram over (row, bin) cells, where the rows are the pairs of fold and group that
        # the batch has. Bin number BINS collects what is no candidate, and is dropped.
        bins = _bins(log_shares(scores_BN))
        bins[scores_BN.isneginf()] = BINS
        position = self.questions.position(queries)
        pair = torch.stack([self.fold[position], self.group_of[queries.relation]])
        pairs, row = torch.unique(pair, dim=1, return_inverse=True)
        size = len(pairs[0]) * (BINS + 1)
        cell = row.unsqueeze(1) * (BINS + 1) + bins
        answers = torch.bincount(cell[question, answer], minlength=size)
        # All answers of a question, those of its other parts too.
        cell[self.questions.lookup(queries)] = BINS
        new = ~self.asked[position]
        candidates = answers + torch.bincount(cell[new].flatten(), minlength=size)
        self.asked[position] = True
        where = tuple(pairs.numpy())
        for counts, counted in ((self.counts.all, candidates), (self.counts.answers, answers)):
            counts[where] += counted.view(-1, BINS + 1)[:, :BINS].numpy()


def _groups(graph: Graph, least: int) -> tuple[Int[Tensor, " R2"], list[int]]:
    """The group of each directed relation, and the relations that are a group of their own."""
    size = 2 * graph.num_relations
    count = torch.bincount(graph.directed("valid")[:, 1], minlength=size)
    own = (count >= least).nonzero().flatten()
    group_of = torch.full((size,), len(own))
    group_of[own] = torch.arange(len(own))
    return group_of, own.tolist()


def bin_centres() -> Float[np.ndarray, " bins"]:
    """Log shares in the middle of the bins."""
    return LOWEST + (np.arange(BINS) + 0.5) * (-LOWEST / BINS)


def isotonic(counts: BinCounts) -> Curve:
    """The nondecreasing step function that fits best, with one failure added to each step.

    The added failure keeps a step of few candidates, all of them answers, from a probability of 1.
    """
    from sklearn.isotonic import IsotonicRegression

    bins = np.flatnonzero(counts.all)
    x, total, answers = bin_centres()[bins], counts.all[bins], counts.answers[bins]
    fitted = IsotonicRegression().fit_transform(x, answers / total, sample_weight=total)
    _, step = np.unique(fitted, return_inverse=True)
    smoothed = np.bincount(step, answers) / (np.bincount(step, total) + 1)
    # A failure lowers a step of few candidates more than others, which may break the order.
    y = np.maximum.accumulate(smoothed)[step]
    # Only the ends of each step are kept: np.interp needs no points inside.
    ends = np.ones(len(y), bool)
    ends[1:-1] = (y[1:-1] != y[:-2]) | (y[1:-1] != y[2:])
    return Curve(x[ends], y[ends])


def logistic(counts: BinCounts) -> Curve:
    """P = 1 / (1 + e^-(a x + b)) by maximum likelihood, with a at least 0."""
    from sklearn.linear_model import LogisticRegression

    bins = np.flatnonzero(counts.all)
    # Each bin is two weighted samples: its answers, and its other candidates.
    x = np.concatenate([bin_centres()[bins]] * 2)[:, None]
    answers = counts.answers[bins]
    weight = np.concatenate([answers, counts.all[bins] - answers])
    label = np.repeat([1, 0], len(bins))
    # C is so large that the penalty has no effect: two parameters need none.
    fitted = LogisticRegression(C=1e6, max_iter=1000).fit(x, label, sample_weight=weight)
    slope, intercept = max(0.0, float(fitted.coef_[0, 0])), float(fitted.intercept_[0])
    grid = bin_centres()[:: BINS // LOGISTIC_POINTS]
    return Curve(grid, 1 / (1 + np.exp(-(slope * grid + intercept))))


FITS: dict[str, FitCurve] = {"isotonic": isotonic, "logistic": logistic}


@final
@dataclass(frozen=True, eq=False)
class Reliability:
    """Candidates by predicted probability: how many, the sum of predictions, and answers."""

    count: Float[np.ndarray, " E"]
    predicted: Float[np.ndarray, " E"]
    observed: Float[np.ndarray, " E"]

    @staticmethod
    def empty() -> Reliability:
        return Reliability(*np.zeros((3, len(EDGES) - 1)))

    def add(self, predicted: Float[np.ndarray, " bins"], counts: BinCounts) -> None:
        """Add candidates, given the predicted probability of each bin."""
        row = np.clip(np.searchsorted(EDGES, predicted, "right") - 1, 0, len(EDGES) - 2)
        np.add.at(self.count, row, counts.all)
        np.add.at(self.predicted, row, predicted * counts.all)
        np.add.at(self.observed, row, counts.answers)

    def record(self) -> dict[str, Any]:
        """The table, and the expected calibration error of all candidates and of likely ones."""
        size = np.maximum(self.count, 1)
        difference = np.abs(self.predicted - self.observed)
        likely = np.array(EDGES[:-1]) >= LIKELY
        rows = zip(self.count, self.predicted / size, self.observed / size, strict=True)
        return {
            "error": float(difference.sum() / max(self.count.sum(), 1)),
            "error_of_likely": float(difference[likely].sum() / max(self.count[likely].sum(), 1)),
            "bins": [
                {"from": low, "to": high, "count": int(n), "predicted": p, "observed": o}
                for low, high, (n, p, o) in zip(EDGES[:-1], EDGES[1:], rows, strict=True)
            ],
        }


def _bins(shares: Float[Tensor, "B N"]) -> Int[Tensor, "B N"]:
    return ((shares - LOWEST) * (BINS / -LOWEST)).long().clamp_(0, BINS - 1)


def _without(folds: BinCounts, fold: int) -> BinCounts:
    """The sum of all folds but one."""
    return reduce(add, (folds[other] for other in range(FOLDS) if other != fold))


def _log_loss(curves: Sequence[Curve], folds: BinCounts) -> float:
    """Log loss of all folds, each by the curve that was fitted without it."""
    total = 0.0
    for fold, curve in enumerate(curves):
        # An isotonic curve may be exactly 0, where a single answer would make the loss infinite.
        probability = np.clip(curve(bin_centres()), 1e-12, 1 - 1e-9)
        answers = folds.answers[fold]
        others = folds.all[fold] - answers
        total -= float(answers @ np.log(probability) + others @ np.log1p(-probability))
    return total
