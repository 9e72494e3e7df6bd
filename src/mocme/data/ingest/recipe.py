"""Recipes: one TOML file that says how tables and dumps become a multi-modal graph.

A recipe lists where facts stand (``[[facts]]``), and texts, numbers and files of entities
(``[[texts]]``, ``[[numbers]]``, ``[[files]]``), and how they are encoded (``[encode.NAME]``);
`mocme.data.ingest.importer` carries it out.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mocme.core.registry import ConfigError, Configurable, construct
from mocme.data.formats import delimited, ntriples, tables, turtle
from mocme.data.formats.literals import Literals
from mocme.data.formats.named import FactColumns
from mocme.data.formats.registry import ending, format_named, format_of
from mocme.data.formats.report import Block, Report
from mocme.data.formats.statements import Selection
from mocme.data.graph import SPLITS
from mocme.data.modality import check_name

_RDF = {
    **dict.fromkeys(ntriples.ENDINGS, ntriples.facts),
    **dict.fromkeys(turtle.ENDINGS, turtle.facts),
}
BREAKS = str.maketrans("\t\n\r", "   ")


class FactTable(Configurable):
    """A table or dump of facts.

    Args:
        path: of the file, from the recipe's folder; ``-`` for standard input.
        format: of the file, where its ending does not tell (``tsv``, ``csv``, ``jsonl``, ``nt``,
            ``ttl``, ``parquet``).
        head, relation, tail: names of columns, where columns have names; by default those of the
            header.
        says: the relation of every row, for a table with columns for head and tail only.
        separator: parts a tail that is text into several, each a fact of its own; with `says`
            only. An empty part, or an empty cell, is no fact. (A list in JSON lines needs none.)
        delimiter: reads the file as CSV with this delimiter, whatever its ending.
        split: which split its facts belong to; by default ``[split]`` decides.
        predicates: the only ones to keep of an RDF file; all by default.
        literals: whether an RDF file's literals become modalities, or are only counted.
    """

    def __init__(
        self,
        *,
        path: str,
        format: str | None = None,
        head: str | None = None,
        relation: str | None = None,
        tail: str | None = None,
        says: str | None = None,
        separator: str | None = None,
        delimiter: str | None = None,
        split: Literal["train", "valid", "test", "known"] | None = None,
        predicates: Sequence[str] | None = None,
        literals: bool = True,
    ) -> None:
        named = [name for name in (head, relation, tail) if name is not None]
        if says is not None and (relation is not None or len(named) != 2):
            raise ValueError("says needs head and tail, and no relation")
        if says is None and len(named) not in (0, 3):
            raise ValueError("give head, relation and tail, or none of them")
        if separator is not None and says is None:
            raise ValueError("separator is for tables with says (one relation for all rows)")
        if separator == "":
            raise ValueError("separator is a character or more")
        if format is not None:
            format_named(format)
        elif path == "-":
            raise ValueError("standard input needs a format")
        self.ending = f".{format}" if format else ending(path)
        if predicates is not None and self.ending not in _RDF:
            raise ValueError(f"predicates are for {', '.join(_RDF)} only")
        self.path, self.format, self.split = path, format, split
        self.says, self.separator = says, separator
        self.head, self.relation, self.tail = head, relation, tail
        self.predicates, self.literals, self.delimiter = predicates, literals, delimiter

    def report(self, folder: Path) -> Report:
        """An empty account of the file."""
        kind = Report if self.predicates is None else Selection
        return kind("-" if self.path == "-" else str(folder / self.path))

    def blocks(self, report: Report, literals: Literals) -> Iterator[Block]:
        """Facts of the file, block by block."""
        path = report.path
        if self.says is not None:
            assert self.head is not None
            assert self.tail is not None
            columns = [self.head, self.tail]
            for block in tables.cells(path, report, columns, self.delimiter, self.tail):
                yield self._said(block, report)
        elif (reader := _RDF.get(self.ending)) is not None:
            keep = None if self.predicates is None else frozenset(self.predicates)
            yield from reader(path, report, literals if self.literals else None, keep)
        else:
            named = None
            if self.head is not None and self.relation is not None and self.tail is not None:
                named = FactColumns(self.head, self.relation, self.tail)
            if self.delimiter is not None:
                yield from delimited.facts(path, report, named, self.delimiter)
            else:
                known = format_named(self.format) if self.format else format_of(path)
                yield from known.facts(path, report, named)

    def _said(self, block: Block, report: Report) -> Block:
        assert self.says is not None
        heads: list[str] = []
        tails: list[str] = []
        lines: list[int] = []
        for head, cell, line in zip(*block.columns, block.lines, strict=True):
            parts = [cell] if self.separator is None else cell.split(self.separator)
            parts = [part for part in parts if part]
            if not head or not parts:
                report.rows -= 1
                if head:
                    report.empty += 1
                else:
                    report.reject(line, f"{self.head} is empty", f"{head}, {cell}")
                continue
            report.further += len(parts) - 1
            report.rows += len(parts) - 1
            heads += [head] * len(parts)
            tails += parts
            lines += [line] * len(parts)
        return Block((heads, [self.says] * len(heads), tails), lines)


class ColumnPart(Configurable):
    """A column of a table that says something of entities."""

    def __init__(
        self, *, name: str, path: str, entity: str, column: str, delimiter: str | None = None
    ) -> None:
        self.name, self.path, self.entity, self.columns = name, path, entity, (column,)
        self.delimiter = delimiter


class TextColumn(ColumnPart):
    """Texts of entities: a column of a table. Several tables may add to one modality."""

    def row(self, entity: str, cell: str, column: str, base: Path) -> tuple[str, ...]:
        """What is written of a cell."""
        return entity, cell.translate(BREAKS)

    def declared(self) -> dict[str, Any]:
        """The modality's table in graph.toml."""
        return {"kind": "words", "paths": [f"{self.name}.tsv"]}


