"""Modalities: what entities have besides links, as data by name.

A modality is dense (`Modality`: one vector for each entity that has it), sets of tokens (`Tokens`:
words, bins, codes) or pairs of entities (`Pairs`: whose text names whom). No code depends on the
name of a modality.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mocme.core.finite import all_finite
from mocme.core.registry import ConfigError
from mocme.data.strings import EntityTexts

FORMAT = "mocme-modality-1"
# The folder of encoded modalities, below the folder of the graph or of `--features`.
ENCODED = "encoded"
# Metadata that describes the file itself; the other metadata is provenance.
FILE_KEYS = ("format", "vocabulary", "entities", "basis")

# A name becomes part of file names and of parameter names.
NAME_PATTERN = re.compile(r"[\w-]{1,40}")
RESERVED_NAMES = {
    "structure": "is the modality that every graph has",
    "default": "means all modalities",
}


class EmptyModality(ValueError):
    """Nothing can be made of a modality: its files are well formed, but have nothing of use.

    A training leaves such a modality out. The message gives file, reason and remedy.
    """


def check_name(name: str, path: str) -> None:
    """Check the name of a modality.

    Raises:
        ConfigError: the name is reserved or has other characters; the message begins with `path`.
    """
    if name in RESERVED_NAMES:
        raise ConfigError(f"{path}: {name} {RESERVED_NAMES[name]}; choose another name")
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(f"{path}: a name has at most 40 letters, digits, '_' and '-'")


def encoded_path(name: str) -> str:
    """Return the path of an encoded modality, relative to the folder of the graph."""
    return f"{ENCODED}/{name}.safetensors"


@final
@dataclass(frozen=True, eq=False)
class Modality:
    """Dense vectors of n entities out of N.

    Attributes:
        values: one vector of width F per entity.
        rows: ids of these entities, ascending.
        provenance: where the values come from, for people; not part of the digest.

    Raises:
        ValueError: shapes, types or ids are wrong, or a value is NaN or infinite in float32.
    """

    values: Float[Tensor, "n F"]
    rows: Int[Tensor, " n"]
    num_entities: int
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.rows.ndim != 1 or len(self.values) != len(self.rows):
            shapes = f"{tuple(self.values.shape)} with rows of shape {tuple(self.rows.shape)}"
            raise ValueError(f"values of shape {shapes}; required are (n, F) and (n,)")
        if not self.values.is_floating_point():
            raise ValueError(f"values are {self.values.dtype}; they must be floating point")
        _check_ids(self.rows, self.num_entities, "entity rows", distinct=True)
        # In float32, the type in which a model reads them.
        if not all_finite(self.values.float()):
            finite = finite_rows(self.values)
            bad = int((~finite).sum())
            raise ValueError(
                f"{bad} vectors contain NaN or infinity (in float32), first that of entity "
                f"{int(self.rows[int(finite.int().argmin())])}; leave these entities out instead"
            )

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def present(self) -> Bool[Tensor, " N"]:
        """Return a mask of the entities that have a vector."""
        return entity_mask(self.num_entities, self.rows)

    def digest(self) -> str:
        """Return the SHA-256 of ids and values."""
        total = hashlib.sha256(self.rows.numpy().tobytes())
        total.update(str((self.values.dtype, tuple(self.values.shape))).encode())
        total.update(self.values.contiguous().view(torch.uint8).numpy().tobytes())
        return total.hexdigest()

    def packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return tensors and metadata for a safetensors file."""
        tensors = {"values": self.values.contiguous(), "rows": self.rows.contiguous()}
        return tensors, {**provenance_of(self.provenance), "format": FORMAT}


