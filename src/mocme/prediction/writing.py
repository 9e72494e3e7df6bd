"""Mined facts into a file: with their numbers where the format has columns, else without."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from io import StringIO
from itertools import islice
from pathlib import Path

from mocme.core.text import guard_formula
from mocme.data.formats import writers
from mocme.data.formats.registry import format_of
from mocme.data.formats.streams import COMPRESSED
from mocme.data.graph import Graph
from mocme.prediction.graph_completion import CompletedFacts

COLUMNS = ("head", "relation", "tail", "chance", "probability", "score")

Row = tuple[str, str, str, float, float, float]


def write(path: str | Path, found: CompletedFacts, graph: Graph, *, guard: bool = False) -> None:
    """Write facts, best first; the ending tells the format and the compression.

    TSV, CSV, JSON lines and Parquet get all of `COLUMNS`, every other format of
    `mocme.data.formats.registry` (N-Triples, Cypher) the facts alone.

    Args:
        guard: put an apostrophe before a name that a spreadsheet would run as a formula. For CSV
            and TSV only: it changes names.

    Raises:
        ValueError: the format is unknown or cannot hold a name, or is not one that a guard is for.
    """
    kind = _ending(path)
    if guard and kind not in (".csv", ".tsv", ".txt"):
        raise ValueError(f"{path}: only CSV and TSV are read by spreadsheets; leave the guard out")
    rows = _rows(found, graph, guard)
    if kind in (".tsv", ".txt"):
        _tsv(path, rows)
    elif kind == ".csv":
        _csv(path, rows)
    elif kind in (".jsonl", ".ndjson"):
        _jsonl(path, rows)
    elif kind == ".parquet":
        _parquet(path, rows)
    else:
        format_of(path).write(path, ((h, r, t) for h, r, t, *_ in rows))


def _ending(path: str | Path) -> str:
    plain = Path(path)
    return (Path(plain.stem) if plain.suffix.lower() in COMPRESSED else plain).suffix.lower()


def _rows(found: CompletedFacts, graph: Graph, guard: bool) -> Iterator[Row]:
    numbers = zip(found.chance, found.probability, found.score, strict=True)
    names = writers.named_facts(found.facts, graph.entities.names, graph.relations.names)
    for row, values in zip(names, numbers, strict=True):
        shown = [guard_formula(name) if guard else name for name in row]
        chance, probability, score = (float(value) for value in values)
        yield shown[0], shown[1], shown[2], chance, probability, score


def _batches(path: str | Path, rows: Iterator[Row]) -> Iterator[list[Row]]:
    while batch := list(islice(rows, writers.BATCH)):
        writers.check_names([name for row in batch for name in row[:3]], path)
        yield batch


def _numbers(row: Row) -> tuple[str, str, str]:
    return f"{row[3]:.6f}", f"{row[4]:.6f}", f"{row[5]:.5f}"


def _tsv(path: str | Path, rows: Iterator[Row]) -> None:
    with writers.atomic_file(path) as file:
        file.write(("\t".join(COLUMNS) + "\n").encode())
        for batch in _batches(path, rows):
            for row in batch:
                for name in row[:3]:
                    if "\t" in name or "\n" in name or "\r" in name:
                        problem = "a tab or the end of a line, which TSV cannot"
                        raise writers.name_error(path, name, problem, "write CSV or Parquet")
                file.write(("\t".join([*row[:3], *_numbers(row)]) + "\n").encode())


def _csv(path: str | Path, rows: Iterator[Row]) -> None:
    with writers.atomic_file(path) as file:
        text = StringIO(newline="")
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(COLUMNS)
        for batch in _batches(path, rows):
            writer.writerows([*row[:3], *_numbers(row)] for row in batch)
            file.write(text.getvalue().encode())
            text.seek(0)
            text.truncate()
        file.write(text.getvalue().encode())


def _jsonl(path: str | Path, rows: Iterator[Row]) -> None:
    with writers.atomic_file(path) as file:
        for batch in _batches(path, rows):
            for row in batch:
                line = json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False)
                file.write(f"{line}\n".encode())


def _parquet(path: str | Path, rows: Iterator[Row]) -> None:
    with writers.require_library("pyarrow", "Parquet files"):
        import pyarrow
        import pyarrow.parquet
    if Path(path).suffix.lower() in COMPRESSED:
        raise ValueError(f"{path}: Parquet compresses by itself; name it .parquet")
    kinds = [pyarrow.string()] * 3 + [pyarrow.float64()] * 3
    schema = pyarrow.schema(list(zip(COLUMNS, kinds, strict=True)))
    with (
        writers.atomic_file(path) as file,
        pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for batch in _batches(path, rows):
            arrays = [
                pyarrow.array(c, kind)
                for c, kind in zip(zip(*batch, strict=True), kinds, strict=True)
            ]
            writer.write_batch(pyarrow.record_batch(arrays, schema))
