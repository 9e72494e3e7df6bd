"""Modalities: what entities have besides links, as data by name.

A modality is dense (`Modality`: one vector for each entity that has it), a set of tokens
(`Tokens`: words, bins, codes) or a set of pairs (`Pairs`: which entity's text names which other).
Code never asks what a modality is called.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from safetensors import safe_open
from torch import Tensor

from mocme.core.registry import ConfigError
from mocme.data.strings import EntityTexts

FORMAT = "mocme-modality-1"
# Where what `mocme encode` makes lies, below the graph's folder or one that is named instead.
ENCODED = "encoded"
# What a file of a modality says of itself; the rest of its metadata is provenance.
RESERVED = ("format", "vocabulary", "entities", "basis")

# A name becomes part of a file's name and of a parameter's name.
NAME = re.compile(r"[\w-]{1,40}")
TAKEN = {"structure": "is the modality every graph has", "default": "stands for all modalities"}


def check_name(name: str, path: str) -> None:
    """Refuse what cannot be the name of a modality.

    Raises:
        ConfigError: with `path`.
    """
    if name in TAKEN:
        raise ConfigError(f"{path}: {name} {TAKEN[name]}; choose another name")
    if not NAME.fullmatch(name):
        raise ConfigError(f"{path}: a name consists of letters, digits, '_' and '-', at most 40")


def encoded_path(name: str) -> str:
    """The file of an encoded modality, from the folder that holds all of them."""
    return f"{ENCODED}/{name}.safetensors"


@final
@dataclass(frozen=True, eq=False)
class Modality:
    """One vector for each of the n entities that have it, out of N.

    Attributes:
        rows: ids of these entities, ascending.
        provenance: where the values come from, for people; no part of the digest.
    """

    values: Float[Tensor, "n F"]
    rows: Int[Tensor, " n"]
    num_entities: int
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.rows.ndim != 1 or len(self.values) != len(self.rows):
            shapes = f"{tuple(self.values.shape)} with rows of shape {tuple(self.rows.shape)}"
            raise ValueError(f"values of shape {shapes}; needed are (n, F) and (n,)")
        if not self.values.is_floating_point():
            raise ValueError(f"values are {self.values.dtype}; they must be floating point")
        _check_ids(self.rows, self.num_entities, "entity rows", distinct=True)
        # In float32, because that is how a model reads them.
        finite = torch.isfinite(self.values.float()).all(1)
        if not bool(finite.all()):
            bad = int((~finite).sum())
            raise ValueError(
                f"{bad} vectors hold NaN or infinity (in float32), the first that of entity "
                f"{int(self.rows[int(finite.int().argmin())])}; leave those entities out instead"
            )

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def present(self) -> Bool[Tensor, " N"]:
        """Which entities have it."""
        mask = torch.zeros(self.num_entities, dtype=torch.bool)
        mask[self.rows] = True
        return mask

    def digest(self) -> str:
        """SHA-256 of ids and values."""
        total = hashlib.sha256(self.rows.numpy().tobytes())
        total.update(str((self.values.dtype, tuple(self.values.shape))).encode())
        total.update(self.values.contiguous().view(torch.uint8).numpy().tobytes())
        return total.hexdigest()

    def packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and metadata, as a safetensors file holds them."""
        tensors = {"values": self.values.contiguous(), "rows": self.rows.contiguous()}
        return tensors, {**described(self.provenance), "format": FORMAT}