@final
@dataclass(frozen=True, eq=False)
class Tokens:
    """A set of tokens for each entity, as n pairs sorted by entity, then token.

    Attributes:
        vocabulary: the tokens; the id of a token is its position.
        entity, token: the ids of the distinct pairs.
        provenance: where the tokens come from, for people; not part of the digest.

    Raises:
        ValueError: shapes or ids are wrong, or a token is twice in the vocabulary.
    """

    vocabulary: tuple[str, ...]
    entity: Int[Tensor, " n"]
    token: Int[Tensor, " n"]
    num_entities: int
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.entity.ndim != 1 or self.entity.shape != self.token.shape:
            shapes = f"{tuple(self.entity.shape)} and {tuple(self.token.shape)}"
            raise ValueError(f"pairs of shapes {shapes}; each token needs one entity")
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError("a vocabulary contains a token twice")
        size = len(self.vocabulary)
        if len(self.token) and not 0 <= int(self.token.min()) <= int(self.token.max()) < size:
            raise ValueError(f"token ids must be within 0 .. {size - 1}")
        _check_ids(self.entity, self.num_entities, "entities of tokens")
        if bool(((self.entity * size + self.token).diff() <= 0).any()):
            raise ValueError("pairs of entity and token must ascend, each pair once")

    def present(self) -> Bool[Tensor, " N"]:
        """Return a mask of the entities that have a token."""
        return entity_mask(self.num_entities, self.entity)

    def packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return tensors and metadata for a safetensors file."""
        vocabulary = json.dumps(self.vocabulary)
        metadata = {**provenance_of(self.provenance), "format": FORMAT, "vocabulary": vocabulary}
        return {"entity": self.entity.contiguous(), "token": self.token.contiguous()}, metadata

    def digest(self) -> str:
        """Return the SHA-256 of vocabulary and pairs."""
        total = hashlib.sha256(json.dumps(self.vocabulary).encode())
        total.update(self.entity.numpy().tobytes() + self.token.numpy().tobytes())
        return total.hexdigest()


@final
@dataclass(frozen=True, eq=False)
class Basis:
    """How pairs were built and from what, to build the pairs of new entities the same way.

    Attributes:
        method: a key of `mocme.data.pairs.build.METHODS`.
        settings: settings of the method, JSON values by name.
        texts: the names and texts that were read, by role (``names``, ``texts``).
        vectors: the vectors that were compared, if no dense modality has them.
        modality: the dense modality with the vectors that were compared.
    """

    method: str
    settings: Mapping[str, Any]
    texts: Mapping[str, EntityTexts] = field(default_factory=dict)
    vectors: Modality | None = None
    modality: str | None = None

    def packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return tensors and metadata to store with those of the pairs."""
        tensors: dict[str, Tensor] = {}
        for role, texts in self.texts.items():
            tensors |= texts.packed(f"basis/{role}/")
        if self.vectors is not None:
            packed, _ = self.vectors.packed()
            tensors |= {f"basis/{name}": tensor for name, tensor in packed.items()}
        fields = {"way": self.method, "settings": dict(self.settings), "modality": self.modality}
        return tensors, {"basis": json.dumps({**fields, "texts": list(self.texts)})}


