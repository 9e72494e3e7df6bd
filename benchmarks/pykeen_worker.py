"""The PyKEEN side of the comparison: a worker that answers commands, one JSON object per line.

See `compare_pykeen.py`, which starts it; the commands are the methods of `Side`. PyKEEN itself
is unchanged: `TrainingLoop.train` and `Evaluator.evaluate` are timed, with a callback that reads
the clock after every batch. The time in which `evaluate` merges its filter triples is subtracted,
because building an index is not timed on the other side either.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
import platform
import time
import warnings
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pykeen.evaluation.evaluator as evaluator_module
import torch
from pykeen.evaluation import RankBasedEvaluator
from pykeen.losses import CrossEntropyLoss
from pykeen.models import ComplEx
from pykeen.training import LCWATrainingLoop, SLCWATrainingLoop
from pykeen.training.callbacks import TrainingCallback
from pykeen.triples import CoreTriplesFactory
from pykeen.triples.instances import LCWAInstances
from torch import Tensor

from worker_protocol import Clock, MeasurementDone, serve

# Warnings of torch (such as no GPU to pin memory for) would fill the log.
warnings.filterwarnings("ignore")
SPLITS = ("train", "valid", "test")


class ClockCallback(TrainingCallback):
    """Ticks a clock at the end of every batch."""

    def __init__(self, clock: Clock, key: str) -> None:
        super().__init__()
        self.clock, self.key = clock, key

    def post_batch(self, epoch: int, batch: Any, **kwargs: Any) -> None:
        self.clock.tick(batch[self.key].shape[0])


class Side:
    """The commands."""

    def open(self, data: str, width: int, threads: int) -> dict[str, Any]:
        torch.set_num_threads(threads)
        self.width = width
        folder = Path(data)
        self.entities = _names(folder / "entities.txt")
        self.relations = _names(folder / "relations.txt")
        self.facts = {split: self._read(folder / f"{split}.tsv") for split in SPLITS}
        # Reciprocal relations as on the other side, which cannot do without.
        self.both = self._factory(create_inverse_triples=True)
        self.single = self._factory(create_inverse_triples=False)
        self.questions = len(LCWAInstances.from_triples_factory(self.both))
        self.model: ComplEx | None = None
        return {
            "package": "pykeen",
            "version": version("pykeen"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "opt_einsum": importlib.util.find_spec("opt_einsum") is not None,
            "entities": len(self.entities),
            "relations": len(self.relations),
            "train_facts": len(self.facts["train"]),
            "questions": self.questions,
            "known_facts": len(torch.unique(torch.cat(list(self.facts.values())), dim=0)),
            "test_pairs": 2 * len(self.facts["test"]),
        }

    def _read(self, path: Path) -> Tensor:
        rows = []
        with path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                head, relation, tail = line.rstrip("\r\n").split("\t")
                rows.append((self.entities[head], self.relations[relation], self.entities[tail]))
        # Distinct facts in ascending order, as on the other side.
        return torch.unique(torch.tensor(rows, dtype=torch.int64), dim=0)

    def _factory(self, **settings: Any) -> CoreTriplesFactory:
        return CoreTriplesFactory(
            self.facts["train"], len(self.entities), len(self.relations), **settings
        )

    def _same_model(self) -> ComplEx:
        initial = functools.partial(torch.nn.init.normal_, std=0.01)
        return ComplEx(
            triples_factory=self.both,
            embedding_dim=self.width // 2,
            loss=CrossEntropyLoss(),
            entity_initializer=initial,
            relation_initializer=initial,
            regularizer=None,
        )

    def train(self, **settings: Any) -> dict[str, Any]:
        """Like `_train`, but without worker processes for batches where these fail."""
        try:
            return self._train(**settings)
        except RuntimeError:
            if not settings.get("workers"):
                raise
            # Workers pass batches through shared memory, which containers often limit.
            return self._train(**{**settings, "workers": 0})

    def _train(
        self,
        mode: str,
        items: int,
        warm: int,
        batch: int | None = None,
        fused: bool = False,
        workers: int = 0,
    ) -> dict[str, Any]:
        """Train for `items` instances (0 for those of an epoch) and time it.

        Args:
            mode: ``same`` work as the other side, or PyKEEN's own ``defaults``.
            items: number of instances to time, after the first `warm` batches.
            warm: number of batches before the clock starts.
            batch: instances per batch; None for PyKEEN's default.
            fused: use torch's fused Adagrad.
            workers: number of processes that prepare batches.
        """
        self.model = None
        gc.collect()
        loop_options: dict[str, Any] = {}
        if mode == "defaults":
            # The defaults of `pykeen.pipeline.pipeline(model="ComplEx", ...)`.
            model = ComplEx(triples_factory=self.single, embedding_dim=self.width // 2)
            factory, per_pass, key = self.single, len(self.facts["train"]), "positives"
            loop: Any = SLCWATrainingLoop(model=model, triples_factory=factory, optimizer="Adam")
            unit = "facts, each against one sampled negative"
        else:
            model = self._same_model()
            factory, per_pass, key = self.both, self.questions, "pairs"
            optimizer_kwargs = {"lr": 0.1, **({"fused": True} if fused else {})}
            loop = LCWATrainingLoop(
                model=model,
                triples_factory=factory,
                optimizer="Adagrad",
                optimizer_kwargs=optimizer_kwargs,
                # It only searches for a batch size that fits GPU memory.
                automatic_memory_optimization=False,
            )
            loop_options = {"num_workers": workers, "pin_memory": False}
            unit = "distinct questions, each against all entities"
        clock = Clock(warm, items or per_pass)
        with suppress(MeasurementDone):
            loop.train(
                triples_factory=factory,
                num_epochs=1_000_000,  # `Clock` ends the training
                batch_size=batch,
                use_tqdm=False,
                callbacks=ClockCallback(clock, key),
                **loop_options,
            )
        self.model = model
        del loop
        gc.collect()
        return {
            **clock.result(per_pass),
            "batch": batch or clock.largest,
            "fused": fused,
            "workers": workers,
            "loss": type(model.loss).__name__,
            "precision": "float32",
            "unit": unit,
        }

    def evaluate(
        self, facts: int, mode: str = "same", batch: int | None = None, warm: bool = True
    ) -> dict[str, Any]:
        """Rank the first `facts` facts of the test split in both directions; 0 for all."""
        if self.model is None:
            raise ValueError("there is no model yet; train or load first")
        total = len(self.facts["test"])
        ranked = self.facts["test"][: facts or total]
        settings: dict[str, Any] = {}
        if mode == "same":
            # Only the metrics that the other side computes; all of PyKEEN's take longer.
            hits = [{"k": k} for k in (1, 3, 10)]
            settings = {
                "metrics": ["mrr", "mr", *["hits_at_k"] * len(hits)],
                "metrics_kwargs": [None, None, *hits],
                "add_defaults": False,
            }
        if warm:
            self._evaluate(ranked[: batch or 32], batch, settings)
        metrics, seconds, merging = self._evaluate(ranked, batch, settings)
        names = {"mrr": "mrr", "mr": "mr", **{f"hits@{k}": f"hits@{k}" for k in (1, 3, 10)}}
        return {
            "seconds": seconds,
            "seconds_per_pass": seconds * total / len(ranked),
            "seconds_merging_filter": merging,
            "items": 2 * len(ranked),
            "items_per_pass": 2 * total,
            "batch": batch or 32,  # PyKEEN's default on a CPU
            "metrics": {ours: float(metrics.get_metric(theirs)) for ours, theirs in names.items()},
        }

    def _evaluate(
        self, facts: Tensor, batch: int | None, settings: dict[str, Any]
    ) -> tuple[Any, float, float]:
        merge = evaluator_module.prepare_filter_triples
        merging = 0.0

        def timed(*args: Any, **kwargs: Any) -> Tensor:
            nonlocal merging
            started = time.perf_counter()
            merged = merge(*args, **kwargs)
            merging += time.perf_counter() - started
            return merged

        evaluator = RankBasedEvaluator(filtered=True, **settings)
        known = [self.facts[split] for split in SPLITS]
        evaluator_module.prepare_filter_triples = timed
        try:
            started = time.perf_counter()
            metrics = evaluator.evaluate(
                self.model,
                facts,
                batch_size=batch,
                additional_filter_triples=known,
                use_tqdm=False,
            )
            seconds = time.perf_counter() - started
        finally:
            evaluator_module.prepare_filter_triples = merge
        return metrics, seconds - merging, merging

    def load(self, path: str) -> dict[str, Any]:
        """Load parameters of the other side: complex numbers as [real | imaginary]."""
        arrays = np.load(path)
        entity, relation = _complex(arrays["entity"]), _complex(arrays["relation"])
        count = len(self.relations)
        reordered = torch.empty_like(relation)
        # Relation r and its inverse have the ids r and r + R there, 2 r and 2 r + 1 here.
        reordered[0::2], reordered[1::2] = relation[:count], relation[count:]
        self.model = model = self._same_model()
        for representation, values in (
            (model.entity_representations[0], entity),
            (model.relation_representations[0], reordered),
        ):
            weight = representation._embeddings.weight
            with torch.no_grad():
                weight.copy_(values.reshape(weight.shape))
            loaded = torch.view_as_real(representation(indices=None)).detach()
            assert torch.equal(loaded, values)
        return {"entity": list(entity.shape), "relation": list(reordered.shape)}

    def loss(self) -> dict[str, Any]:
        """The loss of all instances at the current parameters, as a mean over facts.

        PyKEEN's reduction is a mean over questions; here each counts once per answer.
        """
        assert self.model is not None
        instances = LCWAInstances.from_triples_factory(self.both)
        one = CrossEntropyLoss(reduction="sum")
        pairs = torch.as_tensor(instances.pairs)
        labels = torch.as_tensor(instances.compressed.todense())
        with torch.no_grad():
            rows = zip(self.model.score_t(pairs).split(1), labels.split(1), strict=True)
            losses = torch.stack([one.process_lcwa_scores(*row) for row in rows])
        answers = labels.sum(1)
        return {
            "loss": float((losses * answers).sum() / answers.sum()),
            "facts": float(answers.sum()),
            "loss_by_question": float(losses.mean()),
        }


def _names(path: Path) -> dict[str, int]:
    with path.open(encoding="utf-8", newline="\n") as file:
        return {line.rstrip("\r\n"): number for number, line in enumerate(file)}


def _complex(values: np.ndarray) -> Tensor:
    """(n, D) as [real | imaginary] to (n, D / 2, 2)."""
    real, imaginary = torch.as_tensor(values).chunk(2, -1)
    return torch.stack([real, imaginary], -1)


if __name__ == "__main__":
    serve(Side())
