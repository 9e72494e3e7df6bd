"""Files of modalities that are no vectors by digest: the same content makes the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from mocme.encoders.base import Job, Outcome
from mocme.encoders.store import header
from mocme.graph.formats.writers import written
from mocme.graph.modalities import FORMAT, Tokens


def write_vectors(
    path: Path,
    rows: Int[np.ndarray, " n"],
    width: int,
    blocks: Iterable[Float[np.ndarray, "b F"]],
    metadata: Mapping[str, str],
) -> None:
    """Write a dense modality in float32.

    Args:
        rows: ids of entities, ascending.
        width: F.
        blocks: their vectors in this order, some at a time; n in all.
    """
    shapes = {"rows": ("I64", (len(rows),), 8), "values": ("F32", (len(rows), width), 4)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as file:
        file.write(header(shapes, {**metadata, "format": FORMAT}))
        file.write(rows.astype("<i8").tobytes())
        for block in blocks:
            file.write(block.astype("<f4").tobytes())


def settle_tokens(job: Job, tokens: Tokens, outcome: Outcome) -> None:
    """Write a job's sets of tokens, and count them."""
    tensors, described = tokens.packed()
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    write_tensors(job.path, arrays, job.bound(described))
    outcome.present = int(tokens.present().sum())
    outcome.count("different tokens", len(tokens.vocabulary))
    outcome.count("tokens of entities", len(tokens.token))


def write_tensors(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write arrays of int64 and float32 as safetensors, always the same bytes."""
    kinds = {"int64": ("I64", "<i8"), "float32": ("F32", "<f4")}
    known = {name: kinds[str(array.dtype)] for name, array in arrays.items()}
    shapes = {name: (known[name][0], array.shape, array.itemsize) for name, array in arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as file:
        file.write(header(shapes, metadata))
        for name, array in arrays.items():
            file.write(np.ascontiguousarray(array, known[name][1]).tobytes())
