"""A bench file: which experiments, over which graphs and seeds, and what is compared with what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mocme.core.registry import ConfigError
from mocme.data.benchmarks.registry import VERSIONS
from mocme.runs.config import merge, read_toml

SPLITS = ("valid", "test")
TOP = ("title", "results", "picture", "defaults", "rows", "published")
SHARED = ("experiment", "graphs", "seeds", "splits", "features", "version", "set")
OWN = ("name", "control")
PUBLISHED = ("name", "graph", "split", "mrr", "hits@1", "hits@3", "hits@10", "protocol", "source")


@dataclass(frozen=True)
class Row:
    """An experiment over graphs and seeds.

    Attributes:
        name: what tables call it.
        experiment: a shipped name or a TOML file; ``{graph}`` is a graph's label in lower case.
        graphs: benchmarks by name, ``atlas``, or paths.
        splits: that are ranked after the training.
        features: folder of encoded modalities; ``{graph}`` is a graph's label.
        version: of benchmarks by name; None is theirs by default.
        settings: by dotted path, instead of the experiment's.
        control: names of the rows that this one is compared with.
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
        """The name as a folder's."""
        return slug(self.name)


@dataclass(frozen=True)
class PublishedResult:
    """A figure that somebody else measured, for the same table.

    Attributes:
        metrics: by name, ``mrr`` and some of ``hits@1``, ``hits@3``, ``hits@10``.
        protocol: how it was measured, where that is known to differ or not known.
    """

    name: str
    graph: str
    split: str
    metrics: Mapping[str, float]
    protocol: str
    source: str


