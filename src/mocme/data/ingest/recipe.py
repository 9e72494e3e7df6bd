"""Recipes: one TOML file that describes how tables and dumps become a multi-modal graph.

A recipe lists tables of facts (``[[facts]]``), of texts, numbers and files of entities
(``[[texts]]``, ``[[numbers]]``, ``[[files]]``), and how these are encoded (``[encode.NAME]``).
`mocme.data.ingest.importer` runs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mocme.core.files import read_toml
from mocme.core.registry import ConfigError, Configurable, construct
from mocme.data.formats import tables
from mocme.data.formats.columns import FactColumns
from mocme.data.formats.kinds import delimited
from mocme.data.formats.literals import Literals
from mocme.data.formats.registry import FORMATS, find_format, format_named, format_of
from mocme.data.formats.report import Block, Report
from mocme.data.formats.statements import Selection
from mocme.data.graph import SPLITS
from mocme.data.modality import check_name
from mocme.data.names import name_problem
from mocme.data.numbers import finite_number, number_problem

# A cell of TSV cannot hold a tab or a line break.
BREAKS = str.maketrans("\t\n\r", "   ")
# Characters of a text.
LONGEST_TEXT = 1 << 20


class FactTable(Configurable):
    """A table or dump of facts.

    Args:
        path: of the file, relative to the recipe's folder; ``-`` for standard input.
        format: of the file, if its ending does not determine it (``tsv``, ``csv``, ``jsonl``,
            ``nt``, ``ttl``, ``parquet``).
        head, relation, tail: names of columns, if columns have names; by default found in the
            header.
        says: the relation of every row, for a table that has columns for head and tail only.
        separator: splits the text of a tail into several tails, each a fact of its own; with
            `says` only. An empty part or an empty cell is not a fact. (A list in JSON lines needs
            no separator.)
        delimiter: reads the file as CSV with this delimiter, whatever its ending.
        split: the split of its facts; by default, ``[split]`` divides them.
        predicates: the predicates to keep of an RDF file; all by default.
        literals: whether the literals of an RDF file become modalities or are only counted.
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
        if says is not None and (problem := name_problem(says)):
            raise ValueError(f"says: {problem}")
        if separator == "":
            raise ValueError("separator is one character or more")
        if format is None and path == "-":
            raise ValueError("standard input needs a format")
        # None if the ending belongs to no format, which a delimiter makes irrelevant.
        self.format = find_format(path) if format is None else format_named(format)
        if predicates is not None and not (self.format and self.format.statements):
            endings = [ending for known in FORMATS if known.statements for ending in known.endings]
            raise ValueError(f"predicates are for {', '.join(endings)} only")
        self.path, self.split = path, split
        self.says, self.separator = says, separator
        self.head, self.relation, self.tail = head, relation, tail
        self.predicates, self.literals, self.delimiter = predicates, literals, delimiter

    def report(self, folder: Path) -> Report:
        """An empty report on the file."""
        kind = Report if self.predicates is None else Selection
        return kind("-" if self.path == "-" else str(folder / self.path))

    def blocks(self, report: Report, literals: Literals) -> Iterator[Block]:
        """Facts of the file, block by block."""
        path = report.path
        if self.says is not None:
            assert self.head is not None
            assert self.tail is not None
            names = [self.head, self.tail]
            for block in tables.cells(path, report, names, self.delimiter, self.tail):
                yield self._with_relation(block, report)
        elif self.format is not None and self.format.statements is not None:
            kept = None if self.predicates is None else frozenset(self.predicates)
            table = literals if self.literals else None
            yield from self.format.statements(path, report, table, kept)
        else:
            columns = None
            if self.head is not None and self.relation is not None and self.tail is not None:
                columns = FactColumns(self.head, self.relation, self.tail)
            if self.delimiter is not None:
                yield from delimited.facts(path, report, columns, self.delimiter)
            else:
                known = self.format or format_of(path)
                yield from known.facts(path, report, columns)

    def _with_relation(self, block: Block, report: Report) -> Block:
        """The facts of a block of heads and tails, with the relation of the table."""
        assert self.says is not None
        heads: list[str] = []
        tails: list[str] = []
        lines: list[int] = []
        for head, cell, line in zip(*block.columns, block.lines, strict=True):
            cell_tails = [cell] if self.separator is None else cell.split(self.separator)
            cell_tails = [tail for tail in cell_tails if tail]
            if not head or not cell_tails:
                report.rows -= 1
                if head:
                    report.empty += 1
                else:
                    report.reject(line, f"{self.head} is empty", f"{head}, {cell}")
                continue
            report.further += len(cell_tails) - 1
            report.rows += len(cell_tails) - 1
            heads += [head] * len(cell_tails)
            tails += cell_tails
            lines += [line] * len(cell_tails)
        return Block((heads, [self.says] * len(heads), tails), lines)


