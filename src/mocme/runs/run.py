"""A run: its folder, graph, experts, mixture, evaluation and predictor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mocme.calibration.curves import Calibration
from mocme.calibration.fit import calibrate
from mocme.core.deadline import Check, unlimited
from mocme.core.device import find_device
from mocme.data.graph import Graph
from mocme.data.modality import Features
from mocme.evaluation import metrics
from mocme.evaluation.breakdown import breakdown
from mocme.evaluation.ranking import rank_split
from mocme.inductive import store
from mocme.inductive.extended_run import RunContents
from mocme.inductive.new_entity import Content, NewEntity
from mocme.inductive.store import Addition, Additions, Fact
from mocme.mixture.base import Mixture
from mocme.prediction.predictor import Predictor
from mocme.runs.config import Experiment, custom_settings
from mocme.runs.evaluations import protocol, record_evaluation
from mocme.runs.fitted import read_mixture
from mocme.runs.inputs import LoadedRun, extended_contents
from mocme.runs.run_files import (
    CONFIG,
    NAMES,
    check_agreement,
    check_complete,
    evaluation_file,
    read_about,
    read_config,
    read_evaluation,
    read_evaluations,
    read_log,
)
from mocme.runs.run_inputs import GRAPH, REJECTED, read_graph, read_modalities
from mocme.runs.stored_changes import add_entities, remove_entities
from mocme.storage import RunError, RunFolder, kept_if_possible
from mocme.storage.errors import MEASURED_AGAIN, refuse_invalid

LOG = "training.jsonl"
CALIBRATION = "calibration.safetensors"
# What a training writes first. A folder that has nothing else, and no `CONFIG`, is that of a
# training that was killed there: it is started again, because it cannot be resumed.
STARTED = (NAMES, GRAPH, REJECTED, "modalities", CONFIG)


class Run:
    """The folder of a training, with its evaluation, calibration, predictor and additions.

    Raises:
        RunError: the run is missing or damaged; the message gives a remedy.
    """

    def __init__(self, folder: RunFolder, trust_code: bool = False) -> None:
        self.folder = folder
        if folder.abandoned(STARTED):
            raise RunError(
                f"{folder.path}: this training was killed before its inputs were saved, and cannot "
                f"be resumed; start it again with the same --out: mocme train EXPERIMENT --data "
                f"{folder.about.get('data') or 'DATA'} --out {folder.path}"
            )
        about, table = read_about(folder), read_config(folder)
        # Checked before the experiment is built, to name all of the code at once.
        if (custom := custom_settings(table)) and not trust_code:
            named = ", ".join(f"{key} = {name!r}" for key, name in custom.items())
            raise RunError(
                f"{folder.path / CONFIG}: this run uses custom code ({named}), and nothing of it "
                f"was run; opening it with trust_code=True (--trust-code) runs that module with "
                f"your rights, so do it only if you trust its author, and leave the run alone "
                f"otherwise"
            )
        with refuse_invalid(folder.path / CONFIG):
            self.experiment = Experiment.of(about["experiment"], table, trust_code=trust_code)
            experts = self.experiment.components().experts
        check_complete(folder.path / CONFIG, table, self.experiment.table())
        check_agreement(folder, about, self.experiment.seed, list(experts))

    @staticmethod
    def open(path: str | Path, trust_code: bool = False) -> Run:
        """A run by its folder."""
        return Run(RunFolder.open(path), trust_code)

    def __repr__(self) -> str:
        state = "finished" if self.finished else "not finished"
        what = f"{self.experiment.name} on {self.about['graph']}"
        return f"Run({str(self.path)!r}, {what}, {state})"

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def trust_code(self) -> bool:
        """Whether code that files of the run or of its graph name may be imported."""
        return self.experiment.trust_code

    @property
    def about(self) -> dict[str, Any]:
        """The content of run.json (`mocme.runs.run_files.About`), read anew.

        Raises:
            RunError: it is missing or damaged, or a key is missing, unknown or wrong.
        """
        return read_about(self.folder)

    @property
    def finished(self) -> bool:
        return bool(self.about["finished"])

    def log(self) -> list[dict[str, Any]]:
        """A record for each epoch."""
        return read_log(self.folder, LOG)

    def evaluations(self) -> list[dict[str, Any]]:
        """All evaluations of this run, in order."""
        return read_evaluations(self.folder)

    # Graph, features and model are as they were trained, and so is everything measured on
    # them: evaluation, calibration, benchmarks. Only a predictor includes additions.

    def graph(self) -> Graph:
        """The graph as it was trained on, without additions.

        Raises:
            RunError: names or facts are missing or damaged, or are not those of the training.
        """
        return read_graph(self.folder)

    def features(self, graph: Graph) -> Features:
        """The modalities as they were trained on, without additions.

        Raises:
            RunError: one is missing or damaged, or was made for other entities.
        """
        return read_modalities(self.folder, graph)

    def mixture(self, graph: Graph, features: Features, device: torch.device) -> Mixture:
        """The trained experts and their mixture, without additions.

        Raises:
            RunError: the training has not finished.
        """
        if not self.finished:
            raise RunError(
                f"{self.path}: this training has not finished; continue with: mocme resume "
                f"{self.path}"
            )
        view = graph.training_view()
        return read_mixture(self.folder, self.experiment, view, features, device)

    def evaluate(
        self,
        split: str = "valid",
        device: str = "auto",
        advance: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Rank a split, store the result in the run and add it to the list of evaluations.

        Returns:
            Metrics (realistic ties) at the top level; `by` holds them by part; `protocol` says how.

        Warns:
            NotKept: the run cannot be written, so this evaluation is not recorded.
        """
        model = self.folder.model
        graph = self.graph()
        if split not in ("valid", "test"):
            raise ValueError(f"split is valid or test, not {split!r}")
        if not len(graph.facts(split)):
            raise ValueError(
                f"the graph has no {split} split to rank; put a {split}.tsv next to its train.tsv "
                f"and train again"
            )
        features = self.features(graph)
        mixture = self.mixture(graph, features, find_device(device))
        memory = self.experiment.components().evaluation.memory
        started = time.perf_counter()
        ranks = rank_split(mixture, graph, split, memory, advance)
        seconds = time.perf_counter() - started
        result = {
            **metrics.summary(ranks),
            "split": split,
            "experiment": self.experiment.name,
            "graph": graph.name,
            "seed": self.folder.about["seed"],
            "seconds": round(seconds, 3),
            "protocol": protocol(split, graph),
            "by": breakdown(ranks, graph, {"structure": graph.linked(), **features.present()}),
        }
        return record_evaluation(self.folder, result, ranks, model)

    def evaluation(self, split: str) -> dict[str, Any] | None:
        """The last evaluation of a split as `evaluate` returned it; None without one.

        One of another model, which the folder held before, is left out.
        """
        if not self.folder.has(evaluation_file(split)):
            return None
        result = read_evaluation(self.folder, split)
        return result if result.pop("model", None) == self.folder.model else None

    def calibrate(
        self, device: str = "auto", advance: Callable[[int, int], None] | None = None
    ) -> Calibration:
        """Fit probabilities on the valid split, and store them in the run.

        Raises:
            ValueError: the graph has no valid split.
        """
        model = self.folder.model
        return self._calibrate(self.contents(device, additions=False), model, advance)

    @property
    def calibrated(self) -> bool:
        """Whether the run holds probabilities of its model, or has no valid split for them."""
        if not self.folder.about["facts"].get("valid"):
            return True
        if not self.folder.has(CALIBRATION):
            return False
        return self.folder.tensors_metadata(CALIBRATION).get("model") == self.folder.model

    def calibration(self, graph: Graph, model: str | None) -> Calibration | None:
        """The stored probabilities; None without any, or where they are of another model.

        Args:
            graph: of the run.
            model: digest of the trained model (`RunFolder.model`).

        Raises:
            RunError: they are damaged, or of other relations.
        """
        if not self.folder.has(CALIBRATION):
            return None
        tensors, metadata = self.folder.read_packed(CALIBRATION)
        if metadata.get("model") != model:
            return None
        with refuse_invalid(self.path / CALIBRATION, MEASURED_AGAIN):
            calibration = Calibration.unpacked(tensors, metadata)
            calibration.check_relations(2 * graph.num_relations)
        return calibration

    def predictor(
        self,
        device: str = "auto",
        advance: Callable[[int, int], None] | None = None,
        *,
        additions: bool = True,
    ) -> Predictor:
        """A predictor of missing facts.

        The run is calibrated first, unless it already is or its graph has no valid facts but
        those of train.

        Args:
            advance: receives (questions done, questions in all) of a calibration.
            additions: whether entities that were added take part.
        """
        return self.loaded(device, advance).predictor(
            self.additions() if additions else Additions()
        )

    def loaded(
        self, device: str = "auto", advance: Callable[[int, int], None] | None = None
    ) -> LoadedRun:
        """The part of the run that additions do not change, in memory, shared by predictors.

        Args:
            advance: as of `predictor`.
        """
        model = self.folder.model
        trained = self.contents(device, additions=False)
        self.folder.require_model(model)  # it was not replaced while it was read
        calibration = self.calibration(trained.graph, model)
        if calibration is None and len(trained.graph.training_view().facts("valid")):
            calibration = self._calibrate(trained, model, advance)
        return LoadedRun(self.folder, trained, calibration, model)

    def contents(self, device: str = "auto", *, additions: bool = True) -> RunContents:
        """Graph, modalities and model that belong together, with the additions or without."""
        graph = self.graph()
        features = self.features(graph)
        mixture = self.mixture(graph, features, find_device(device))
        trained = RunContents(graph, features, mixture)
        return extended_contents(self.folder, trained, self.additions()) if additions else trained

    # -- entities added after the training --- ---------------------------------------------------

    def additions(self) -> Additions:
        """Entities that were added, in order."""
        return store.read(self.folder, self.folder.model)

    def add(
        self,
        name: str,
        facts: Sequence[Fact] = (),
        *,
        text: str | Sequence[str] | None = None,
        numbers: Mapping[str, float] | None = None,
        content: Mapping[str, Content] | None = None,
        names: str | Sequence[str] = (),
        device: str = "auto",
    ) -> Addition:
        """Add an entity, which takes part in all later questions; nothing is retrained.

        Its structure row is fitted from its facts and tokens; the model is otherwise unchanged.
        `NewEntity` describes the arguments; the result's `notes` name missing inputs.

        Raises:
            ValueError: something does not fit the run; nothing is changed then.
        """
        entity = NewEntity(name, facts, text, numbers, content or {}, names=names)
        return self.add_all([entity], device)[0]

    def add_all(
        self,
        entities: Sequence[NewEntity],
        device: str = "auto",
        advance: Callable[[int, int], None] | None = None,
        *,
        loaded: LoadedRun | None = None,
        check: Check = unlimited,
    ) -> list[Addition]:
        """Add many entities, which may have facts among each other: all of them or none.

        Args:
            advance: receives (entities done, entities in all).
            loaded: the run, where it is in memory already; then `device` does not matter.
            check: called between the steps of the work and before anything is written; what it
                raises ends it, and nothing is changed.

        Raises:
            ValueError: something does not fit the run; nothing is changed then.
            RunLocked: another process is writing the run.
            RunReplaced: the folder holds another model than `loaded`; nothing is changed.
        """
        self.folder.require_model(loaded.model if loaded else self.folder.model)
        with self.folder.lock():
            loaded = loaded or self._uncalibrated(device)
            return add_entities(loaded, entities, advance, check)

    def remove(
        self, *names: str, loaded: LoadedRun | None = None, check: Check = unlimited
    ) -> None:
        """Remove additions. Removing all of them restores the files of the run exactly.

        Args:
            loaded: as of `add_all`.
            check: as of `add_all`.

        Raises:
            NoAddition: a name is not an addition.
            ValueError: facts of a remaining addition contain one of them.
            RunLocked: another process is writing the run.
            RunReplaced: as of `add_all`.
        """
        model = loaded.model if loaded else self.folder.model
        self.folder.require_model(model)
        with self.folder.lock():
            remove_entities(
                self.folder,
                model,
                names,
                lambda: loaded.trained if loaded else self.contents("cpu", additions=False),
                check,
            )

    def _uncalibrated(self, device: str) -> LoadedRun:
        """The run in memory for a change of its additions, which needs no probabilities."""
        model = self.folder.model
        return LoadedRun(self.folder, self.contents(device, additions=False), None, model)

    def _calibrate(
        self,
        trained: RunContents,
        model: str | None,
        advance: Callable[[int, int], None] | None,
    ) -> Calibration:
        """Fit probabilities, and store them if the run can be written."""
        memory, view = self.experiment.components().evaluation.memory, trained.graph.training_view()
        calibration = calibrate(trained.mixture, view, memory, advance)
        tensors, metadata = calibration.packed()
        bound = metadata if model is None else {**metadata, "model": model}
        with kept_if_possible(
            f"{self.path / CALIBRATION}: the fitted probabilities are used but not kept",
            "to keep them, run: mocme calibrate COPY, with a copy of the run that can be written",
        ):
            self.folder.require_model(model)
            self.folder.write_tensors(CALIBRATION, tensors, bound)
            self.folder.write_json("calibration.json", calibration.record)
        return calibration


def open_run(
    path: str | Path,
    device: str = "auto",
    trust_code: bool = False,
    advance: Callable[[int, int], None] | None = None,
) -> Predictor:
    """Open a run's folder to ask for missing facts; see `Run.predictor`."""
    return Run.open(path, trust_code).predictor(device, advance)
