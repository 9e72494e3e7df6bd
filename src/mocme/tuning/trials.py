"""The folder of a search: its trials, what they depend on, and the best one as an experiment.

`trials.jsonl` alone records which trials there were. A stopped trial is not in it; its training is
resumed from the checkpoint in `runs/`. All other files are derived from that log and the plan.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from mocme.core.configurable import ConfigError, check_keys
from mocme.core.registry import convert
from mocme.storage import RunFolder
from mocme.storage.errors import refuse_invalid
from mocme.storage.workspace import is_workspace
from mocme.tuning.plan import Plan, canonical, nested

ABOUT, TRIALS, BEST, RUNS = "search.json", "trials.jsonl", "best.toml", "runs"
State = Literal["complete", "pruned", "failed"]


# Of a line of `trials.jsonl`: the type of each key.
_KEYS: Mapping[str, Any] = {
    "number": int,
    "state": State,
    "settings": Mapping[str, Any],
    "mrr": float | None,
    "metrics": Mapping[str, float],
    "curves": Mapping[str, Sequence[Sequence[float]]],
    "seconds": float,
    "reason": str,
    "same_as": int | None,
}


class SearchError(ValueError):
    """A folder cannot be used for this search; the message names it and the remedy."""


@dataclass(frozen=True)
class Trial:
    """One point of a search.

    Attributes:
        number: counts from 1.
        mrr: MRR on the valid split of the model that the training keeps, averaged over seeds;
            None unless complete.
        metrics: metrics of the same model, averaged over seeds.
        curves: (epoch, validation MRR) pairs by seed of the training.
        seconds: duration of the training steps.
        reason: why the trial is not complete.
        same_as: number of an earlier trial with equal settings, whose results these are.
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
        """The curve of the first seed, which pruning compares."""
        return next(iter(self.curves.values()), ())

    @staticmethod
    def of(record: Mapping[str, Any]) -> Trial:
        """A line of `trials.jsonl` as a trial.

        Raises:
            ConfigError: a key is missing, unknown or wrong.
        """
        for key, hint in _KEYS.items():
            convert(record.get(key), hint, key)
        check_keys(record, _KEYS, "")
        numbers = [record["mrr"] or 0.0, record["seconds"], *record["metrics"].values()]
        curves: dict[str, list[tuple[int, float]]] = {}
        for seed, curve in record["curves"].items():
            for point in curve:
                if len(point) != 2:
                    raise ConfigError(f"curves.{seed}: must be pairs of an epoch and an MRR")
                convert(point[0], int, f"curves.{seed}")
            curves[seed] = [(epoch, float(mrr)) for epoch, mrr in curve]
            numbers += [mrr for _, mrr in curves[seed]]
        if not all(map(math.isfinite, numbers)):
            raise ConfigError("mrr, seconds, metrics and curves must be finite")
        if (record["mrr"] is None) == (record["state"] == "complete"):
            raise ConfigError("mrr: a trial has one if, and only if, it is complete")
        return Trial(**{**record, "curves": curves})