class NumberColumns(Configurable):
    """Numbers of entities: columns of a table, each an attribute. An empty cell is none."""

    def __init__(
        self,
        *,
        name: str,
        path: str,
        entity: str,
        columns: Sequence[str],
        delimiter: str | None = None,
    ) -> None:
        if not columns or isinstance(columns, str):
            raise ValueError("columns is a list of names, at least one")
        self.delimiter = delimiter
        self.name, self.path, self.entity, self.columns = name, path, entity, tuple(columns)

    def row(self, entity: str, cell: str, column: str, base: Path) -> tuple[str, ...]:
        """What is written of a cell.

        Raises:
            ValueError: it is not a finite number.
        """
        if not math.isfinite(float(cell)):
            raise ValueError("not finite")
        return entity, column.translate(BREAKS), cell.strip()

    def declared(self) -> dict[str, Any]:
        """The modality's table in graph.toml."""
        return {"kind": "numbers", "path": f"{self.name}.tsv"}


class FileColumn(ColumnPart):
    """Files of entities (pictures, sounds): a column of paths, from the table's folder.

    They are listed under ``[files.NAME]`` for whoever encodes them.
    """

    def row(self, entity: str, cell: str, column: str, base: Path) -> tuple[str, ...]:
        """What is written of a cell.

        Raises:
            ValueError: there is no such file.
        """
        found = base / cell
        if not found.is_file():
            raise ValueError("no such file")
        return entity, str(found.resolve())

    def declared(self) -> dict[str, Any]:
        """The table in graph.toml."""
        return {"path": f"{self.name}.tsv"}


class SplitShares(Configurable):
    """Shares of the facts that name no split of their own; the rest is train."""

    def __init__(self, *, valid: float = 0.0, test: float = 0.0, seed: int = 0) -> None:
        if min(valid, test) < 0 or valid + test >= 1:
            raise ValueError("valid and test are shares of at least 0, together below 1")
        self.valid, self.test, self.seed = valid, test, seed

    def divide(self, facts: Tensor) -> dict[str, Tensor]:
        """The facts of each split."""
        order = torch.randperm(len(facts), generator=torch.Generator().manual_seed(self.seed))
        valid, test = round(len(facts) * self.valid), round(len(facts) * self.test)
        parts = {"valid": order[:valid], "test": order[valid : valid + test]}
        parts["train"] = order[valid + test :]
        return {split: facts[chosen.sort().values] for split, chosen in parts.items()}


for _part in (FactTable, TextColumn, NumberColumns, FileColumn, SplitShares):
    _part.kinds = ()
Column = TextColumn | NumberColumns | FileColumn
_SECTIONS = {"facts": FactTable, "texts": TextColumn, "numbers": NumberColumns, "files": FileColumn}


