"""Build pairs of entities from their content, for all entities and later for new ones.

A `Basis` names the method and keeps what it read. Each method has two functions: one builds all
pairs, one builds the pairs that new entities are in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mocme.data.modality import AnyModality, Basis, Modality, Pairs
from mocme.data.pairs.mentions import mention_keys, pairs_of_keys
from mocme.data.pairs.similarity import IdPairs, similar_texts, similar_to_new, similar_vectors
from mocme.data.strings import EntityTexts

Texts = Mapping[int, Sequence[str]]


@dataclass(frozen=True)
class NewContent:
    """The content of new entities by id; their ids follow those of the trained entities.

    Attributes:
        number: the number of new entities.
        names: the cells that a file of names would have for each entity.
        texts: the texts of each entity.
        vectors: the vector of each entity.
    """

    number: int
    names: Texts = field(default_factory=dict)
    texts: Texts = field(default_factory=dict)
    vectors: Mapping[int, Tensor] = field(default_factory=dict)


def build_pairs(
    basis: Basis,
    num_entities: int,
    provenance: Mapping[str, str],
    dense: Mapping[str, Modality] | None = None,
) -> Pairs:
    """Build all pairs between the entities with content.

    Args:
        dense: the dense modalities by name; needed if `basis` names one.
    """
    build_all, _ = METHODS[basis.method]
    return replace(build_all(basis, num_entities, dense or {}), provenance=provenance, basis=basis)


def pairs_of_new_entities(
    pairs: Pairs, new: NewContent, dense: Mapping[str, Modality] | None = None
) -> Int[Tensor, "n 3"]:
    """Build the distinct pairs (kind, head, tail) that new entities are in, ascending.

    They are those that `build_pairs` would build from old and new entities together, restricted to
    the kinds of `pairs`; a context among these kinds counts however few pairs have it. Pairs of two
    old entities stay as they are, even if a new entity is now among the nearest of an old one, or
    has a longer name that contains an old name.

    Raises:
        ValueError: the pairs have no basis.
    """
    if pairs.basis is None:
        raise ValueError("the pairs do not say how they were built; read the modality again")
    _, build_new = METHODS[pairs.basis.method]
    distinct: Tensor = build_new(pairs, pairs.basis, new, dense or {}).unique(dim=0)
    return distinct


def merge_pairs(pairs: Pairs, more: Int[Tensor, "n 3"], num_entities: int) -> Pairs:
    """Add the pairs of new entities to the pairs of the old ones."""
    old = torch.stack([pairs.kind, pairs.head, pairs.tail], 1)
    kind, head, tail = (column.contiguous() for column in torch.cat([old, more]).unique(dim=0).T)
    return replace(pairs, kind=kind, head=head, tail=tail, num_entities=num_entities)


def basis_of_texts(
    method: str,
    settings: Mapping[str, int | str | None],
    **texts: Mapping[int, Sequence[str]] | None,
) -> Basis:
    """Build the basis of a method that reads texts by entity.

    Args:
        texts: texts by their role (``names``, ``texts``); None if the method reads none.
    """
    stored = {role: EntityTexts.of(read) for role, read in texts.items() if read is not None}
    return Basis(method, settings, stored)


def share_vectors(pairs: Pairs, dense: Mapping[str, Modality]) -> Pairs:
    """Refer to a dense modality with the vectors that were compared, instead of a second copy."""
    if pairs.basis is None or pairs.basis.vectors is None:
        return pairs
    digest = pairs.basis.vectors.digest()
    for name, modality in dense.items():
        if modality.digest() == digest:
            return replace(pairs, basis=replace(pairs.basis, vectors=None, modality=name))
    return pairs


def split_names(cells: Sequence[str], separator: str | None) -> list[str]:
    """Return the names in cells; with a separator, a cell may have several."""
    if separator is None:
        return list(cells)
    return [name for cell in cells for name in cell.split(separator)]


def check_basis(basis: Basis) -> None:
    """Check a basis that comes from a file.

    Raises:
        ValueError: its method is unknown, or lacks a setting or what it compares.
    """
    if basis.method not in METHODS:
        known = ", ".join(METHODS)
        raise ValueError(f"basis: the method {basis.method!r} is none of {known}")
    wanted = _LIMITS if basis.method == "mentions" else ("nearest",)
    for name in wanted:
        value = basis.settings.get(name)
        if type(value) is not int or value < 0:
            raise ValueError(f"basis: the setting {name} must be a number, not {value!r}")
    separator = basis.settings.get("separator")
    if separator is not None and (not isinstance(separator, str) or not separator):
        raise ValueError(f"basis: the setting separator must be a text, not {separator!r}")
    if unknown := set(basis.settings) - {*wanted, "separator"}:
        raise ValueError(f"basis: unknown setting {min(unknown)!r}")
    if basis.method == "like vectors" and basis.vectors is None and basis.modality is None:
        raise ValueError("basis: there are no vectors")


def check_references(modalities: Mapping[str, AnyModality]) -> None:
    """Check that the dense modalities to which pairs refer are there.

    Raises:
        ValueError: one is not, or is not dense.
    """
    for name, modality in modalities.items():
        if isinstance(modality, Pairs) and modality.basis and modality.basis.modality is not None:
            other = modality.basis.modality
            if not isinstance(modalities.get(other), Modality):
                raise ValueError(f"{name}: compares the vectors of {other!r}, which is missing")


# -- mentions of names -------------------------------------------------------------------------

_LIMITS = ("contexts", "part", "share", "shortest")


def _limits(basis: Basis) -> dict[str, Any]:
    return {name: int(basis.settings[name]) for name in _LIMITS}


def _texts(basis: Basis, role: str) -> dict[int, list[str]]:
    return basis.texts[role].by_entity() if role in basis.texts else {}


def _mentions(basis: Basis, num_entities: int, dense: Mapping[str, Modality]) -> Pairs:
    names, texts = _texts(basis, "names"), _texts(basis, "texts")
    keys = mention_keys(names, texts, num_entities, **_limits(basis))
    return pairs_of_keys(keys, num_entities, {})


def _new_mentions(
    pairs: Pairs, basis: Basis, new: NewContent, dense: Mapping[str, Modality]
) -> Int[Tensor, "n 3"]:
    first, num_entities = pairs.num_entities, pairs.num_entities + new.number
    separator = basis.settings.get("separator")
    new_names = {entity: split_names(cells, separator) for entity, cells in new.names.items()}
    new_texts = new.texts if "texts" in basis.texts else {}
    keys_by_kind = mention_keys(
        {**_texts(basis, "names"), **new_names},
        {**_texts(basis, "texts"), **new_texts},
        num_entities,
        **_limits(basis),
        kinds=frozenset(pairs.kinds),
    )
    kind_ids = {kind: index for index, kind in enumerate(pairs.kinds)}
    rows = [np.zeros((0, 3), np.int64)]
    for kind, keys in keys_by_kind.items():
        if kind in kind_ids:
            kind_id = np.full(len(keys), kind_ids[kind])
            of_kind = np.stack([kind_id, keys // num_entities, keys % num_entities], 1)
            rows.append(of_kind[(of_kind[:, 1:] >= first).any(1)])
    return torch.from_numpy(np.concatenate(rows))


# -- similar content ---------------------------------------------------------------------------


def _single_kind(ids: IdPairs, num_entities: int) -> Pairs:
    head, tail = ids
    return Pairs(("similar",), torch.zeros_like(head), head, tail, num_entities)


def _rows(ids: IdPairs) -> Int[Tensor, "n 3"]:
    return torch.stack([torch.zeros_like(ids[0]), *ids], 1)


def _nearest(basis: Basis) -> int:
    return int(basis.settings["nearest"])


def _like_texts(basis: Basis, num_entities: int, dense: Mapping[str, Modality]) -> Pairs:
    return _single_kind(similar_texts(_texts(basis, "texts"), _nearest(basis)), num_entities)


def _new_like_texts(
    pairs: Pairs, basis: Basis, new: NewContent, dense: Mapping[str, Modality]
) -> Int[Tensor, "n 3"]:
    texts = {**_texts(basis, "texts"), **new.texts}
    return _rows(similar_texts(texts, _nearest(basis), since=pairs.num_entities))


def _compared(basis: Basis, dense: Mapping[str, Modality]) -> Modality:
    """Return the vectors that were compared."""
    modality = basis.vectors if basis.modality is None else dense[basis.modality]
    assert modality is not None
    return modality


def _like_vectors(basis: Basis, num_entities: int, dense: Mapping[str, Modality]) -> Pairs:
    old = _compared(basis, dense)
    return _single_kind(similar_vectors(old.values, old.rows, _nearest(basis)), num_entities)


def _new_like_vectors(
    pairs: Pairs, basis: Basis, new: NewContent, dense: Mapping[str, Modality]
) -> Int[Tensor, "n 3"]:
    if not new.vectors:
        return torch.zeros(0, 3, dtype=torch.int64)
    old = _compared(basis, dense)
    new_rows = sorted(new.vectors)
    new_values = [new.vectors[entity].to(old.values.dtype) for entity in new_rows]
    ids = similar_to_new(
        torch.cat([old.values, torch.stack(new_values)]),
        torch.cat([old.rows, torch.tensor(new_rows)]),
        pairs.num_entities,
        (pairs.head, pairs.tail),
        _nearest(basis),
    )
    return _rows(ids)


BuildAll = Callable[[Basis, int, Mapping[str, Modality]], Pairs]
BuildNew = Callable[[Pairs, Basis, NewContent, Mapping[str, Modality]], Tensor]
# What a method reads of an entity is what a new entity needs: names and texts, texts, or a vector.
METHODS: Mapping[str, tuple[BuildAll, BuildNew]] = {
    "mentions": (_mentions, _new_mentions),
    "like texts": (_like_texts, _new_like_texts),
    "like vectors": (_like_vectors, _new_like_vectors),
}
