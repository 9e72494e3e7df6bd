"""The search: propose, train, record, and again; stopped anywhere, it goes on from there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from mocme.core.device import Interrupted, find_device, stop_signal
from mocme.core.registry import ConfigError
from mocme.data.graph import Graph
from mocme.data.load import load
from mocme.experts.embedding.trainer import Progress, Trainer
from mocme.runs.config import Experiment
from mocme.runs.run import Run
from mocme.runs.train import read_inputs, resume, settle, train
from mocme.storage import RunError
from mocme.tuning.plan import Plan, canonical, within
from mocme.tuning.study import Proposal, Study
from mocme.tuning.trials import RUNS, SearchFolder, Trial, best


class SearchObserver(Protocol):
    """What wants to see a search go on."""

    def inputs(self, notes: Sequence[str]) -> None: ...

    def begin(self, number: int, settings: Mapping[str, Any]) -> None: ...

    def step(self, done: int, total: int) -> None: ...

    def end(self, trial: Trial, best: Trial | None) -> None: ...


class TrialPruned(Exception):
    """A training was given up, for it was worse than the median of the others."""


@dataclass
class _Training:
    """One training of a trial, as it is watched.

    Attributes:
        proposal: to compare it with other trials; None for all seeds but the first.
        place: of its seed among the seeds of the trial, and how many there are.
    """

    proposal: Proposal | None
    watch: SearchObserver | None
    place: tuple[int, int]

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
            number, count = self.place
            total = self.trainer.total_steps
            self.watch.step(number * total + progress.step, count * total)

    def stage(self, name: str) -> Callable[[int, int], None]:
        """What comes after the passes has no bar of its own."""
        return lambda done, total: None

    def record(self, record: Mapping[str, Any]) -> None:
        if "patterns" in record:
            return
        self.note(record)
        if self.proposal is None or "valid" not in record:
            return
        over = self.trainer is not None and self.trainer.progress.done
        if not over and self.proposal.hopeless():
            raise TrialPruned(f"below the median of earlier trials at pass {record['epoch']}")

    def note(self, record: Mapping[str, Any]) -> None:
        """Keep what a pass says."""
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
        """Train a proposal, or take the results of an equal one."""
        wanted = canonical(proposal.settings)
        for twin in earlier:
            if canonical(twin.settings) == wanted:
                first = twin.same_as or twin.number
                return replace(twin, number=number, same_as=first, seconds=0.0)
        return self._trained(number, proposal)

    def _trained(self, number: int, proposal: Proposal) -> Trial:
        """Train a proposal once for each seed.

        What the settings are to blame for makes it a failed trial; a folder that cannot be
        written, or a run that is damaged, ends the search.
        """
        plan, found = self.plan, Trial(number, "complete", proposal.settings)
        seen: dict[str, _Training] = {}
        kept: list[Mapping[str, float]] = []
        try:
            for place, seed in enumerate(plan.seeds):
                first = proposal if place == 0 else None
                training = _Training(first, self.watch, (place, len(plan.seeds)))
                seen[str(seed)] = training
                changes = {**proposal.settings, "seed": seed}
                kept.append(self._train(number, seed, changes, training))
            means = {name: sum(m[name] for m in kept) / len(kept) for name in kept[0]}
            found = replace(found, mrr=means["mrr"], metrics=means)
        except TrialPruned as stop:
            found = replace(found, state="pruned", reason=str(stop))
        except RunError:
            raise
        except (ValueError, torch.OutOfMemoryError) as error:
            found = replace(found, state="failed", reason=str(error))
        return replace(
            found,
            curves={seed: training.curve for seed, training in seen.items()},
            seconds=round(sum(training.seconds for training in seen.values()), 3),
        )

    def _train(
        self, number: int, seed: int, changes: Mapping[str, Any], training: _Training
    ) -> Mapping[str, float]:
        """Train once, or go on with it; gives the metrics of the model that is kept."""
        experiment = self.base.changed(changes)
        if not experiment.training["evaluate_every"]:
            experiment = experiment.with_training(evaluate_every=experiment.training["passes"])
        path = self.folder.run(number, seed)
        if _resumable(path, experiment):
            run = resume(path, device=self.device, observer=training, trust_code=True)
        else:
            shutil.rmtree(path, ignore_errors=True)
            run = train(
                self.graph,
                experiment,
                out=path,
                device=self.device,
                features=self.plan.features,
                observer=training,
            )
        for record in run.log():  # for one that was over already
            training.note(record)
        embedding = training.valid[run.folder.about["best_epoch"]]
        if experiment.parts()[1].patterns is None:
            return embedding
        # Patterns join the score after the last pass, so the passes do not say what it is worth.
        whole = run.evaluate("valid", self.device)
        return {name: whole[name] for name in embedding}


def tune(
    plan: Plan, *, out: str | Path, device: str = "auto", watch: SearchObserver | None = None
) -> SearchFolder:
    """Search for settings until there are as many trials as the plan says.

    Raises:
        ValueError: the graph has no valid split, an input is wrong, or Optuna is missing; before
            the first training. SearchError: `out` holds something else.
        Interrupted: stopped by Ctrl-C; the same call goes on.
    """
    Study(plan, [])  # what is missing is said before a graph is read
    graph, digest, notes = _inputs(plan)
    folder = SearchFolder.begin(out, {**plan.about(), "digest": digest})
    if watch is not None:
        watch.inputs(notes)
    with folder.lock(), stop_signal() as stopped:
        trials = folder.trials()
        search = _Search(plan, _settled(plan, folder, device), graph, folder, device, watch)
        study = Study(plan, trials)
        _sweep(folder, len(trials))
        try:
            while len(trials) < plan.trials and not stopped.is_set():
                trials.append(_next(search, study, trials))
        except (KeyboardInterrupt, Interrupted):
            stopped.set()
        folder.write_best(plan, graph.name)
        if len(trials) < plan.trials:
            raise Interrupted(
                f"stopped at trial {len(trials) + 1} of {plan.trials}; go on with: "
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
    _sweep(search.folder, number)
    if search.watch is not None:
        search.watch.end(trial, best([*trials, trial]))
    return trial


def _inputs(plan: Plan) -> tuple[Graph, dict[str, str], list[str]]:
    """The graph without its test split, digests of all that is read, and notes for the reader.

    The features are read only to find now what is wrong with them; each training reads its own.
    """
    with within(plan.file):
        with within("graph"):
            graph = load(plan.graph, version=plan.version).training_view()
            for split in ("train", "valid"):
                if not len(graph.facts(split)):
                    raise ConfigError(
                        f"{plan.graph} has no fact in its {split} split; a search trains on "
                        f"train.tsv and chooses by valid.tsv"
                    )
        features = read_inputs(graph, plan.experiment, plan.features)
    digest = {"graph": graph.digest(), "features": features.digest()}
    return graph, digest, [*graph.notes, *features.notes]


def _settled(plan: Plan, folder: SearchFolder, device: str) -> Experiment:
    """The base with one precision for all trials, measured when the search began."""
    if "precision" not in folder.about:
        settled = settle(plan.experiment, find_device(device))
        folder.remember(precision=settled.training["precision"])
    return plan.experiment.with_training(precision=folder.about["precision"])


def _resumable(path: Path, experiment: Experiment) -> bool:
    """Is there a training of these very settings that got as far as its first checkpoint?"""
    if not (path / "checkpoints").is_dir():
        return False
    return Run.open(path, trust_code=True).experiment.table() == experiment.table()


def _sweep(folder: SearchFolder, over: int) -> None:
    """Remove the runs of trials that are recorded: each takes as much room as its model."""
    for path in sorted((folder.path / RUNS).glob("trial-*")):
        if int(path.name.split("-")[1]) <= over:
            shutil.rmtree(path, ignore_errors=True)
