"""From scores to probabilities: how likely it is that a candidate is a known fact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

FORMAT = "mocme calibration 1"
# Answers in the valid split below which probabilities say little.
FEW = 30
# Log shares below this count as this.
LOWEST = -30.0


def log_shares(
    scores: Float[Tensor, "B N"], competing: Float[Tensor, "B N"] | None = None
) -> Float[Tensor, "B N"]:
    """Log of each candidate's share in the softmax of its question, at least `LOWEST`.

    Scores of different questions have no common zero; shares can be compared.

    Args:
        scores: -inf for what is no candidate.
        competing: the same scores with -inf for what does not count in the sum either.
    """
    total = torch.logsumexp(scores if competing is None else competing, 1, keepdim=True)
    return of_total(scores, total)


def of_total(scores: Float[Tensor, "*N"], total: Float[Tensor, "..."]) -> Float[Tensor, "*N"]:
    """`log_shares`, where the log of the sum over what competes is at hand."""
    return (scores - total.masked_fill(total.isneginf(), 0.0)).clamp_(LOWEST, 0.0)


@dataclass(frozen=True, eq=False)
class Curve:
    """A rising function of a log share: straight between points, constant beyond them."""

    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]

    def __call__(self, shares: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return np.asarray(np.interp(shares, self.x, self.y))


@final
@dataclass(frozen=True, eq=False)
class Calibration:
    """Probabilities of a trained model's answers, as `mocme.calibration.fit` fits them.

    A probability is how often a candidate with this share in its question is a known fact. What is
    not known counts as false, though some of it is true, so it is a lower bound; and it holds for
    questions that have an answer, for such were asked.

    Attributes:
        pooled: of relations that have no curve of their own.
        own: by directed relation.
        record: how it was fitted, and how far predicted from observed frequencies are.
    """

    pooled: Curve
    own: Mapping[int, Curve]
    record: Mapping[str, Any] = field(default_factory=dict)

    def curve(self, relation: int) -> Curve:
        """That of a directed relation."""
        return self.own.get(relation, self.pooled)

    def probability(self, shares: Float[Tensor, "*N"], relation: int) -> Float[Tensor, "*N"]:
        """Probabilities, from log shares of candidates of one directed relation."""
        found = self.curve(relation)(shares.double().cpu().numpy())
        return torch.from_numpy(np.ascontiguousarray(found))

    @property
    def weak(self) -> str:
        """What a reader should know where it was fitted on too little; empty elsewhere."""
        answers = int(self.record.get("answers", FEW))
        if answers >= FEW:
            return ""
        return (
            f"probabilities were fitted on {answers} answers of the valid split only, and say "
            f"little; with {FEW} or more ({FEW // 2} facts) they begin to mean something"
        )

    def packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and metadata, as a safetensors file holds them."""
        curves = [self.pooled, *(self.own[relation] for relation in sorted(self.own))]
        tensors = {
            "relation": torch.tensor([-1, *sorted(self.own)]),
            "points": torch.tensor([len(curve.x) for curve in curves]),
            "x": torch.from_numpy(np.concatenate([curve.x for curve in curves])),
            "y": torch.from_numpy(np.concatenate([curve.y for curve in curves])),
        }
        return tensors, {"format": FORMAT, "record": json.dumps(self.record)}

    @staticmethod
    def unpacked(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Calibration:
        """What `packed` gave.

        Raises:
            ValueError: it is no calibration of this format.
        """
        if metadata.get("format") != FORMAT:
            raise ValueError(f"a calibration of format {metadata.get('format')!r}, not {FORMAT!r}")
        ends = np.cumsum(tensors["points"].numpy())[:-1]
        x, y = (np.split(tensors[name].numpy(), ends) for name in ("x", "y"))
        curves = [Curve(*points) for points in zip(x, y, strict=True)]
        relations = tensors["relation"].tolist()
        own = dict(zip(relations[1:], curves[1:], strict=True))
        return Calibration(curves[0], own, json.loads(metadata["record"]))
