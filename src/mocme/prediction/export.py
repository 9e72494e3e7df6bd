"""Vectors of entities and relations into files that other programs read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from mocme.data.formats import writers
from mocme.prediction.predictor import Predictor

Kind = Literal["npy", "parquet"]


def write(folder: str | Path, predictor: Predictor, kind: Kind = "npy") -> list[Path]:
    """Write ``entities`` and ``relations`` into a folder; returns the files.

    ``npy``: an array of float32 and a list of names, a line each, in its order. ``parquet``: the
    columns name and vector. The inverse of a relation is called "inverse of NAME".

    Raises:
        ValueError: the folder holds one of the files already, or a list cannot hold a name.
    """
    entities, relations = predictor.embeddings()
    graph = predictor.graph
    inverse = [f"inverse of {name}" for name in graph.relations]
    parts = {
        "entities": (list(graph.entities), entities),
        "relations": ([*graph.relations, *inverse], relations),
    }
    home = Path(folder)
    endings = (".npy", ".txt") if kind == "npy" else (".parquet",)
    files = [home / f"{name}{ending}" for name in parts for ending in endings]
    for file in files:
        if file.exists():
            raise ValueError(f"{file}: is there already; remove it or name another folder")
    home.mkdir(parents=True, exist_ok=True)
    for name, (names, values) in parts.items():
        if kind == "npy":
            _npy(home / name, names, values)
        else:
            _parquet(home / f"{name}.parquet", names, values)
    return files


def _npy(path: Path, names: Sequence[str], values: Tensor) -> None:
    for name in names:
        if "\n" in name:
            problem = "a line feed, which a list of names cannot"
            raise writers.name_error(path.with_suffix(".txt"), name, problem, "write Parquet")
    with writers.atomic_file(path.with_suffix(".npy")) as file:
        np.save(file, values.numpy(), allow_pickle=False)
    with writers.atomic_file(path.with_suffix(".txt")) as file:
        file.write("".join(f"{name}\n" for name in names).encode())


def _parquet(path: Path, names: Sequence[str], values: Tensor) -> None:
    with writers.require_library("pyarrow", "Parquet files"):
        import pyarrow
        import pyarrow.parquet
    flat = pyarrow.array(values.numpy().ravel())
    vectors = pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
    table = pyarrow.table({"name": pyarrow.array(names), "vector": vectors})
    with writers.atomic_file(path) as file:
        pyarrow.parquet.write_table(table, file, compression="zstd")
