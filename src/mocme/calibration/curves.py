"""From scores to probabilities: how likely a candidate is a known fact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mocme.core.text_formats import parse_json
from mocme.storage.tensor_schema import Field, check_tensors

FORMAT = "mocme calibration 1"
# Answers of the valid split below which probabilities are unreliable.
FEW = 30
# Lower bound of a log share. e^-30 is far below any share that is worth a bin of its own.
LOWEST = -30.0
# Curves, and the points of all curves one after the other.
_FIELDS = {
    "relation": Field(torch.int64, ("curves",), low=-1, order="distinct"),
    "points": Field(torch.int64, ("curves",), low=1),
    "x": Field(torch.float64, ("points",), low=LOWEST, high=0.0),
    "y": Field(torch.float64, ("points",), low=0.0, high=1.0),
}
_RECORD = {
    **{"split": str, "questions": int, "candidates": int, "answers": int},
    **{"relations": dict, "means": str, "before": dict, "after": dict},
}


def log_shares(
    scores: Float[Tensor, "B N"], competing: Float[Tensor, "B N"] | None = None
) -> Float[Tensor, "B N"]:
    """Log of each candidate's share in the softmax of its question, at least `LOWEST`.

    Scores of different questions have no common zero, so they cannot be compared; shares can.

    Args:
        scores: -inf for what is no candidate.
        competing: the same scores, with -inf also for what is left out of the sum.
    """
    total = torch.logsumexp(scores if competing is None else competing, 1, keepdim=True)
    return log_shares_from_total(scores, total)


def log_shares_from_total(
    scores: Float[Tensor, "*N"], total: Float[Tensor, "..."]
) -> Float[Tensor, "*N"]:
    """`log_shares`, given the log of the sum over what competes."""
    # Where nothing competes the total is -inf, and -inf - -inf would be NaN. A score above the
    # total (of a candidate that is left out of it) counts as a share of 1.
    return (scores - total.masked_fill(total.isneginf(), 0.0)).clamp_(LOWEST, 0.0)


@final
@dataclass(frozen=True, eq=False)
class Curve:
    """A nondecreasing function of a log share: linear between points, constant beyond them."""

    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]

    def __call__(self, shares: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return np.asarray(np.interp(shares, self.x, self.y))


@final
@dataclass(frozen=True, eq=False)
class Calibration:
    """Probabilities of a trained model's answers, as `mocme.calibration.fit` fits them.

    A probability is how often a candidate with this share in its question is a known fact. Unknown
    facts count as false although some are true, so it is a lower bound. It holds for questions that
    have an answer, because only such questions were asked.

    Attributes:
        pooled: the curve of relations that have none of their own.
        by_relation: curves by directed relation.
        record: how it was fitted, and how far predicted and observed frequencies differ.
    """

    pooled: Curve
    by_relation: Mapping[int, Curve]
    record: Mapping[str, Any] = field(default_factory=dict)

    def curve(self, relation: int) -> Curve:
        """The curve of a directed relation."""
        return self.by_relation.get(relation, self.pooled)

    def probability(self, shares: Float[Tensor, "*N"], relation: int) -> Float[Tensor, "*N"]:
        """Probabilities, from log shares of candidates of one directed relation."""
        values = self.curve(relation)(shares.double().cpu().numpy())
        return torch.from_numpy(np.ascontiguousarray(values))

    @property
    def weak(self) -> str:
        """A warning where it was fitted on too few answers; otherwise empty."""
        answers = int(self.record.get("answers", FEW))
        if answers >= FEW:
            return ""
        return (
            f"probabilities were fitted on {answers} answers of the valid split only and are "
            f"unreliable; they need {FEW} answers ({FEW // 2} facts) or more"
        )

    def packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and metadata for a safetensors file.

        The points of all curves are concatenated, the pooled curve first, as relation -1.
        """
        curves = [
            self.pooled,
            *(self.by_relation[relation] for relation in sorted(self.by_relation)),
        ]
        tensors = {
            "relation": torch.tensor([-1, *sorted(self.by_relation)]),
            "points": torch.tensor([len(curve.x) for curve in curves]),
            "x": torch.from_numpy(np.concatenate([curve.x for curve in curves])),
            "y": torch.from_numpy(np.concatenate([curve.y for curve in curves])),
        }
        return tensors, {"format": FORMAT, "record": json.dumps(self.record)}

    @staticmethod
    def unpacked(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Calibration:
        """Restore what `packed` returned.

        Raises:
            ValueError: the format is another one, or a tensor or the record is not what `packed`
                returns.
        """
        if metadata.get("format") != FORMAT:
            raise ValueError(
                f"a calibration of format {metadata.get('format')!r}; the supported format is "
                f"{FORMAT!r}"
            )
        check_tensors(tensors, _FIELDS)
        if not len(tensors["relation"]) or int(tensors["relation"][0]) != -1:
            raise ValueError("the first curve is not that of all relations")
        if int(tensors["points"].sum()) != len(tensors["x"]):
            raise ValueError("the curves do not have as many points as there are")
        ends = np.cumsum(tensors["points"].numpy())[:-1]
        x, y = (np.split(tensors[name].numpy(), ends) for name in ("x", "y"))
        for points in (*x, *y):
            if bool((np.diff(points) < 0).any()):
                raise ValueError("a curve falls, or its points do not ascend")
        curves = [Curve(*points) for points in zip(x, y, strict=True)]
        relations = tensors["relation"].tolist()
        by_relation = dict(zip(relations[1:], curves[1:], strict=True))
        return Calibration(curves[0], by_relation, _record(metadata.get("record", "null")))

    def check_relations(self, count: int) -> None:
        """Check that the curves are of directed relations of a graph.

        Args:
            count: of the directed relations.

        Raises:
            ValueError: one is not.
        """
        if self.by_relation and max(self.by_relation) >= count:
            raise ValueError(f"has a curve of relation {max(self.by_relation)}, of {count}")


def _record(text: str) -> dict[str, Any]:
    """The record of a calibration, from JSON.

    Raises:
        ValueError: a key is missing, or has another type.
    """
    record = parse_json(text)
    if not isinstance(record, dict) or set(record) != set(_RECORD):
        raise ValueError(f"its record does not hold {', '.join(_RECORD)}")
    for key, kind in _RECORD.items():
        # An integer, not a truth value.
        if type(record[key]) is not kind or (kind is int and record[key] < 0):
            raise ValueError(f"{key} in its record is {record[key]!r}")
    return record
