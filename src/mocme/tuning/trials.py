"""A search's folder: its trials, what they depend on, and the best of them as an experiment.

`trials.jsonl` alone says which trials there were: a trial that was stopped is not in it, and is
gone on with from its own checkpoint in `runs/`. All else is made from that file and the plan.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from mocme.storage import RunFolder
from mocme.tuning.plan import Plan, canonical, nested

ABOUT, TRIALS, BEST, RUNS = "search.json", "trials.jsonl", "best.toml", "runs"
State = Literal["complete", "pruned", "failed"]


class SearchError(ValueError):
    """A folder cannot serve this search; the message names it and a remedy."""


@dataclass(frozen=True)
class Trial:
    """One point of a search.

    Attributes:
        number: from 1.
        mrr: of the model that its training keeps, on the valid split, the mean over seeds; None
            if not complete.
        metrics: of the same model, the mean over seeds.
        curves: (pass, validation MRR) by the seed of the training.
        seconds: of its training steps.
        reason: why it is not complete.
        same_as: an earlier trial with these settings, whose results these are.
    """

    number: int
    state: State
    settings: Mapping[str, Any]
    mrr: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""
    same_as: int | None = None

    @property
    def curve(self) -> Sequence[tuple[int, float]]:
        """Of the first seed, by which trainings are compared while they last."""
        return next(iter(self.curves.values()), ())

    @staticmethod
    def of(record: Mapping[str, Any]) -> Trial:
        """A line of `trials.jsonl` as a trial."""
        curves = {
            seed: [(int(epoch), float(mrr)) for epoch, mrr in curve]
            for seed, curve in record["curves"].items()
        }
        return Trial(**{**record, "curves": curves})


class SearchFolder:
    """The folder of one search."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.files = RunFolder(self.path)

    @staticmethod
    def open(path: str | Path, about: Mapping[str, Any]) -> SearchFolder:
        """A search that has begun.

        Args:
            about: what it has to depend on; what is not in it is not compared.

        Raises:
            SearchError: there is none, or it is another search.
            RunError: it is damaged, with the file.
        """
        folder = SearchFolder(path)
        if not (folder.path / ABOUT).exists():
            raise SearchError(
                f"{folder.path}: there is no search in this folder; name its --out, or begin one "
                f"without --show"
            )
        folder._compare(about)
        return folder

    @staticmethod
    def begin(path: str | Path, about: Mapping[str, Any]) -> SearchFolder:
        """A new search, or the one that is there already.

        Raises:
            SearchError: the folder holds something else, or another search.
        """
        folder = SearchFolder(path)
        if (folder.path / ABOUT).exists():
            folder._compare(about)
            return folder
        ours = {"lock", f"{ABOUT}.sha256", f".{ABOUT}.tmp"}  # left if killed just here
        if folder.path.is_file() or (folder.path.is_dir() and {*os.listdir(folder.path)} - ours):
            raise SearchError(
                f"{folder.path}: holds no search and is not empty; choose another --out"
            )
        folder.path.mkdir(parents=True, exist_ok=True)
        with folder.files.lock():
            folder.files.write_json(ABOUT, about)
        return folder

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to go on with this search.

        Raises:
            RunError: another process holds it.
        """
        with self.files.lock():
            yield

    @property
    def about(self) -> dict[str, Any]:
        """What the results of this search depend on."""
        found: dict[str, Any] = self.files.read_json(ABOUT)
        return found

    def remember(self, **facts: Any) -> None:
        """Add to `about`."""
        self.files.write_json(ABOUT, {**self.about, **facts})

    def trials(self) -> list[Trial]:
        """All that are over, in order."""
        if not self.files.has(TRIALS):
            return []
        return [Trial.of(record) for record in self.files.records(TRIALS)]

    def add(self, trial: Trial) -> None:
        """Record a trial; it is on the disk when this returns."""
        self.files.append(TRIALS, asdict(trial))

    def run(self, number: int, seed: int) -> Path:
        """Where a training of a trial lies until the trial is over."""
        return self.path / RUNS / f"trial-{number:04d}-seed-{seed}"

    def write_best(self, plan: Plan, graph: str) -> None:
        """Write the best trial as an experiment, if there is a complete one."""
        trials = self.trials()
        if (chosen := best(trials)) is not None:
            self.files.write_text(BEST, _best_text(self, plan, graph, trials, chosen))

    def _compare(self, about: Mapping[str, Any]) -> None:
        there, given = self.about, json.loads(json.dumps(about))
        for key, value in given.items():
            if key in there and there[key] != value:
                raise SearchError(
                    f"{self.path}: this search began with another "
                    f"{_difference(key, there, given)}; choose another --out, or put it back (only "
                    f"the number of trials may change)"
                )


def best(trials: Sequence[Trial]) -> Trial | None:
    """The complete trial with the highest validation MRR; of equal ones the first."""
    complete = [trial for trial in trials if trial.mrr is not None]
    return max(complete, key=lambda trial: trial.mrr or 0.0) if complete else None


def _difference(key: str, there: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Which part of a table differs, as far down as it is one."""
    old, new, path = there[key], given[key], key
    while isinstance(old, Mapping) and isinstance(new, Mapping):
        changed = [k for k in {**old, **new} if old.get(k) != new.get(k)]
        path, old, new = f"{path}.{changed[0]}", old.get(changed[0]), new.get(changed[0])
    return f"{path} ({canonical(old)}, now {canonical(new)})"


def _best_text(
    folder: SearchFolder, plan: Plan, graph: str, trials: Sequence[Trial], chosen: Trial
) -> str:
    counts = {state: sum(t.state == state for t in trials) for state in ("pruned", "failed")}
    others = "".join(f", {count} {state}" for state, count in counts.items() if count)
    seeds = ", ".join(map(str, plan.seeds))
    lines = [
        f"The best of {len(trials)} trials ({len(trials) - sum(counts.values())} complete{others})",
        f"of {plan.file.name}, by TPE with seed {plan.seed}, on {graph}.",
        f"Validation MRR {chosen.mrr:.4f} (trial {chosen.number}; seeds of training: {seeds}).",
        "Chosen on the valid split; no trial had the test split. Ranges:",
        *(f"  {path}: {found}" for path, found in plan.ranges.items()),
        "The best of many is a little luckier than it is good: train it with other seeds as well.",
    ]
    settings = dict(plan.constants)
    if plan.experiment.training["precision"] == "auto":
        settings["experts.embedding.training.precision"] = folder.about["precision"]
    settings |= chosen.settings
    if plan.seeds != (plan.experiment.training["seed"],):
        settings["seed"] = plan.seeds[0]
    table = {
        "description": f"{plan.experiment.name} with the best of {len(trials)} settings tried on "
        f"{graph}, chosen on validation",
        "extends": plan.extends(folder.path),
        **nested(settings),
    }
    return "".join(f"# {line}\n" for line in lines) + "\n" + tomli_w.dumps(table)
