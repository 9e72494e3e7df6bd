"""Numbers as dense vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from mocme.core.digest import file_digest
from mocme.data.features.alignment import checked_modality
from mocme.data.features.base import FileSource
from mocme.data.features.numeric import NumberVectors, check_bins, scales_json
from mocme.data.features.tables import read_numbers
from mocme.data.graph import Graph
from mocme.data.modality import AnyModality


@final
@dataclass(frozen=True, kw_only=True)
class Numbers(FileSource):
    """Numbers as a dense modality: a TSV of (entity, value) or (entity, attribute, value).

    Each attribute has two columns: its numbers, scaled as `scaled` describes, and a 1 for each
    entity that has the attribute.

    Attributes:
        bins: if 2 or more, as many further columns per attribute: its piecewise linear encoding
            between quantiles (Gorishniy et al., NeurIPS 2022), so that a linear map can follow
            curves and intervals. 0 for none.
    """

    bins: int = 0

    def __post_init__(self) -> None:
        check_bins(self.bins, none=True)
        super().__post_init__()

    def load(self, graph: Graph, folder: Path) -> tuple[AnyModality, list[str]]:
        path = folder / self.path
        columns, notes = read_numbers(path, graph.entities)
        vectors = NumberVectors(columns, self.bins)
        values = torch.from_numpy(vectors.block(vectors.rows))
        rows = torch.from_numpy(vectors.rows)
        provenance = {
            "source": str(path),
            "attributes": "\t".join(columns),
            "sha256": file_digest(path),
            "scales": scales_json(columns, self.bins),
        }
        return checked_modality(path, values, rows, graph.num_entities, provenance), notes
