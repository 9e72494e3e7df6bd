"""Base classes of the sources of modalities."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

from mocme.core.registry import Configurable
from mocme.data.features.ablations import Ablation, Replace
from mocme.data.graph import Graph
from mocme.data.modality import AnyModality


@dataclass(frozen=True, kw_only=True)
class Source(Configurable):
    """A way to read a modality; its settings are keyword-only dataclass fields.

    A subclass checks the range of its settings in ``__post_init__``, which calls that of this
    class.

    Attributes:
        replace, replace_share, seed: the `replace`, `share` and `seed` of an `Ablation` of what was
            read.
    """

    replace: Replace = "nothing"
    replace_share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        self.ablation()  # checks its settings

    @abstractmethod
    def load(self, graph: Graph, folder: Path) -> tuple[AnyModality, list[str]]:
        """Read the modality of the entities of a graph, before any ablation.

        Args:
            folder: where relative paths in the settings start.

        Returns:
            The modality, and notes for the user on how it was read.

        Raises:
            ValueError: with the file and the remedy.
            EmptyModality: nothing can be made of the files.
        """

    def files(self) -> list[str]:
        """Return the paths of all files that `load` reads, as the settings give them.

        They decide in which folder the source is read.
        """
        return []

    def ablation(self) -> Ablation:
        """Return the ablation that the settings describe.

        Raises:
            ValueError: `replace_share` is out of range.
        """
        return Ablation(self.replace, self.replace_share, self.seed)


@dataclass(frozen=True, kw_only=True)
class FileSource(Source):
    """A source that reads one file."""

    path: str

    def files(self) -> list[str]:
        return [self.path]
