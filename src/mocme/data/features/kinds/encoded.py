"""Modalities that `mocme encode` made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from mocme.core.digest import file_digest
from mocme.data.features.base import FileSource
from mocme.data.graph import Graph
from mocme.data.modality import (
    FORMAT,
    AnyModality,
    check_entities,
    read_safetensors,
    unpack_modality,
)


@final
@dataclass(frozen=True, kw_only=True)
class Encoded(FileSource):
    """Vectors or sets of tokens that `mocme encode` made, bound to the list of entities.

    Attributes:
        settings: settings of the encoder as graph.toml declares them; a file that was made with
            others is refused.
    """

    settings: str | None = None

    def load(self, graph: Graph, folder: Path) -> tuple[AnyModality, list[str]]:
        return read_encoded(folder / self.path, graph, self.settings), []


def read_encoded(path: Path, graph: Graph, settings: str | None = None) -> AnyModality:
    """Read a modality that `mocme encode` made.

    Args:
        settings: settings of the encoder that the file must have been made with.

    Raises:
        ValueError: the file is missing, damaged, or was made by another program, with other
            settings or for another list of entities.
    """
    if not path.is_file():
        raise ValueError(
            f"{path}: there is no such file; make it with: mocme encode all "
            f"{graph.folder or 'DATA'} (with --out and a folder, if --features names one)"
        )
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path}: was not made by mocme encode; declare it as vectors")
    check_entities(path, metadata, graph.entities.digest())
    if settings is not None and metadata.get("settings") != settings:
        raise ValueError(
            f"{path}: was made with other settings than graph.toml has now; make it again "
            f"with: mocme encode all {graph.folder or 'DATA'}"
        )
    provenance = {**metadata, "source": str(path), "sha256": file_digest(path)}
    try:
        return unpack_modality(tensors, metadata | provenance, graph.num_entities)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: {error}; encode the modality again") from error
