"""The state of a training, checked when it comes from a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from mocme.storage.tensor_schema import check_finite, check_like


@dataclass
class Progress:
    """Progress of a training: all that a checkpoint needs besides parameters."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    best: float = -math.inf
    best_epoch: int = 0
    bad: int = 0
    done: bool = False


def check_training_state(
    state: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Check a state of `Trainer` before it is restored.

    Raises:
        ValueError: a part is missing, unknown, or not of this model and optimiser.
    """
    if set(state) != {"model", "optimizer", "progress", "best"}:
        raise ValueError("does not hold model, optimizer, progress and best")
    wanted = model.state_dict()
    for name in ("model", "best"):
        if name == "best" and state[name] is None:
            continue
        if not isinstance(state[name], Mapping):
            raise ValueError(f"{name} does not hold tensors")
        check_like(_tensors(name, state[name]), wanted)
    _check_progress(state["progress"])
    _check_optimizer(state["optimizer"], optimizer)


def _check_progress(progress: Any) -> None:
    if not isinstance(progress, Mapping) or set(progress) != {f.name for f in fields(Progress)}:
        raise ValueError("progress does not hold what a training counts")
    for name in ("epoch", "step_in_epoch", "step", "best_epoch", "bad"):
        if type(progress[name]) is not int or progress[name] < 0:
            raise ValueError(f"progress: {name} must be a count, not {progress[name]!r}")
    for name in ("seconds", "best"):
        # `best` is -inf before the first validation.
        if type(progress[name]) not in (int, float) or math.isnan(progress[name]):
            raise ValueError(f"progress: {name} must be a number, not {progress[name]!r}")
    if type(progress["done"]) is not bool:
        raise ValueError(f"progress: done must be true or false, not {progress['done']!r}")
    sums = progress["sums"]
    if not isinstance(sums, Mapping) or not all(
        isinstance(key, str) and type(value) in (int, float) and math.isfinite(value)
        for key, value in sums.items()
    ):
        raise ValueError("progress: sums does not hold numbers by name")


def _check_optimizer(state: Any, optimizer: torch.optim.Optimizer) -> None:
    """Check the state of an optimiser: its settings are those of the run, its tensors fit."""
    if not isinstance(state, Mapping) or set(state) != {"state", "param_groups"}:
        raise ValueError("optimizer does not hold state and param_groups")
    wanted, groups = optimizer.state_dict()["param_groups"], state["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(wanted):
        raise ValueError("optimizer: param_groups are not those of the run")
    for group, like in zip(groups, wanted, strict=True):
        # The learning rate is set anew before every step.
        if not isinstance(group, Mapping) or {**group, "lr": 0} != {**like, "lr": 0}:
            raise ValueError("optimizer: param_groups are not those of the run")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if not isinstance(state["state"], Mapping):
        raise ValueError("optimizer: state does not hold tensors by parameter")
    for index, values in state["state"].items():
        if type(index) is not int or not 0 <= index < len(parameters):
            raise ValueError(f"optimizer: there is no parameter {index!r}")
        if not isinstance(values, Mapping):
            raise ValueError(f"optimizer: parameter {index} has no tensors")
        # Some optimisers count in plain numbers, or have a buffer that is not filled yet.
        filled = {k: v for k, v in values.items() if v is not None and type(v) not in (int, float)}
        for name, value in _tensors("optimizer", filled).items():
            if value.numel() != 1 and value.shape != parameters[index].shape:
                raise ValueError(
                    f"optimizer: {name} of parameter {index} has the shape {list(value.shape)}"
                )
            check_finite(f"optimizer: {name}", value)


def _tensors(what: str, values: Mapping[Any, Any]) -> dict[str, Tensor]:
    for name, value in values.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{what}: {name!r} is no tensor")
    return dict(values)
