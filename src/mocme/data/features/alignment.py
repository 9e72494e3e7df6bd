"""Vectors of a file, matched by name to the entities of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocme.data.features.tables import unknown_note
from mocme.data.formats import tsv
from mocme.data.formats.tensors import map_npy
from mocme.data.graph import Vocabulary
from mocme.data.modality import EmptyModality, Modality, finite_rows
from mocme.data.modality_files import check_entities

# A vector whose largest value is this many times that of the median vector is told.
_OUTLIER = 1e4


def from_npy(
    path: Path, names: Path | None, entities: Vocabulary
) -> tuple[Tensor, Tensor, list[str]]:
    """Read a ``.npy`` file and the file that names its rows.

    Returns:
        Entity ids (n,) in ascending order, their vectors (n, F), and notes.

    Raises:
        ValueError: a file cannot be read, the files do not fit each other, or the array does not
            contain numbers.
    """
    if names is None:
        raise ValueError(f"{path}: needs entities = FILE, one entity name per line in row order")
    table = tsv.read_names(names)
    try:
        array = map_npy(path)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read as .npy: {error}") from error
    if array.ndim != 2 or len(array) != len(table.rows):
        raise ValueError(
            f"{path}: has shape {array.shape}, but {table.report.path} names "
            f"{len(table.rows)} entities; one row per name is needed"
        )
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: contains {array.dtype}, not numbers")
    if array.dtype.kind != "f" or not array.dtype.isnative or array.dtype.itemsize > 8:
        array = array.astype(np.float32)
    rows, positions, notes = match(path, [name for (name,) in table.rows], entities)
    return rows, take(torch.from_numpy(array), positions), notes


def match(
    path: Path, names: Sequence[str], entities: Vocabulary
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], list[str]]:
    """Match the names of vectors to entities.

    Returns:
        Entity ids (n,) in ascending order, the positions of their vectors (n,), and notes.

    Raises:
        ValueError: an entity has two vectors.
        EmptyModality: no name is an entity.
    """
    position_of: dict[int, int] = {}
    unknown = []
    for position, name in enumerate(names):
        entity = entities.get(name)
        if entity is None:
            unknown.append(name)
        elif entity in position_of:
            raise ValueError(f"{path}: {name!r} has two vectors; keep one")
        else:
            position_of[entity] = position
    if not position_of:
        raise EmptyModality(
            f"{path}: none of its {len(names)} names is an entity of the graph; names must equal "
            f"those in its facts byte for byte"
        )
    rows = sorted(position_of)
    positions = torch.tensor([position_of[row] for row in rows])
    return torch.tensor(rows), positions, unknown_note(path, unknown)


def take(values: Tensor, positions: Int[Tensor, " n"]) -> Tensor:
    """Select rows; all rows in their order are returned as they are, so they stay memory-mapped."""
    is_identity = len(positions) == len(values) and bool(
        (positions == torch.arange(len(positions))).all()
    )
    return values if is_identity else values[positions]


def stack(path: Path, tensors: Mapping[str, Tensor]) -> tuple[list[str], Float[Tensor, "n F"]]:
    """Stack the tensors of a file with one vector per name.

    Returns:
        The names, and their vectors in float32.

    Raises:
        ValueError: the tensors are not vectors of the same length.
    """
    shapes = {tuple(value.shape) for value in tensors.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(
            f"{path}: needs one vector of the same length under each entity's name, or `values` "
            f"with `rows`; found shapes {sorted(shapes)[:3]}"
        )
    return list(tensors), torch.stack([value.float() for value in tensors.values()])


def as_ids(rows: Tensor) -> Tensor:
    """Convert integers of any width to int64; other types are returned as they are."""
    is_integer = not rows.is_floating_point() and not rows.is_complex() and rows.dtype != torch.bool
    return rows.long() if is_integer else rows


def check_binding(path: Path, metadata: Mapping[str, str], entities: Vocabulary) -> list[str]:
    """Check that row ids belong to this list of entities.

    Returns:
        A note if the file does not say for which list of entities its rows are.

    Raises:
        ValueError: they are for another list of entities.
    """
    check_entities(path, metadata, entities.digest())
    if "entities" in metadata:
        return []
    return [
        f"{path}: does not say for which list of entities its rows are; they are taken as ids of "
        f"this graph"
    ]


def finite_vectors(
    path: Path, values: Tensor, rows: Tensor, entities: Vocabulary
) -> tuple[Tensor, Tensor, list[str]]:
    """Leave out vectors that are not finite in float32, the type in which a model reads them.

    Args:
        values, rows: as in a file; of other shapes and types, they are returned unchanged.
        entities: of the graph.

    Returns:
        The other vectors, their entities, and notes on those that are left out, and on one that
        is far larger than all others.

    Raises:
        EmptyModality: none is left.
    """
    fit = values.ndim == 2 and rows.shape == values.shape[:1] and rows.dtype == torch.int64
    if not fit or not values.numel():
        return values, rows, []
    finite = finite_rows(values)
    bad = (~finite).nonzero().flatten()
    if not len(bad):
        return values, rows, _size_notes(path, values, rows, entities)
    note = (
        f"{path}: {len(bad):,} vectors contain NaN or a value beyond the range of float32, first "
        f"that of {_name(entities, rows[bad[0]])}; these entities have no vector here; correct "
        f"them, or leave them out"
    )
    if len(bad) == len(rows):
        raise EmptyModality(note)
    values, rows = values[finite], rows[finite]
    return values, rows, [note, *_size_notes(path, values, rows, entities)]


def _size_notes(path: Path, values: Tensor, rows: Tensor, entities: Vocabulary) -> list[str]:
    """A note where one vector is so large that the others vanish beside it."""
    sizes = values.abs().amax(1).float()
    typical, largest = float(sizes.median()), int(sizes.argmax())
    if not typical or float(sizes[largest]) <= _OUTLIER * typical:
        return []
    return [
        f"{path}: the vector of {_name(entities, rows[largest])} is "
        f"{float(sizes[largest]) / typical:.3g} times as large as the median; vectors are scaled "
        f"together, so the others nearly vanish; correct it, or leave it out"
    ]


def _name(entities: Vocabulary, row: Tensor) -> str:
    entity = int(row)
    return repr(entities[entity]) if 0 <= entity < len(entities) else f"id {entity}"


def checked_modality(
    path: Path, values: Tensor, rows: Tensor, num_entities: int, provenance: Mapping[str, str]
) -> Modality:
    """Build a modality; errors about its content name the file.

    Raises:
        ValueError: values or rows do not make a modality.
        EmptyModality: there are none.
    """
    if values.ndim != 2 or rows.shape != values.shape[:1] or rows.dtype != torch.int64:
        raise ValueError(
            f"{path}: values of shape {tuple(values.shape)} with rows of shape "
            f"{tuple(rows.shape)} and type {rows.dtype}; required are (n, F) and (n,) integers"
        )
    if not values.numel():
        raise EmptyModality(
            f"{path}: contains no vector (shape {tuple(values.shape)}); encode the modality again, "
            f"or leave it out"
        )
    try:
        return Modality(values, rows, num_entities, provenance)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