@final
@dataclass(frozen=True, eq=False)
class Tokens:
    """A set of tokens for each entity, as pairs sorted by entity, then token.

    Attributes:
        vocabulary: the tokens; the id of a token is its place.
        entity, token: the pairs, distinct.
    """

    vocabulary: tuple[str, ...]
    entity: Int[Tensor, " n"]
    token: Int[Tensor, " n"]
    num_entities: int
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.entity.ndim != 1 or self.entity.shape != self.token.shape:
            shapes = f"{tuple(self.entity.shape)} and {tuple(self.token.shape)}"
            raise ValueError(f"pairs of shapes {shapes}; an entity belongs to each token")
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError("a vocabulary of tokens holds one of them twice")
        size = len(self.vocabulary)
        if len(self.token) and not 0 <= int(self.token.min()) <= int(self.token.max()) < size:
            raise ValueError(f"token ids must lie within 0 .. {size - 1}")
        _check_ids(self.entity, self.num_entities, "entities of tokens")
        if bool(((self.entity * size + self.token).diff() <= 0).any()):
            raise ValueError("pairs of entity and token must ascend, each pair once")

    def present(self) -> Bool[Tensor, " N"]:
        """Which entities have a token."""
        mask = torch.zeros(self.num_entities, dtype=torch.bool)
        mask[self.entity] = True
        return mask

    def packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and metadata, as a safetensors file holds them."""
        vocabulary = json.dumps(self.vocabulary)
        metadata = {**described(self.provenance), "format": FORMAT, "vocabulary": vocabulary}
        return {"entity": self.entity.contiguous(), "token": self.token.contiguous()}, metadata

    def digest(self) -> str:
        """SHA-256 of vocabulary and pairs."""
        total = hashlib.sha256(json.dumps(self.vocabulary).encode())
        total.update(self.entity.numpy().tobytes() + self.token.numpy().tobytes())
        return total.hexdigest()


@final
@dataclass(frozen=True, eq=False)
class Basis:
    """What pairs were made of, and how, so that those of another entity are made alike.

    Attributes:
        way: one of `mocme.data.pairs.build.WAYS`.
        settings: of the way; a JSON value each.
        texts: what was read of entities, by what it was read as (``names``, ``texts``).
        vectors: what was compared, where that is vectors of no dense modality beside the pairs.
        modality: the dense modality beside the pairs whose vectors were compared.
    """

    way: str
    settings: Mapping[str, Any]
    texts: Mapping[str, EntityTexts] = field(default_factory=dict)
    vectors: Modality | None = None
    modality: str | None = None

    def packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and metadata, to lie beside those of the pairs."""
        tensors: dict[str, Tensor] = {}
        for name, own in self.texts.items():
            tensors |= own.packed(f"basis/{name}/")
        if self.vectors is not None:
            tensors |= {f"basis/{name}": own for name, own in self.vectors.packed()[0].items()}
        about = {"way": self.way, "settings": dict(self.settings), "modality": self.modality}
        return tensors, {"basis": json.dumps({**about, "texts": list(self.texts)})}

    @staticmethod
    def unpacked(
        tensors: Mapping[str, Tensor], metadata: Mapping[str, str], num_entities: int
    ) -> Basis | None:
        """What `packed` gave; None where it is not kept."""
        if "basis" not in metadata:
            return None
        about, vectors = json.loads(metadata["basis"]), None
        if "basis/values" in tensors:
            values, rows = tensors["basis/values"], tensors["basis/rows"]
            vectors = Modality(values, rows, num_entities, described(metadata))
        texts = {name: EntityTexts.unpacked(tensors, f"basis/{name}/") for name in about["texts"]}
        return Basis(about["way"], about["settings"], texts, vectors, about["modality"])


@final
@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of entities that their content connects: no facts, but a ground to expect some.

    A pair has a kind, for instance "mentions" (the head's text holds the tail's name) or "similar".

    Attributes:
        kinds: what connects a pair; the id of a kind is its place.
        kind, head, tail: the pairs, distinct, ascending by kind, then head, then tail; no entity
            is paired with itself.
        basis: what they were made of; None where that is not known, or is not what they are made
            of any more (a control). No part of the digest.
    """

    kinds: tuple[str, ...]
    kind: Int[Tensor, " n"]
    head: Int[Tensor, " n"]
    tail: Int[Tensor, " n"]
    num_entities: int
    provenance: Mapping[str, str] = field(default_factory=dict)
    basis: Basis | None = None

    def __post_init__(self) -> None:
        if self.kind.ndim != 1 or not self.kind.shape == self.head.shape == self.tail.shape:
            shapes = ", ".join(str(tuple(x.shape)) for x in (self.kind, self.head, self.tail))
            raise ValueError(f"kinds, heads and tails of shapes {shapes}; needed is (n,) for all")
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError("a kind of pairs is given twice")
        _check_ids(self.kind, len(self.kinds), "kinds of pairs")
        size = self.num_entities
        for ids, what in ((self.head, "heads"), (self.tail, "tails")):
            if ids.dtype != torch.int64:
                raise ValueError(f"{what} of pairs are {ids.dtype}; they must be int64 ids")
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < size:
                raise ValueError(f"{what} of pairs must lie within 0 .. {size - 1}")
        if bool((((self.kind * size + self.head) * size + self.tail).diff() <= 0).any()):
            raise ValueError("pairs must ascend by kind, head and tail, each pair once")
        if bool((self.head == self.tail).any()):
            raise ValueError("an entity is paired with itself")

    def present(self) -> Bool[Tensor, " N"]:
        """Which entities are in a pair."""
        mask = torch.zeros(self.num_entities, dtype=torch.bool)
        mask[self.head] = True
        mask[self.tail] = True
        return mask

    def packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and metadata, as a safetensors file holds them."""
        kinds = json.dumps(self.kinds)
        metadata = {**described(self.provenance), "format": FORMAT, "vocabulary": kinds}
        columns = {"kind": self.kind, "head": self.head, "tail": self.tail}
        tensors = {name: ids.contiguous() for name, ids in columns.items()}
        if self.basis is None:
            return tensors, metadata
        more, about = self.basis.packed()
        return tensors | more, metadata | about

    def digest(self) -> str:
        """SHA-256 of kinds and pairs."""
        total = hashlib.sha256(json.dumps(self.kinds).encode())
        for ids in (self.kind, self.head, self.tail):
            total.update(ids.numpy().tobytes())
        return total.hexdigest()


