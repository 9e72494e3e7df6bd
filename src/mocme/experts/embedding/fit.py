"""How an embedding is fitted: the kind ``embedding`` of experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from mocme.core.allocation import AllocationLimit, TooManyNumbers
from mocme.data.features.tokens import TrainingFacts
from mocme.evaluation import metrics
from mocme.evaluation.ranking import batch_size_for, rank_split
from mocme.experts.base import FitTask, Packed
from mocme.experts.embedding.expert import EmbeddingExpert
from mocme.experts.embedding.model import EmbeddingModel
from mocme.experts.embedding.settings import EmbeddingSettings
from mocme.experts.embedding.trainer import Trainer
from mocme.storage.tensor_schema import check_like

# Numbers of a tensor that any model may have while it is built.
LEAST_LIMIT = 10_000_000


@final
@dataclass(frozen=True, kw_only=True)
class Embedding(EmbeddingSettings):
    """Fits an embedding by these settings."""

    def trainer(self, task: FitTask) -> Trainer:
        """A trainer with a new model, which sees the train and valid splits only.

        Raises:
            ValueError: the settings do not fit the graph or its modalities.
        """
        facts = self._facts(task)
        model = self._model(task, facts)
        validate = None
        if len(task.graph.facts("valid")):

            def validate(trained: EmbeddingModel) -> Mapping[str, float]:
                ranks = rank_split(trained, task.graph, "valid", task.memory)
                return metrics.rank_metrics(ranks.realistic)

        elif self.training.patience:
            raise ValueError("training.patience needs a valid split, and the graph has none")
        low_precision = self.training.precision == "bfloat16"
        return Trainer(self.training, model.to(task.device), facts, validate, low_precision)

    def fit(self, task: FitTask) -> tuple[EmbeddingExpert, dict[str, Any]]:
        """Train, from the newest checkpoint if there is one."""
        trainer = self.trainer(task)
        task.monitor.resume(trainer)
        _rank_one_batch(trainer.model, task)
        task.monitor.start(trainer)
        for record in trainer.run(lambda _: task.monitor.step(trainer)):
            task.monitor.record(record, trainer)
        trainer.model.eval()
        trainer.model.thaw()
        record = {
            "seconds": round(trainer.progress.seconds, 3),
            "best_epoch": trainer.progress.best_epoch or trainer.progress.epoch,
        }
        return self._expert(trainer.model, task), record

    def unpacked(self, packed: Packed, task: FitTask) -> EmbeddingExpert:
        tensors, _ = packed
        facts = self._facts(task)
        # A model whose shapes fit has no tensor larger than all of the file.
        limit = max(4 * sum(tensor.numel() for tensor in tensors.values()), LEAST_LIMIT)
        try:
            with AllocationLimit(limit):
                model = self._model(task, facts)
        except (TooManyNumbers, RuntimeError, OverflowError) as error:
            raise ValueError("the settings of config.toml ask for sizes out of range") from error
        _check(task.name, tensors, model.state_dict())
        model.load_state_dict(tensors)
        return self._expert(model.to(task.device).eval(), task)

    def _facts(self, task: FitTask) -> TrainingFacts:
        return TrainingFacts.of(
            task.graph, task.features.tokens, self.training.objective.candidates
        )

    def _model(self, task: FitTask, facts: TrainingFacts) -> EmbeddingModel:
        seed = task.seed if self.seed is None else self.seed
        return EmbeddingModel(self, facts, task.features.dense, seed)

    def _expert(self, model: EmbeddingModel, task: FitTask) -> EmbeddingExpert:
        reads = (*model.modalities, *task.features.tokens)
        return EmbeddingExpert(task.name, reads, model, self.training.objective)


def _check(name: str, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    try:
        check_like(tensors, wanted)
    except ValueError as error:
        raise ValueError(f"{name}: the tensors do not fit this graph: {error}") from error


def _rank_one_batch(model: EmbeddingModel, task: FitTask) -> None:
    """Rank one batch before the first epoch, so that memory runs out now or never."""
    split = next((s for s in ("valid", "train") if len(task.graph.facts(s))), None)
    if split is None:
        return
    model.eval()
    batch = batch_size_for(task.graph.num_entities, task.memory)
    rank_split(model, task.graph, split, task.memory, only=batch)
    model.thaw()