class Recipe:
    """A recipe as read.

    Args:
        table: its content.
        path: names it in errors; the paths in it start in its folder.

    Raises:
        ConfigError: a key is unknown, missing or wrong, with its path.
    """

    @staticmethod
    def read(path: str | Path) -> Recipe:
        """Read a recipe.

        Raises:
            ConfigError, ValueError: what it says is wrong; it is absent or no TOML.
        """
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            reason = f"cannot be read ({error.strerror}); check the path"
            raise ValueError(f"{path}: {reason}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not valid TOML: {error}") from error
        return Recipe(table, Path(path))

    @staticmethod
    def of_facts(path: str, format: str | None = None) -> Recipe:
        """The recipe of one file of facts, or of standard input."""
        name = "standard input" if path == "-" else path
        facts = {"path": path if path == "-" else str(Path(path).resolve())}
        return Recipe({"facts": [{**facts, **({"format": format} if format else {})}]}, Path(name))

    def __init__(self, table: Mapping[str, Any], path: Path) -> None:
        self.path, self.folder = path, path.resolve().parent
        known = ("name", "licence", "entities", "split", "encode", *_SECTIONS)
        if strange := [key for key in table if key not in known]:
            raise ConfigError(f"{path}: {strange[0]}: unknown; known: {', '.join(known)}")
        self.name = str(table.get("name", self.path.stem))
        self.licence = table.get("licence")
        self.only_facts = table.get("entities", "all") == "facts"
        if table.get("entities", "all") not in ("all", "facts"):
            raise ConfigError(f'{path}: entities: is "all" or "facts", not {table["entities"]!r}')
        self.split = self._made(SplitShares, table.get("split", {}), "split")
        parts = {key: self._list(table, key, part) for key, part in _SECTIONS.items()}
        self.facts: list[FactTable] = parts.pop("facts")
        self.columns: list[Column] = [part for found in parts.values() for part in found]
        if not self.facts:
            raise ConfigError(f"{path}: facts: is missing; add a [[facts]] table with a path")
        self._check_names()
        self.encode = self._encoded(table.get("encode", {}))

    def _encoded(self, tables: object) -> dict[str, dict[str, Any]]:
        """``[encode.NAME]``: of what the recipe brings in under that name, or of `paths`."""
        if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
            raise ConfigError(f"{self.path}: encode: write [encode.NAME] tables")
        brought = {part.name for part in self.columns}
        result = {}
        for name, table in tables.items():
            check_name(name, f"{self.path}: encode.{name}")
            if name in brought and "paths" in table:
                raise ConfigError(
                    f"{self.path}: encode.{name}.paths: [[texts]], [[numbers]] or [[files]] of "
                    f"that name say already what is encoded; leave paths out, or take another name"
                )
            if name in brought:
                result[name] = {**table, "paths": [f"{name}.tsv"]}
                continue
            paths = table.get("paths", [])
            if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
                raise ConfigError(f"{self.path}: encode.{name}.paths: is a list of paths")
            full = [str((self.folder / path).resolve()) for path in paths]
            result[name] = {**table, **({"paths": full} if paths else {})}
        return result

    def _list(self, table: Mapping[str, Any], key: str, part: type) -> list[Any]:
        found = table.get(key, [])
        if not isinstance(found, list):
            raise ConfigError(f"{self.path}: {key}: write [[{key}]], with two brackets")
        return [self._made(part, item, f"{key}[{n}]") for n, item in enumerate(found)]

    def _made(self, part: type, table: object, key: str) -> Any:
        if not isinstance(table, dict):
            raise ConfigError(f"{self.path}: {key}: must be a table")
        try:
            return construct(part, table, key)
        except ConfigError as error:
            raise ConfigError(f"{self.path}: {error}") from error

    def _check_names(self) -> None:
        kinds: dict[str, type] = {}
        for part in self.columns:
            if not part.name.replace("-", "_").isidentifier():
                raise ConfigError(
                    f"{self.path}: {part.name!r}: a modality's name consists of letters, digits, "
                    f"'_' and '-'"
                )
            if part.name in (*SPLITS, "structure", "default"):
                raise ConfigError(f"{self.path}: {part.name!r}: is taken; choose another name")
            if kinds.setdefault(part.name, type(part)) is not type(part):
                raise ConfigError(f"{self.path}: {part.name!r}: is of two kinds; rename one")