class SearchFolder:
    """The folder of one search."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.files = RunFolder(self.path)

    @staticmethod
    def open(path: str | Path, about: Mapping[str, Any]) -> SearchFolder:
        """An existing search.

        Args:
            about: what the results depend on; keys that are absent are not compared.

        Raises:
            SearchError: there is no search, or another one.
            RunError: it is damaged, with the file.
        """
        folder = SearchFolder(path)
        if not (folder.path / ABOUT).exists():
            raise SearchError(
                f"{folder.path}: there is no search in this folder; give its --out, or start one "
                f"without --show"
            )
        folder._compare(about)
        return folder

    @staticmethod
    def begin(path: str | Path, about: Mapping[str, Any]) -> SearchFolder:
        """A new search, or the existing one.

        Raises:
            SearchError: the folder contains something else, or another search.
        """
        folder = SearchFolder(path)
        if (folder.path / ABOUT).exists():
            folder._compare(about)
            return folder
        is_used = folder.path.is_dir() and not all(map(_is_leftover, os.listdir(folder.path)))
        if folder.path.is_file() or is_used:
            raise SearchError(f"{folder.path}: is not a search and not empty; choose another --out")
        folder.path.mkdir(parents=True, exist_ok=True)
        with folder.files.lock():
            folder.files.write_json(ABOUT, about)
        return folder

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from running this search.

        Raises:
            RunError: another process runs it.
        """
        with self.files.lock():
            yield

    @property
    def about(self) -> dict[str, Any]:
        """What the results of this search depend on."""
        about: dict[str, Any] = self.files.read_json(ABOUT)
        return about

    def remember(self, **facts: Any) -> None:
        """Add keys to `about`."""
        self.files.write_json(ABOUT, {**self.about, **facts})

    def trials(self) -> list[Trial]:
        """All finished trials, in order.

        Raises:
            RunError: a line is damaged, or is not one that a search writes.
        """
        if not self.files.has(TRIALS):
            return []
        ranges = self.about.get("ranges", {})
        trials: list[Trial] = []
        records = self.files.records(TRIALS)
        with refuse_invalid(self.path / TRIALS):
            for number, record in enumerate(records, 1):
                try:
                    trial = Trial.of(record)
                    if set(trial.settings) != set(ranges):
                        raise ConfigError("settings: must be those that the search varies")
                except ConfigError as error:
                    raise ConfigError(f"line {number}: {error}") from error
                trials.append(trial)
        return trials

    def add(self, trial: Trial) -> None:
        """Record a trial; it is on the disk when this returns."""
        self.files.append(TRIALS, asdict(trial))

    def run(self, number: int, seed: int) -> Path:
        """Folder of a training, until its trial is finished."""
        return self.path / RUNS / f"trial-{number:04d}-seed-{seed}"

    def write_best(self, plan: Plan, graph: str) -> None:
        """Write the best trial as an experiment, if a trial is complete."""
        trials = self.trials()
        if (best_trial := best(trials)) is not None:
            self.files.write_text(BEST, _best_text(self, plan, graph, trials, best_trial))

    def _compare(self, about: Mapping[str, Any]) -> None:
        stored, given = self.about, json.loads(json.dumps(about))
        for key, value in given.items():
            if key in stored and stored[key] != value:
                raise SearchError(
                    f"{self.path}: this search was started with another "
                    f"{_difference(key, stored, given)}; choose another --out, or restore the "
                    f"value (only the number of trials may change)"
                )


def _is_leftover(name: str) -> bool:
    """Whether a process that was killed in `SearchFolder.begin` may leave a file of this name."""
    return name in ("lock", f"{ABOUT}.sha256") or is_workspace(name, ABOUT)


def best(trials: Sequence[Trial]) -> Trial | None:
    """The complete trial with the highest validation MRR; the first of equal ones."""
    complete = [trial for trial in trials if trial.mrr is not None]
    return max(complete, key=lambda trial: trial.mrr or 0.0) if complete else None


def _difference(key: str, stored: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Path and values of the first difference within nested tables."""
    old, new, path = stored[key], given[key], key
    while isinstance(old, Mapping) and isinstance(new, Mapping):
        changed = [k for k in {**old, **new} if old.get(k) != new.get(k)]
        path, old, new = f"{path}.{changed[0]}", old.get(changed[0]), new.get(changed[0])
    return f"{path} ({canonical(old)}, now {canonical(new)})"


def _best_text(
    folder: SearchFolder, plan: Plan, graph: str, trials: Sequence[Trial], best_trial: Trial
) -> str:
    counts = {state: sum(t.state == state for t in trials) for state in ("pruned", "failed")}
    others = "".join(f", {count} {state}" for state, count in counts.items() if count)
    seeds = ", ".join(map(str, plan.seeds))
    lines = [
        f"The best of {len(trials)} trials ({len(trials) - sum(counts.values())} complete{others})",
        f"of {plan.file.name}, by TPE with seed {plan.seed}, on {graph}.",
        f"Validation MRR {best_trial.mrr:.4f} (trial {best_trial.number}, training seeds {seeds}).",
        "Selected on the valid split; no trial had access to the test split. Ranges:",
        *(f"  {path}: {span}" for path, span in plan.ranges.items()),
        "The maximum over many trials is biased upwards: train this with other seeds as well.",
    ]
    settings = dict(plan.constants)
    settings |= folder.about["machine"]
    settings |= best_trial.settings
    if plan.seeds != (plan.experiment.seed,):
        settings["seed"] = plan.seeds[0]
    table = {
        "description": f"{plan.experiment.name} with the best of {len(trials)} settings tried on "
        f"{graph}, selected on validation",
        "extends": plan.extends(folder.path),
        **nested(settings),
    }
    return "".join(f"# {line}\n" for line in lines) + "\n" + tomli_w.dumps(table)
