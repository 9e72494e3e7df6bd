"""The search loop: propose settings, train, record; resumable after any interruption."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from mocme.core.device import find_device
from mocme.core.interrupts import Interrupted, stop_signal
from mocme.core.registry import ConfigError
from mocme.data.graph import Graph
from mocme.data.load import load
from mocme.evaluation.metrics import HITS
from mocme.experts.embedding.trainer import Trainer
from mocme.experts.embedding.training_state import Progress
from mocme.runs.config import Experiment
from mocme.runs.run import Run
from mocme.runs.train import read_inputs, resume, settle, train
from mocme.storage import RunError
from mocme.tuning.plan import Plan, canonical, within
from mocme.tuning.study import Proposal, Study
from mocme.tuning.trials import RUNS, SearchFolder, Trial, best


class SearchObserver(Protocol):
    """Receives the progress of a search."""

    def inputs(self, notes: Sequence[str]) -> None: ...

    def begin(self, number: int, settings: Mapping[str, Any]) -> None: ...

    def step(self, done: int, total: int) -> None: ...

    def end(self, trial: Trial, best: Trial | None) -> None: ...


class TrialPruned(Exception):
    """A training was stopped because it was below the median of the others."""


@dataclass
class _TrialTraining:
    """Observes one training of a trial.

    Attributes:
        proposal: compares the training with other trials; None for all seeds but the first.
        index: index of its seed among the seeds of the trial.
        count: number of these seeds.
    """

    proposal: Proposal | None
    watch: SearchObserver | None
    index: int
    count: int

    def __post_init__(self) -> None:
        self.valid: dict[int, Mapping[str, float]] = {}
        self.seconds = 0.0
        self.trainer: Trainer | None = None

    @property
    def curve(self) -> list[tuple[int, float]]:
        return [(epoch, metrics["mrr"]) for epoch, metrics in self.valid.items()]

    def start(self, trainer: Trainer, run: Run) -> None:
        self.trainer = trainer
        for record in run.log():
            self.record(record)

    def step(self, progress: Progress) -> None:
        if self.watch is not None and self.trainer is not None:
            total = self.trainer.total_steps
            self.watch.step(self.index * total + progress.step, self.count * total)

    def stage(self, name: str) -> Callable[[int, int], None]:
        """Stages after the last epoch do not move the bar."""
        return lambda done, total: None

    def record(self, record: Mapping[str, Any]) -> None:
        if "epoch" not in record:
            return
        self.note(record)
        if self.proposal is None or "valid" not in record:
            return
        finished = self.trainer is not None and self.trainer.progress.done
        if not finished and self.proposal.should_prune():
            raise TrialPruned(f"below the median of earlier trials at epoch {record['epoch']}")

    def note(self, record: Mapping[str, Any]) -> None:
        """Keep the time and the validation of an epoch."""
        self.seconds = record["seconds"]
        if "valid" in record:
            self.valid[record["epoch"]] = record["valid"]
            if self.proposal is not None:
                self.proposal.report(record["epoch"], record["valid"]["mrr"])


@dataclass(frozen=True)
class _Search:
    """What all trials of a search share."""

    plan: Plan
    base: Experiment
    graph: Graph
    folder: SearchFolder
    device: str
    watch: SearchObserver | None

    def trial(self, number: int, proposal: Proposal, earlier: Sequence[Trial]) -> Trial:
        """Train a proposal, or take the results of a trial with equal settings."""
        settings = canonical(proposal.settings)
        for twin in earlier:
            if canonical(twin.settings) == settings:
                first = twin.same_as or twin.number
                return replace(twin, number=number, same_as=first, seconds=0.0)
        return self._trained(number, proposal)

    def _trained(self, number: int, proposal: Proposal) -> Trial:
        """Train a proposal once for each seed.

        Errors that come from the settings make a failed trial. A folder that cannot be written and
        a damaged run end the search.
        """
        seeds, trial = self.plan.seeds, Trial(number, "complete", proposal.settings)
        trainings: dict[str, _TrialTraining] = {}
        metrics: list[Mapping[str, float]] = []
        try:
            for index, seed in enumerate(seeds):
                first = proposal if index == 0 else None
                training = _TrialTraining(first, self.watch, index, len(seeds))
                trainings[str(seed)] = training
                changes = {**proposal.settings, "seed": seed}
                metrics.append(self._train(number, seed, changes, training))
            means = {name: sum(m[name] for m in metrics) / len(metrics) for name in metrics[0]}
            trial = replace(trial, mrr=means["mrr"], metrics=means)
        except TrialPruned as stop:
            trial = replace(trial, state="pruned", reason=str(stop))
        except RunError:
            raise
        except (ValueError, torch.OutOfMemoryError) as error:
            trial = replace(trial, state="failed", reason=str(error))
        return replace(
            trial,
            curves={seed: training.curve for seed, training in trainings.items()},
            seconds=round(sum(training.seconds for training in trainings.values()), 3),
        )

    def _train(
        self, number: int, seed: int, changes: Mapping[str, Any], training: _TrialTraining
    ) -> Mapping[str, float]:
        """Train once or resume; returns the metrics of the model that is kept."""
        experiment = self.base.changed(changes)
        # The last epoch is validated, so that the log has the metrics of every training.
        last = {
            f"experts.{name}.training.evaluate_every": table["training"]["epochs"]
            for name, table in experiment.experts.items()
            if "training" in table and not table["training"]["evaluate_every"]
        }
        experiment = experiment.changed(last)
        path = self.folder.run(number, seed)
        if _resumable(path, experiment):
            trust = self.plan.trust_code
            run = resume(path, device=self.device, observer=training, trust_code=trust)
        else:
            shutil.rmtree(path, ignore_errors=True)
            run = train(
                self.graph,
                experiment,
                out=path,
                device=self.device,
                features=self.plan.features,
                observer=training,
                trust_code=self.plan.trust_code,
            )
        for record in run.log():  # a training that was finished before has not been observed
            training.note(record)
        if len(experiment.components().experts) == 1 and training.valid:
            return training.valid[run.about["best_epoch"]]
        # The mixture of experts is fitted after the last epoch: the log does not have its metrics.
        evaluation = run.evaluate("valid", self.device)
        return {name: evaluation[name] for name in ("mrr", "mr", *(f"hits@{k}" for k in HITS))}


def tune(
    plan: Plan, *, out: str | Path, device: str = "auto", watch: SearchObserver | None = None
) -> SearchFolder:
    """Search until there are as many trials as the plan asks for.

    Raises:
        ValueError: the graph has no valid split, an input is wrong, or Optuna is missing; before
            the first training. SearchError: `out` contains something else.
        Interrupted: stopped by Ctrl-C; the same call resumes.
    """
    Study(plan, [])  # fails before a graph is read, if Optuna is missing
    graph, digest, notes = _inputs(plan)
    folder = SearchFolder.begin(out, {**plan.about(), "digest": digest})
    if watch is not None:
        watch.inputs(notes)
    with folder.lock(), stop_signal() as stopped:
        trials = folder.trials()
        search = _Search(plan, _settled(plan, folder, device), graph, folder, device, watch)
        study = Study(plan, trials)
        _remove_runs(folder, len(trials))
        try:
            while len(trials) < plan.trials and not stopped.is_set():
                trials.append(_next(search, study, trials))
        except (KeyboardInterrupt, Interrupted):
            stopped.set()
        folder.write_best(plan, graph.name)
        if len(trials) < plan.trials:
            raise Interrupted(
                f"stopped at trial {len(trials) + 1} of {plan.trials}; resume with: "
                f"mocme tune {plan.file} --out {folder.path}"
            )
    return folder


def _next(search: _Search, study: Study, trials: Sequence[Trial]) -> Trial:
    number, proposal = len(trials) + 1, study.propose()
    if search.watch is not None:
        search.watch.begin(number, proposal.settings)
    trial = search.trial(number, proposal, trials)
    search.folder.add(trial)
    study.conclude(proposal, trial)
    search.folder.write_best(search.plan, search.graph.name)
    _remove_runs(search.folder, number)
    if search.watch is not None:
        search.watch.end(trial, best([*trials, trial]))
    return trial


def _inputs(plan: Plan) -> tuple[Graph, dict[str, str], list[str]]:
    """The graph without its test split, digests of all inputs, and notes for the user.

    Features are read here only to find errors early; each training reads them again.
    """
    with within(plan.file):
        with within("graph"):
            graph = load(plan.graph, version=plan.version).training_view()
            for split in ("train", "valid"):
                if not len(graph.facts(split)):
                    raise ConfigError(
                        f"{plan.graph} has no fact in its {split} split; a search trains on "
                        f"train.tsv and selects on valid.tsv"
                    )
        features = read_inputs(graph, plan.experiment, plan.features, trust_code=plan.trust_code)
    digest = {"graph": graph.digest(), "features": features.digest()}
    return graph, digest, [*graph.notes, *features.notes]


def _settled(plan: Plan, folder: SearchFolder, device: str) -> Experiment:
    """The base experiment with the settings that the machine chose when the search began."""
    if "machine" not in folder.about:
        chosen = settle(plan.experiment, find_device(device)).machine_settings()
        folder.remember(machine={path: chosen[path] for path in plan.experiment.left_to_machine()})
    return plan.experiment.changed(folder.about["machine"])


def _resumable(path: Path, experiment: Experiment) -> bool:
    """Whether there is a training of exactly these settings with a checkpoint."""
    if not (path / "checkpoints").is_dir():
        return False
    stored = Run.open(path, trust_code=experiment.trust_code).experiment
    return stored.table() == experiment.table()


def _remove_runs(folder: SearchFolder, finished: int) -> None:
    """Remove the trainings of recorded trials, each of which is as large as its model."""
    for path in sorted((folder.path / RUNS).glob("trial-*")):
        if int(path.name.split("-")[1]) <= finished:
            shutil.rmtree(path, ignore_errors=True)
