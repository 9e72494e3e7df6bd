"""The TOML file of a search: which settings vary, on which graph, in how many trials."""

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
from mocme.runs.config import Experiment
from mocme.runs.experiment_files import (
    WORDS,
    addressed,
    experts_by_name,
    find,
    merge,
    read_toml,
    shipped,
)

NUMBERS = ("low", "high", "step")


class Range(Configurable):
    """Values that a setting may take: an interval of numbers, or choices.

    Args:
        low: the least value.
        high: the greatest value.
        step: distance of neighbouring values.
        log: sample uniformly on a logarithmic scale.
        choices: the values themselves, of any type that the setting takes.
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
    def is_integer(self) -> bool:
        """Whether all numbers of the interval are integers."""
        return all(isinstance(v, int) for v in (self.low, self.high, self.step) if v is not None)

    def ends(self) -> list[Any]:
        """Values to try on the experiment: both ends, or every choice."""
        return [self.low, self.high] if self.choices is None else list(self.choices)

    def table(self) -> dict[str, Any]:
        """The range as the file has it."""
        if self.choices is not None:
            return {"choices": list(self.choices)}
        values = {"low": self.low, "high": self.high, "step": self.step, "log": self.log or None}
        return {key: value for key, value in values.items() if value is not None}

    def __str__(self) -> str:
        if self.choices is not None:
            return "one of " + ", ".join(map(canonical, self.choices))
        scale = ", logarithmic" if self.log else f" by {self.step}" if self.step else ""
        return f"{self.low} to {self.high}{scale}"


class Pruning(Configurable):
    """Median pruning: stop a training whose validation MRR is below the median at its epoch.

    Args:
        warmup: epochs that no training is pruned in.
        after: number of complete trials before the first pruning.
    """

    def __init__(self, *, warmup: int = 0, after: int = 5) -> None:
        if warmup < 0 or after < 1:
            raise ValueError("warmup must be at least 0 and after at least 1")
        self.warmup, self.after = warmup, after

    def table(self) -> dict[str, int]:
        """The settings as the file has them, defaults included."""
        return {"warmup": self.warmup, "after": self.after}


class PlanSettings(Configurable):
    """The keys of a search's file.

    Args:
        experiment: shipped name, or path relative to the working directory or to this file.
        graph: as for ``mocme train --data``; a path may be relative to this file, too.
        ranges: ranges of the settings that vary, by dotted path.
        version: version of a benchmark graph.
        features: folder of encoded modalities.
        trials: number of trials, counted over all resumptions.
        seed: seed of the search.
        seeds: seeds of each trial's trainings, whose metrics are averaged; the experiment's own
            seed by default.
        set: settings that stay constant, by dotted path.
        pruning: stops unpromising trainings; without it all trainings run to their end.
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
            raise ValueError("trials must be at least 1 and seed at least 0")
        if not ranges:
            raise ValueError("ranges is empty; name a setting to vary")
        if len({*seeds}) != len(seeds):
            raise ValueError("seeds has a value twice")
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
        file: path of the search's file.
        base: path of the experiment's file.
        experiment: the experiment with the constant settings.
        constants: settings that stay constant, by dotted path.
        seeds: seeds of each trial's trainings, at least one.
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
    def read(file: str | Path, *, trust_code: bool = False) -> Plan:
        """Read and check the file of a search, without reading the graph.

        Args:
            trust_code: import the code that the experiment, the ranges and the graph name
                (``kind = "package.module:Class"``), now and in the trainings; by default, they are
                refused.

        Raises:
            ConfigError: naming the file, the wrong key, and the remedy.
        """
        path = Path(file)
        if not path.exists():
            raise ConfigError(f"{path}: no such file; give the TOML file of a search")
        table = read_toml(path)
        with within(path):
            return _plan(path, construct(PlanSettings, table, ""), trust_code)

    @property
    def trust_code(self) -> bool:
        """Whether code that the experiment and the graph name may be imported."""
        return self.experiment.trust_code

    def extends(self, folder: Path) -> str:
        """The experiment's name or path, for the key `extends` of a file in `folder`."""
        for name, path in shipped().items():
            if path.resolve() == self.base.resolve():
                return name
        return Path(os.path.relpath(self.base.resolve(), folder.resolve())).as_posix()

    def about(self) -> dict[str, Any]:
        """All that the results depend on, except the graph and its features."""
        return {
            "experiment": experts_by_name(self.experiment.settings()),
            "ranges": {path: span.table() for path, span in self.ranges.items()},
            "seed": self.seed,
            "seeds": list(self.seeds),
            "pruning": None if self.pruning is None else self.pruning.table(),
        }


