"""The file of a search: which settings may vary, on what, how often. All of it is checked first."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mocme.core.registry import ConfigError, Configurable, construct
from mocme.runs.config import WORDS, Experiment, find, merge, read_toml, shipped

NUMBERS = ("low", "high", "step")


class Range(Configurable):
    """Values that a setting may take: numbers between two ends, or choices.

    Args:
        low: the least value.
        high: the greatest value.
        step: between neighbouring values.
        log: even on a logarithmic scale.
        choices: the values themselves, of any kind that the setting takes.
    """

    def __init__(
        self,
        *,
        low: int | float | None = None,
        high: int | float | None = None,
        step: int | float | None = None,
        log: bool = False,
        choices: Sequence[Any] | None = None,
    ) -> None:
        if choices is not None:
            _check_choices(choices, any(v is not None for v in (low, high, step)) or log)
        else:
            _check_ends(low, high, step, log)
        self.low, self.high, self.step, self.log, self.choices = low, high, step, log, choices

    @property
    def whole(self) -> bool:
        """Are its values whole numbers?"""
        return all(isinstance(v, int) for v in (self.low, self.high, self.step) if v is not None)

    def ends(self) -> list[Any]:
        """Values that show whether the setting takes such ones at all."""
        return [self.low, self.high] if self.choices is None else list(self.choices)

    def table(self) -> dict[str, Any]:
        """As it is written in the file."""
        if self.choices is not None:
            return {"choices": list(self.choices)}
        found = {"low": self.low, "high": self.high, "step": self.step, "log": self.log or None}
        return {key: value for key, value in found.items() if value is not None}

    def __str__(self) -> str:
        if self.choices is not None:
            return "one of " + ", ".join(map(canonical, self.choices))
        how = ", logarithmic" if self.log else f" by {self.step}" if self.step else ""
        return f"{self.low} to {self.high}{how}"


class Pruning(Configurable):
    """When a training is given up: its validation MRR is below the median at the same pass.

    Args:
        warmup: passes that every training is allowed.
        after: trials that must be complete before any is given up.
    """

    def __init__(self, *, warmup: int = 0, after: int = 5) -> None:
        if warmup < 0 or after < 1:
            raise ValueError("warmup is at least 0 and after at least 1")
        self.warmup, self.after = warmup, after

    def table(self) -> dict[str, int]:
        """As it is written in the file, defaults included."""
        return {"warmup": self.warmup, "after": self.after}


class PlanSettings(Configurable):
    """The keys of a search's file.

    Args:
        experiment: what is varied: a shipped name, or a file seen from here or from this file.
        graph: as ``mocme train --data`` takes it; a path is seen from here or from this file.
        ranges: by dotted path of a setting.
        version: of a benchmark by name.
        features: folder of encoded modalities.
        trials: how many, counted over all resumptions.
        seed: of the search.
        seeds: each trial trains with every one of them and counts their mean; the experiment's
            own seed by default.
        set: constant settings by dotted path.
        pruning: gives up hopeless trainings; without it all are trained to their end.
    """

    def __init__(
        self,
        *,
        experiment: str,
        graph: str,
        ranges: Mapping[str, Mapping[str, Any]],
        version: Literal["repaired", "as-published"] | None = None,
        features: str | None = None,
        trials: int = 30,
        seed: int = 0,
        seeds: Sequence[int] = (),
        set: Mapping[str, Any] = {},
        pruning: Pruning | None = None,
    ) -> None:
        if trials < 1 or seed < 0:
            raise ValueError("trials is at least 1 and seed at least 0")
        if not ranges:
            raise ValueError("ranges is empty; name a setting that may vary")
        if len({*seeds}) != len(seeds):
            raise ValueError("seeds names one twice")
        self.experiment, self.graph, self.version, self.features = (
            experiment,
            graph,
            version,
            features,
        )
        self.ranges, self.set, self.pruning = ranges, set, pruning
        self.trials, self.seed, self.seeds = trials, seed, tuple(seeds)


@dataclass(frozen=True)
class Plan:
    """A checked search.

    Attributes:
        file: where it was read from.
        base: the file of its experiment.
        experiment: that one with the constant settings.
        constants: those settings by dotted path.
        seeds: of the trainings of a trial, at least one.
    """

    file: Path
    base: Path
    experiment: Experiment
    constants: Mapping[str, Any]
    graph: str
    version: Literal["repaired", "as-published"] | None
    features: Path | None
    trials: int
    seed: int
    seeds: tuple[int, ...]
    ranges: Mapping[str, Range]
    pruning: Pruning | None

    @staticmethod
    def read(file: str | Path) -> Plan:
        """Read and check the file of a search; no graph is read yet.

        Raises:
            ConfigError: naming the file, the path of what is wrong, and the remedy.
        """
        path = Path(file)
        try:
            table = read_toml(path)
        except FileNotFoundError as error:
            raise ConfigError(
                f"{path}: there is no such file; name the TOML file of a search"
            ) from (error)
        with within(path):
            return _plan(path, construct(PlanSettings, table, ""))

    def extends(self, folder: Path) -> str:
        """How a file in `folder` names the experiment that is varied."""
        for name, known in shipped().items():
            if known.resolve() == self.base.resolve():
                return name
        return Path(os.path.relpath(self.base.resolve(), folder.resolve())).as_posix()

    def about(self) -> dict[str, Any]:
        """All that its results depend on, except the graph and its features."""
        return {
            "experiment": self.experiment.settings(),
            "ranges": {path: found.table() for path, found in self.ranges.items()},
            "seed": self.seed,
            "seeds": list(self.seeds),
            "pruning": None if self.pruning is None else self.pruning.table(),
        }


def canonical(value: Any) -> str:
    """A value of a setting as one text, equal for equal values only."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=repr)


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted path as the tables of a TOML file."""
    found: dict[str, Any] = {}
    for dotted, value in settings.items():
        *folders, last = dotted.split(".")
        change: dict[str, Any] = {last: value}
        for key in reversed(folders):
            change = {key: change}
        found = merge(found, change)
    return found


@contextmanager
def within(place: object) -> Iterator[None]:
    """Say in front of an error where it is.

    Raises:
        ConfigError: for every ValueError.
    """
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{place}: {str(error).lstrip('.: ')}") from error


def _plan(file: Path, given: PlanSettings) -> Plan:
    base = find(_place(file, given.experiment))
    experiment = Experiment.load(base)
    with within("set"):
        experiment = experiment.changed(given.set)
    _check_paths(given)
    if given.pruning is not None and not experiment.training["evaluate_every"]:
        raise ConfigError(
            "pruning: needs the passes between validations; add training.evaluate_every under set"
        )
    ranges = {
        path: _range(table, path, experiment, f"ranges.{path}")
        for path, table in given.ranges.items()
    }
    features = None if given.features is None else Path(_place(file, given.features))
    if features is not None and not features.is_dir():
        raise ConfigError(
            f"features: there is no folder {features}; make it with mocme encode --out, or leave "
            f"the key out"
        )
    return Plan(
        file=file,
        base=base,
        experiment=experiment,
        constants=given.set,
        graph=_place(file, given.graph),
        version=given.version,
        features=features,
        trials=given.trials,
        seed=given.seed,
        seeds=given.seeds or (int(experiment.training["seed"]),),
        ranges=ranges,
        pruning=given.pruning,
    )


def _check_paths(given: PlanSettings) -> None:
    """Refuse settings that a search cannot vary, and two that overlap."""
    for path, table in given.ranges.items():
        if table and all(isinstance(value, Mapping) for value in table.values()):
            inner = next(iter(table))
            raise ConfigError(f'ranges.{path}: write a path in quotes: "{path}.{inner}"')
    for path in (*given.ranges, *given.set):
        if path.split(".")[0] in WORDS:
            raise ConfigError(f"{path}: nothing depends on it; leave it out")
    if "seed" in given.ranges:
        raise ConfigError(
            "ranges.training.seed: a search over seeds finds luck; for the mean over several, "
            "write seeds = [0, 1, 2] instead"
        )
    if given.seeds and "seed" in given.set:
        raise ConfigError("set.training.seed: seeds says it already; leave one of them out")
    for path in given.ranges:
        for other in (*given.ranges, *given.set):
            if other != path and other.startswith(f"{path}."):
                raise ConfigError(f"ranges.{path}: {other} lies within it; keep one of them")
    for path in given.set:
        if path in given.ranges:
            raise ConfigError(f"set.{path}: ranges has it too; keep one of them")


def _range(table: Mapping[str, Any], path: str, experiment: Experiment, place: str) -> Range:
    """The range of a setting, after a look whether the setting takes its ends."""
    present: Any = experiment.table()
    for key in path.split("."):
        present = present.get(key) if isinstance(present, Mapping) else None
    if isinstance(present, float):
        # Written as 0 or 1, a number of the file is still one of many between.
        table = {
            key: float(value) if key in NUMBERS and type(value) is int else value
            for key, value in table.items()
        }
    found = construct(Range, table, place)
    with within("ranges"):
        for value in found.ends():
            experiment.changed({path: value})
    return found


def _check_choices(choices: Sequence[Any], others: bool) -> None:
    if others:
        raise ValueError("give either choices or low and high, not both")
    if not choices:
        raise ValueError("choices is empty; name the values")
    if len({canonical(value) for value in choices}) != len(choices):
        raise ValueError("choices names a value twice")


def _check_ends(
    low: int | float | None, high: int | float | None, step: int | float | None, log: bool
) -> None:
    if low is None or high is None:
        raise ValueError("needs low and high, or choices")
    if not all(math.isfinite(v) for v in (low, high, step) if v is not None):
        raise ValueError("low, high and step must be finite")
    if low >= high:
        raise ValueError(f"low ({low}) must be below high ({high})")
    if log and low <= 0:
        raise ValueError(f"log needs low above 0, not {low}")
    if log and step is not None:
        raise ValueError("log and step exclude each other; leave one of them out")
    if step is None:
        return
    if step <= 0:
        raise ValueError(f"step must be above 0, not {step}")
    count = (high - low) / step
    if abs(count - round(count)) > 1e-9 * max(1.0, count):
        last = low + math.floor(count) * step
        raise ValueError(f"steps of {step} lead from {low} to {last:g}, not to high ({high})")


def _place(file: Path, given: str) -> str:
    """A path from here, or else from beside the file; what is no path is a name."""
    beside = file.parent / given
    return given if Path(given).exists() or not beside.exists() else str(beside)
