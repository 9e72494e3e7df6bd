"""Numbers as tokens of quantile bins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from mocme.core.digest import file_digest
from mocme.data.features.base import FileSource
from mocme.data.features.numeric import bin_tokens, check_bins
from mocme.data.features.tables import read_numbers
from mocme.data.graph import Graph
from mocme.data.modality import AnyModality


@final
@dataclass(frozen=True, kw_only=True)
class Bins(FileSource):
    """Numbers as sets of tokens: one token for each attribute, its quantile bin.

    The file is a TSV as for `Numbers`.
    """

    bins: int = 10

    def __post_init__(self) -> None:
        check_bins(self.bins, none=False)
        super().__post_init__()

    def load(self, graph: Graph, folder: Path) -> tuple[AnyModality, list[str]]:
        path = folder / self.path
        columns, notes = read_numbers(path, graph.entities)
        provenance = {"source": self.path, "sha256": file_digest(path)}
        tokens = bin_tokens(
            columns,
            self.bins,
            graph.num_entities,
            per_entity=len(columns),
            provenance=provenance,
        )
        return tokens, notes
