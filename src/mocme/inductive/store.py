"""Additions of a run, stored in one file of its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from mocme.core.text import counted
from mocme.inductive.stored_additions import check_addition_tensors, parse_additions
from mocme.storage import RunError, RunFolder
from mocme.storage.errors import refuse_invalid
from mocme.storage.run_directory import short_digest

FILE = "additions.safetensors"
FORMAT = "mocme additions 3"
# Kinds of pairs that a note lists one by one.
_MOST_LISTED = 8
Fact = tuple[str, str, str]


class NoAddition(ValueError):
    """The run has no addition of this name."""


@final
@dataclass(frozen=True, eq=False)
class Addition:
    """An entity that was added to a trained run.

    Attributes:
        facts: all that contain it, including those of other entities of its batch.
        rows: its structure row by name of an embedding, fitted from its facts and tokens; empty
            where it has neither.
        vectors: by name of a dense modality, as its encoder returns them.
        tokens: by name of a modality of tokens, those in its vocabulary.
        given: description of the input, by modality.
        remarks: notes for the user, for instance on missing content.
        fit: state of the optimiser at the end; empty without rows.
        time: when it was added, ISO 8601 in UTC.
        names: by which texts mention it, where they differ from its name.
        texts: by name of a modality, the texts that its content was computed from.
        pairs: by name of a modality of pairs and by kind, how many pairs it is in.
    """

    name: str
    facts: tuple[Fact, ...] = ()
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    tokens: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    fit: Mapping[str, float] = field(default_factory=dict)
    time: str = ""
    names: tuple[str, ...] = ()
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pairs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def modalities(self) -> list[str]:
        """Modalities in which it has content."""
        of_pairs = [name for name in self.texts if name in self.pairs]
        return list(dict.fromkeys([*self.vectors, *self.tokens, *of_pairs]))

    @property
    def notes(self) -> tuple[str, ...]:
        """The remarks, and the number of pairs by kind."""
        return (*self.remarks, *(_counted(name, kinds) for name, kinds in self.pairs.items()))

    def __repr__(self) -> str:
        has = ", ".join(self.modalities) or "none"
        lines = [
            f"{self.name}: {counted(len(self.facts), 'fact')}; content: {has}",
            *(f"  {note}" for note in self.notes),
        ]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Without vectors, for JSON."""
        return {
            "name": self.name,
            "facts": [list(fact) for fact in self.facts],
            "modalities": self.modalities,
            "tokens": {name: list(words) for name, words in self.tokens.items()},
            "given": dict(self.given),
            "notes": list(self.notes),
            "fit": dict(self.fit),
            "time": self.time,
            "names": list(self.names),
            "texts": {name: list(texts) for name, texts in self.texts.items()},
            "pairs": {name: dict(kinds) for name, kinds in self.pairs.items()},
        }


def _counted(name: str, kinds: Mapping[str, int]) -> str:
    ranked = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    counts = [f"{count:,} {kind}" for kind, count in ranked[:_MOST_LISTED]]
    counts += [f"{len(ranked) - _MOST_LISTED:,} more kinds"] if len(ranked) > _MOST_LISTED else []
    total = f"{name}: {sum(kinds.values()):,} pairs"
    return f"{total} ({'; '.join(counts)})" if counts else total


class Additions(Sequence[Addition]):
    """Additions in the order in which they were added; prints as a list.

    Attributes:
        pairs: by name of a modality of pairs, rows (kind, head, tail) of those that an addition is
            in; ids of additions follow those of the trained entities.
    """

    def __init__(
        self, items: Sequence[Addition] = (), pairs: Mapping[str, Tensor] | None = None
    ) -> None:
        self._items = tuple(items)
        self.pairs: Mapping[str, Tensor] = pairs or {}

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


def read(folder: RunFolder, model: str | None) -> Additions:
    """Read the additions of a run.

    Args:
        model: digest of the model that they were fitted to (`RunFolder.model`).

    Raises:
        RunError: the file is damaged, of another format, or was fitted to another model; or a key
            or tensor is missing, unknown or wrong.
    """
    try:
        if not folder.has(FILE):
            return Additions()
        tensors, metadata = folder.read_packed(FILE)
    except RunError:
        if folder.has(FILE):
            raise
        return Additions()  # another process has just removed the last one
    if metadata.get("format") != FORMAT:
        raise RunError(
            f"{folder.path / FILE}: has another format; it was written by another version of mocme"
        )
    if metadata.get("model") != model:
        raise RunError(
            f"{folder.path / FILE}: was fitted to another model "
            f"({short_digest(metadata.get('model'))}) than that of this run "
            f"({short_digest(model)}); delete {FILE} and {FILE}.sha256 there, and add the entities "
            f"again"
        )
    with refuse_invalid(folder.path / FILE):
        stored_items = parse_additions(metadata.get("additions"))
        check_addition_tensors(tensors, stored_items)
    items = []
    for number, about in enumerate(stored_items):
        start = f"{number}:vector/"
        stored = {key[len(start) :]: v for key, v in tensors.items() if key.startswith(start)}
        vectors = {name: stored[name] for name in about["modalities"] if name in stored}
        start = f"{number}:row/"
        rows = {key[len(start) :]: row for key, row in tensors.items() if key.startswith(start)}
        items.append(
            Addition(
                about["name"],
                tuple((h, r, t) for h, r, t in about["facts"]),
                rows,
                vectors,
                {name: tuple(words) for name, words in about["tokens"].items()},
                about["given"],
                tuple(about["remarks"]),
                about["fit"],
                about["time"],
                tuple(about["names"]),
                {name: tuple(texts) for name, texts in about["texts"].items()},
                about["pairs"],
            )
        )
    start = "pairs/"
    pairs = {key[len(start) :]: rows for key, rows in tensors.items() if key.startswith(start)}
    return Additions(items, pairs)


def write(folder: RunFolder, items: Additions, model: str | None) -> None:
    """Replace the additions of a run atomically; without any, the file is removed.

    Args:
        model: as of `read`.

    Raises:
        RunReplaced: the folder holds another model; nothing is written.
    """
    folder.require_model(model)
    if not items:
        folder.remove(FILE)
        return
    tensors: dict[str, Tensor] = {}
    for number, item in enumerate(items):
        tensors |= {f"{number}:row/{name}": row for name, row in item.rows.items()}
        tensors |= {f"{number}:vector/{name}": vector for name, vector in item.vectors.items()}
    tensors |= {f"pairs/{name}": rows.contiguous() for name, rows in items.pairs.items()}
    # A safetensors file holds at least one tensor.
    tensors = tensors or {"none": torch.zeros(0)}
    about = [{**item.as_dict(), "remarks": list(item.remarks)} for item in items]
    metadata = {"format": FORMAT, "additions": json.dumps(about, ensure_ascii=False)}
    if model is not None:
        metadata["model"] = model
    folder.write_tensors(FILE, tensors, metadata)
