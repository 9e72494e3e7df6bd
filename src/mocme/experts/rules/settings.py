"""Settings of rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mocme.data.modality import Form
from mocme.experts.base import ExpertSettings


@dataclass(frozen=True, kw_only=True)
class RuleSettings(ExpertSettings):
    """Rules: paths of one or two steps over links and pairs of entities that foretell a fact.

    Args:
        support: least number of training facts that a rule connects.
        confidence: least share of the pairs that a rule connects (and 5 more) that are facts.
        most: rules of a relation, the best ones.
        ridge: penalty of squared weights in the regression.
        degree: neighbours of an entity that are visited while support is counted.
        paths: rules with more paths are dropped if so many pairs could not reach `confidence`.
        seed: of the sampling of neighbours and pairs.
    """

    usable: ClassVar[tuple[Form, ...]] = ("pairs",)
    sparse: ClassVar[bool] = True

    support: int = 3
    confidence: float = 0.003
    most: int = 300
    ridge: float = 1.0
    degree: int = 400
    paths: float = 3e7
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("support", "most", "degree", "paths"):
            # Negated, so that NaN is refused too.
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.confidence <= 1:
            raise ValueError(f"confidence must be within (0, 1], not {self.confidence}")
        if not 0 < self.ridge < float("inf"):
            raise ValueError(f"ridge must be finite and above 0, not {self.ridge}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, not {self.seed}")
