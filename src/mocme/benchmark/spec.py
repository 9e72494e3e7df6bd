"""The TOML file of a benchmark: experiments, graphs, seeds, and which rows are compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mocme.core.registry import ConfigError
from mocme.data.benchmarks.registry import VERSIONS
from mocme.runs.experiment_files import merge, read_toml

SPLITS = ("valid", "test")
METRICS = ("mrr", "hits@1", "hits@3", "hits@10")
TOP_KEYS = ("title", "results", "picture", "defaults", "rows", "published")
DEFAULT_KEYS = ("experiment", "graphs", "seeds", "splits", "features", "version", "set")
ROW_KEYS = ("name", "control", *DEFAULT_KEYS)
PUBLISHED_KEYS = ("name", "graph", "split", *METRICS, "protocol", "source")


@dataclass(frozen=True)
class Row:
    """An experiment over graphs and seeds.

    Attributes:
        name: label in tables.
        experiment: shipped name or TOML file; ``{graph}`` stands for the graph's label in lower
            case.
        graphs: names of benchmark graphs, ``atlas``, or paths.
        splits: splits to rank after training.
        features: folder of encoded modalities; ``{graph}`` stands for the graph's label.
        version: version of the benchmark graphs; None takes their default.
        settings: overrides of the experiment's settings, by dotted path.
        control: names of the rows to compare with.
    """

    name: str
    experiment: str
    graphs: tuple[str, ...]
    seeds: tuple[int, ...]
    splits: tuple[str, ...]
    features: str | None
    version: str | None
    settings: Mapping[str, Any]
    control: tuple[str, ...]

    @property
    def slug(self) -> str:
        """The name as a part of a path."""
        return slug(self.name)


@dataclass(frozen=True)
class PublishedResult:
    """A result from the literature, shown in the same table.

    Attributes:
        metrics: ``mrr``, ``hits@1``, ``hits@3`` and ``hits@10``, as far as published.
        protocol: how it was measured, where that differs or is unknown.
    """

    name: str
    graph: str
    split: str
    metrics: Mapping[str, float]
    protocol: str
    source: str


@dataclass(frozen=True)
class BenchmarkSpec:
    """A checked benchmark file.

    Attributes:
        results: path of the archive of results.
        picture: path of the plot, if one is wanted.
    """

    path: Path
    title: str
    results: Path
    picture: Path | None
    rows: tuple[Row, ...]
    published: tuple[PublishedResult, ...]

    @property
    def name(self) -> str:
        """File name without its suffix, as the markers of a page use it."""
        return self.path.stem

    @staticmethod
    def read(path: str | Path) -> BenchmarkSpec:
        """Read and check a benchmark file.

        Raises:
            ConfigError: the file or a key is wrong; the message names both.
        """
        path = Path(path)
        return _SpecReader(path).spec(read_toml(path))


def label(graph: str) -> str:
    """The name of a graph in tables: the last part of its path without suffixes."""
    return Path(graph).name.partition(".")[0] or graph


def slug(text: str) -> str:
    """A text in lower case that is safe as a part of a path."""
    return re.sub(r"[^\w.+-]+", "-", text.lower()).strip("-.") or "-"


class _SpecReader:
    """Checks the tables of one file; every message begins with the path of the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def spec(self, table: Mapping[str, Any]) -> BenchmarkSpec:
        self._check_keys(table, TOP_KEYS, "")
        defaults = self._value(table, "defaults", dict, "", {})
        self._check_keys(defaults, DEFAULT_KEYS, "defaults")
        rows = [
            self._row(row, defaults, f"rows[{index}]")
            for index, row in enumerate(self._tables(table, "rows"))
        ]
        if not rows:
            raise self._error("rows", "is missing; add a [[rows]] table with name and experiment")
        self._check_names(rows)
        folder = self.path.parent / self._value(table, "results", str, "", "results")
        picture = self._value(table, "picture", str, "", None)
        return BenchmarkSpec(
            self.path,
            self._value(table, "title", str, "", self.path.stem),
            folder / f"{self.path.stem}.zip",
            None if picture is None else self.path.parent / picture,
            tuple(rows),
            tuple(
                self._published(result, f"published[{index}]")
                for index, result in enumerate(self._tables(table, "published"))
            ),
        )

    def _row(self, table: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> Row:
        self._check_keys(table, ROW_KEYS, where)
        settings = [self._value(part, "set", dict, where, {}) for part in (defaults, table)]
        table = {**defaults, **table}
        row = Row(
            self._value(table, "name", str, where),
            self._value(table, "experiment", str, where),
            self._values(table, "graphs", str, where),
            self._values(table, "seeds", int, where, (0,)),
            self._values(table, "splits", str, where, ("valid",)),
            self._value(table, "features", str, where, None),
            self._value(table, "version", str, where, None),
            merge(*settings),
            self._controls(table, where),
        )
        self._check_row(row, where)
        return row

    def _controls(self, table: Mapping[str, Any], where: str) -> tuple[str, ...]:
        """A name or a list of names."""
        if "control" not in table:
            return ()
        if isinstance(table["control"], str):
            return (table["control"],)
        return self._values(table, "control", str, where)

    def _check_row(self, row: Row, where: str) -> None:
        if not row.name.strip():
            raise self._error(f"{where}.name", "is empty; give the row a name")
        for split in row.splits:
            self._check_split(split, f"{where}.splits")
        if row.version not in (None, *VERSIONS):
            raise self._error(f"{where}.version", f"must be {' or '.join(VERSIONS)}")
        for key in ("experiment", "features"):
            for placeholder in re.findall(r"\{[^}]*\}", getattr(row, key) or ""):
                if placeholder != "{graph}":
                    raise self._error(
                        f"{where}.{key}", f"{placeholder} is unknown; only {{graph}} is allowed"
                    )
        nested = row.settings.get("training")
        if row.settings.get("seed") is not None or (
            isinstance(nested, Mapping) and "seed" in nested
        ):
            raise self._error(f"{where}.set", "seed is not allowed; use seeds")
        labels = [slug(label(graph)) for graph in row.graphs]
        if len(set(labels)) != len(labels):
            raise self._error(f"{where}.graphs", "two graphs have the same name; rename a folder")

    def _check_split(self, split: str, where: str) -> None:
        if split not in SPLITS:
            raise self._error(where, f"{split!r} is none of {', '.join(SPLITS)}")

    def _check_names(self, rows: Sequence[Row]) -> None:
        """Refuse two rows with one folder name, and controls that are no other row."""
        names: dict[str, str] = {}
        for index, row in enumerate(rows):
            if row.slug in names:
                raise self._error(
                    f"rows[{index}].name",
                    f"{row.name!r} and {names[row.slug]!r} have the same folder name, {row.slug}; "
                    f"rename one of them",
                )
            names[row.slug] = row.name
        for index, row in enumerate(rows):
            for control in row.control:
                if control not in names.values():
                    raise self._error(
                        f"rows[{index}].control",
                        f"{control!r} is not a row; rows are {', '.join(names.values())}",
                    )
                if control == row.name:
                    raise self._error(f"rows[{index}].control", "is the row itself")

    def _published(self, table: Mapping[str, Any], where: str) -> PublishedResult:
        self._check_keys(table, PUBLISHED_KEYS, where)
        split = self._value(table, "split", str, where, "test")
        self._check_split(split, f"{where}.split")
        metrics: dict[str, float] = {}
        for key in METRICS:
            if key in table:
                value = self._value(table, key, float, where)
                if not 0 <= value <= 1:
                    raise self._error(f"{where}.{key}", f"must be between 0 and 1, not {value}")
                metrics[key] = value
        if not metrics:
            raise self._error(where, "has no metric; give mrr or hits@10")
        name, graph, protocol, source = (
            self._value(table, key, str, where) for key in ("name", "graph", "protocol", "source")
        )
        return PublishedResult(name, graph, split, metrics, protocol, source)

    # -- values ------------------------------------------------------------------------------------

    def _check_keys(self, table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
        for key in table:
            if key not in known:
                path = f"{where}.{key}" if where else key
                raise self._error(path, f"is unknown; known: {', '.join(known)}")

    def _tables(self, table: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
        tables = self._value(table, key, list, "", [])
        if not all(isinstance(item, dict) for item in tables):
            raise self._error(key, f"must be tables; write each as [[{key}]]")
        return list(tables)

    def _value(
        self, table: Mapping[str, Any], key: str, kind: type, where: str, *default: Any
    ) -> Any:
        path = f"{where}.{key}" if where else key
        if key not in table:
            if not default:
                raise self._error(path, "is missing")
            return default[0]
        return self._typed(table[key], kind, path)

    def _values(
        self, table: Mapping[str, Any], key: str, kind: type, where: str, *default: Any
    ) -> tuple[Any, ...]:
        items = self._value(table, key, list, where, *map(list, default))
        values = tuple(self._typed(value, kind, f"{where}.{key}") for value in items)
        if not values:
            raise self._error(f"{where}.{key}", "is empty")
        if len(set(values)) != len(values):
            raise self._error(f"{where}.{key}", "has a value twice")
        return values

    def _typed(self, value: Any, kind: type, path: str) -> Any:
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            names = {str: "a string", int: "an integer", float: "a number", list: "a list"}
            raise self._error(path, f"must be {names.get(kind, 'a table')}, not {value!r}")
        return value

    def _error(self, path: str, what: str) -> ConfigError:
        return ConfigError(f"{self.path}: {path}: {what}")