AnyModality = Modality | Tokens | Pairs


@dataclass(frozen=True, eq=False)
class Features:
    """All modalities of a graph, each by name: dense ones, token sets and pairs of entities."""

    dense: Mapping[str, Modality] = field(default_factory=dict)
    tokens: Mapping[str, Tokens] = field(default_factory=dict)
    pairs: Mapping[str, Pairs] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @staticmethod
    def of(found: Mapping[str, AnyModality], notes: Sequence[str] = ()) -> Features:
        """Modalities by name, sorted into the three sorts."""
        return Features(
            {name: m for name, m in found.items() if isinstance(m, Modality)},
            {name: m for name, m in found.items() if isinstance(m, Tokens)},
            {name: m for name, m in found.items() if isinstance(m, Pairs)},
            notes,
        )

    @property
    def names(self) -> list[str]:
        return list(self.all())

    def present(self) -> dict[str, Bool[Tensor, " N"]]:
        """Presence by modality name."""
        return {name: modality.present() for name, modality in self.all().items()}

    def digest(self) -> str:
        """SHA-256 over all of them by name."""
        found = self.all()
        parts = [f"{name}:{found[name].digest()}" for name in sorted(found)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def all(self) -> dict[str, AnyModality]:
        """Every modality by name."""
        return {**self.dense, **self.tokens, **self.pairs}


def unpacked(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], num_entities: int
) -> AnyModality:
    """The modality whose `packed` these are."""
    rest = described(metadata)
    if "tail" in tensors:
        kinds = tuple(json.loads(metadata["vocabulary"]))
        kind, head, tail = tensors["kind"], tensors["head"], tensors["tail"]
        basis = Basis.unpacked(tensors, metadata, num_entities)
        return Pairs(kinds, kind, head, tail, num_entities, rest, basis)
    # The tensors decide: a dense file may well describe a vocabulary of its own.
    if "token" in tensors:
        vocabulary = tuple(json.loads(metadata["vocabulary"]))
        return Tokens(vocabulary, tensors["entity"], tensors["token"], num_entities, rest)
    return Modality(tensors["values"], tensors["rows"], num_entities, rest)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file; the tensors are memory-mapped, private to this process.

    Raises:
        ValueError: the file is absent, truncated or not safetensors.
    """
    from safetensors import SafetensorError

    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors: {error}") from error


def check_entities(path: Path, metadata: Mapping[str, str], digest: str) -> None:
    """Refuse features that were made for another list of entities."""
    if metadata.get("entities", digest) != digest:
        raise ValueError(
            f"{path}: was made for another list of entities (another entities.txt, or another "
            f"order); encode the modality again for this graph"
        )


def described(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata without what only the file itself is described by."""
    return {key: value for key, value in metadata.items() if key not in RESERVED}


def _check_ids(ids: Tensor, limit: int, what: str, distinct: bool = False) -> None:
    if ids.dtype != torch.int64:
        raise ValueError(f"{what} are {ids.dtype}; they must be int64 ids")
    steps = ids.diff()
    falls = bool((steps <= 0).any() if distinct else (steps < 0).any())
    if len(ids) and (falls or int(ids[0]) < 0 or int(ids[-1]) >= limit):
        raise ValueError(f"{what} must ascend within 0 .. {limit - 1}")
