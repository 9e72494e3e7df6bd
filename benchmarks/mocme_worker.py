"""The mocme side of the comparison: a worker that answers commands, one JSON object per line.

See `compare_pykeen.py`, which starts it; the commands are the methods of `Side`.
"""

from __future__ import annotations

import platform
import time
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from mocme.core.device import environment, faster_precision
from mocme.core.rng import seeded_generator
from mocme.data.graph import SPLITS, AnswerIndex
from mocme.data.load import load
from mocme.data.modality import Features
from mocme.evaluation import metrics
from mocme.evaluation.ranking import batch_size_for, rank
from mocme.experts.base import FitTask
from mocme.experts.embedding.fit import Embedding
from mocme.experts.embedding.gradient_buffer import GradientBuffer
from mocme.experts.embedding.trainer import Trainer
from mocme.runs.config import Experiment
from worker_protocol import Clock, MeasurementDone, serve

CPU = torch.device("cpu")


class Side:
    """The commands."""

    def open(self, data: str, width: int, threads: int) -> dict[str, Any]:
        torch.set_num_threads(threads)
        self.width = width
        self.graph = load(data)
        self.known = self.graph.answers(*SPLITS)
        self.precision = faster_precision(CPU, width)
        self.trainer = self._trainer("same", 1024)
        return {
            "package": "mocme",
            "version": environment()["mocme"],
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "precision_auto": self.precision,
            "entities": self.graph.num_entities,
            "relations": self.graph.num_relations,
            "train_facts": len(self.graph.facts("train")),
            "questions": len(self.trainer.objective.index),
            "known_facts": len(self.graph.facts(*SPLITS)),
            "test_pairs": 2 * len(self.graph.facts("test")),
        }

    def _experiment(self, mode: str, batch: int | None) -> Experiment:
        if mode == "defaults":
            # As shipped, but with the width of the comparison.
            changes = {
                "experts.embedding.embedding_dim": self.width,
                "experts.embedding.training.precision": self.precision,
            }
            return Experiment.load("structure", changes)
        loss = {"weighting": {"kind": "UniformWeighting"}, "answers": "together"}
        embedding = {
            "kind": "embedding",
            "embedding_dim": self.width,
            "scorer": {"kind": "ComplEx"},
            "init_std": 0.01,
            "training": {
                "batch_size": batch,
                "precision": "float32",
                "optimizer": {"name": "Adagrad", "embedding_lr": 0.1},
                # All entities are candidates, no regulariser: as on the other side.
                "objective": {"n3": 0.0, "candidates": "all", "loss": loss},
            },
        }
        return Experiment.load({"data": {"only": []}, "experts": [embedding]})

    def _trainer(self, mode: str, batch: int | None) -> Trainer:
        # `Clock` ends the training long before that.
        epochs = {"experts.embedding.training.epochs": 1_000_000}
        settings = self._experiment(mode, batch).changed(epochs).components()
        embedding, memory = settings.experts["embedding"], settings.evaluation.memory
        assert isinstance(embedding, Embedding)
        view = self.graph.training_view()
        return embedding.trainer(FitTask("embedding", view, Features(), settings.seed, CPU, memory))

    def train(self, mode: str, items: int, warm: int, batch: int | None = None) -> dict[str, Any]:
        """Train for `items` questions after `warm` steps; 0 for those of an epoch."""
        self.trainer = trainer = self._trainer(mode, batch)
        questions, size = len(trainer.objective.index), trainer.settings.batch_size
        clock = Clock(warm, items or questions)

        def on_step(progress: Any) -> None:
            clock.tick(min(size, questions - (progress.step_in_epoch - 1) * size))

        with suppress(MeasurementDone):
            for _ in trainer.run(on_step):
                pass
        trainer.model.eval()
        return {
            **clock.result(questions),
            "batch": size,
            "precision": "bfloat16" if trainer.low_precision else "float32",
            "unit": "distinct questions, each against all entities",
        }

    def evaluate(self, facts: int, warm: bool = True) -> dict[str, Any]:
        """Rank the first `facts` facts of the test split in both directions; 0 for all."""
        model = self.trainer.model
        test = self.graph.facts("test")
        total = len(test)
        ranked = test[: facts or total]
        head, relation, tail = ranked.unbind(1)
        inverse = torch.stack([tail, relation + self.graph.num_relations, head], 1)
        questions = AnswerIndex(torch.cat([ranked, inverse]))
        batch = batch_size_for(self.graph.num_entities, self._memory())
        if warm:
            rank(model.score, AnswerIndex(ranked[:64]), self.known, batch=batch)
        model.thaw()
        started = time.perf_counter()
        ranks = rank(model.score, questions, self.known, batch=batch)
        summary = metrics.summary(ranks)
        seconds = time.perf_counter() - started
        return {
            "seconds": seconds,
            "seconds_per_pass": seconds * 2 * total / len(ranks),
            "items": len(ranks),
            "items_per_pass": 2 * total,
            "questions": len(questions),
            "batch": batch,
            "metrics": {k: summary[k] for k in ("mrr", "mr", "hits@1", "hits@3", "hits@10")},
        }

    def _memory(self) -> float:
        return self._experiment("same", 1).components().evaluation.memory

    def loss(self) -> dict[str, Any]:
        """The loss of all questions at the current parameters, without a step."""
        trainer = self.trainer
        table = trainer.model.table()
        questions = torch.arange(len(trainer.objective.index))
        generator = seeded_generator(0, 0)
        batch = trainer.objective.batch(questions, generator)
        terms = trainer.objective.backward(
            batch, GradientBuffer(table.vectors), table.redundancy, generator
        )
        return {"loss": terms["loss"], "facts": terms["facts"]}

    def save(self, path: str, ties: bool = False) -> dict[str, Any]:
        """Write the parameters; with `ties`, each pair of entities shares a vector."""
        model = self.trainer.model
        if ties:
            with torch.no_grad():
                count = model.num_entities // 2
                model.structure[1 : 2 * count : 2] = model.structure[0 : 2 * count : 2].clone()
        model.thaw()
        # As in ranking: entities without a training fact have the mean vector of the others.
        entity, relation = model.frozen().vectors.numpy(), model.relation.detach().numpy()
        np.savez(path, entity=entity, relation=relation)
        return {"entity": list(entity.shape), "relation": list(relation.shape)}


if __name__ == "__main__":
    serve(Side())
