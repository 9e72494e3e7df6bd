"""A run: its folder, graph, experts, mixture, evaluation and predictor."""

from __future__ import annotations

import contextlib
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mocme.calibration.curves import Calibration
from mocme.calibration.fit import calibrate
from mocme.core.deadline import Check, unlimited
from mocme.core.device import find_device
from mocme.data.graph import Graph, Vocabulary
from mocme.data.modality import Features, unpack_modality
from mocme.evaluation import metrics
from mocme.evaluation.breakdown import breakdown
from mocme.evaluation.ranking import Ranks, rank_split
from mocme.experts.base import Expert, ExpertSettings, FitTask
from mocme.inductive import store
from mocme.inductive.extended_run import RunContents
from mocme.inductive.new_entity import Content, NewEntity
from mocme.inductive.pairs import related
from mocme.inductive.store import Addition, Additions, Fact
from mocme.mixture.base import Mixture
from mocme.prediction.predictor import Predictor
from mocme.runs.config import Experiment, custom_code
from mocme.runs.inputs import LoadedRun
from mocme.storage import RunError, RunFolder

LOG = "training.jsonl"
EVALUATIONS = "evaluations.jsonl"
NAMES = "names.json"
GRAPH = "graph.safetensors"
REJECTED = "rejected.safetensors"
MIXTURE = "mixture.safetensors"
CALIBRATION = "calibration.safetensors"


def expert_file(name: str) -> str:
    """The file of an expert in a run's folder."""
    return f"experts/{name}.safetensors"