class ColumnPart(Configurable):
    """A column of a table that describes entities."""

    def __init__(
        self, *, name: str, path: str, entity: str, column: str, delimiter: str | None = None
    ) -> None:
        self.name, self.path, self.entity, self.columns = name, path, entity, (column,)
        self.delimiter = delimiter


class TextColumn(ColumnPart):
    """Texts of entities: a column of a table. Several tables may contribute to one modality."""

    def row(self, entity: str, cell: str, column: str, base: Path) -> tuple[str, ...]:
        """The row to write for a cell.

        Raises:
            ValueError: it is longer than `LONGEST_TEXT`.
        """
        if len(cell) > LONGEST_TEXT:
            raise ValueError(
                f"a text of {len(cell):,} characters, more than {LONGEST_TEXT:,}; shorten it"
            )
        return entity, cell.translate(BREAKS)

    def declared(self) -> dict[str, Any]:
        """The modality's table in graph.toml."""
        return {"kind": "words", "paths": [f"{self.name}.tsv"]}


class NumberColumns(Configurable):
    """Numbers of entities: columns of a table, each an attribute. An empty cell has no number."""

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
        """The row to write for a cell.

        Raises:
            ValueError: it is not a finite number within the range of float32.
        """
        if finite_number(cell) is None:
            raise ValueError(number_problem(cell))
        return entity, column.translate(BREAKS), cell.strip()

    def declared(self) -> dict[str, Any]:
        """The modality's table in graph.toml."""
        return {"kind": "numbers", "path": f"{self.name}.tsv"}


class FileColumn(ColumnPart):
    """Files of entities (pictures, sounds): a column of paths, relative to the table's folder.

    graph.toml lists them under ``[files.NAME]``, for encoders.
    """

    def row(self, entity: str, cell: str, column: str, base: Path) -> tuple[str, ...]:
        """The row to write for a cell.

        Raises:
            ValueError: there is no such file, or its path has a tab or a line break.
        """
        file = base / cell
        if "\0" in cell or not file.is_file():
            raise ValueError(
                "there is no such file; correct the path, which starts at the folder of the table"
            )
        path = str(file.resolve())
        if path != path.translate(BREAKS):
            raise ValueError("a tab or a line break is in the path; rename the file or its folder")
        return entity, path

    def declared(self) -> dict[str, Any]:
        """The table in graph.toml."""
        return {"path": f"{self.name}.tsv"}


class SplitShares(Configurable):
    """Fractions of the facts whose table has no split; the others go to train."""

    def __init__(self, *, valid: float = 0.0, test: float = 0.0, seed: int = 0) -> None:
        if min(valid, test) < 0 or valid + test >= 1:
            raise ValueError("valid and test are fractions of at least 0, together below 1")
        self.valid, self.test, self.seed = valid, test, seed

    def divide(self, facts: Tensor) -> dict[str, Tensor]:
        """The facts of each split."""
        order = torch.randperm(len(facts), generator=torch.Generator().manual_seed(self.seed))
        valid, test = round(len(facts) * self.valid), round(len(facts) * self.test)
        indices = {"valid": order[:valid], "test": order[valid : valid + test]}
        indices["train"] = order[valid + test :]
        # Facts keep their order within a split.
        return {split: facts[chosen.sort().values] for split, chosen in indices.items()}


