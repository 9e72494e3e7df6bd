"""Optimisers by name with one learning rate per parameter group, and learning rate schedules."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import nn

from mocme.core.registry import Configurable


@final
@dataclass(frozen=True, kw_only=True)
class Optimizer(Configurable):
    """An optimiser of torch.optim.

    Args:
        name: its class, for instance Adagrad or AdamW.
        embedding_lr: learning rate of rows (entities, tokens, relations).
        dense_lr: learning rate of parameters that all entities share (projections, gates, core).
        settings: further arguments of the class.
        clip: largest norm of a step's gradient; 0 for no limit.
    """

    name: str = "Adagrad"
    embedding_lr: float = 0.1
    dense_lr: float = 0.01
    settings: Mapping[str, Any] = field(default_factory=dict)
    clip: float = 0.0

    def __post_init__(self) -> None:
        kind = getattr(torch.optim, self.name, None)
        if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
            raise ValueError(f"name: torch.optim has no optimiser {self.name!r}")
        if unknown := sorted(set(self.settings) - set(self._arguments)):
            raise ValueError(f"settings.{unknown[0]}: {self.name} does not take it")
        if self.embedding_lr <= 0 or self.dense_lr <= 0 or self.clip < 0:
            raise ValueError("rates must be above 0 and clip at least 0")

    # Properties, because `core.registry` compares what an instance stores with its defaults.
    @property
    def kind(self) -> type[torch.optim.Optimizer]:
        """The class that `name` names."""
        kind: type[torch.optim.Optimizer] = getattr(torch.optim, self.name)
        return kind

    @property
    def fused(self) -> bool:
        """Whether to use the fused step: one pass over memory instead of five, same arithmetic.

        It is used where the optimiser has one and `settings` do not choose an implementation.
        """
        return "fused" in self._arguments and not {"fused", "foreach"} & set(self.settings)

    @property
    def _arguments(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.kind.__init__).parameters

    def build(
        self, tables: Sequence[nn.Parameter], dense: Sequence[nn.Parameter]
    ) -> torch.optim.Optimizer:
        """Build the optimiser of a model's parameters, in two groups.

        Args:
            tables: rows of entities, tokens and relations.
            dense: parameters that all entities share.
        """
        groups = [{"params": list(tables), "lr": self.embedding_lr}]
        if dense:
            groups.append({"params": list(dense), "lr": self.dense_lr})
        arguments: dict[str, Any] = dict(self.settings)
        if self.fused:
            arguments["fused"] = True
        return self.kind(groups, **arguments)


@final
@dataclass(frozen=True, kw_only=True)
class Schedule(Configurable):
    """A factor on every learning rate, as a function of the step alone.

    Resuming a training therefore needs no state of the schedule.

    Args:
        shape: ``constant``, ``linear`` or ``cosine`` (both fall to `end` at the last step).
        warmup: share of all steps in which the factor rises from 0.
    """

    shape: str = "constant"
    warmup: float = 0.0
    end: float = 0.0

    def __post_init__(self) -> None:
        if self.shape not in ("constant", "linear", "cosine"):
            raise ValueError(f"shape must be constant, linear or cosine, not {self.shape!r}")
        if not 0 <= self.warmup < 1 or not 0 <= self.end <= 1:
            raise ValueError("warmup must be within [0, 1) and end within [0, 1]")

    def factor(self, step: int, steps: int) -> float:
        """The factor at a step, of `steps` in all."""
        warm = self.warmup * steps
        if step < warm:
            return (step + 1) / (warm + 1)
        if self.shape == "constant":
            return 1.0
        done = (step - warm) / max(1.0, steps - warm)
        left = 1 - done if self.shape == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.end + (1 - self.end) * left


Optimizer.kinds = ()
Schedule.kinds = ()
