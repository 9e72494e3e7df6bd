"""Experiments: checked settings with every default, as objects and as TOML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import tomli_w

import mocme.experts
import mocme.mixture
from mocme.core.registry import (
    ConfigError,
    Configurable,
    build,
    check_keys,
    construct,
    convert,
    discover,
    expand,
    expand_settings,
)
from mocme.data.features.sources import Source, kind_of
from mocme.experts.base import ExpertSettings
from mocme.mixture.base import MixtureSettings
from mocme.runs.experiment_files import (
    WORDS,
    experts_by_name,
    find,
    overridden,
    read,
    section,
    title,
)
from mocme.runs.renamed import renamed_settings

ExpertSettings.kinds = discover(ExpertSettings, mocme.experts)
MixtureSettings.kinds = discover(MixtureSettings, mocme.mixture)

SECTIONS = (
    *("description", "seed", "data", "modalities", "experts", "mixture", "evaluation"),
    "expected",
)


@dataclass(frozen=True, kw_only=True)
class DataSettings(Configurable):
    """Which modalities a training reads.

    Args:
        without: modalities to leave out, of those that the graph or the experiment declares.
        only: modalities to take; all by default. An empty list means structure only.
    """

    without: Sequence[str] = ()
    only: Sequence[str] | None = None

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


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(Configurable):
    """Settings of a ranking.

    Args:
        memory: GiB for the scores of a batch.
    """

    memory: float = 0.5

    def __post_init__(self) -> None:
        if self.memory <= 0:
            raise ValueError("memory must be above 0")


@dataclass(frozen=True)
class Settings:
    """The settings of an experiment as objects.

    Attributes:
        experts: that the mixture uses, by name, in the order of the experiment.
    """

    seed: int
    data: DataSettings
    experts: Mapping[str, ExpertSettings]
    mixture: MixtureSettings
    evaluation: EvaluationSettings


@dataclass(frozen=True)
class Experiment:
    """A checked configuration; its tables hold every setting, defaults included.

    Attributes:
        modalities: tables that replace the graph's own declarations; empty to take those.
        experts: a table for each expert, by name.
        expected: measured results for the reader; nothing depends on them.
        trust_code: whether code that the tables name may be imported: they become objects later.
    """

    name: str
    description: str
    seed: int
    data: Mapping[str, Any]
    modalities: Mapping[str, Any]
    experts: Mapping[str, Mapping[str, Any]]
    mixture: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    expected: Mapping[str, Any]
    trust_code: bool = field(default=False, kw_only=True, compare=False)

    @staticmethod
    def load(
        source: str | Path | Mapping[str, Any],
        overrides: Mapping[str, Any] | None = None,
        *,
        trust_code: bool = False,
    ) -> Experiment:
        """Read an experiment.

        Args:
            source: a TOML file, the name of a shipped experiment (``mocme``), or the table itself.
            overrides: settings by dotted path; an expert is addressed by its name, for instance
                ``{"experts.embedding.training.epochs": 5}``.
            trust_code: import the code that the experiment names (``package.module:Class``); by
                default, such an experiment is refused.

        Raises:
            ConfigError: with the path of the setting that is wrong.
        """
        if isinstance(source, Mapping):
            name, table = "given", experts_by_name(source)
        else:
            path = find(source)
            name, table = title(path), read(path)
        changed = overridden(table, overrides or {})
        return Experiment.of(name, changed, trust_code=trust_code)

    def changed(self, overrides: Mapping[str, Any]) -> Experiment:
        """The same experiment, name included, with other settings by dotted path."""
        changed = overridden(self._tables(), overrides)
        return Experiment.of(self.name, changed, trust_code=self.trust_code)

    def trusted(self, trust_code: bool) -> Experiment:
        """The same experiment, whose code may be imported if it was trusted before or is now."""
        return replace(self, trust_code=self.trust_code or trust_code)

    @staticmethod
    def of(name: str, table: Mapping[str, Any], *, trust_code: bool = False) -> Experiment:
        """Check a table and write out its defaults.

        Args:
            trust_code: as of `load`.

        Raises:
            ConfigError: with the path of the setting that is wrong; for a setting of version 0.1,
                with its new name.
        """
        renamed_settings(table)
        check_keys(table, dict.fromkeys(SECTIONS), "")
        modalities = section(table, "modalities")
        experts = experts_by_name(table).get("experts", {})
        mixture = {"kind": "Sum", **section(table, "mixture")}
        experiment = Experiment(
            name,
            convert(table.get("description", ""), str, "description"),
            _seed(table.get("seed", 0)),
            expand_settings(DataSettings, section(table, "data"), "data"),
            {
                key: _source(value, f"modalities.{key}", trust_code)
                for key, value in modalities.items()
            },
            {
                key: expand(
                    ExpertSettings,
                    {"kind": key, **settings},
                    f"experts.{key}",
                    trust_code=trust_code,
                )
                for key, settings in experts.items()
            },
            expand(MixtureSettings, mixture, "mixture", trust_code=trust_code),
            expand_settings(EvaluationSettings, section(table, "evaluation"), "evaluation"),
            section(table, "expected"),
            trust_code=trust_code,
        )
        experiment.components()  # refuse values out of range before the training
        return experiment

    def components(self) -> Settings:
        """The settings as objects.

        Raises:
            ConfigError: with the path of the setting that is wrong.
        """
        return self._components

    @cached_property
    def _components(self) -> Settings:
        trust = self.trust_code
        mixture = build(MixtureSettings, self.mixture, "mixture", trust_code=trust)  # type: ignore[type-abstract]
        names = list(self.experts) if mixture.experts is None else list(mixture.experts)
        if not names:
            raise ConfigError("experts: an experiment needs at least one, as a table [[experts]]")
        for name in names:
            if name not in self.experts:
                known = ", ".join(self.experts) or "none"
                raise ConfigError(
                    f"mixture.experts: there is no expert {name!r}; there are {known}"
                )
        experts = {
            name: build(
                ExpertSettings,  # type: ignore[type-abstract]
                self.experts[name],
                f"experts.{name}",
                trust_code=trust,
            )
            for name in names
        }
        if mixture.refits and (fixed := [n for n, e in experts.items() if not e.refittable]):
            raise ConfigError(
                f"mixture: {mixture.kind_name()} is fitted on training facts that the experts have "
                f"not seen, and {fixed[0]} cannot be fitted without them; set mixture.fitted_on to "
                f"valid"
            )
        try:
            mixture.check_experts({name: expert.sparse for name, expert in experts.items()})
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return Settings(
            self.seed,
            construct(DataSettings, self.data, "data"),
            experts,
            mixture,
            construct(EvaluationSettings, self.evaluation, "evaluation"),
        )

    def with_machine_choices_of(self, wanted: Experiment) -> Experiment:
        """The configuration of a run, for comparison with the configuration `wanted`.

        A run stores the values chosen for its machine. Settings that `wanted` leaves to the machine
        are "auto" in the result.
        """
        machine = self.machine_settings()
        left = {path: "auto" for path in wanted.left_to_machine() if path in machine}
        return self.changed(left) if left else self

    def left_to_machine(self) -> list[str]:
        """Dotted paths of settings whose value the machine chooses."""
        return [path for path, value in self.machine_settings().items() if value == "auto"]

    def machine_settings(self) -> dict[str, Any]:
        """Settings that may be left to the machine, by dotted path."""
        values: dict[str, Any] = {}
        for name, settings in self.components().experts.items():
            for path in settings.machine_settings:
                value: Any = self.experts[name]
                for key in path.split("."):
                    value = value[key]
                values[f"experts.{name}.{path}"] = value
        return values

    def _tables(self) -> dict[str, Any]:
        """The full configuration as one table, experts by name."""
        sections = {key: getattr(self, key) for key in SECTIONS}
        return {key: value for key, value in sections.items() if value not in ({}, "")}

    def table(self) -> dict[str, Any]:
        """The full configuration as one table, experts as a list, as in a file."""
        experts = [{"name": name, **settings} for name, settings in self.experts.items()]
        return {**self._tables(), "experts": experts}

    def settings(self) -> dict[str, Any]:
        """The configuration without words and expected results: all that a training depends on."""
        return {key: value for key, value in self.table().items() if key not in WORDS}

    def text(self) -> str:
        """The full configuration as TOML."""
        return tomli_w.dumps(self.table())

    def custom_code(self) -> list[str]:
        """Custom code (``package.module:Class``) that this configuration names."""
        return custom_code(self.table())


def custom_code(table: Mapping[str, Any]) -> list[str]:
    """Custom code that a table names; nothing is imported."""
    return sorted(set(custom_settings(table).values()))


def custom_settings(table: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a table that name custom code, by dotted path; nothing is imported."""
    return dict(_custom(table, ""))


def _seed(value: Any) -> int:
    seed: int = convert(value, int, "seed")
    if not -(2**63) <= seed < 2**63:
        raise ConfigError("seed: must fit in 64 bits")
    return seed


def _source(value: Any, path: str, trust_code: bool) -> dict[str, Any]:
    """A table of ``[modalities]`` with its defaults, checked."""
    kind = kind_of(value, path)
    full = expand(Source, {**value, "kind": kind}, path, trust_code=trust_code)
    build(Source, full, path, trust_code=trust_code)  # type: ignore[type-abstract]
    return full


def _custom(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            inner_path = f"{path}.{key}" if path else str(key)
            if key in ("kind", "function") and isinstance(inner, str) and ":" in inner:
                yield inner_path, inner
            else:
                yield from _custom(inner, inner_path)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _custom(inner, f"{path}[{number}]")
