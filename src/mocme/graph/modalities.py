"""Modalities: what entities have besides links, as data by name.

A modality is either dense (`Modality`: one vector for each entity that has it) or a set of tokens
(`Tokens`: words, bins, codes). Code never asks what a modality is called.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors import safe_open
from torch import Tensor

FORMAT = "mocme-modality-1"


@dataclass(frozen=True)
class Modality:
    """One vector for each of the n entities that have it, out of N.

    Attributes:
        rows: ids of these entities, ascending.
        provenance: where the values come from, for people and for the digest.
    """

    values: Float[Tensor, "n F"]
    rows: Int[Tensor, " n"]
    num_entities: int
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or len(self.values) != len(self.rows):
            shape = tuple(self.values.shape)
            raise ValueError(f"values of shape {shape} for {len(self.rows)} entities")
        if len(self.rows) and (
            int(self.rows[0]) < 0
            or int(self.rows[-1]) >= self.num_entities
            or bool((self.rows.diff() <= 0).any())
        ):
            raise ValueError(f"entity rows must ascend within 0 .. {self.num_entities - 1}")
        if not bool(torch.isfinite(self.values.float()).all()):
            bad = int((~torch.isfinite(self.values.float()).all(1)).sum())
            raise ValueError(f"{bad} vectors hold NaN or infinity; leave those entities out instead")

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def present(self) -> Bool[Tensor, " N"]:
        """Which entities have it."""
        mask = torch.zeros(self.num_entities, dtype=torch.bool)
        mask[self.rows] = True
        return mask

    def dense(self) -> Float[Tensor, "N F"]:
        """Vectors of all entities in float32, zero where absent."""
        full = torch.zeros(self.num_entities, self.width)
        full[self.rows] = self.values.float()
        return full

    def digest(self) -> str:
        """SHA-256 of ids and values."""
        total = hashlib.sha256(self.rows.numpy().tobytes())
        total.update(str((self.values.dtype, tuple(self.values.shape))).encode())
        total.update(self.values.contiguous().view(torch.uint8).numpy().tobytes())
        return total.hexdigest()

    def packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and metadata, as a safetensors file holds them."""
        tensors = {"values": self.values.contiguous(), "rows": self.rows.contiguous()}
        return tensors, {"format": FORMAT, **self.provenance}


@dataclass(frozen=True)
class Tokens:
    """A set of tokens for each entity, as pairs sorted by entity.

    Attributes:
        vocabulary: the tokens; the id of a token is its place.
        entity, token: the pairs, distinct.
    """

    vocabulary: tuple[str, ...]
    entity: Int[Tensor, " n"]
    token: Int[Tensor, " n"]
    num_entities: int
    provenance: Mapping[str, str] = field(default_factory=dict)

    def present(self) -> Bool[Tensor, " N"]:
        """Which entities have a token."""
        mask = torch.zeros(self.num_entities, dtype=torch.bool)
        mask[self.entity] = True
        return mask

    def packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and metadata, as a safetensors file holds them."""
        metadata = {"format": FORMAT, "vocabulary": json.dumps(self.vocabulary), **self.provenance}
        return {"entity": self.entity, "token": self.token}, metadata

    def digest(self) -> str:
        """SHA-256 of vocabulary and pairs."""
        total = hashlib.sha256(json.dumps(self.vocabulary).encode())
        total.update(self.entity.numpy().tobytes() + self.token.numpy().tobytes())
        return total.hexdigest()


@dataclass(frozen=True)
class Features:
    """All modalities of a graph: dense ones and token sets, each by name."""

    dense: Mapping[str, Modality] = field(default_factory=dict)
    tokens: Mapping[str, Tokens] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        return [*self.dense, *self.tokens]

    def present(self) -> dict[str, Bool[Tensor, " N"]]:
        """Presence by modality name."""
        both = {**self.dense, **self.tokens}
        return {name: modality.present() for name, modality in both.items()}

    def digest(self) -> str:
        """SHA-256 over all of them by name."""
        both = {**self.dense, **self.tokens}
        parts = [f"{name}:{both[name].digest()}" for name in sorted(both)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()



def unpacked(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], num_entities: int
) -> Modality | Tokens:
    """The modality whose `packed` these are."""
    rest = {k: v for k, v in metadata.items() if k not in ("format", "vocabulary", "entities")}
    if "vocabulary" in metadata:
        vocabulary = tuple(json.loads(metadata["vocabulary"]))
        return Tokens(vocabulary, tensors["entity"], tensors["token"], num_entities, rest)
    return Modality(tensors["values"], tensors["rows"], num_entities, rest)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (memory-mapped) and metadata of a file.

    Raises:
        ValueError: the file is absent, truncated or not safetensors.
    """
    from safetensors import SafetensorError

    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors: {error}") from error


def check_entities(path: Path, metadata: Mapping[str, str], digest: str) -> None:
    """Refuse features that were made for another list of entities."""
    if metadata.get("entities", digest) != digest:
        raise ValueError(
            f"{path}: was made for another list of entities (another entities.txt, or another order);"
            f" encode the modality again for this graph"
        )