@dataclass(frozen=True)
class BenchmarkSpec:
    """A bench file that has been read and checked; its paths are relative to it."""

    path: Path
    title: str
    results: Path
    picture: Path | None
    rows: tuple[Row, ...]
    published: tuple[PublishedResult, ...]

    @property
    def name(self) -> str:
        """What markers on a page call it: the file's name without its ending."""
        return self.path.stem

    @staticmethod
    def read(path: str | Path) -> BenchmarkSpec:
        """Read a bench file.

        Raises:
            ConfigError: with the file and the path of what is wrong in it.
        """
        path = Path(path)
        try:
            table = read_toml(path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a file") from error
        return _SpecReader(path).bench(table)


def label(graph: str) -> str:
    """What tables call a graph: the last part of its path, or its name."""
    return Path(graph).name.partition(".")[0] or graph


def slug(text: str) -> str:
    """A text as part of a path, in lower case."""
    return re.sub(r"[^\w.+-]+", "-", text.lower()).strip("-.") or "-"


class _SpecReader:
    """Checks the tables of one file; every message begins with the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def bench(self, table: Mapping[str, Any]) -> BenchmarkSpec:
        self._keys(table, TOP, "")
        defaults = self._one(table, "defaults", dict, "", {})
        self._keys(defaults, SHARED, "defaults")
        rows = [
            self._row(row, defaults, f"rows[{place}]")
            for place, row in enumerate(self._tables(table, "rows"))
        ]
        if not rows:
            raise self._error("rows", "is missing; add a [[rows]] table with name and experiment")
        self._distinct(rows)
        picture = self._one(table, "picture", str, "", None)
        return BenchmarkSpec(
            self.path,
            self._one(table, "title", str, "", self.path.stem),
            self.path.parent / self._one(table, "results", str, "", "results"),
            None if picture is None else self.path.parent / picture,
            tuple(rows),
            tuple(
                self._figure(figure, f"published[{place}]")
                for place, figure in enumerate(self._tables(table, "published"))
            ),
        )

    def _row(self, own: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> Row:
        self._keys(own, (*OWN, *SHARED), where)
        table = {**defaults, **own}
        settings = [self._one(part, "set", dict, where, {}) for part in (defaults, own)]
        row = Row(
            self._one(table, "name", str, where),
            self._one(table, "experiment", str, where),
            self._many(table, "graphs", str, where),
            self._many(table, "seeds", int, where, (0,)),
            self._many(table, "splits", str, where, ("valid",)),
            self._one(table, "features", str, where, None),
            self._one(table, "version", str, where, None),
            merge(*settings),
            self._controls(table, where),
        )
        self._sound(row, where)
        return row

    def _controls(self, table: Mapping[str, Any], where: str) -> tuple[str, ...]:
        """A name or a list of names."""
        if "control" not in table:
            return ()
        if isinstance(table["control"], str):
            return (table["control"],)
        return self._many(table, "control", str, where)

    def _sound(self, row: Row, where: str) -> None:
        if not row.name.strip():
            raise self._error(f"{where}.name", "is empty; give the row a name")
        for split in row.splits:
            if split not in SPLITS:
                raise self._error(f"{where}.splits", f"{split!r} is none of {', '.join(SPLITS)}")
        if row.version not in (None, *VERSIONS):
            raise self._error(f"{where}.version", f"must be {' or '.join(VERSIONS)}")
        for key in ("experiment", "features"):
            for mark in re.findall(r"\{[^}]*\}", getattr(row, key) or ""):
                if mark != "{graph}":
                    raise self._error(f"{where}.{key}", f"{mark} is unknown; only {{graph}} is")
        seed = row.settings.get("seed")
        nested = row.settings.get("training")
        if seed is not None or (isinstance(nested, Mapping) and "seed" in nested):
            raise self._error(f"{where}.set", "seed belongs into seeds")
        labels = [slug(label(graph)) for graph in row.graphs]
        if len(set(labels)) != len(labels):
            raise self._error(f"{where}.graphs", "two of them have the same name; rename a folder")

    def _distinct(self, rows: Sequence[Row]) -> None:
        seen: dict[str, str] = {}
        for place, row in enumerate(rows):
            if row.slug in seen:
                other = seen[row.slug]
                raise self._error(
                    f"rows[{place}].name", f"{row.name!r} is called as {other!r} is; rename it"
                )
            seen[row.slug] = row.name
        for place, row in enumerate(rows):
            for control in row.control:
                if control not in seen.values():
                    raise self._error(
                        f"rows[{place}].control",
                        f"{control!r} is no row; rows are {', '.join(seen.values())}",
                    )
                if control == row.name:
                    raise self._error(f"rows[{place}].control", "is the row itself")

    def _figure(self, table: Mapping[str, Any], where: str) -> PublishedResult:
        self._keys(table, PUBLISHED, where)
        split = self._one(table, "split", str, where, "test")
        if split not in SPLITS:
            raise self._error(f"{where}.split", f"{split!r} is none of {', '.join(SPLITS)}")
        metrics: dict[str, float] = {}
        for key in ("mrr", "hits@1", "hits@3", "hits@10"):
            if key in table:
                value = self._one(table, key, float, where)
                if not 0 <= value <= 1:
                    raise self._error(f"{where}.{key}", f"must lie between 0 and 1, not be {value}")
                metrics[key] = value
        if not metrics:
            raise self._error(where, "holds no figure; give mrr or hits@10")
        name, graph, protocol, source = (
            self._one(table, key, str, where) for key in ("name", "graph", "protocol", "source")
        )
        return PublishedResult(name, graph, split, metrics, protocol, source)

    # -- values ------------------------------------------------------------------------------------

    def _keys(self, table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
        for key in table:
            if key not in known:
                path = f"{where}.{key}" if where else key
                raise self._error(path, f"is unknown; known: {', '.join(known)}")

    def _tables(self, table: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
        found = self._one(table, key, list, "", [])
        if not all(isinstance(item, dict) for item in found):
            raise self._error(key, f"must be tables; write each as [[{key}]]")
        return list(found)

    def _one(
        self, table: Mapping[str, Any], key: str, kind: type, where: str, *default: Any
    ) -> Any:
        path = f"{where}.{key}" if where else key
        if key not in table:
            if not default:
                raise self._error(path, "is missing")
            return default[0]
        return self._typed(table[key], kind, path)

    def _many(
        self, table: Mapping[str, Any], key: str, kind: type, where: str, *default: Any
    ) -> tuple[Any, ...]:
        found = self._one(table, key, list, where, *map(list, default))
        values = tuple(self._typed(value, kind, f"{where}.{key}") for value in found)
        if not values:
            raise self._error(f"{where}.{key}", "is empty")
        if len(set(values)) != len(values):
            raise self._error(f"{where}.{key}", "names something twice")
        return values

    def _typed(self, value: Any, kind: type, path: str) -> Any:
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            names = {str: "a text", int: "a whole number", float: "a number", list: "a list"}
            raise self._error(path, f"must be {names.get(kind, 'a table')}, not {value!r}")
        return value

    def _error(self, path: str, what: str) -> ConfigError:
        return ConfigError(f"{self.path}: {path}: {what}")
