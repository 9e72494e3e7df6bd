"""What a run keeps of its additions, in one file beside what it was trained to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from mocme.runs import RunError, RunFolder

FILE = "additions.safetensors"
FORMAT = "mocme additions 1"
Fact = tuple[str, str, str]


class NoAddition(ValueError):
    """A run has no addition of this name."""


@final
@dataclass(frozen=True, eq=False)
class Addition:
    """An entity that was added to a trained run.

    Attributes:
        facts: all that name it, those of other entities of its batch included.
        row: its structure row, fitted from its facts and tokens; None where it has neither.
        vectors: by name of a dense modality, as they come from its encoder.
        tokens: by name of a modality of tokens, those that its vocabulary knows.
        given: by modality, in words, what was given.
        notes: what a reader should know: what is not known of it, and what was not made.
        fit: how far the row's optimiser came; empty without a row.
        time: when it was added, ISO 8601 in UTC.
    """

    name: str
    facts: tuple[Fact, ...] = ()
    row: Float[Tensor, " D"] | None = None
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    tokens: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fit: Mapping[str, float] = field(default_factory=dict)
    time: str = ""

    def __repr__(self) -> str:
        has = [*self.vectors, *self.tokens]
        lines = [
            f"{self.name}: {len(self.facts)} facts; content: {', '.join(has) or 'none'}",
            *(f"  {note}" for note in self.notes),
        ]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Without vectors, for JSON."""
        return {
            "name": self.name,
            "facts": [list(fact) for fact in self.facts],
            "modalities": [*self.vectors, *self.tokens],
            "tokens": {name: list(own) for name, own in self.tokens.items()},
            "given": dict(self.given),
            "notes": list(self.notes),
            "fit": dict(self.fit),
            "time": self.time,
        }


class Additions(Sequence[Addition]):
    """Additions in the order they were made; prints as a list."""

    def __init__(self, items: Sequence[Addition] = ()) -> None:
        self._items = tuple(items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Addition:  # type: ignore[override]
        return self._items[index]

    def __iter__(self) -> Iterator[Addition]:
        return iter(self._items)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._items)) or "no additions"

    @property
    def names(self) -> list[str]:
        return [item.name for item in self._items]


def read(folder: RunFolder) -> Additions:
    """Those of a run.

    Raises:
        RunError: the file is damaged, or of a newer format.
    """
    if not folder.has(FILE):
        return Additions()
    tensors, metadata = folder.read_tensors(FILE), folder.tensors_metadata(FILE)
    if metadata.get("format") != FORMAT:
        raise RunError(f"{folder.path / FILE}: is of another format; upgrade mocme to read it")
    items = []
    for number, about in enumerate(json.loads(metadata["additions"])):
        start = f"{number}:vector/"
        own = {key[len(start) :]: own for key, own in tensors.items() if key.startswith(start)}
        own = {name: own[name] for name in about["modalities"] if name in own}
        row = tensors.get(f"{number}:row")
        items.append(
            Addition(
                about["name"],
                tuple((h, r, t) for h, r, t in about["facts"]),
                row,
                own,
                {name: tuple(words) for name, words in about["tokens"].items()},
                about["given"],
                tuple(about["notes"]),
                about["fit"],
                about["time"],
            )
        )
    return Additions(items)


def write(folder: RunFolder, items: Sequence[Addition]) -> None:
    """Keep these and no others, at once; where there are none, nothing of them stays."""
    if not items:
        folder.remove(FILE)
        return
    tensors: dict[str, Tensor] = {}
    for number, item in enumerate(items):
        if item.row is not None:
            tensors[f"{number}:row"] = item.row
        tensors |= {f"{number}:vector/{name}": own for name, own in item.vectors.items()}
    # A safetensors file holds at least one tensor.
    tensors = tensors or {"none": torch.zeros(0)}
    about = [item.as_dict() for item in items]
    metadata = {"format": FORMAT, "additions": json.dumps(about, ensure_ascii=False)}
    folder.write_tensors(FILE, tensors, metadata)
