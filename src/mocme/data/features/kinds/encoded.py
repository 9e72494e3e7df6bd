"""Modalities that `mocme encode` made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from mocme.core.digest import file_digest
from mocme.core.files import open_regular
from mocme.core.text_formats import parse_json
from mocme.data.features.alignment import finite_vectors
from mocme.data.features.base import FileSource
from mocme.data.graph import Graph
from mocme.data.modality import FORMAT, AnyModality, EmptyModality
from mocme.data.modality_files import check_entities, read_safetensors, unpack_modality


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
        return read_encoded(folder / self.path, graph, self.settings)


def read_encoded(
    path: Path, graph: Graph, settings: str | None = None
) -> tuple[AnyModality, list[str]]:
    """Read a modality that `mocme encode` made, and notes on vectors that are left out.

    Args:
        settings: settings of the encoder that the file must have been made with.

    Raises:
        ValueError: the file is missing, damaged, or was made by another program, with other
            settings or for another list of entities.
        EmptyModality: nothing could be encoded.
    """
    if not path.is_file():
        if reason := nothing_encoded(path, graph, settings):
            raise EmptyModality(reason)
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
    notes: list[str] = []
    if {"values", "rows"} <= set(tensors) and tensors["values"].is_floating_point():
        kept = finite_vectors(path, tensors["values"], tensors["rows"], graph.entities)
        tensors["values"], tensors["rows"], notes = kept
    provenance = {**metadata, "source": str(path), "sha256": file_digest(path)}
    try:
        return unpack_modality(tensors, metadata | provenance, graph.num_entities), notes
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: {error}; encode the modality again") from error


def nothing_encoded(path: Path, graph: Graph, settings: str | None = None) -> str:
    """Why `mocme encode` could make nothing of a modality; empty where it did not say so.

    Args:
        path: of the modality, which `mocme encode` did not write; its report is next to it.
        settings: as for `read_encoded`.
    """
    try:
        with open_regular(path.with_suffix(".json")) as file:
            report = parse_json(file.read())
    except (OSError, ValueError):
        return ""
    if not isinstance(report, dict) or report.get("entities_digest") != graph.entities.digest():
        return ""
    other = settings is not None and report.get("settings") != settings
    reason = report.get("empty")
    return reason if isinstance(reason, str) and not other else ""
