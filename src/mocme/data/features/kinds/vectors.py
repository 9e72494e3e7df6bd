"""Vectors from files of tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import torch
from torch import Tensor

from mocme.core.digest import file_digest
from mocme.data.features.alignment import (
    as_ids,
    check_binding,
    checked_modality,
    finite_vectors,
    from_npy,
    match,
    stack,
    take,
)
from mocme.data.features.base import FileSource
from mocme.data.formats import tensors
from mocme.data.graph import Graph
from mocme.data.modality import AnyModality, provenance_of
from mocme.data.modality_files import read_safetensors


@final
@dataclass(frozen=True, kw_only=True)
class Vectors(FileSource):
    """One vector per entity.

    A ``.safetensors`` file has either `values` (n, F) with `rows` (n,), the entity ids, or one
    vector under each entity's name. A ``.npy`` file has (n, F) and needs `entities`, a file with
    one name per line. `values` with `rows` are bound to the list of entities by the digest of that
    list in the metadata (`entities`); without it, the file is accepted with a note.

    With ``by = "row"``, row i is the vector of the entity with id i, as in the feature tensors that
    are published with benchmarks (``.pth``, ``.pt``, ``.npy``, ``.h5``, ``.safetensors``). The
    graph then needs a list of entities of the same length.

    `values` with `rows` are memory-mapped, and so is a ``.npy`` file whose names are the entities
    of the graph in its order. All other vectors are copied: one vector per name, rows in another
    order, types other than native floating point, and every ablation.

    Attributes:
        entities: the file that names the rows of a ``.npy`` file.
        by: whether rows belong to entities by name or by position.
        key: the name of one of several tensors in a file, with ``by = "row"``.
    """

    entities: str | None = None
    by: Literal["name", "row"] = "name"
    key: str | None = None

    def __post_init__(self) -> None:
        if self.by == "row" and self.entities is not None:
            raise ValueError('entities is for by = "name"; rows are in the order of the ids')
        if self.by == "name" and self.key is not None:
            raise ValueError('key is for by = "row"')
        super().__post_init__()

    def files(self) -> list[str]:
        return [self.path] if self.entities is None else [self.path, self.entities]

    def load(self, graph: Graph, folder: Path) -> tuple[AnyModality, list[str]]:
        path = folder / self.path
        if not path.is_file():
            raise ValueError(
                f"{path}: there is no such file; encode the modality first, or name its folder "
                f"with --features"
            )
        provenance = {"source": str(path), "sha256": file_digest(path)}
        notes: list[str] = []
        if self.by == "row":
            rows, values, metadata = self._by_row(path, graph)
            provenance |= metadata
        elif path.suffix == ".npy":
            names = None if self.entities is None else folder / self.entities
            rows, values, notes = from_npy(path, names, graph.entities)
        else:
            stored, metadata = read_safetensors(path)
            provenance |= provenance_of(metadata)
            if set(stored) == {"values", "rows"}:
                notes = check_binding(path, metadata, graph.entities)
                rows, values = as_ids(stored["rows"]), stored["values"]
            else:
                vector_names, values = stack(path, stored)
                rows, positions, notes = match(path, vector_names, graph.entities)
                values = take(values, positions)
        if not values.is_floating_point():
            values = values.float()
        values, rows, more = finite_vectors(path, values, rows, graph.entities)
        notes += more
        modality = checked_modality(path, values, rows, graph.num_entities, provenance)
        if zeros := int((modality.values == 0).all(1).sum()):
            notes.append(
                f"{path}: {zeros:,} vectors are all zero; leave out entities that lack the modality"
            )
        return modality, notes

    def _by_row(self, path: Path, graph: Graph) -> tuple[Tensor, Tensor, dict[str, str]]:
        """Read ids, vectors and metadata; ids are positions, so they must come from a list."""
        if not graph.listed:
            raise ValueError(
                f'{path}: by = "row" needs entities.txt next to the facts, with the names in the '
                f"order of the rows"
            )
        values, metadata = tensors.read(path, self.key)
        if len(values) != graph.num_entities:
            raise ValueError(
                f"{path}: has {len(values):,} rows for {graph.num_entities:,} entities; it belongs "
                f"to another list of entities"
            )
        return torch.arange(len(values)), values, dict(metadata)
