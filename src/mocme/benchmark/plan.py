"""The runs of a benchmark in order: experiment, paths, and the identity of the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mocme.benchmark.archive import ResultArchive, ResultError
from mocme.benchmark.results import ResultFiles
from mocme.benchmark.spec import BenchmarkSpec, Row, label, slug
from mocme.core.registry import ConfigError
from mocme.data.benchmarks import registry as benchmarks
from mocme.runs.config import Experiment
from mocme.runs.experiment_files import experts_by_name

# Rises when the same model would be ranked or counted differently.
PROTOCOL = 1
MOST_DIFFERENCES = 4

State = Literal["done", "new", "training", "trained", "failed", "conflict"]


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of a benchmark: a row on a graph with a seed.

    Attributes:
        graph: label of the graph.
        source: name or path for `mocme.load`.
        version: version of a benchmark graph; None for other graphs.
        experiment: the full configuration, seed included.
        files: where the result is stored.
        folder: folder of the training.
    """

    row: Row
    graph: str
    source: str
    version: Literal["repaired", "as-published"] | None
    seed: int
    experiment: Experiment
    features: Path | None
    files: ResultFiles
    folder: Path

    @property
    def trust_code(self) -> bool:
        """Whether code that the experiment and the graph name may be imported."""
        return self.experiment.trust_code

    def __str__(self) -> str:
        return f"{self.row.name} on {self.graph}, seed {self.seed}"


@dataclass(frozen=True)
class InputDigests:
    """Digests of a run's training data."""

    graph: str
    features: str


def plan(
    spec: BenchmarkSpec, runs: Path, only: Sequence[str] = (), *, trust_code: bool = False
) -> list[PlannedRun]:
    """All runs in order: by row, then by graph, then by seed.

    Args:
        runs: folder for the trainings.
        only: names of the rows to take; all by default.
        trust_code: import the code that experiments and graphs name
            (``kind = "package.module:Class"``), now and in the runs; by default, they are refused.

    Raises:
        ConfigError: a setting is wrong, with the name of its row; or `only` names no row.
    """
    names = [row.name for row in spec.rows]
    for name in only:
        if name not in names:
            raise ConfigError(f"{spec.path}: no row is called {name!r}; rows: {', '.join(names)}")
    rows = [row for row in spec.rows if not only or row.name in only]
    return [
        planned
        for row in rows
        for graph in row.graphs
        for planned in _runs_of_graph(spec, row, graph, runs / spec.name, trust_code)
    ]


def _runs_of_graph(
    spec: BenchmarkSpec, row: Row, graph: str, runs: Path, trust_code: bool
) -> list[PlannedRun]:
    home, name = spec.path.parent, label(graph)
    is_path = graph != "atlas" and (home / graph).exists()
    source = str(home / graph) if is_path else graph
    # Only benchmark graphs have versions; other graphs of the row take none.
    has_versions = not is_path and benchmarks.get(graph) is not None
    version: Any = row.version if has_versions else None
    experiment_name = row.experiment.replace("{graph}", name.lower())
    experiment_path = home / experiment_name
    is_file = experiment_path.suffix == ".toml" and experiment_path.is_file()
    features = None if row.features is None else home / row.features.replace("{graph}", name)
    planned = []
    for seed in row.seeds:
        try:
            experiment = Experiment.load(
                experiment_path if is_file else experiment_name,
                {**row.settings, "seed": seed},
                trust_code=trust_code,
            )
        except ConfigError as error:
            raise ConfigError(f"{spec.path}: row {row.name!r} on {name}: {error}") from error
        stem = f"{row.slug}/{slug(name)}/seed-{seed}"
        files = ResultFiles(ResultArchive(spec.results), stem)
        planned.append(
            PlannedRun(row, name, source, version, seed, experiment, features, files, runs / stem)
        )
    return planned


# -- identity --------------------------------------------------------------------------------------


