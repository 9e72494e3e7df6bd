"""Numbers of entities in tables, long or wide, of any format: what `numeric` and `bins` read."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mocme.core.device import Interrupted
from mocme.data.features.numeric import Columns
from mocme.data.formats import tables
from mocme.data.formats.report import Block, Report
from mocme.encoders.base import Encoder, EncodingFailure, EncodingJob, EncodingReport
from mocme.encoders.inputs import count_unknown


class NumberEncoder(Encoder):
    """An encoder of numbers.

    A long table has an attribute and a value in each row, a wide one a column an attribute. An
    attribute of several tables is one attribute. An empty cell is a missing number. A cell that is
    no finite number is listed with its line, and passed over. Of several values of an attribute of
    an entity the last one counts, as in the modality `numbers`; the others are counted.

    Args:
        paths: tables (TSV, CSV, JSON lines, Parquet), all long or all wide.
        entity: the column of the entity's name; in TSV a number from 1. By default ``1`` in TSV and
            ``entity`` elsewhere.
        attribute, value: the columns of a long table. By default ``2`` and ``3`` in TSV, and
            ``attribute`` and ``value`` elsewhere.
        attributes: the columns of a wide table; then the attributes are called as the columns are.
            A TSV of (entity, value) is one with ``["2"]``.
        delimiter: reads tables as CSV with this delimiter.
    """

    def __init__(
        self,
        *,
        paths: Sequence[str],
        entity: str | None = None,
        attribute: str | None = None,
        value: str | None = None,
        attributes: Sequence[str] = (),
        delimiter: str | None = None,
    ) -> None:
        if not paths or isinstance(paths, str):
            raise ValueError("paths is a list of files, at least one")
        if isinstance(attributes, str) or len(set(attributes)) != len(attributes):
            raise ValueError("attributes is a list of columns, each once")
        if attributes and (attribute is not None or value is not None):
            raise ValueError(
                "attributes are the columns of a wide table, attribute and value those of a long "
                "one; give one or the other"
            )
        self.paths, self.entity, self.delimiter = tuple(paths), entity, delimiter
        self.attribute, self.value, self.attributes = attribute, value, tuple(attributes)

    def read(self, job: EncodingJob, outcome: EncodingReport) -> tuple[Columns, dict[str, str]]:
        """All numbers by attribute, and what was read, for the provenance.

        Memory grows with the numbers (some 50 bytes each), not with the tables.

        Raises:
            ValueError: a table cannot be read, or not one number belongs to an entity.
            Interrupted: it was stopped.
        """
        outcome.entities = job.graph.num_entities
        found: dict[str, tuple[array[int], array[float]]] = {}
        digests = []
        for name in self.paths:
            path = job.folder / name
            if not path.is_file():
                raise ValueError(f"{path}: there is no such file; check the path")
            report = Report(str(path))
            for block in tables.cells(path, report, self._wanted(path), self.delimiter):
                if job.stopped.is_set():
                    raise Interrupted("stopped; the same command starts again")
                self._take(path, block, job, found, outcome)
            outcome.notes.append(str(report))
            digests.append(report.sha256)
        if not found:
            raise ValueError(
                f"{job.folder / self.paths[0]}: not one finite number belongs to an entity of the "
                f"graph ({outcome.unknown:,} rows name none, {len(outcome.failures):,} cells are "
                f"no number); check the columns, and that names are spelt as in the facts"
            )
        columns = {attribute: _last(*cells, outcome) for attribute, cells in found.items()}
        for attribute, (_, numbers) in columns.items():
            if not math.isfinite(float(numbers.max() - numbers.min())):
                raise ValueError(
                    f"{job.folder / self.paths[0]}: the numbers of {attribute!r} lie from "
                    f"{float(numbers.min()):g} to {float(numbers.max()):g}, too far apart to be "
                    f"compared; correct or remove them"
                )
        outcome.encoded = sum(len(numbers) for _, numbers in columns.values())
        outcome.items = outcome.encoded + len(outcome.failures)
        outcome.count("attributes", len(columns))
        return columns, {
            "sources": "\t".join(self.paths),
            "sources_sha256": "\t".join(digests),
            "attributes": json.dumps(list(columns), ensure_ascii=False),
        }

    def _wanted(self, path: Path) -> list[str]:
        numbered = tables.numbered(path, self.delimiter)
        entity = self.entity or ("1" if numbered else "entity")
        if self.attributes:
            return [entity, *self.attributes]
        usual = ("2", "3") if numbered else ("attribute", "value")
        return [entity, self.attribute or usual[0], self.value or usual[1]]

    def _take(
        self,
        path: Path,
        block: Block,
        job: EncodingJob,
        found: dict[str, tuple[array[int], array[float]]],
        outcome: EncodingReport,
    ) -> None:
        """Take up the numbers of some rows."""
        names, *columns = block.columns
        ids = job.graph.entities.find(names)
        for row, (name, id, line) in enumerate(zip(names, ids, block.lines, strict=True)):
            if id is None:
                count_unknown(outcome, name)
                continue
            own = [column[row] for column in columns]
            cells = zip(self.attributes, own, strict=True) if self.attributes else [tuple(own)]
            for attribute, cell in cells:
                if not cell:
                    outcome.count("empty cells, where a number is missing")
                    continue
                number, problem = _number(attribute, cell)
                if problem:
                    place = f"{path}, line {line}"
                    outcome.failures.append(EncodingFailure(name, place, problem))
                    continue
                entities, numbers = found.setdefault(attribute, (array("q"), array("d")))
                entities.append(id)
                numbers.append(number)


def _number(attribute: str, cell: str) -> tuple[float, str]:
    """The number in a cell, and what is wrong with it."""
    if not attribute:
        return math.nan, "the number's attribute has no name"
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    return number, "" if math.isfinite(number) else f"{cell[:40]!r} is not a finite number"


def _last(
    entities: array[int], numbers: array[float], outcome: EncodingReport
) -> tuple[list[int], torch.Tensor]:
    """Each entity once, in the order of first coming, with its last number."""
    ids, cells = np.array(entities), np.array(numbers)
    _, first = np.unique(ids, return_index=True)
    _, back = np.unique(ids[::-1], return_index=True)
    order = np.argsort(first)
    if again := len(ids) - len(first):
        outcome.count("earlier values of an attribute that has several; the last one counts", again)
    last = (len(ids) - 1 - back)[order]
    return ids[first[order]].tolist(), torch.from_numpy(cells[last])
