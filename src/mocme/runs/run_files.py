"""What the JSON and TOML files of a run hold, checked whenever they are read.

A run may come from elsewhere, so nothing is taken on trust: a missing or unknown key, a value of
another type or out of range is a `RunError` with the file and the key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mocme.core.registry import ConfigError, Configurable, construct, convert
from mocme.core.text_formats import parse_toml
from mocme.data.graph import SPLITS, Vocabulary
from mocme.storage import RunError, RunFolder
from mocme.storage.errors import RESTORE, refuse_invalid

ABOUT = "run.json"
CONFIG = "config.toml"
NAMES = "names.json"
EVALUATIONS = "evaluations.jsonl"
# Of an expert or a modality: it is part of a file's name.
_NAME = re.compile(r"[\w-]{1,50}")


@dataclass(frozen=True, kw_only=True)
class Digests(Configurable):
    """SHA-256 of what a run was trained on."""

    graph: str
    features: str
    inputs: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class About(Configurable):
    """The content of run.json."""

    format: int
    created: str
    experiment: str
    graph: str
    data: str | None
    seed: int
    experts: Sequence[str]
    modalities: Sequence[str]
    facts: Mapping[str, int]
    entities: Mapping[str, int]
    digest: Digests
    notes: Sequence[str]
    environment: Mapping[str, str | int | None]
    finished: bool
    fits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    held_out: float = 0.0
    seconds: float | None = None
    best_epoch: int | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        for name, values in (("experts", self.experts), ("modalities", self.modalities)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has a name twice")
            if wrong := [value for value in values if not _NAME.fullmatch(value)]:
                raise ValueError(f"{name} has {wrong[0]!r}, which is no name")
        if unknown := [split for split in self.facts if split not in SPLITS]:
            raise ValueError(f"facts has the split {unknown[0]!r}")
        if set(self.entities) != {"all", "structure", *self.modalities}:
            raise ValueError("entities does not count all, structure and every modality")
        if min([*self.facts.values(), *self.entities.values()]) < 0:
            raise ValueError("a count is below 0")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}, not 0 to 1")
        if self.data is not None and "\0" in self.data:
            raise ValueError("data is no path")
        for name, fit in self.fits.items():
            convert(fit.get("steps"), int, f"fits.{name}.steps")
            convert(fit.get("seconds", 0.0), float, f"fits.{name}.seconds")
            convert(fit.get("best_epoch", 0), int, f"fits.{name}.best_epoch")


def read_about(folder: RunFolder) -> dict[str, Any]:
    """Read run.json of a training.

    Raises:
        RunError: it is missing, damaged, or a key is missing, unknown or wrong.
    """
    about = folder.about
    with refuse_invalid(folder.path / ABOUT):
        construct(About, about, "run")
    return about


def read_config(folder: RunFolder) -> dict[str, Any]:
    """Read config.toml as a table; the settings are not checked.

    Raises:
        RunError: it is missing, damaged or not TOML.
    """
    text = folder.read_text(CONFIG)
    with refuse_invalid(folder.path / CONFIG):
        return parse_toml(text)


def check_complete(path: Path, table: Mapping[str, Any], full: Mapping[str, Any]) -> None:
    """Check that a configuration of a run has every setting.

    A setting that is left out would take a default that the run was not trained with. A setting
    that is new in a later version is given there the value that runs without it were trained with.

    Args:
        path: of the configuration, for the message.
        table: as it was read.
        full: the table with all defaults.

    Raises:
        RunError: with the setting that is missing.
    """
    if missing := _missing(full, table):
        raise RunError(f"{path}: the setting {missing} is missing; {RESTORE}")


def check_agreement(
    folder: RunFolder, about: Mapping[str, Any], seed: int, experts: Sequence[str]
) -> None:
    """Check that run.json and config.toml belong together.

    Args:
        seed, experts: of the configuration.

    Raises:
        RunError: they differ.
    """
    for key, value in (("seed", seed), ("experts", list(experts))):
        if about[key] != value:
            raise RunError(
                f"{folder.path / ABOUT}: {key} is {about[key]!r}, but config.toml has {value!r}; "
                f"{RESTORE}"
            )


def read_names(folder: RunFolder) -> tuple[Vocabulary, Vocabulary]:
    """Read the names of entities and relations.

    Raises:
        RunError: they are missing or damaged, or a name is no string or occurs twice.
    """
    names = folder.read_json(NAMES, finite=True)
    with refuse_invalid(folder.path / NAMES):
        if not isinstance(names, dict) or set(names) != {"entities", "relations"}:
            raise ValueError("does not hold the lists entities and relations, and nothing else")
        for key, values in names.items():
            if not isinstance(values, list) or not all(type(name) is str for name in values):
                raise ValueError(f"{key} is not a list of strings")
            if not values:
                raise ValueError(f"{key} is empty")
        return Vocabulary(names["entities"]), Vocabulary(names["relations"], "relation")


def read_evaluations(folder: RunFolder) -> list[dict[str, Any]]:
    """Read the log of evaluations; without a log there are none.

    Raises:
        RunError: a line is damaged, or a key is missing or wrong.
    """
    if not folder.has(EVALUATIONS):
        return []
    records = folder.records(EVALUATIONS)
    with refuse_invalid(folder.path / EVALUATIONS):
        for number, record in enumerate(records, 1):
            _number(record.get("time"), f"line {number}: time")
            _check_evaluation(record, f"line {number}: ")
    return records


def evaluation_file(split: str) -> str:
    """The file of the last evaluation of a split."""
    return f"evaluation-{split}.json"


def read_evaluation(folder: RunFolder, split: str) -> dict[str, Any]:
    """Read the last evaluation of a split.

    Raises:
        RunError: it is missing or damaged, or a key is missing or wrong.
    """
    name = evaluation_file(split)
    result: dict[str, Any] = folder.read_json(name, finite=True)
    with refuse_invalid(folder.path / name, f"evaluate again: mocme evaluate {folder.path}"):
        if not isinstance(result, dict):
            raise ValueError("is not a JSON object")
        _check_evaluation(result, "")
        if result["split"] != split:
            raise ValueError(f"split: must be {split!r}, not {result['split']!r}")
        convert(result.get("protocol"), Mapping[str, Any], "protocol")
        convert(result.get("by"), Mapping[str, Mapping[str, Mapping[str, Any]]], "by")
    return result


def read_log(folder: RunFolder, name: str) -> list[dict[str, Any]]:
    """Read the log of a training; without a log it has no records.

    Raises:
        RunError: a line is damaged, or a key is missing or wrong.
    """
    if not folder.has(name):
        return []
    records = folder.records(name)
    with refuse_invalid(folder.path / name):
        for number, record in enumerate(records, 1):
            path = f"line {number}: "
            convert(record.get("expert"), str, f"{path}expert")
            for key, value in record.items():
                if key == "valid":
                    convert(value, Mapping[str, float], f"{path}valid")
                elif key in ("epoch", "step"):
                    convert(value, int, f"{path}{key}")
                elif key != "expert":
                    _number(value, f"{path}{key}")
    return records


def _check_evaluation(record: Mapping[str, Any], path: str) -> None:
    """Check an evaluation's keys; those of metrics are numbers.

    Raises:
        ConfigError: with the key that is wrong.
    """
    convert(record.get("split"), Literal["valid", "test"], f"{path}split")
    for key in ("experiment", "graph"):
        convert(record.get(key), str, f"{path}{key}")
    for key in ("seed", "count", "evaluations_of_this_split"):
        convert(record.get(key), int, f"{path}{key}")
    convert(record.get("model"), str | None, f"{path}model")
    for key, value in record.items():
        if key in ("split", "experiment", "graph", "protocol", "by", "model"):
            continue
        if key in ("optimistic", "pessimistic"):
            convert(value, Mapping[str, float], f"{path}{key}")
            continue
        _number(value, f"{path}{key}")
        if (key == "mrr" or key.startswith("hits@")) and not 0 <= value <= 1:
            raise ConfigError(f"{path}{key}: must be within 0 and 1, not {value!r}")


def _number(value: Any, path: str) -> None:
    """Refuse anything but a finite number."""
    if not math.isfinite(convert(value, float, path)):
        raise ConfigError(f"{path}: must be a finite number, not {value!r}")


def _missing(full: Any, given: Any) -> str:
    """The dotted path of the first setting of `full` that `given` lacks, or an empty text."""
    if isinstance(full, Mapping) and isinstance(given, Mapping):
        for key, value in full.items():
            if key not in given:
                return str(key)
            if inner := _missing(value, given[key]):
                return f"{key}.{inner}"
    elif isinstance(full, Sequence) and isinstance(given, Sequence) and not isinstance(full, str):
        for number, (value, other) in enumerate(zip(full, given, strict=False)):
            if inner := _missing(value, other):
                return f"[{number}].{inner}"
    return ""
