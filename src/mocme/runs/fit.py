"""The fits of a training: experts and their mixture, resumable at any point."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from mocme.core.interrupts import stop_signal
from mocme.data.graph import Graph
from mocme.data.modality import Features
from mocme.experts.base import Expert
from mocme.mixture.held_out import hold_out
from mocme.runs.fitted import MIXTURE, expert_file, fit_task, mixture_experts, read_expert
from mocme.runs.monitor import RunMonitor, TrainingObserver
from mocme.runs.run import Run
from mocme.runs.run_files import CONFIG
from mocme.storage.atomic_io import digest

# Begins the names under which the log and the checkpoints hold an expert that is fitted without the
# held-out facts. Names of experts have no blanks.
HELD_OUT = "held-out "
RECORD = "mixture.json"


def fit_run(
    run: Run,
    graph: Graph,
    features: Features,
    device: torch.device,
    observer: TrainingObserver | None,
) -> Run:
    """Fit the mixture and every expert that are not saved yet.

    A mixture that is fitted on held-out training facts comes first, with experts that have not seen
    them; then those that it chose are fitted on all training facts.
    """
    folder, settings, view = run.folder, run.experiment.components(), graph.training_view()
    experts, mixture = settings.experts, settings.mixture
    names = [name for name, expert in experts.items() if expert.takes_part(features)]
    share = mixture.share(view, all(experts[name].refittable for name in names))
    with folder.lock(), stop_signal() as stopped:
        if share:
            folder.update_about(held_out=share)
        fits = _Fits(run, features, device, stopped, observer)
        if not folder.has(MIXTURE):
            rest, held = hold_out(view, share, run.experiment.seed) if share else (view, view)
            fitted = [fits.expert(name, rest, held_out=share > 0) for name in names]
            fits.mixture(fitted, held, held_out=share > 0)
        names = mixture_experts(folder, settings, features, folder.read_packed(MIXTURE))
        for name in names:
            fits.expert(name, view)
        for name in experts:
            folder.remove(_file(name, held_out=True))
            if name not in names:
                folder.remove(expert_file(name))
        fits_of = _records(run)
        records = [*fits_of.values(), folder.read_json(RECORD)]
        seconds = sum(record.get("seconds", 0.0) for record in records)
        last = [fits_of[name] for name in names]
        best = next((record["best_epoch"] for record in last if "best_epoch" in record), None)
        model = _model_digest(run, names)
        folder.update_about(finished=True, model=model, seconds=round(seconds, 3), best_epoch=best)
    return run


@final
@dataclass
class _Fits:
    """Fits experts and mixtures of a run, or reads those that are saved."""

    run: Run
    features: Features
    device: torch.device
    stopped: threading.Event
    observer: TrainingObserver | None

    def expert(self, name: str, graph: Graph, held_out: bool = False) -> Expert:
        """An expert by name, fitted on the train split of a graph."""
        folder, experiment = self.run.folder, self.run.experiment
        records = _records(self.run)
        record_name = f"{HELD_OUT}{name}" if held_out else name
        records.pop(record_name, None)  # of a fit that was killed before its file was written
        monitor = self._monitor(record_name, records)
        task = fit_task(folder, experiment, name, graph, self.features, self.device, monitor)
        file = _file(name, held_out)
        if folder.has(file):
            return read_expert(folder, experiment, task, file)
        fitted, record = experiment.components().experts[name].fit(task)
        records[record_name] = {**record, "steps": monitor.steps}
        folder.update_about(fits=records)
        folder.write_tensors(file, *fitted.packed())
        monitor.finished(record)
        return fitted

    def mixture(self, experts: Sequence[Expert], graph: Graph, held_out: bool) -> None:
        """Fit the mixture of experts, and save it."""
        settings, folder = self.run.experiment.components(), self.run.folder
        # One expert that is not learned is its own mixture: there are no weights to search for.
        shown = len(experts) > 1 or settings.mixture.selects
        monitor = self._monitor("mixture", _records(self.run))
        progress = monitor.stage("mixture") if shown else None
        memory = settings.evaluation.memory
        mixture, record = settings.mixture.fit(experts, graph, memory, progress, held_out=held_out)
        folder.write_json(RECORD, record)
        folder.write_tensors(MIXTURE, *mixture.packed())
        if self.observer is not None and shown:
            self.observer.record({"mixture": record})

    def _monitor(self, name: str, records: Mapping[str, Any]) -> RunMonitor:
        offset = sum(record["steps"] for record in records.values())
        return RunMonitor(self.run, name, self.stopped, self.observer, offset)


def _records(run: Run) -> dict[str, Any]:
    """The record of each finished fit, by name."""
    return dict(run.about.get("fits", {}))


def _file(name: str, held_out: bool) -> str:
    """The file of an expert; one that is fitted without held-out facts is kept until the end."""
    return f"held-out/{name}.safetensors" if held_out else expert_file(name)


def _model_digest(run: Run, experts: Sequence[str]) -> str:
    """The identity of a trained model: SHA-256 of all that its answers depend on."""
    inputs, path = run.about["digest"], run.path
    files = [CONFIG, *map(expert_file, experts), MIXTURE]
    parts = [inputs["graph"], inputs["features"], *(digest(path / name) for name in files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
