"""The training loop of an embedding: interruptible, resumable to the bit.

All randomness is derived from (seed, epoch, step), so a resumed training needs only the parameters,
the state of the optimiser and the step at which it stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mocme.core.rng import seeded_generator
from mocme.data.features.tokens import TrainingFacts
from mocme.experts.embedding.gradient_buffer import GradientBuffer
from mocme.experts.embedding.link_prediction import LinkPrediction
from mocme.experts.embedding.model import EmbeddingModel
from mocme.experts.embedding.settings import TrainingSettings
from mocme.experts.embedding.training_state import Progress, check_training_state


class Diverged(ValueError):
    """The loss is NaN or infinite."""


Validate = Callable[[EmbeddingModel], Mapping[str, float]]


class Trainer:
    """Trains one model on its training facts.

    Args:
        settings: of the training.
        model: on the device to train on; its seed seeds the training.
        facts: of the training split.
        validate: returns metrics of a model, with ``mrr`` among them.
        low_precision: whether score products are computed in bfloat16.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        model: EmbeddingModel,
        facts: TrainingFacts,
        validate: Validate | None,
        low_precision: bool,
    ) -> None:
        self.settings, self.model, self.validate = settings, model, validate
        self.low_precision = low_precision
        self.device = model.device
        self.objective = LinkPrediction(settings.objective, model, facts, self.device)
        self.optimizer = settings.optimizer.build(
            model.table_parameters(), model.dense_parameters()
        )
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.steps_per_epoch = math.ceil(len(self.objective.index) / settings.batch_size)
        self.total_steps = self.steps_per_epoch * settings.epochs
        self.progress = Progress()
        self.best_parameters: dict[str, Tensor] | None = None
        self._buffer: Tensor | None = None

    # -- state -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything that resuming needs, as a tree of tensors and numbers."""
        return {
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "progress": {**vars(self.progress), "sums": dict(self.progress.sums)},
            "best": self.best_parameters,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`.

        Raises:
            ValueError: a part is missing, unknown, or not of this model; nothing is changed then.
        """
        check_training_state(state, self.model, self.optimizer)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        self.best_parameters = state["best"]
        self.model.thaw()

    # -- training --------------------------------------------------------------------------------

    def run(self, on_step: Callable[[Progress], None] | None = None) -> Iterator[dict[str, Any]]:
        """Train; yields a record after every epoch.

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
            len(self.objective.index), generator=seeded_generator(self.model.seed, progress.epoch)
        )
        while progress.step_in_epoch < self.steps_per_epoch:
            started = time.perf_counter()
            first = progress.step_in_epoch * settings.batch_size
            terms = self._step(order[first : first + settings.batch_size])
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
        generator = seeded_generator(self.model.seed, progress.epoch, progress.step)
        batch = self.objective.batch(chosen, generator)
        only = batch.entities(self.model.num_entities)
        table = self.model.table(progress.step, only=None if only is None else only.to(self.device))
        rows = GradientBuffer(table.vectors, self._spare(table.vectors), self.low_precision)
        terms = self.objective.backward(batch, rows, table.redundancy, generator)
        if not math.isfinite(sum(terms.values())):
            raise Diverged(
                f"the loss is NaN or infinite at step {progress.step + 1} of epoch "
                f"{progress.epoch + 1}: lower training.optimizer.embedding_lr or .dense_lr, or set "
                f".clip"
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
        progress.done = progress.epoch >= settings.epochs
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
