"""Numbers that sum up ranks."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mocme.evaluation.ranking import Ranks

HITS = (1, 3, 10)
TIES = ("realistic", "optimistic", "pessimistic")


def of_ranks(ranks: Float[Tensor, " n"]) -> dict[str, float]:
    """MRR, mean rank and Hits@k of ranks; Hits@k counts a rank of at most k."""
    if not len(ranks):
        return {}
    result = {"mrr": float((1 / ranks).mean()), "mr": float(ranks.mean())}
    return result | {f"hits@{k}": float((ranks <= k).double().mean()) for k in HITS}


def summary(ranks: Ranks) -> dict[str, Any]:
    """Metrics with realistic ties at the top level, and with the other two conventions beside.

    `amri` is the adjusted mean rank index (Berrendorf et al., 2020): 1 for perfect, 0 for a model
    that knows nothing, below 0 for worse.
    """
    if not len(ranks):
        return {"count": 0}
    realistic = ranks.realistic
    expected = (ranks.candidates.double() + 1) / 2
    spread = float((expected - 1).mean())
    amri = 1 - float((realistic - 1).mean()) / spread if spread else 0.0
    result: dict[str, Any] = {**of_ranks(realistic), "amri": amri, "count": len(ranks)}
    for ties in TIES[1:]:
        result[ties] = of_ranks(getattr(ranks, ties))
    result["tied"] = float((ranks.ties > 0).double().mean())
    return result


def paired(first: Ranks, second: Ranks) -> Float[Tensor, " n"]:
    """Differences of reciprocal ranks of the same pairs, first less second.

    Raises:
        ValueError: the two rank different pairs.
    """
    for name in ("head", "relation", "answer"):
        if not torch.equal(getattr(first, name), getattr(second, name)):
            raise ValueError("the two rankings are not of the same questions and answers")
    return 1 / first.realistic - 1 / second.realistic