class Run:
    """The folder of a training, with its evaluation, calibration, predictor and additions.

    Raises:
        RunError: the run is missing or damaged; the message gives a remedy.
    """

    def __init__(self, folder: RunFolder, trust_code: bool = False) -> None:
        self.folder = folder
        table = tomllib.loads(folder.read_text("config.toml"))
        # Checked before the experiment is built, because that imports the code.
        if (custom := custom_code(table)) and not trust_code:
            raise RunError(
                f"{folder.path}: this run uses custom code ({', '.join(custom)}); "
                f"open it with trust_code=True (--trust-code) if you trust it"
            )
        self.experiment = Experiment.of(str(folder.about.get("experiment", "run")), table)

    @staticmethod
    def open(path: str | Path, trust_code: bool = False) -> Run:
        """A run by its folder."""
        return Run(RunFolder.open(path), trust_code)

    def __repr__(self) -> str:
        state = "finished" if self.finished else "not finished"
        what = f"{self.experiment.name} on {self.folder.about['graph']}"
        return f"Run({str(self.path)!r}, {what}, {state})"

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def finished(self) -> bool:
        return bool(self.folder.about.get("finished"))

    def log(self) -> list[dict[str, Any]]:
        """A record for each epoch."""
        return self.folder.records(LOG) if self.folder.has(LOG) else []

    def evaluations(self) -> list[dict[str, Any]]:
        """All evaluations of this run, in order."""
        return self.folder.records(EVALUATIONS) if self.folder.has(EVALUATIONS) else []

    # Graph, features and model are as they were trained, and so is everything measured on
    # them: evaluation, calibration, benchmarks. Only a predictor includes additions.

    def graph(self) -> Graph:
        """The graph as it was trained on, without additions."""
        names = self.folder.read_json(NAMES)
        return Graph(
            Vocabulary(names["entities"]),
            Vocabulary(names["relations"], "relation"),
            self.folder.read_tensors(GRAPH),
            name=str(self.folder.about.get("graph", "graph")),
            folder=self.folder.about.get("data"),
            rejected=self._rejected(),
        )

    def _rejected(self) -> Tensor:
        if not self.folder.has(REJECTED):
            return torch.empty(0, 3, dtype=torch.int64)
        return self.folder.read_tensors(REJECTED)["rejected"]

    def features(self, graph: Graph) -> Features:
        """The modalities as they were trained on, without additions."""
        modalities = {}
        for name in self.folder.about["modalities"]:
            file = f"modalities/{name}.safetensors"
            tensors, metadata = self.folder.read_tensors(file), self.folder.tensors_metadata(file)
            modalities[name] = unpack_modality(tensors, metadata, graph.num_entities)
        return Features.of(modalities)

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
        settings = self.experiment.components()
        memory, view = settings.evaluation.memory, graph.training_view()
        experts = [
            self.expert(expert, FitTask(name, view, features, settings.seed, device, memory))
            for name, expert in settings.experts.items()
        ]
        return settings.mixture.unpacked(self._packed(MIXTURE), experts, graph.num_entities)

    def expert(self, settings: ExpertSettings, task: FitTask) -> Expert:
        """A fitted expert of the run.

        Raises:
            RunError: its file is missing or damaged.
        """
        return settings.unpacked(self._packed(expert_file(task.name)), task)

    def _packed(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        return self.folder.read_tensors(name), self.folder.tensors_metadata(name)

    def evaluate(
        self,
        split: str = "valid",
        device: str = "auto",
        advance: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Rank a split, store the result in the run and add it to the list of evaluations.

        Returns:
            Metrics (realistic ties) at the top level; `by` holds them by part; `protocol` says how.
        """
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
        about = self.folder.about
        earlier = sum(e["split"] == split for e in self.evaluations())
        result = {
            **metrics.summary(ranks),
            "split": split,
            "experiment": self.experiment.name,
            "graph": graph.name,
            "seed": about["seed"],
            "seconds": round(seconds, 3),
            "protocol": _protocol(split, graph),
            "evaluations_of_this_split": earlier + 1,
            "by": breakdown(ranks, graph, {"structure": graph.linked(), **features.present()}),
        }
        record = {k: v for k, v in result.items() if k not in ("by", "optimistic", "pessimistic")}
        self.folder.append(EVALUATIONS, {"time": time.time(), **record})
        self.folder.write_json(f"evaluation-{split}.json", result)
        columns = {name: getattr(ranks, name) for name in Ranks.__dataclass_fields__}
        self.folder.write_tensors(f"ranks-{split}.safetensors", columns)
        return result

    def calibrate(
        self, device: str = "auto", advance: Callable[[int, int], None] | None = None
    ) -> Calibration:
        """Fit probabilities on the valid split, and store them in the run.

        Raises:
            ValueError: the graph has no valid split.
        """
        trained = self.contents(device, additions=False)
        return self._calibrate(trained.mixture, trained.graph, advance)

    def predictor(
        self,
        device: str = "auto",
        advance: Callable[[int, int], None] | None = None,
        *,
        additions: bool = True,
    ) -> Predictor:
        """A predictor of missing facts.

        The run is calibrated first, unless it already is or its graph has no valid split.

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
        trained = self.contents(device, additions=False)
        calibration = None
        if self.folder.has(CALIBRATION):
            tensors = self.folder.read_tensors(CALIBRATION)
            metadata = self.folder.tensors_metadata(CALIBRATION)
            calibration = Calibration.unpacked(tensors, metadata)
        elif len(trained.graph.facts("valid")):
            calibration = self._calibrate(trained.mixture, trained.graph, advance)
        return LoadedRun(self.folder, trained, calibration)

    def contents(self, device: str = "auto", *, additions: bool = True) -> RunContents:
        """Graph, modalities and model that belong together, with the additions or without."""
        graph = self.graph()
        features = self.features(graph)
        mixture = self.mixture(graph, features, find_device(device))
        return RunContents(graph, features, mixture).extended(
            self.additions() if additions else Additions()
        )

    # -- entities added after the training --- ---------------------------------------------------

    def additions(self) -> Additions:
        """Entities that were added, in order."""
        return store.read(self.folder)

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
        """
        with self.folder.lock():
            present = self.additions()
            if loaded is None:
                # It answers no questions here, so it needs no calibration.
                contents = self.contents(device, additions=False)
                loaded = LoadedRun(self.folder, contents, None)
            new = loaded.add(entities, present, advance, check)
            check()
            everyone = related(loaded.trained, [*present, *new])
            check()
            store.write(self.folder, everyone)
        return list(everyone)[len(present) :]

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
        """
        with self.folder.lock():
            present = self.additions()
            for name in names:
                if name not in present.names:
                    has = ", ".join(map(repr, present.names[:10])) or "none"
                    raise store.NoAddition(
                        f"{self.path}: there is no addition {name!r}; there are {has}"
                    )
            stay = Additions([item for item in present if item.name not in names])
            for item in stay:
                if named := {n for h, _, t in item.facts for n in (h, t)} & set(names):
                    raise ValueError(
                        f"{self.path}: facts of {item.name!r} contain {min(named)!r}, and its row "
                        f"was fitted to them; remove both together, or {item.name!r} alone first"
                    )
            if present.pairs and stay:
                trained = loaded.trained if loaded else self.contents("cpu", additions=False)
                stay = related(trained, stay)
            check()
            store.write(self.folder, stay)

    def _calibrate(
        self, mixture: Mixture, graph: Graph, advance: Callable[[int, int], None] | None
    ) -> Calibration:
        memory = self.experiment.components().evaluation.memory
        calibration = calibrate(mixture, graph.training_view(), memory, advance)
        tensors, metadata = calibration.packed()
        # A read-only run still answers questions.
        with contextlib.suppress(PermissionError):
            self.folder.write_tensors(CALIBRATION, tensors, metadata)
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


# -- inside ------------------------------------------------------------------------------------


def _protocol(split: str, graph: Graph) -> dict[str, Any]:
    filtered = ("train", "valid") if split == "valid" else tuple(graph.splits)
    return {
        "filter": list(filtered),
        "ties": "realistic (mean of optimistic and pessimistic rank)",
        "directions": "both",
        "candidates": "all entities",
        "precision": "float32",
        "facts": {s: len(graph.facts(s)) for s in graph.splits},
    }
