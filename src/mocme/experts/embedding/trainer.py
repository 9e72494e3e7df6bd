"""The training loop: plain, interruptible, resumable to the bit.

All randomness comes from (seed, epoch, step), so a resumed training needs only the parameters, the
optimiser's state and the place where it stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from mocme.core.registry import Configurable
from mocme.core.rng import seeded
from mocme.data.features.tokens import TrainingFacts
from mocme.experts.embedding.gradient_buffer import GradientBuffer
from mocme.experts.embedding.model import Model
from mocme.experts.embedding.objective import LinkPrediction, Objective
from mocme.experts.embedding.optimizers import Optimizer, Schedule


class TrainingSettings(Configurable):
    """Settings of a training.

    Args:
        passes: over all distinct questions.
        batch: distinct questions a step.
        evaluate_every: passes between validations; 0 validates only where early stopping asks.
        patience: validations without a better MRR after which the training stops and the best
            parameters are taken; 0 trains all passes and keeps the last ones.
        precision: of the products of scores in training; ``auto`` measures which is faster on this
            machine, once, and the run records the answer. Ranking is always in float32.
        checkpoint_seconds: least time between checkpoints, which are written at the end of a pass.
    """

    def __init__(
        self,
        *,
        passes: int = 20,
        batch: int = 1024,
        seed: int = 0,
        objective: Objective = Objective(),
        optimizer: Optimizer = Optimizer(),
        schedule: Schedule = Schedule(),
        evaluate_every: int = 0,
        patience: int = 0,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        checkpoint_seconds: float = 60.0,
    ) -> None:
        if min(passes, batch) < 1 or min(evaluate_every, patience, checkpoint_seconds) < 0:
            raise ValueError(
                "passes and batch are at least 1; evaluate_every, patience and checkpoint_seconds "
                "at least 0"
            )
        if patience and not evaluate_every:
            raise ValueError("patience needs evaluate_every, the passes between validations")
        self.passes, self.batch, self.seed = passes, batch, seed
        self.objective, self.optimizer, self.schedule = objective, optimizer, schedule
        self.evaluate_every, self.patience = evaluate_every, patience
        self.precision, self.checkpoint_seconds = precision, checkpoint_seconds


@dataclass
class Progress:
    """Where a training stands; all that a checkpoint needs besides parameters."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    best: float = -math.inf
    best_epoch: int = 0
    bad: int = 0
    done: bool = False


class Diverged(ValueError):
    """The loss is no number any more."""


Validate = Callable[[Model], Mapping[str, float]]


class Trainer:
    """One model on its training facts.

    The trainer holds no test facts: whoever makes it gives it a training view of the graph.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        model: Model,
        facts: TrainingFacts,
        validate: Validate | None,
        low: bool,
    ) -> None:
        self.settings, self.model, self.validate, self.low = settings, model, validate, low
        self.device = model.device
        self.objective = LinkPrediction(settings.objective, model, facts, self.device)
        self.optimizer = settings.optimizer.make(model)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.steps_per_epoch = math.ceil(len(self.objective.index) / settings.batch)
        self.total_steps = self.steps_per_epoch * settings.passes
        self.progress = Progress()
        self.best_parameters: dict[str, Tensor] | None = None
        self._buffer: Tensor | None = None

    # -- state -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that resuming needs, as a tree of tensors and numbers."""
        return {
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "progress": {**vars(self.progress), "sums": dict(self.progress.sums)},
            "best": self.best_parameters,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        self.best_parameters = state["best"]
        self.model.thaw()

    # -- training --------------------------------------------------------------------------------

    def run(self, on_step: Callable[[Progress], None] | None = None) -> Iterator[dict[str, Any]]:
        """Train; yields a record after every pass.

        Raises:
            Diverged: the loss became NaN or infinite, with what to change.
        """
        while not self.progress.done:
            record = self._epoch(on_step)
            self._after_epoch(record)
            yield record
        if self.best_parameters is not None:
            self.model.load_state_dict(self.best_parameters)
            self.model.thaw()

    def _epoch(self, on_step: Callable[[Progress], None] | None) -> dict[str, Any]:
        progress, settings = self.progress, self.settings
        self.model.train()
        order = torch.randperm(
            len(self.objective.index), generator=seeded(settings.seed, progress.epoch)
        )
        while progress.step_in_epoch < self.steps_per_epoch:
            started = time.perf_counter()
            first = progress.step_in_epoch * settings.batch
            terms = self._step(order[first : first + settings.batch])
            for name, value in terms.items():
                share = 1.0 if name == "facts" else terms["facts"]
                progress.sums[name] = progress.sums.get(name, 0.0) + value * share
            progress.step_in_epoch += 1
            progress.step += 1
            progress.seconds += time.perf_counter() - started
            if on_step is not None:
                on_step(progress)
        facts = progress.sums.get("facts", 1.0) or 1.0
        means = {k: v / facts for k, v in progress.sums.items() if k != "facts"}
        return {"epoch": progress.epoch + 1, "step": progress.step, **means}

    def _step(self, chosen: Tensor) -> Mapping[str, float]:
        progress, settings = self.progress, self.settings
        factor = settings.schedule.factor(progress.step, self.total_steps)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.model.thaw()
        self.optimizer.zero_grad(set_to_none=True)
        generator = seeded(settings.seed, progress.epoch, progress.step)
        batch = self.objective.batch(chosen, generator)
        only = batch.entities(self.model.num_entities)
        table = self.model.table(progress.step, only=None if only is None else only.to(self.device))
        rows = GradientBuffer(table.vectors, self._spare(table.vectors), self.low)
        terms = self.objective.backward(batch, rows, table.redundancy, generator)
        if not math.isfinite(sum(terms.values())):
            raise Diverged(
                f"the loss is no number any more at step {progress.step + 1} of pass "
                f"{progress.epoch + 1}: lower training.optimizer.tables or .dense, or set .clip"
            )
        if settings.optimizer.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.optimizer.clip)
        self.optimizer.step()
        return terms

    def _spare(self, vectors: Tensor) -> Tensor:
        if self._buffer is None or self._buffer.shape != vectors.shape:
            self._buffer = torch.empty_like(vectors, memory_format=torch.contiguous_format).detach()
        return self._buffer

    def _after_epoch(self, record: dict[str, Any]) -> None:
        progress, settings = self.progress, self.settings
        progress.epoch += 1
        progress.step_in_epoch = 0
        progress.sums = {}
        record["seconds"] = round(progress.seconds, 3)
        progress.done = progress.epoch >= settings.passes
        every = settings.evaluate_every
        if every and self.validate and (progress.epoch % every == 0 or progress.done):
            self.model.eval()
            self.model.thaw()
            metrics = self.validate(self.model)
            record["valid"] = dict(metrics)
            self._keep_best(metrics["mrr"])

    def _keep_best(self, mrr: float) -> None:
        progress, patience = self.progress, self.settings.patience
        if not patience:
            return
        if mrr > progress.best:
            progress.best, progress.best_epoch, progress.bad = mrr, progress.epoch, 0
            state = self.model.state_dict()
            self.best_parameters = {k: v.detach().clone() for k, v in state.items()}
        else:
            progress.bad += 1
            progress.done = progress.done or progress.bad >= patience


TrainingSettings.kinds = ()
