"""Numbers of entities in long or wide tables of any format: the input of `numeric` and `bins`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mocme.core.interrupts import Interrupted
from mocme.core.text import counted
from mocme.data.features.numeric import ColumnBuilder, Columns
from mocme.data.formats import tables
from mocme.data.formats.report import Block, Report
from mocme.data.modality import EmptyModality
from mocme.data.numbers import finite_number, number_problem
from mocme.encoders.base import Encoder, EncodingFailure, EncodingJob, EncodingReport


@dataclass(frozen=True, kw_only=True)
class NumberEncoder(Encoder):
    """An encoder of numbers.

    A long table has one attribute and its value in each row, a wide table has one column for each
    attribute. An attribute that occurs in several tables is one attribute. An empty cell is a
    missing number. A cell that is not a finite number within the range of float32 is listed with
    its line and skipped. Of several values of an attribute of an entity the last one counts, as in
    the modality `numbers`; the earlier ones are counted.

    Args:
        paths: tables (TSV, CSV, JSON lines, Parquet), all long or all wide.
        entity: the column with the entity's name, in TSV its number from 1. Default: ``1`` in TSV,
            ``entity`` in other formats.
        attribute: the column with the attribute's name in long tables. Default: ``2`` in TSV,
            ``attribute`` in other formats.
        value: the column with the value in long tables. Default: ``3`` in TSV, ``value`` in other
            formats.
        attributes: the columns of wide tables; each attribute has the name of its column. A TSV of
            (entity, value) is a wide table with ``["2"]``.
        delimiter: reads tables as CSV with this delimiter.
    """

    paths: Sequence[str]
    entity: str | None = None
    attribute: str | None = None
    value: str | None = None
    attributes: Sequence[str] = ()
    delimiter: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.paths or isinstance(self.paths, str):
            raise ValueError("paths must be a list of files, at least one")
        if isinstance(self.attributes, str) or len(set(self.attributes)) != len(self.attributes):
            raise ValueError("attributes must be a list of columns, each once")
        if self.attributes and (self.attribute is not None or self.value is not None):
            raise ValueError(
                "attributes are the columns of wide tables, attribute and value those of long "
                "tables; give one or the other"
            )

    def read(self, job: EncodingJob, report: EncodingReport) -> tuple[Columns, dict[str, str]]:
        """Read all numbers by attribute.

        Memory grows with the numbers (about 50 bytes each), not with the size of the tables.

        Returns:
            The numbers, and the sources, their digests and the attributes for the provenance.

        Raises:
            ValueError: a table cannot be read, or no number belongs to an entity.
            Interrupted: the job was stopped.
        """
        report.entities = job.graph.num_entities
        builder = ColumnBuilder()
        digests = []
        for name in self.paths:
            path = job.folder / name
            if not path.is_file():
                raise ValueError(f"{path}: there is no such file; check the path")
            table_report = Report(str(path))
            for block in tables.cells(path, table_report, self._wanted(path), self.delimiter):
                if job.stopped.is_set():
                    raise Interrupted("stopped; the same command starts again")
                self._add(path, block, job, builder, report)
            report.notes.append(str(table_report))
            digests.append(table_report.sha256)
        columns, replaced = builder.columns()
        self._check(job.folder / self.paths[0], columns, report)
        if replaced:
            report.count(
                "earlier values of an attribute with several values; the last one counts", replaced
            )
        report.encoded = sum(len(numbers) for _, numbers in columns.values())
        report.items = report.encoded + len(report.failures)
        report.count("attributes", len(columns))
        return columns, {
            "sources": "\t".join(self.paths),
            "sources_sha256": "\t".join(digests),
            "attributes": json.dumps(list(columns), ensure_ascii=False),
        }

    def _wanted(self, path: Path) -> list[str]:
        """The columns to read of a table."""
        numbered = tables.numbered(path, self.delimiter)
        entity = self.entity or ("1" if numbered else "entity")
        if self.attributes:
            return [entity, *self.attributes]
        default = ("2", "3") if numbered else ("attribute", "value")
        return [entity, self.attribute or default[0], self.value or default[1]]

    def _add(
        self,
        path: Path,
        block: Block,
        job: EncodingJob,
        builder: ColumnBuilder,
        report: EncodingReport,
    ) -> None:
        """Add the numbers of some rows."""
        names, *columns = block.columns
        ids = job.graph.entities.find(names)
        for row, (name, id, line) in enumerate(zip(names, ids, block.lines, strict=True)):
            if id is None:
                report.count_unknown(name)
                continue
            values = [column[row] for column in columns]
            # Wide: one value for each attribute. Long: a single pair (attribute, value).
            cells = zip(self.attributes, values, strict=True) if self.attributes else [values]
            for attribute, cell in cells:
                if not cell:
                    report.count("empty cells, where a number is missing")
                    continue
                number, problem = finite_number(cell), ""
                if not attribute:
                    problem = "the number's attribute has no name"
                elif number is None:
                    problem = number_problem(cell)
                if problem or number is None:
                    origin = f"{path}, line {line}"
                    report.failures.append(EncodingFailure(name, origin, problem))
                else:
                    builder.add(attribute, id, number)

    @staticmethod
    def _check(path: Path, columns: Columns, report: EncodingReport) -> None:
        """Refuse numbers that cannot be encoded.

        Raises:
            EmptyModality: there are none.
        """
        if not columns:
            raise EmptyModality(
                f"{path}: not one finite number belongs to an entity of the graph "
                f"({counted(report.unknown, 'row names', 'rows name')} no entity, "
                f"{counted(len(report.failures), 'cell is', 'cells are')} not a number); check the "
                f"columns, and that names are spelt as in the facts"
            )
