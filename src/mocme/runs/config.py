"""Experiments as TOML: load, extend, override, check, write out in full."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from mocme.core.registry import (
    ConfigError,
    Configurable,
    build,
    check_keys,
    construct,
    convert,
    expand,
    expand_settings,
)
from mocme.data.features.sources import Source, kind_of
from mocme.experts.embedding.model import ModelSettings
from mocme.experts.embedding.trainer import TrainingSettings

# What describes an experiment, and changes nothing.
WORDS = ("description", "expected")
SECTIONS = ("description", "data", "modalities", "model", "training", "evaluation", "expected")


class DataSettings(Configurable):
    """Settings of what a training reads.

    Args:
        without: modalities to leave out, of those that the graph or the experiment declares.
        only: modalities to take; all by default. An empty list means structure only.
    """

    def __init__(self, *, without: Sequence[str] = (), only: Sequence[str] | None = None) -> None:
        self.without, self.only = without, only

    def choose(self, tables: Mapping[str, Any]) -> dict[str, Any]:
        """The modalities to read.

        Raises:
            ConfigError: one is named that is not declared.
        """
        for name in (*self.without, *(self.only or ())):
            if name not in tables:
                known = ", ".join(tables) or "none"
                raise ConfigError(f"data: the modality {name!r} is not declared; declared: {known}")
        wanted = tables if self.only is None else {k: tables[k] for k in self.only}
        return {k: v for k, v in wanted.items() if k not in self.without}


class EvaluationSettings(Configurable):
    """Settings of a ranking.

    Args:
        memory: GiB that scores of a batch may take.
    """

    def __init__(self, *, memory: float = 0.5) -> None:
        if memory <= 0:
            raise ValueError("memory must be above 0")
        self.memory = memory


@dataclass(frozen=True)
class Experiment:
    """A checked configuration; its tables hold every setting, defaults included.

    Attributes:
        modalities: tables that replace the graph's own declarations; empty to take those.
        expected: measured results, for the reader; nothing depends on them.
    """

    name: str
    description: str
    data: Mapping[str, Any]
    modalities: Mapping[str, Any]
    model: Mapping[str, Any]
    training: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    expected: Mapping[str, Any]

    @staticmethod
    def load(
        source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None
    ) -> Experiment:
        """Read an experiment.

        Args:
            source: a TOML file, the name of a shipped experiment (``mocme``), or the table itself.
            overrides: settings by dotted path, for instance ``{"training.passes": 5}``.

        Raises:
            ConfigError: with the path of the setting that is wrong.
        """
        if isinstance(source, Mapping):
            name, table = "given", dict(source)
        else:
            path = find(source)
            name, table = _title(path), read(path)
        return Experiment.of(name, _overridden(table, overrides or {}))

    def changed(self, overrides: Mapping[str, Any]) -> Experiment:
        """The same experiment, name included, with other settings by dotted path."""
        return Experiment.of(self.name, _overridden(self.table(), overrides))

    @staticmethod
    def of(name: str, table: Mapping[str, Any]) -> Experiment:
        """Check a table and write out its defaults."""
        check_keys(table, dict.fromkeys(SECTIONS), "")
        modalities = _table(table, "modalities")
        full = {key: _source(value, f"modalities.{key}") for key, value in modalities.items()}
        experiment = Experiment(
            name,
            convert(table.get("description", ""), str, "description"),
            expand_settings(DataSettings, _table(table, "data"), "data"),
            full,
            expand_settings(ModelSettings, _table(table, "model"), "model"),
            expand_settings(TrainingSettings, _table(table, "training"), "training"),
            expand_settings(EvaluationSettings, _table(table, "evaluation"), "evaluation"),
            _table(table, "expected"),
        )
        experiment.parts()  # a value out of range is refused now, not in an hour
        return experiment

    def parts(self) -> tuple[DataSettings, ModelSettings, TrainingSettings, EvaluationSettings]:
        """New settings objects of this configuration."""
        return (
            construct(DataSettings, self.data, "data"),
            construct(ModelSettings, self.model, "model"),
            construct(TrainingSettings, self.training, "training"),
            construct(EvaluationSettings, self.evaluation, "evaluation"),
        )

    def with_training(self, **changes: Any) -> Experiment:
        """The same experiment with other settings of its training."""
        return replace(self, training={**self.training, **changes})

    def asked_as(self, wanted: Experiment) -> Experiment:
        """A run's configuration to hold beside the one that is wanted now.

        The run holds the precision that the machine chose; where that is left to the machine again,
        it is here too.
        """
        left = wanted.training["precision"] == "auto"
        return self.with_training(precision="auto") if left else self

    def table(self) -> dict[str, Any]:
        """The whole configuration as one table."""
        found = {key: getattr(self, key) for key in SECTIONS}
        return {key: value for key, value in found.items() if value not in ({}, "")}

    def settings(self) -> dict[str, Any]:
        """The configuration without words and expected results: all that a training depends on."""
        return {key: value for key, value in self.table().items() if key not in WORDS}

    def text(self) -> str:
        """The whole configuration as TOML."""
        return tomli_w.dumps(self.table())

    def custom_code(self) -> list[str]:
        """Parts of the user's own (``package.module:Class``) that this configuration names."""
        return custom_code(self.table())