def json_settings(experiment: Experiment) -> dict[str, Any]:
    """All settings as JSON holds them, without descriptions and expected results."""
    settings: dict[str, Any] = json.loads(json.dumps(experiment.settings(), default=str))
    return settings


def json_digest(value: Any) -> str:
    """SHA-256 of a JSON value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def identity(experiment: Experiment, inputs: InputDigests) -> dict[str, Any]:
    """Fingerprint of a result's inputs; its `digest` stands for all other keys."""
    parts = {
        "protocol": PROTOCOL,
        "seed": experiment.seed,
        "graph": inputs.graph,
        "features": inputs.features,
        "settings": json_digest(json_settings(experiment)),
    }
    return {**parts, "digest": json_digest(parts)}


def differences(
    experiment: Experiment, wanted: Mapping[str, Any], stored: Mapping[str, Any]
) -> str:
    """Why a stored identity is not the wanted one, for the user.

    Args:
        wanted: identity of `experiment`.
        stored: `identity` and `config` of a result.
    """
    new, old = (
        _flat(experts_by_name(json_settings(experiment))),
        _flat(experts_by_name(stored["config"])),
    )
    parts = [
        f"{key} is {new.get(key, 'not set')}, stored {old.get(key, 'not set')}"
        for key in sorted({*new, *old})
        if new.get(key) != old.get(key)
    ]
    for key in ("graph", "features", "protocol"):
        if wanted[key] != stored["identity"][key]:
            parts.append(f"the {key} is different")
    more = "; and more" if len(parts) > MOST_DIFFERENCES else ""
    return "; ".join(parts[:MOST_DIFFERENCES]) + more


def check(planned: PlannedRun, result: Mapping[str, Any]) -> None:
    """Refuse a result of other settings, without reading its graph and features.

    Raises:
        ResultError: naming the settings and the remedy.
    """
    inputs = InputDigests(result["identity"]["graph"], result["identity"]["features"])
    wanted = identity(planned.experiment, inputs)
    if not matches(wanted, result, trust_code=planned.trust_code):
        raise conflict(planned, wanted, result)


def matches(
    wanted: Mapping[str, Any], stored: Mapping[str, Any], *, trust_code: bool = False
) -> bool:
    """Whether a stored result has the wanted identity.

    Settings that were added after the result was made count with their defaults. A setting that was
    left to the machine counts as the value that it chose.

    Args:
        stored: `identity` and `config` of a result, and its `machine` settings.
        trust_code: import the code that the stored configuration names; without it, a result of
            such a configuration has another identity.
    """
    stored_identity = stored["identity"]
    if stored_identity["digest"] == wanted["digest"]:
        return True
    if json_digest(stored["config"]) != stored_identity["settings"]:
        return False
    machine: Mapping[str, Any] = stored.get("machine", {})
    for changes in ({}, machine):
        try:
            experiment = Experiment.load(stored["config"], changes, trust_code=trust_code)
            settings = json_settings(experiment)
        except ConfigError:  # a setting that does not exist any more, or code that is not trusted
            return False
        parts = {**stored_identity, "settings": json_digest(settings)}
        if all(parts[key] == wanted[key] for key in wanted if key != "digest"):
            return True
    return False


def conflict(
    planned: PlannedRun, wanted: Mapping[str, Any], result: Mapping[str, Any]
) -> ResultError:
    """The error for a result of another configuration."""
    return ResultError(
        f"{planned.files} is the result of another configuration "
        f"({differences(planned.experiment, wanted, result)}); give the row another name, or "
        f"{planned.files.remedy} to measure again"
    )


def missing_splits(planned: PlannedRun, result: Mapping[str, Any]) -> list[str]:
    """Splits that the row asks for and the result does not have."""
    return [split for split in planned.row.splits if split not in result["splits"]]


def _flat(table: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            leaves |= _flat(value, f"{path}{key}.")
        else:
            leaves[f"{path}{key}"] = value
    return leaves
