"""PyKEEN's side of the comparison: a worker that answers commands, a JSON object a line.

See `compare_pykeen.py`, which starts it; the commands are the methods of `Side`. Nothing of PyKEEN
is changed: what is timed is `TrainingLoop.train` and `Evaluator.evaluate`, with a callback that
looks at the clock after every batch. The time that `evaluate` takes to merge its filter triples is
left out, because building an index is left out on the other side as well.
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

from compare_pykeen import Clock, Enough, serve

# torch's own remarks (no GPU to pin memory for and the like) would fill the log.
warnings.filterwarnings("ignore")
SPLITS = ("train", "valid", "test")


class Watch(TrainingCallback):
    """Tell a clock of every batch."""

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
        # The same reciprocal relations as on the other side, where they cannot be switched off.
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
        """As `_train`; without processes that make batches where these fail."""
        try:
            return self._train(**settings)
        except RuntimeError:
            if not settings.get("workers"):
                raise
            # Their batches go through shared memory, which containers often limit.
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
        """Train for `items` instances (0 for as many as a pass has) and time it.

        Args:
            mode: ``same`` work as the other side, or PyKEEN's own ``defaults``.
            items: instances to time, after the first `warm` batches.
            warm: batches before the clock starts.
            batch: instances a batch; PyKEEN's own choice if there is none.
            fused: torch's fused Adagrad, passed on as an argument of the optimiser.
            workers: processes that make batches.
        """
        self.model = None
        gc.collect()
        more: dict[str, Any] = {}
        if mode == "defaults":
            # What `pykeen.pipeline.pipeline(model="ComplEx", ...)` does if nothing else is said.
            model = ComplEx(triples_factory=self.single, embedding_dim=self.width // 2)
            factory, per_pass, key = self.single, len(self.facts["train"]), "positives"
            loop: Any = SLCWATrainingLoop(model=model, triples_factory=factory, optimizer="Adam")
            unit = "facts, each against one drawn negative"
        else:
            model = self._same_model()
            factory, per_pass, key = self.both, self.questions, "pairs"
            optimizer_kwargs = {"lr": 0.1, **({"fused": True} if fused else {})}
            loop = LCWATrainingLoop(
                model=model,
                triples_factory=factory,
                optimizer="Adagrad",
                optimizer_kwargs=optimizer_kwargs,
                # It would only measure what fits into a GPU's memory.
                automatic_memory_optimization=False,
            )
            more = {"num_workers": workers, "pin_memory": False}
            unit = "distinct questions, each against all entities"
        clock = Clock(warm, items or per_pass)
        with suppress(Enough):
            loop.train(
                triples_factory=factory,
                num_epochs=1_000_000,  # `Clock` ends the training
                batch_size=batch,
                use_tqdm=False,
                callbacks=Watch(clock, key),
                **more,
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
            raise ValueError("there is no model yet: train or load first")
        total = len(self.facts["test"])
        chosen = self.facts["test"][: facts or total]
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
            self._evaluate(chosen[: batch or 32], batch, settings)
        found, seconds, merging = self._evaluate(chosen, batch, settings)
        names = {"mrr": "mrr", "mr": "mr", **{f"hits@{k}": f"hits@{k}" for k in (1, 3, 10)}}
        return {
            "seconds": seconds,
            "seconds_per_pass": seconds * total / len(chosen),
            "seconds_merging_filter": merging,
            "items": 2 * len(chosen),
            "items_per_pass": 2 * total,
            "batch": batch or 32,  # what PyKEEN takes on a CPU if none is given
            "metrics": {ours: float(found.get_metric(theirs)) for ours, theirs in names.items()},
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
            found = evaluator.evaluate(
                self.model,
                facts,
                batch_size=batch,
                additional_filter_triples=known,
                use_tqdm=False,
            )
            seconds = time.perf_counter() - started
        finally:
            evaluator_module.prepare_filter_triples = merge
        return found, seconds - merging, merging

    def load(self, path: str) -> dict[str, Any]:
        """Take parameters of the other side: complex numbers as [real | imaginary]."""
        held = np.load(path)
        entity, relation = _complex(held["entity"]), _complex(held["relation"])
        count = len(self.relations)
        own = torch.empty_like(relation)
        # r and r + R there are 2 r and 2 r + 1 here.
        own[0::2], own[1::2] = relation[:count], relation[count:]
        self.model = model = self._same_model()
        for representation, values in (
            (model.entity_representations[0], entity),
            (model.relation_representations[0], own),
        ):
            weight = representation._embeddings.weight
            with torch.no_grad():
                weight.copy_(values.reshape(weight.shape))
            shown = torch.view_as_real(representation(indices=None)).detach()
            assert torch.equal(shown, values)
        return {"entity": list(entity.shape), "relation": list(own.shape)}

    def loss(self) -> dict[str, Any]:
        """The loss of all instances at the present parameters, as a mean over facts.

        PyKEEN's own reduction is a mean over questions; each is weighted by its answers here.
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
