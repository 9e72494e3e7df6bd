"""Optimisers by name with a rate per group, and schedules as plain functions of the step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mocme.core.registry import Configurable


class Optimizer(Configurable):
    """Any torch optimiser.

    Args:
        name: a class of torch.optim, for instance Adagrad or AdamW.
        embedding_lr: learning rate of rows (entities, tokens, relations).
        dense_lr: learning rate of what all entities share (maps, gates, core).
        settings: further arguments of that class.
        clip: largest norm of a step's gradient; 0 for no limit.
    """

    def __init__(
        self,
        *,
        name: str = "Adagrad",
        embedding_lr: float = 0.1,
        dense_lr: float = 0.01,
        settings: Mapping[str, Any] = {},
        clip: float = 0.0,
    ) -> None:
        found = getattr(torch.optim, name, None)
        if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
            raise ValueError(f"name: torch.optim has no optimiser {name!r}")
        known = inspect.signature(found.__init__).parameters
        if unknown := sorted(set(settings) - set(known)):
            raise ValueError(f"settings.{unknown[0]}: {name} does not take it")
        if embedding_lr <= 0 or dense_lr <= 0 or clip < 0:
            raise ValueError("rates must be above 0 and clip at least 0")
        self.kind, self.settings = found, dict(settings)
        self.embedding_lr, self.dense_lr = embedding_lr, dense_lr
        self.clip = clip
        # One pass over memory instead of five; same arithmetic, where torch offers it.
        self.fused = "fused" in known and not {"fused", "foreach"} & set(settings)

    def build(
        self, tables: Sequence[nn.Parameter], dense: Sequence[nn.Parameter]
    ) -> torch.optim.Optimizer:
        """The optimiser of a model's parameters, in two groups.

        Args:
            tables: rows of entities, tokens and relations.
            dense: parameters that all entities share.
        """
        groups = [{"params": list(tables), "lr": self.embedding_lr}]
        if dense:
            groups.append({"params": list(dense), "lr": self.dense_lr})
        extra: dict[str, Any] = dict(self.settings)
        if self.fused:
            extra["fused"] = True
        return self.kind(groups, **extra)


class Schedule(Configurable):
    """A factor on every rate, as a function of the step alone (so that resuming needs no state).

    Args:
        shape: ``constant``, ``linear`` or ``cosine`` (both fall to `end` at the last step).
        warmup: share of all steps in which the factor rises from 0.
    """

    def __init__(self, *, shape: str = "constant", warmup: float = 0.0, end: float = 0.0) -> None:
        if shape not in ("constant", "linear", "cosine"):
            raise ValueError(f"shape must be constant, linear or cosine, not {shape!r}")
        if not 0 <= warmup < 1 or not 0 <= end <= 1:
            raise ValueError("warmup lies in [0, 1) and end in [0, 1]")
        self.shape, self.warmup, self.end = shape, warmup, end

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
