"""The runs of a bench, in order: what each is, where its files lie, and how far it has come."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mocme.benchmark import results
from mocme.benchmark.results import ResultFiles
from mocme.benchmark.spec import BenchmarkSpec, Row, label, slug
from mocme.core.registry import ConfigError
from mocme.data.benchmarks import registry as benchmarks
from mocme.runs.config import Experiment

# Rises when the same model would be ranked or counted in another way.
PROTOCOL = 1

State = Literal["done", "new", "training", "trained", "failed", "conflict"]


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of a bench: a row, a graph, a seed.

    Attributes:
        graph: the graph's label.
        source: what `mocme.load` takes.
        version: of a benchmark by name.
        experiment: in full, the seed included.
        place: of its result.
        folder: of its training.
    """

    row: Row
    graph: str
    source: str
    version: Literal["repaired", "as-published"] | None
    seed: int
    experiment: Experiment
    features: Path | None
    place: ResultFiles
    folder: Path

    def __str__(self) -> str:
        return f"{self.row.name} on {self.graph}, seed {self.seed}"


@dataclass(frozen=True)
class InputDigests:
    """Digests of what a run is trained on."""

    graph: str
    features: str


def plan(bench: BenchmarkSpec, runs: Path, only: Sequence[str] = ()) -> list[PlannedRun]:
    """All runs in order: row by row, graph by graph, seed by seed.

    Args:
        runs: folder for the trainings.
        only: names of rows to take.

    Raises:
        ConfigError: a setting is wrong, with the row; or `only` names no row.
    """
    names = [row.name for row in bench.rows]
    for name in only:
        if name not in names:
            raise ConfigError(f"{bench.path}: no row is called {name!r}; rows: {', '.join(names)}")
    rows = [row for row in bench.rows if not only or row.name in only]
    return [
        trial
        for row in rows
        for graph in row.graphs
        for trial in _of_seeds(bench, row, graph, runs / bench.name)
    ]


def _of_seeds(bench: BenchmarkSpec, row: Row, graph: str, runs: Path) -> list[PlannedRun]:
    home, name = bench.path.parent, label(graph)
    beside = graph != "atlas" and (home / graph).exists()
    source = str(home / graph) if beside else graph
    # A version is one of a benchmark by name; other graphs of the row have none.
    named = not beside and benchmarks.get(graph) is not None
    version: Any = row.version if named else None
    wanted = row.experiment.replace("{graph}", name.lower())
    near = home / wanted
    features = None if row.features is None else home / row.features.replace("{graph}", name)
    trials = []
    for seed in row.seeds:
        try:
            experiment = Experiment.load(
                near if near.suffix == ".toml" and near.is_file() else wanted,
                {**row.settings, "seed": seed},
            )
        except ConfigError as error:
            raise ConfigError(f"{bench.path}: row {row.name!r} on {name}: {error}") from error
        place = ResultFiles(bench.results / row.slug / slug(name), f"seed-{seed}")
        folder = runs / row.slug / slug(name) / f"seed-{seed}"
        trials.append(
            PlannedRun(row, name, source, version, seed, experiment, features, place, folder)
        )
    return trials


# -- identity --------------------------------------------------------------------------------------


def settings(experiment: Experiment) -> dict[str, Any]:
    """All settings as JSON holds them; words and expected results are none."""
    found: dict[str, Any] = json.loads(json.dumps(experiment.settings(), default=str))
    return found


def identity(experiment: Experiment, inputs: InputDigests) -> dict[str, Any]:
    """What a result is a result of; `digest` stands for all of it."""
    parts = {
        "protocol": PROTOCOL,
        "seed": experiment.training["seed"],
        "graph": inputs.graph,
        "features": inputs.features,
        "settings": _sha(settings(experiment)),
    }
    return {**parts, "digest": _sha(parts)}


def differences(
    experiment: Experiment, wanted: Mapping[str, Any], stored: Mapping[str, Any]
) -> str:
    """Why a stored identity is not the wanted one, for a person.

    Args:
        stored: with `identity` and `config`, as a result holds them.
    """
    own, there = _flat(settings(experiment)), _flat(stored["config"])
    told = [
        f"{key} is {own.get(key, 'not set')}, there {there.get(key, 'not set')}"
        for key in sorted({*own, *there})
        if own.get(key) != there.get(key)
    ]
    for key in ("graph", "features", "protocol"):
        if wanted[key] != stored["identity"][key]:
            told.append(f"the {key} is another one")
    return "; ".join(told[:4]) + ("; and more" if len(told) > 4 else "")


def check(trial: PlannedRun, result: Mapping[str, Any]) -> None:
    """Refuse a result made with other settings; its graph and features are not looked at.

    Raises:
        ResultError: naming the settings and the remedy.
    """
    inputs = InputDigests(result["identity"]["graph"], result["identity"]["features"])
    wanted = identity(trial.experiment, inputs)
    if not same(wanted, result):
        raise conflict(trial, wanted, result)


def same(wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """Whether a stored result is one of the wanted identity.

    Settings that came after it was made count as what they are by default, and a precision that was
    left to the machine as the one that it chose.

    Args:
        stored: with `identity` and `config`, as a result holds them.
    """
    own = stored["identity"]
    if own["digest"] == wanted["digest"]:
        return True
    if _sha(stored["config"]) != own["settings"]:
        return False
    chosen = (
        {"experts.embedding.training.precision": stored["precision"]}
        if "precision" in stored
        else {}
    )
    for also in ({}, chosen):
        try:
            renewed = _sha(settings(Experiment.load(stored["config"], also)))
        except ConfigError:  # a setting that is no longer there
            return False
        parts = {**own, "settings": renewed}
        if all(parts[key] == wanted[key] for key in wanted if key != "digest"):
            return True
    return False


def conflict(
    trial: PlannedRun, wanted: Mapping[str, Any], result: Mapping[str, Any]
) -> results.ResultError:
    """The error for a result of another configuration."""
    return results.ResultError(
        f"{trial.place.result}: holds a result of another configuration "
        f"({differences(trial.experiment, wanted, result)}); give the row another name, or delete "
        f"this file to measure anew"
    )


def lacking(trial: PlannedRun, result: Mapping[str, Any]) -> list[str]:
    """Splits that the row asks for and the result does not have."""
    return [split for split in trial.row.splits if split not in result["splits"]]


def _flat(table: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{path}{key}.")
        else:
            found[f"{path}{key}"] = value
    return found


def _sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