@final
@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of entities that their content connects: evidence for facts, not facts themselves.

    A pair has a kind, for instance "mentions" (the head's text contains the tail's name) or
    "similar".

    Attributes:
        kinds: names of the kinds; the id of a kind is its position.
        kind, head, tail: ids of n distinct pairs, ascending by kind, then head, then tail; no
            entity is paired with itself.
        provenance: where the pairs come from, for people; not part of the digest.
        basis: how the pairs were built; None if that is unknown or no longer true (after an
            ablation). Not part of the digest.

    Raises:
        ValueError: shapes, types, ids or their order are wrong, or a kind is named twice.
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
            raise ValueError(f"kinds, heads and tails of shapes {shapes}; all must be (n,)")
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError("a kind of pairs is named twice")
        _check_ids(self.kind, len(self.kinds), "kinds of pairs")
        size = self.num_entities
        for ids, what in ((self.head, "heads"), (self.tail, "tails")):
            if ids.dtype != torch.int64:
                raise ValueError(f"{what} of pairs are {ids.dtype}; they must be int64 ids")
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < size:
                raise ValueError(f"{what} of pairs must be within 0 .. {size - 1}")
        if bool((((self.kind * size + self.head) * size + self.tail).diff() <= 0).any()):
            raise ValueError("pairs must ascend by kind, head and tail, each pair once")
        if bool((self.head == self.tail).any()):
            raise ValueError("an entity is paired with itself")

    def present(self) -> Bool[Tensor, " N"]:
        """Return a mask of the entities that are in a pair."""
        return entity_mask(self.num_entities, self.head, self.tail)

    def packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return tensors and metadata for a safetensors file."""
        kinds = json.dumps(self.kinds)
        metadata = {**provenance_of(self.provenance), "format": FORMAT, "vocabulary": kinds}
        columns = {"kind": self.kind, "head": self.head, "tail": self.tail}
        tensors = {name: ids.contiguous() for name, ids in columns.items()}
        if self.basis is None:
            return tensors, metadata
        basis_tensors, basis_metadata = self.basis.packed()
        return tensors | basis_tensors, metadata | basis_metadata

    def digest(self) -> str:
        """Return the SHA-256 of kinds and pairs."""
        total = hashlib.sha256(json.dumps(self.kinds).encode())
        for ids in (self.kind, self.head, self.tail):
            total.update(ids.numpy().tobytes())
        return total.hexdigest()


AnyModality = Modality | Tokens | Pairs
Form = Literal["dense", "tokens", "pairs"]


@dataclass(frozen=True, eq=False)
class Features:
    """All modalities of a graph by name: dense ones, token sets and pairs of entities.

    Attributes:
        notes: notes on how the modalities were read, one line each.
    """

    dense: Mapping[str, Modality] = field(default_factory=dict)
    tokens: Mapping[str, Tokens] = field(default_factory=dict)
    pairs: Mapping[str, Pairs] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @staticmethod
    def of(modalities: Mapping[str, AnyModality], notes: Sequence[str] = ()) -> Features:
        """Group modalities into the three types."""
        return Features(
            {name: m for name, m in modalities.items() if isinstance(m, Modality)},
            {name: m for name, m in modalities.items() if isinstance(m, Tokens)},
            {name: m for name, m in modalities.items() if isinstance(m, Pairs)},
            notes,
        )

    @property
    def names(self) -> list[str]:
        return list(self.all())

    def only(self, names: Container[str]) -> Features:
        """Return the modalities with these names, in the order of this object."""
        return Features.of({n: m for n, m in self.all().items() if n in names}, self.notes)

    def forms(self) -> dict[str, Form]:
        """Return the form of each modality by name."""
        dense: dict[str, Form] = dict.fromkeys(self.dense, "dense")
        tokens: dict[str, Form] = dict.fromkeys(self.tokens, "tokens")
        pairs: dict[str, Form] = dict.fromkeys(self.pairs, "pairs")
        return {**dense, **tokens, **pairs}

    def present(self) -> dict[str, Bool[Tensor, " N"]]:
        """Return the mask of the entities that have each modality, by name."""
        return {name: modality.present() for name, modality in self.all().items()}

    def digest(self) -> str:
        """Return the SHA-256 of the digests of all modalities by name."""
        modalities = self.all()
        lines = [f"{name}:{modalities[name].digest()}" for name in sorted(modalities)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def all(self) -> dict[str, AnyModality]:
        """Return every modality by name."""
        return {**self.dense, **self.tokens, **self.pairs}


def finite_rows(values: Float[Tensor, "n F"]) -> Bool[Tensor, " n"]:
    """Return which vectors are finite in float32, the type in which a model reads them."""
    return torch.isfinite(values.float()).all(1)


def entity_mask(num_entities: int, *ids: Int[Tensor, " n"]) -> Bool[Tensor, " N"]:
    """Return a mask of N entities that is true at the given ids."""
    mask = torch.zeros(num_entities, dtype=torch.bool)
    for index in ids:
        mask[index] = True
    return mask


def provenance_of(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata that is provenance, without the keys that describe the file."""
    return {key: value for key, value in metadata.items() if key not in FILE_KEYS}


def _check_ids(ids: Tensor, limit: int, what: str, distinct: bool = False) -> None:
    if ids.dtype != torch.int64:
        raise ValueError(f"{what} are {ids.dtype}; they must be int64 ids")
    steps = ids.diff()
    unordered = bool((steps <= 0).any() if distinct else (steps < 0).any())
    if len(ids) and (unordered or int(ids[0]) < 0 or int(ids[-1]) >= limit):
        raise ValueError(f"{what} must ascend within 0 .. {limit - 1}")
