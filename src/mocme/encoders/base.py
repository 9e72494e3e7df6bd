"""What every encoder shares: its settings, a job, and the report of a job."""

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
from mocme.encoders.items import UnusableItem as UnusableItem
from mocme.encoders.items import check_size as check_size

CPU = torch.device("cpu")
# A callback that receives (items done, items in total).
ProgressCallback = Callable[[int, int], None]
# Unknown names that a report lists.
MAX_UNKNOWN_NAMES = 1000
# Several threads prepare items and count into the same report.
_COUNTS_LOCK = threading.Lock()


def encoded_file(base: Path, name: str) -> Path:
    """The file of an encoded modality."""
    return base / encoded_path(name)


@dataclass(frozen=True)
class EncodingFailure:
    """An item that could not be encoded.

    Attributes:
        entity: the entity that it belongs to.
        place: the file, or the table and line, that it comes from.
    """

    entity: str
    place: str
    reason: str


@dataclass
class EncodingReport:
    """The result of encoding a modality, with an account of every item.

    ``items == encoded + reused + shared + len(failures)``.

    Attributes:
        width: number of features; 0 for sets of tokens.
        items: texts, images, ... that belong to an entity of the graph.
        encoded: items encoded by this call.
        reused: items encoded by an earlier call.
        shared: items with the same content as another item.
        unknown: items whose name is not an entity of the graph.
        strange: these names, at most `MAX_UNKNOWN_NAMES`.
        present: entities that have the modality.
        counts: further numbers worth reporting, by description.
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
        """Plain numbers and strings, for JSON."""
        return asdict(self)

    def count(self, description: str, number: int = 1) -> None:
        """Add to one of the counts; safe to call from several threads."""
        with _COUNTS_LOCK:
            self.counts[description] = self.counts.get(description, 0) + number

    def count_unknown(self, name: str) -> None:
        """Count an item whose name is not an entity of the graph."""
        self.unknown += 1
        if len(self.strange) < MAX_UNKNOWN_NAMES:
            self.strange.append(name)

    def __str__(self) -> str:
        size = f"{self.width:,} wide" if self.width else "sets of tokens"
        lines = [
            f"{self.name} ({self.kind}): {self.present:,} of {self.entities:,} entities have it, "
            f"{size}; {self.encoded:,} encoded, {self.reused:,} reused, {self.shared:,} "
            f"duplicates, {len(self.failures):,} unusable"
        ]
        lines += [f"  {description}: {number:,}" for description, number in self.counts.items()]
        lines += [f"  {note}" for note in self.notes]
        if self.unknown:
            names = ", ".join(map(repr, self.strange[:3])) + (", ..." if self.strange[3:] else "")
            lines.append(f"  {self.unknown:,} with a name that is not in the graph: {names}")
        for failure in self.failures[:5]:
            lines.append(f"  {failure.entity!r}: {failure.place}: {failure.reason}")
        if len(self.failures) > 5:
            more = len(self.failures) - 5
            lines.append(f"  and {more:,} more, all in {Path(self.path).with_suffix('.json')}")
        return "\n".join(lines)


@dataclass(frozen=True)
class EncodingJob:
    """A modality to encode.

    Attributes:
        folder: the folder that paths in an encoder's settings are relative to.
        base: the folder for the results, see `encoded_file`.
        settings: the encoder's settings as declared, see `mocme.data.ingest.reader.settings_json`.
        allow_download: whether a pretrained model may be downloaded from a hub.
        progress: called with (items done, items in total).
        stopped: set when the user asks to stop; the job ends before its next batch.
        trust_code: whether code that the graph's tables name may be imported.
    """

    graph: Graph
    name: str
    folder: Path
    base: Path
    settings: str = ""
    device: torch.device = CPU
    allow_download: bool = False
    progress: ProgressCallback = lambda done, total: None
    stopped: threading.Event = field(default_factory=threading.Event)
    trust_code: bool = False

    @property
    def path(self) -> Path:
        """The file of the modality."""
        return encoded_file(self.base, self.name)

    def bound(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """The file's metadata, with the settings and the digest of the graph's list of entities."""
        return {**metadata, "entities": self.graph.entities.digest(), "settings": self.settings}


class Encoder(Configurable):
    """One way to make a modality from raw data.

    An encoder is a frozen dataclass whose keyword-only fields are its settings. The docstring of
    the class that declares a setting describes it under ``Args:``, see
    `mocme.encoders.catalog.setting_docs`.
    """

    def __post_init__(self) -> None:
        """Check the settings, those of the parent class first.

        Raises:
            ValueError: a setting is out of range.
        """

    @classmethod
    def kind_name(cls) -> str:
        """The name of the class without its ending: ``text`` for `TextEncoder`."""
        return cls.__name__.removesuffix("Encoder").lower()

    @abstractmethod
    def encode(self, job: EncodingJob) -> EncodingReport:
        """Encode the modality and write its file.

        Raises:
            ValueError: an input cannot be read at all; with the file and the remedy.
            Interrupted: the job was stopped; the same call resumes it.
        """

    def needs(self) -> Sequence[str]:
        """Names of the encoded modalities that this one is made from."""
        return ()