def custom_code(table: Mapping[str, Any]) -> list[str]:
    """Parts of the user's own that a table names; nothing is imported to find them.

    `Experiment.of` imports them, so a configuration from elsewhere is looked at by this first.
    """
    return sorted(_custom(table))


def folder() -> Path:
    """Where the shipped experiments lie."""
    inside = Path(__file__).parents[1] / "experiments"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "experiments"


def shipped() -> dict[str, Path]:
    """Shipped experiments by name, for instance ``structure/mkg-y``."""
    home = folder()
    return {p.relative_to(home).with_suffix("").as_posix(): p for p in sorted(home.rglob("*.toml"))}


def find(source: str | Path) -> Path:
    """The file of an experiment, by path or by shipped name.

    Raises:
        ConfigError: naming near shipped ones.
    """
    import difflib

    path = Path(source)
    if path.suffix == ".toml":
        if path.is_file():
            return path
        # A path that starts in the repository also names the shipped file.
        named = path.as_posix().removeprefix("experiments/").removesuffix(".toml")
    else:
        named = path.as_posix()
    known = shipped()
    if named in known:
        return known[named]
    near = difflib.get_close_matches(named, known, 3)
    hint = f"did you mean {' or '.join(near)}?" if near else "list them with: mocme experiments"
    raise ConfigError(f"{source}: there is no such experiment file or shipped experiment; {hint}")


def read_toml(path: Path) -> dict[str, Any]:
    """The table of a file.

    Raises:
        ConfigError: not TOML. OSError: it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The merged table of a file and everything it extends.

    Raises:
        ConfigError: not TOML, or files that extend each other.
    """
    path = path.resolve()
    if path in seen:
        raise ConfigError(f"{path}: extends itself by way of {seen[-1].name}")
    table = read_toml(path)
    base = table.pop("extends", None)
    if base is None:
        return table
    parent = path.parent / str(base)
    if not parent.is_file():
        # Not beside the file: then one that comes with the package.
        named = str(base).removesuffix(".toml")
        if named not in shipped():
            raise ConfigError(
                f"{path}: extends {base!r}, which is neither beside it nor a shipped experiment "
                f"(list those with: mocme experiments)"
            )
        parent = shipped()[named]
    inherited = read(parent, (*seen, path))
    # Results and words describe one file, not those that build on it.
    for key in WORDS:
        inherited.pop(key, None)
    return merge(inherited, table)


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the changes; a table that names another kind replaces the old one whole."""
    result = dict(base)
    for key, value in change.items():
        old = result.get(key)
        if not (isinstance(old, Mapping) and isinstance(value, Mapping)):
            result[key] = value
        elif "kind" in value and value["kind"] != old.get("kind"):
            result[key] = dict(value)
        else:
            result[key] = merge(old, value)
    return result


def parse_override(text: str) -> tuple[str, Any]:
    """``training.passes=3`` as path and value; what is no TOML value counts as a text.

    Raises:
        ConfigError: there is no ``=``.
    """
    dotted, equals, value = text.partition("=")
    if not equals or not dotted.strip():
        raise ConfigError(f"--set {text}: write it as path=value, for instance training.passes=3")
    try:
        found = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        found = {}
    # Several lines may be several settings to TOML, but here they are one text.
    return dotted.strip(), found["value"] if len(found) == 1 else value.strip()


def _overridden(table: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(table)
    for dotted, value in overrides.items():
        _set(result, dotted, value)
    return result


def _set(table: dict[str, Any], dotted: str, value: Any) -> None:
    *folders, last = dotted.split(".")
    change: dict[str, Any] = {last: value}
    for key in reversed(folders):
        change = {key: change}
    merged = merge(table, change)
    table.clear()
    table.update(merged)


def _table(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}: must be a table")
    return dict(value)


def _title(path: Path) -> str:
    for name, known in shipped().items():
        if known.resolve() == path.resolve():
            return name
    return path.stem


def _source(value: Any, path: str) -> dict[str, Any]:
    """A table of ``[modalities]`` with its defaults, after a look at its values."""
    kind = kind_of(value, path)
    full = expand(Source, {**value, "kind": kind}, path)
    build(Source, full, path)  # type: ignore[type-abstract]
    return full


def _custom(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        kind = value.get("kind")
        own = {kind} if isinstance(kind, str) and ":" in kind else set()
        return own.union(*map(_custom, value.values()))
    return set().union(*map(_custom, value)) if isinstance(value, list | tuple) else set()
