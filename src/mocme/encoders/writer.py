"""Files of modalities, written piece by piece: the same content makes the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mocme.data.formats.writers import written
from mocme.data.modality import FORMAT, Tokens
from mocme.encoders.base import EncodingJob, EncodingReport

FLOAT32 = np.dtype("<f4")


def header(
    shapes: Mapping[str, tuple[str, tuple[int, ...], int]], metadata: Mapping[str, str]
) -> bytes:
    """The start of a safetensors file whose tensors follow in this order.

    The library writes only tensors that are held in memory; these are written piece by piece. After
    the format's description (huggingface/safetensors): the length of the JSON in 8 bytes, the JSON
    padded with spaces to a multiple of 8, then the tensors without gaps.

    Args:
        shapes: name to (type, shape, bytes a number).
    """
    table: dict[str, Any] = {"__metadata__": dict(metadata)}
    first = 0
    for name, (kind, shape, size) in shapes.items():
        last = first + size * int(np.prod(shape))
        table[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [first, last]}
        first = last
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
    """Write a dense modality in float32, or in float16.

    Args:
        rows: ids of entities, ascending.
        width: F.
        blocks: their vectors in this order, some at a time; n in all.
    """
    name = f"F{8 * kind.itemsize}"
    shapes = {
        "rows": ("I64", (len(rows),), 8),
        "values": (name, (len(rows), width), kind.itemsize),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as file:
        file.write(header(shapes, {**metadata, "format": FORMAT}))
        file.write(rows.astype("<i8").tobytes())
        for block in blocks:
            file.write(block.astype(kind).tobytes())


def settle_tokens(job: EncodingJob, tokens: Tokens, outcome: EncodingReport) -> None:
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