def canonical(value: Any) -> str:
    """A setting's value as a string; different values give different strings."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=repr)


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted path as nested tables."""
    tables: dict[str, Any] = {}
    for dotted, value in settings.items():
        *folders, last = dotted.split(".")
        change: dict[str, Any] = {last: value}
        for key in reversed(folders):
            change = {key: change}
        tables = merge(tables, change)
    return tables


@contextmanager
def within(where: object) -> Iterator[None]:
    """Put a file or key in front of the message of an error.

    Raises:
        ConfigError: for every ValueError.
    """
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{where}: {str(error).lstrip('.: ')}") from error


def _plan(file: Path, settings: PlanSettings, trust_code: bool) -> Plan:
    base = find(_resolved(file, settings.experiment))
    experiment = Experiment.load(base, trust_code=trust_code)
    with within("set"):
        experiment = experiment.changed(settings.set)
    _check_paths(settings)
    trainings = [table["training"] for table in experiment.experts.values() if "training" in table]
    validates = any(training["evaluate_every"] for training in trainings)
    if settings.pruning is not None and not validates:
        raise ConfigError(
            "pruning: needs validation during training; add "
            "experts.NAME.training.evaluate_every under set"
        )
    ranges = {
        path: _range(table, path, experiment, f"ranges.{path}")
        for path, table in settings.ranges.items()
    }
    features = None if settings.features is None else Path(_resolved(file, settings.features))
    if features is not None and not features.is_dir():
        raise ConfigError(
            f"features: no such folder: {features}; make it with mocme encode --out, or remove the "
            f"key"
        )
    return Plan(
        file=file,
        base=base,
        experiment=experiment,
        constants=settings.set,
        graph=_resolved(file, settings.graph),
        version=settings.version,
        features=features,
        trials=settings.trials,
        seed=settings.seed,
        seeds=settings.seeds or (experiment.seed,),
        ranges=ranges,
        pruning=settings.pruning,
    )


def _check_paths(settings: PlanSettings) -> None:
    """Refuse settings that a search cannot vary, and settings that overlap."""
    for path, table in settings.ranges.items():
        if table and all(isinstance(value, Mapping) for value in table.values()):
            inner = next(iter(table))
            raise ConfigError(f'ranges.{path}: put the path in quotes: "{path}.{inner}"')
    for path in (*settings.ranges, *settings.set):
        if path.split(".")[0] in WORDS:
            raise ConfigError(f"{path}: has no effect on a training; remove it")
    if "seed" in settings.ranges:
        raise ConfigError(
            "ranges.seed: a search over seeds selects noise; for the mean over several "
            "seeds, write seeds = [0, 1, 2] instead"
        )
    if settings.seeds and "seed" in settings.set:
        raise ConfigError("set.seed: seeds is set as well; remove one of them")
    for path in settings.ranges:
        for other in (*settings.ranges, *settings.set):
            if other != path and other.startswith(f"{path}."):
                raise ConfigError(
                    f"ranges.{path}: contains {other}, which is set as well; keep one"
                )
    for path in settings.set:
        if path in settings.ranges:
            raise ConfigError(f"set.{path}: is in ranges as well; keep one of them")


def _range(table: Mapping[str, Any], path: str, experiment: Experiment, where: str) -> Range:
    """The range of a setting, with its ends tried on the experiment."""
    value: Any = experts_by_name(experiment.table())
    for key in addressed(value, path)[0].split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, float):
        # The ends of an interval of real numbers may be written as 0 and 1.
        table = {
            key: float(number) if key in NUMBERS and type(number) is int else number
            for key, number in table.items()
        }
    span = construct(Range, table, where)
    with within("ranges"):
        for end in span.ends():
            experiment.changed({path: end})
    return span


def _check_choices(choices: Sequence[Any], is_interval: bool) -> None:
    if is_interval:
        raise ValueError("give either choices or low and high, not both")
    if not choices:
        raise ValueError("choices is empty; give the values")
    if len({canonical(value) for value in choices}) != len(choices):
        raise ValueError("choices has a value twice")


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
        raise ValueError("log and step exclude each other; remove one of them")
    if step is None:
        return
    if step <= 0:
        raise ValueError(f"step must be above 0, not {step}")
    count = (high - low) / step
    if abs(count - round(count)) > 1e-9 * max(1.0, count):
        last = low + math.floor(count) * step
        raise ValueError(f"steps of {step} lead from {low} to {last:g}, not to high ({high})")


def _resolved(file: Path, name: str) -> str:
    """A path relative to the working directory, else to the file's folder, else a name."""
    sibling = file.parent / name
    return name if Path(name).exists() or not sibling.exists() else str(sibling)