Column = TextColumn | NumberColumns | FileColumn
_SECTIONS = {"facts": FactTable, "texts": TextColumn, "numbers": NumberColumns, "files": FileColumn}


class Recipe:
    """A parsed recipe.

    Attributes:
        folder: to which the paths in the recipe are relative.
        only_facts: whether entities without a fact are left out.
        facts, columns: the tables of facts, and the columns of texts, numbers and files.
        encode: settings of encoders by modality.

    Args:
        table: the content.
        path: of the recipe, for errors and for `folder`.

    Raises:
        ConfigError: a key is unknown, missing or wrong.
    """

    @staticmethod
    def read(path: str | Path) -> Recipe:
        """Read a recipe.

        Raises:
            ConfigError, ValueError: a setting is wrong; the file is absent or not TOML.
        """
        return Recipe(read_toml(path), Path(path))

    @staticmethod
    def of_facts(path: str, format: str | None = None) -> Recipe:
        """The recipe of one file of facts, or of standard input."""
        name = "standard input" if path == "-" else path
        facts = {"path": path if path == "-" else str(Path(path).resolve())}
        return Recipe({"facts": [{**facts, **({"format": format} if format else {})}]}, Path(name))

    def __init__(self, table: Mapping[str, Any], path: Path) -> None:
        self.path, self.folder = path, path.resolve().parent
        known = ("name", "licence", "entities", "split", "encode", *_SECTIONS)
        if unknown := [key for key in table if key not in known]:
            raise ConfigError(f"{path}: {unknown[0]}: unknown; known: {', '.join(known)}")
        self.name = str(table.get("name", self.path.stem))
        self.licence = table.get("licence")
        self.only_facts = table.get("entities", "all") == "facts"
        if table.get("entities", "all") not in ("all", "facts"):
            raise ConfigError(f'{path}: entities: is "all" or "facts", not {table["entities"]!r}')
        self.split = self._construct(SplitShares, table.get("split", {}), "split")
        sections = {key: self._section(table, key, part) for key, part in _SECTIONS.items()}
        self.facts: list[FactTable] = sections.pop("facts")
        self.columns: list[Column] = [part for parts in sections.values() for part in parts]
        if not self.facts:
            raise ConfigError(f"{path}: facts: is missing; add a [[facts]] table with a path")
        self._check_names()
        self.encode = self._encode_tables(table.get("encode", {}))

    def _encode_tables(self, tables: object) -> dict[str, dict[str, Any]]:
        """``[encode.NAME]`` with its paths: the imported table of that name, or its own `paths`."""
        if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
            raise ConfigError(f"{self.path}: encode: write [encode.NAME] tables")
        imported = {part.name for part in self.columns}
        result = {}
        for name, table in tables.items():
            check_name(name, f"{self.path}: encode.{name}")
            if name in imported and "paths" in table:
                raise ConfigError(
                    f"{self.path}: encode.{name}.paths: [[texts]], [[numbers]] or [[files]] of "
                    f"that name already define what is encoded; leave paths out, or choose another "
                    f"name"
                )
            if name in imported:
                result[name] = {**table, "paths": [f"{name}.tsv"]}
                continue
            paths = table.get("paths", [])
            if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
                raise ConfigError(f"{self.path}: encode.{name}.paths: is a list of paths")
            absolute = [str((self.folder / path).resolve()) for path in paths]
            result[name] = {**table, **({"paths": absolute} if paths else {})}
        return result

    def _section(self, table: Mapping[str, Any], key: str, part: type) -> list[Any]:
        items = table.get(key, [])
        if not isinstance(items, list):
            raise ConfigError(f"{self.path}: {key}: write [[{key}]], with two brackets")
        return [self._construct(part, item, f"{key}[{n}]") for n, item in enumerate(items)]

    def _construct(self, part: type, table: object, key: str) -> Any:
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
                raise ConfigError(f"{self.path}: {part.name!r}: is reserved; choose another name")
            if kinds.setdefault(part.name, type(part)) is not type(part):
                raise ConfigError(f"{self.path}: {part.name!r}: is used for two kinds; rename one")
