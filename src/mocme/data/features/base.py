"""What every source of a modality is, and how a modality that was encoded is read."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from mocme.core.digest import file_digest
from mocme.core.registry import Configurable
from mocme.data.features.ablations import Ablation
from mocme.data.graph import Graph
from mocme.data.modality import FORMAT, AnyModality, check_entities, read_safetensors, unpacked


class Source(Configurable):
    """One way to read a modality; `load` gives it and notes for the reader.

    Attributes:
        control: what is replaced in it once it is read.
    """

    control: Ablation = Ablation()

    @abstractmethod
    def load(self, graph: Graph, folder: Path) -> tuple[AnyModality, list[str]]:
        """Read the modality for the entities of a graph; paths are relative to `folder`.

        Raises:
            ValueError: naming the file and the remedy.
        """

    def files(self) -> list[str]:
        """The files it reads, as its settings name them: they tell in which folder it reads."""
        return []


def read_encoded(path: Path, graph: Graph, settings: str | None = None) -> AnyModality:
    """What `mocme encode` made.

    Args:
        settings: those of the encoder as graph.toml declares them, which must be the file's.

    Raises:
        ValueError: the file is absent, or was made otherwise or for another list of entities.
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
        return unpacked(tensors, metadata | provenance, graph.num_entities)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: {error}; encode the modality again") from error
