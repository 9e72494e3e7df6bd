"""Files of modalities, written block by block; the same content gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mocme.data.formats.writers import atomic_file
from mocme.data.modality import FORMAT, Tokens
from mocme.encoders.base import EncodingJob, EncodingReport

FLOAT32 = np.dtype("<f4")


def safetensors_header(
    shapes: Mapping[str, tuple[str, tuple[int, ...], int]], metadata: Mapping[str, str]
) -> bytes:
    """The header of a safetensors file whose tensors follow in this order.

    The library can only write tensors that are in memory; these are written block by block. The
    format (huggingface/safetensors): the length of the JSON in 8 bytes, the JSON padded with spaces
    to a multiple of 8, then the tensors without gaps.

    Args:
        shapes: by name the type, the shape, and the bytes of one number.
    """
    table: dict[str, Any] = {"__metadata__": dict(metadata)}
    start = 0
    for name, (kind, shape, size) in shapes.items():
        end = start + size * int(np.prod(shape))
        table[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_vectors(
    path: Path,
    rows: Int[np.ndarray, " n"],
    width: int,
    blocks: Iterable[Float[np.ndarray, "b F"]],
    metadata: Mapping[str, str],
    kind: np.dtype[Any] = FLOAT32,
) -> None:
    """Write a dense modality.

    Args:
        rows: ids of the entities, ascending.
        width: F.
        blocks: their vectors in this order, n in total.
        kind: float32 or float16.
    """
    name = f"F{8 * kind.itemsize}"
    shapes = {
        "rows": ("I64", (len(rows),), 8),
        "values": (name, (len(rows), width), kind.itemsize),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(safetensors_header(shapes, {**metadata, "format": FORMAT}))
        file.write(rows.astype("<i8").tobytes())
        for block in blocks:
            file.write(block.astype(kind).tobytes())


def write_tokens(job: EncodingJob, tokens: Tokens, report: EncodingReport) -> None:
    """Write the sets of tokens of a job, and count them in the report."""
    tensors, metadata = tokens.packed()
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    write_arrays(job.path, arrays, job.bound(metadata))
    report.present = int(tokens.present().sum())
    report.count("different tokens", len(tokens.vocabulary))
    report.count("tokens of entities", len(tokens.token))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays of int64 and float32 as a safetensors file."""
    kinds = {"int64": ("I64", "<i8"), "float32": ("F32", "<f4")}
    known = {name: kinds[str(array.dtype)] for name, array in arrays.items()}
    shapes = {name: (known[name][0], array.shape, array.itemsize) for name, array in arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(safetensors_header(shapes, metadata))
        for name, array in arrays.items():
            file.write(np.ascontiguousarray(array, known[name][1]).tobytes())
