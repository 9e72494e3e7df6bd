"""What every encoder shares: its settings, a job to do, and an account of what became of it."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mocme.core.registry import Configurable
from mocme.data.graph import Graph
from mocme.data.modality import encoded_path

CPU = torch.device("cpu")
Advance = Callable[[int, int], None]
# Unknown names that a report holds.
STRANGE = 1000
# Threads prepare items and count what they meet.
_COUNTING = threading.Lock()


def encoded_file(base: Path, name: str) -> Path:
    """The file of an encoded modality."""
    return base / encoded_path(name)


@dataclass(frozen=True)
class EncodingFailure:
    """Something that could not be encoded.

    Attributes:
        entity: whose it is.
        place: the file, or the line of a table.
    """

    entity: str
    place: str
    reason: str


class UnusableItem(ValueError):
    """A text, picture or sound that cannot be encoded; its entity goes without."""


@dataclass
class EncodingReport:
    """What became of everything that a modality was to be made from.

    ``items == encoded + reused + shared + len(failures)``.

    Attributes:
        items: texts, pictures, ... that belong to an entity of the graph.
        encoded: made now; `reused`: made by an earlier call; `shared`: the same content as another.
        unknown: items of names that are no entity of the graph; `strange` has these names, of many
            the first `STRANGE`.
        present: entities that have the modality now.
        counts: further numbers worth knowing, by what they count.
    """

    name: str
    kind: str
    path: str = ""
    entities: int = 0
    present: int = 0
    width: int = 0
    items: int = 0
    encoded: int = 0
    reused: int = 0
    shared: int = 0
    unknown: int = 0
    strange: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[EncodingFailure] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and texts, for JSON."""
        return asdict(self)

    def count(self, what: str, number: int = 1) -> None:
        """Add to one of the counts."""
        with _COUNTING:
            self.counts[what] = self.counts.get(what, 0) + number

    def __str__(self) -> str:
        size = f"{self.width:,} wide" if self.width else "sets of tokens"
        lines = [
            f"{self.name} ({self.kind}): {self.present:,} of {self.entities:,} entities have it, "
            f"{size}; {self.encoded:,} encoded, {self.reused:,} as before, {self.shared:,} alike, "
            f"{len(self.failures):,} unusable"
        ]
        lines += [f"  {what}: {number:,}" for what, number in self.counts.items()]
        lines += [f"  {note}" for note in self.notes]
        if self.unknown:
            some = ", ".join(map(repr, self.strange[:3])) + (", ..." if self.strange[3:] else "")
            lines.append(f"  {self.unknown:,} of names that are no entity of the graph: {some}")
        for failure in self.failures[:5]:
            lines.append(f"  {failure.entity!r}: {failure.place}: {failure.reason}")
        if len(self.failures) > 5:
            more = len(self.failures) - 5
            lines.append(f"  and {more:,} more, all in {Path(self.path).with_suffix('.json')}")
        return "\n".join(lines)


@dataclass(frozen=True)
class EncodingJob:
    """A modality to be made.

    Attributes:
        folder: where the paths in an encoder's settings start.
        base: where results go, see `encoded_file`.
        settings: those of the encoder as they are declared, see `loading.settings_of`.
        allow_download: whether a pretrained model may be fetched from a hub.
        advance: called with (items done, items in all).
        stopped: set when the user wants to stop; work ends at the next batch.
    """

    graph: Graph
    name: str
    folder: Path
    base: Path
    settings: str = ""
    device: torch.device = CPU
    allow_download: bool = False
    advance: Advance = lambda done, total: None
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def path(self) -> Path:
        return encoded_file(self.base, self.name)

    def bound(self, described: Mapping[str, str]) -> dict[str, str]:
        """Metadata of the file: what describes it, and the list of entities that it is made for."""
        return {**described, "entities": self.graph.entities.digest(), "settings": self.settings}


class Encoder(Configurable):
    """How one modality is made; `encode` makes it and writes it."""

    @classmethod
    def kind_name(cls) -> str:
        """The name of the class without its ending: ``text`` for `TextEncoder`."""
        return cls.__name__.removesuffix("Encoder").lower()

    @abstractmethod
    def encode(self, job: EncodingJob) -> EncodingReport:
        """Make the modality and write its file.

        Raises:
            ValueError: an input cannot be read at all, with the file and the remedy.
            Interrupted: it was stopped; the same call goes on.
        """

    def needs(self) -> Sequence[str]:
        """Encoded modalities that have to be there first."""
        return ()
