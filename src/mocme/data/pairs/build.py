"""How pairs of entities are made of what was read of them: once for all, and for new entities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mocme.data.modality import Basis, Modality, Pairs
from mocme.data.pairs.mentions import mention_keys, paired
from mocme.data.pairs.similarity import IdPairs, similar_texts, similar_to_new, similar_vectors
from mocme.data.strings import EntityTexts

Texts = Mapping[int, Sequence[str]]


@dataclass(frozen=True)
class NewContent:
    """What is known of new entities, by id; ids follow those of the trained ones.

    Attributes:
        names: what each is called, as a file of names would say it.
        texts: texts of each.
        vectors: a vector of each.
    """

    number: int
    names: Texts = field(default_factory=dict)
    texts: Texts = field(default_factory=dict)
    vectors: Mapping[int, Tensor] = field(default_factory=dict)


def make(
    basis: Basis,
    num_entities: int,
    provenance: Mapping[str, str],
    dense: Mapping[str, Modality] | None = None,
) -> Pairs:
    """All pairs between entities of which something was read.

    Args:
        dense: the dense modalities beside the pairs, where `basis` names one.
    """
    found = WAYS[basis.way][0](basis, num_entities, dense or {})
    return replace(found, provenance=provenance, basis=basis)


def grown(
    pairs: Pairs, given: NewContent, dense: Mapping[str, Modality] | None = None
) -> Int[Tensor, "n 3"]:
    """The pairs (kind, head, tail) that new entities are in, ascending, each once.

    They are those that `make` would make of all entities, old and new, if the kinds were the same:
    kinds that `pairs` does not have are left out, and contexts that it has count however few pairs
    have them. Pairs of two old entities are not looked at: where a new entity is among the nearest
    of an old one, or its name is longer than one within it, the old pairs stand beside the new.

    Raises:
        ValueError: the pairs do not say what they were made of.
    """
    if pairs.basis is None:
        raise ValueError("the pairs do not say what they were made of; read them again")
    found = WAYS[pairs.basis.way][1](pairs, pairs.basis, given, dense or {})
    distinct: Tensor = found.unique(dim=0)
    return distinct


def merged(pairs: Pairs, more: Int[Tensor, "n 3"], num_entities: int) -> Pairs:
    """The pairs with those of new entities."""
    old = torch.stack([pairs.kind, pairs.head, pairs.tail], 1)
    kind, head, tail = (column.contiguous() for column in torch.cat([old, more]).unique(dim=0).T)
    return replace(pairs, kind=kind, head=head, tail=tail, num_entities=num_entities)


def apart(cells: Sequence[str], separator: str | None) -> list[str]:
    """The names that stand in cells."""
    if separator is None:
        return list(cells)
    return [name for cell in cells for name in cell.split(separator)]


# -- names that texts mention ------------------------------------------------------------------

_LIMITS = ("contexts", "part", "share", "shortest")


def _limits(basis: Basis) -> dict[str, Any]:
    return {name: int(basis.settings[name]) for name in _LIMITS}


def _read(basis: Basis, what: str) -> dict[int, list[str]]:
    return basis.texts[what].by_entity() if what in basis.texts else {}


def _mentions(basis: Basis, number: int, dense: Mapping[str, Modality]) -> Pairs:
    names, texts = _read(basis, "names"), _read(basis, "texts")
    return paired(mention_keys(names, texts, number, **_limits(basis)), number, {})


def _new_mentions(
    pairs: Pairs, basis: Basis, given: NewContent, dense: Mapping[str, Modality]
) -> Int[Tensor, "n 3"]:
    first, number = pairs.num_entities, pairs.num_entities + given.number
    separator = basis.settings["separator"]
    names = {entity: apart(own, separator) for entity, own in given.names.items()}
    texts = given.texts if "texts" in basis.texts else {}
    columns = mention_keys(
        {**_read(basis, "names"), **names},
        {**_read(basis, "texts"), **texts},
        number,
        **_limits(basis),
        kinds=frozenset(pairs.kinds),
    )
    places = {kind: place for place, kind in enumerate(pairs.kinds)}
    found = [np.zeros((0, 3), np.int64)]
    for kind, keys in columns.items():
        if kind in places:
            own = np.stack([np.full(len(keys), places[kind]), keys // number, keys % number], 1)
            found.append(own[(own[:, 1:] >= first).any(1)])
    return torch.from_numpy(np.concatenate(found))


# -- neighbours --------------------------------------------------------------------------------


def _of_one_kind(made: IdPairs, number: int) -> Pairs:
    head, tail = made
    return Pairs(("similar",), torch.zeros_like(head), head, tail, number)


def _columns(made: IdPairs) -> Int[Tensor, "n 3"]:
    return torch.stack([torch.zeros_like(made[0]), *made], 1)


def _like_texts(basis: Basis, number: int, dense: Mapping[str, Modality]) -> Pairs:
    made = similar_texts(_read(basis, "texts"), int(basis.settings["nearest"]))
    return _of_one_kind(made, number)


def _new_like_texts(
    pairs: Pairs, basis: Basis, given: NewContent, dense: Mapping[str, Modality]
) -> Int[Tensor, "n 3"]:
    texts = {**_read(basis, "texts"), **given.texts}
    nearest = int(basis.settings["nearest"])
    return _columns(similar_texts(texts, nearest, since=pairs.num_entities))


def _compared(basis: Basis, dense: Mapping[str, Modality]) -> Modality:
    found = basis.vectors if basis.modality is None else dense[basis.modality]
    assert found is not None
    return found


def _like_vectors(basis: Basis, number: int, dense: Mapping[str, Modality]) -> Pairs:
    held = _compared(basis, dense)
    made = similar_vectors(held.values, held.rows, int(basis.settings["nearest"]))
    return _of_one_kind(made, number)


def _new_like_vectors(
    pairs: Pairs, basis: Basis, given: NewContent, dense: Mapping[str, Modality]
) -> Int[Tensor, "n 3"]:
    if not given.vectors:
        return torch.zeros(0, 3, dtype=torch.int64)
    held = _compared(basis, dense)
    more = [given.vectors[entity].to(held.values.dtype) for entity in sorted(given.vectors)]
    made = similar_to_new(
        torch.cat([held.values, torch.stack(more)]),
        torch.cat([held.rows, torch.tensor(sorted(given.vectors))]),
        pairs.num_entities,
        (pairs.head, pairs.tail),
        int(basis.settings["nearest"]),
    )
    return _columns(made)


Make = Callable[[Basis, int, Mapping[str, Modality]], Pairs]
Grow = Callable[[Pairs, Basis, NewContent, Mapping[str, Modality]], Tensor]
# What a way reads of entities tells what a new one needs: names and texts, texts, or a vector.
WAYS: Mapping[str, tuple[Make, Grow]] = {
    "mentions": (_mentions, _new_mentions),
    "like texts": (_like_texts, _new_like_texts),
    "like vectors": (_like_vectors, _new_like_vectors),
}


def shared(pairs: Pairs, dense: Mapping[str, Modality]) -> Pairs:
    """The same, where a modality beside them has the vectors that were compared: not kept twice."""
    if pairs.basis is None or pairs.basis.vectors is None:
        return pairs
    digest = pairs.basis.vectors.digest()
    for name, own in dense.items():
        if own.digest() == digest:
            return replace(pairs, basis=replace(pairs.basis, vectors=None, modality=name))
    return pairs


def of_texts(
    way: str, settings: Mapping[str, int | str | None], **texts: Mapping[int, Sequence[str]] | None
) -> Basis:
    """A basis of texts by entity, by what they are; None for what is not read at all."""
    read = {what: EntityTexts.of(own) for what, own in texts.items() if own is not None}
    return Basis(way, settings, read)
