"""Write embeddings and completed facts to files that other programs read.

Facts keep their numbers in formats that have columns; other formats get the facts alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from mocme.core.csv_text import csv_text
from mocme.core.extras import extra
from mocme.core.text import guard_formula
from mocme.data.formats import writers
from mocme.data.formats.registry import format_of
from mocme.data.formats.streams import COMPRESSED
from mocme.data.graph import Graph
from mocme.prediction.graph_completion import CompletedFacts
from mocme.prediction.predictor import Predictor
from mocme.storage.atomic_io import directory_lock

EmbeddingFormat = Literal["npy", "parquet"]

COLUMNS = ("head", "relation", "tail", "chance", "probability", "score")

Row = tuple[str, str, str, float, float, float]

# -- embeddings ----------------------------------------------------------------------------------


def write_embeddings(
    folder: str | Path,
    predictor: Predictor,
    kind: EmbeddingFormat = "npy",
    expert: str | None = None,
) -> list[Path]:
    """Write ``entities`` and ``relations`` into a folder; returns the files.

    ``npy``: an array of float32, and a text file with the name of each row on its own line.
    ``parquet``: the columns name and vector. The inverse of a relation is named "inverse of NAME".

    Args:
        expert: name of the embedding; the first one by default.

    Raises:
        ValueError: the folder has one of the files already, a name contains a line feed (``npy``),
            or the run has no such embedding.
    """
    entities, relations = predictor.embeddings(expert)
    graph = predictor.graph
    inverse = [f"inverse of {name}" for name in graph.relations]
    parts = {
        "entities": (list(graph.entities), entities),
        "relations": ([*graph.relations, *inverse], relations),
    }
    folder = Path(folder)
    endings = (".npy", ".txt") if kind == "npy" else (".parquet",)
    files = [folder / f"{name}{ending}" for name in parts for ending in endings]
    folder.mkdir(parents=True, exist_ok=True)
    # Names and vectors belong together: two exports into one folder must not mix.
    with directory_lock(folder):
        for file in files:
            if file.exists():
                raise ValueError(f"{file}: exists already; remove it or name another folder")
        for name, (names, values) in parts.items():
            if kind == "npy":
                _write_npy(folder / name, names, values)
            else:
                _write_embedding_table(folder / f"{name}.parquet", names, values)
    return files


def _write_npy(path: Path, names: Sequence[str], values: Tensor) -> None:
    for name in names:
        if "\n" in name:
            problem = "a line feed, which a list of names cannot"
            raise writers.name_error(path.with_suffix(".txt"), name, problem, "write Parquet")
    with writers.atomic_file(path.with_suffix(".npy")) as file:
        np.save(file, values.numpy(), allow_pickle=False)
    with writers.atomic_file(path.with_suffix(".txt")) as file:
        file.write("".join(f"{name}\n" for name in names).encode())


def _write_embedding_table(path: Path, names: Sequence[str], values: Tensor) -> None:
    with extra("pyarrow", "tables", "Parquet files need"):
        import pyarrow
        import pyarrow.parquet
    flat = pyarrow.array(values.numpy().ravel())
    vectors = pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
    table = pyarrow.table({"name": pyarrow.array(names), "vector": vectors})
    with writers.atomic_file(path) as file:
        pyarrow.parquet.write_table(table, file, compression="zstd")


# -- facts ---------------------------------------------------------------------------------------


def write_facts(
    path: str | Path, completed: CompletedFacts, graph: Graph, *, guard: bool = False
) -> None:
    """Write facts, best first; the file's ending selects the format and the compression.

    TSV, CSV, JSON lines and Parquet get all of `COLUMNS`, every other format of
    `mocme.data.formats.registry` (N-Triples, Cypher) the facts alone.

    Args:
        guard: precede a name by an apostrophe if a spreadsheet would run it as a formula. This
            changes names, and is available for CSV and TSV only.

    Raises:
        ValueError: the format is unknown, cannot represent a name, or does not support the guard.
    """
    kind = _ending(path)
    if guard and kind not in (".csv", ".tsv", ".txt"):
        raise ValueError(f"{path}: only CSV and TSV are read by spreadsheets; leave the guard out")
    rows = _rows(completed, graph, guard)
    if kind in (".tsv", ".txt"):
        _write_tsv(path, rows)
    elif kind == ".csv":
        _write_csv(path, rows)
    elif kind in (".jsonl", ".ndjson"):
        _write_jsonl(path, rows)
    elif kind == ".parquet":
        _write_fact_table(path, rows)
    else:
        format_of(path).write(path, ((h, r, t) for h, r, t, *_ in rows))


def _ending(path: str | Path) -> str:
    plain = Path(path)
    return (Path(plain.stem) if plain.suffix.lower() in COMPRESSED else plain).suffix.lower()


def _rows(completed: CompletedFacts, graph: Graph, guard: bool) -> Iterator[Row]:
    numbers = zip(completed.chance, completed.probability, completed.score, strict=True)
    names = writers.named_facts(completed.facts, graph.entities.names, graph.relations.names)
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


def _write_tsv(path: str | Path, rows: Iterator[Row]) -> None:
    with writers.atomic_file(path) as file:
        file.write(("\t".join(COLUMNS) + "\n").encode())
        for batch in _batches(path, rows):
            for row in batch:
                for name in row[:3]:
                    if "\t" in name or "\n" in name or "\r" in name:
                        problem = "a tab or the end of a line, which TSV cannot"
                        raise writers.name_error(path, name, problem, "write CSV or Parquet")
                file.write(("\t".join([*row[:3], *_numbers(row)]) + "\n").encode())


def _write_csv(path: str | Path, rows: Iterator[Row]) -> None:
    with writers.atomic_file(path) as file:
        file.write(csv_text([COLUMNS]).encode())
        for batch in _batches(path, rows):
            # Names are guarded already. Guarding here would also change negative scores.
            file.write(csv_text([*row[:3], *_numbers(row)] for row in batch).encode())


def _write_jsonl(path: str | Path, rows: Iterator[Row]) -> None:
    with writers.atomic_file(path) as file:
        for batch in _batches(path, rows):
            for row in batch:
                line = json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False)
                file.write(f"{line}\n".encode())


def _write_fact_table(path: str | Path, rows: Iterator[Row]) -> None:
    with extra("pyarrow", "tables", "Parquet files need"):
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
