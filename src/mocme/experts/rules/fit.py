"""How rules are fitted: the kind ``rules`` of experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from mocme.experts.base import FitTask, Packed
from mocme.experts.rules.adjacency import adjacency_of
from mocme.experts.rules.expert import RuleExpert
from mocme.experts.rules.rule_model import RuleModel
from mocme.experts.rules.settings import RuleSettings


@final
@dataclass(frozen=True, kw_only=True)
class Rules(RuleSettings):
    """Fits rules by these settings."""

    def fit(self, task: FitTask) -> tuple[RuleExpert, dict[str, Any]]:
        adjacency = adjacency_of(task.graph, task.features)
        model = RuleModel.fit(adjacency, self, task.monitor.stage(task.name))
        reads = ("structure", *task.features.pairs)
        return RuleExpert(task.name, reads, model), {"rules": len(model.bodies)}

    def unpacked(self, packed: Packed, task: FitTask) -> RuleExpert:
        adjacency = adjacency_of(task.graph, task.features)
        reads = ("structure", *task.features.pairs)
        return RuleExpert(task.name, reads, RuleModel.unpacked(*packed, adjacency))
