"""Vectors of a file, and whose they are: names matched to the entities of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.features.tables import unknown
from mocme.data.formats import tsv
from mocme.data.graph import Vocabulary
from mocme.data.modality import check_entities


def from_npy(
    path: Path, names: Path | None, entities: Vocabulary
) -> tuple[Tensor, Tensor, list[str]]:
    """Entity ids, their vectors and notes, of a ``.npy`` file and the file that names its rows."""
    if names is None:
        raise ValueError(f"{path}: needs entities = FILE, one entity name a line in row order")
    table = tsv.read_names(names)
    try:
        # Copy on write: torch warns of memory that it may not write to.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as .npy: {error}") from error
    if array.ndim != 2 or len(array) != len(table.rows):
        raise ValueError(
            f"{path}: has shape {array.shape}, but {table.report.path} names "
            f"{len(table.rows)} entities; one row a name is needed"
        )
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: holds {array.dtype}, not numbers")
    if array.dtype.kind != "f" or not array.dtype.isnative or array.dtype.itemsize > 8:
        array = array.astype(np.float32)
    rows, kept, notes = match(path, [name for (name,) in table.rows], entities)
    return rows, take(torch.from_numpy(array), kept), notes


def match(
    path: Path, names: Sequence[str], entities: Vocabulary
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], list[str]]:
    """Entity ids in ascending order, the places of their vectors, and notes."""
    ids: dict[int, int] = {}
    strange = []
    for place, name in enumerate(names):
        entity = entities.get(name)
        if entity is None:
            strange.append(name)
        elif entity in ids:
            raise ValueError(f"{path}: {name!r} has two vectors; keep one")
        else:
            ids[entity] = place
    if not ids:
        raise ValueError(
            f"{path}: none of its {len(names)} names is an entity of the graph; names are compared "
            f"byte for byte, as they stand in its facts"
        )
    rows = sorted(ids)
    return torch.tensor(rows), torch.tensor([ids[r] for r in rows]), unknown(path, strange)


def take(values: Tensor, kept: Int[Tensor, " n"]) -> Tensor:
    """Some rows; all of them in their order stay where they are, perhaps in a mapped file."""
    whole = len(kept) == len(values) and bool((kept == torch.arange(len(kept))).all())
    return values if whole else values[kept]


def stack(path: Path, tensors: Mapping[str, Tensor]) -> tuple[list[str], Float[Tensor, "n F"]]:
    """Names and their vectors, of a file with a vector under each name."""
    shapes = {tuple(value.shape) for value in tensors.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(
            f"{path}: needs one vector of the same length under each entity's name, or `values` "
            f"with `rows`; found shapes {sorted(shapes)[:3]}"
        )
    return list(tensors), torch.stack([value.float() for value in tensors.values()])


def ids(rows: Tensor) -> Tensor:
    """Whole numbers of any width as int64; anything else stays and is refused later."""
    whole = not rows.is_floating_point() and not rows.is_complex() and rows.dtype != torch.bool
    return rows.long() if whole else rows


def bound(path: Path, metadata: Mapping[str, str], entities: Vocabulary) -> list[str]:
    """A note where a file does not say for which list of entities it is; refused if for another."""
    check_entities(path, metadata, entities.digest())
    if "entities" in metadata:
        return []
    return [f"{path}: does not say for which list of entities its rows are; taken as for this one"]
