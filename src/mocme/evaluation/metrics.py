"""Metrics of ranks."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mocme.evaluation.ranking import Ranks

HITS = (1, 3, 10)
TIES = ("realistic", "optimistic", "pessimistic")


def rank_metrics(ranks: Float[Tensor, " n"]) -> dict[str, float]:
    """MRR, mean rank and Hits@k; a rank of at most k is a hit. No ranks have no metrics."""
    if not len(ranks):
        return {}
    metrics = {"mrr": float((1 / ranks).mean()), "mr": float(ranks.mean())}
    return metrics | {f"hits@{k}": float((ranks <= k).double().mean()) for k in HITS}


def summary(ranks: Ranks) -> dict[str, Any]:
    """Metrics with realistic ties, and nested those of the other two conventions for ties.

    `amri` is the adjusted mean rank index (Berrendorf et al., 2020): 1 for perfect ranks, 0 for
    random ones, below 0 for worse.
    """
    if not len(ranks):
        return {"count": 0}
    realistic = ranks.realistic
    # The mean rank of random scores among n candidates is (n + 1) / 2, which differs by question.
    expected = (ranks.candidates.double() + 1) / 2
    spread = float((expected - 1).mean())
    # Without competitors every rank is 1, and the index is undefined.
    amri = 1 - float((realistic - 1).mean()) / spread if spread else 0.0
    metrics: dict[str, Any] = {**rank_metrics(realistic), "amri": amri, "count": len(ranks)}
    for ties in TIES[1:]:
        metrics[ties] = rank_metrics(getattr(ranks, ties))
    metrics["tied"] = float((ranks.ties > 0).double().mean())
    return metrics


def paired(first: Ranks, second: Ranks) -> Float[Tensor, " n"]:
    """Differences of the reciprocal ranks of the same answers, first minus second.

    Raises:
        ValueError: the two rankings are of different questions or answers.
    """
    for name in ("head", "relation", "answer"):
        if not torch.equal(getattr(first, name), getattr(second, name)):
            raise ValueError("the two rankings are not of the same questions and answers")
    return 1 / first.realistic - 1 / second.realistic
