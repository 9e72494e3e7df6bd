"""Files of modalities: what `packed` of a modality returns, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mocme.core.files import check_regular
from mocme.core.text_formats import parse_json
from mocme.data.modality import (
    FORMAT,
    AnyModality,
    Basis,
    Modality,
    Pairs,
    Tokens,
    provenance_of,
)
from mocme.data.strings import EntityTexts
from mocme.storage.tensor_schema import Field, check_tensors

_IDS, _VALUES = Field(torch.int64, ("n",)), Field("floating", ("n", "F"))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata; the tensors are memory-mapped, copy on write.

    Raises:
        ValueError: the file is missing, truncated or not safetensors.
    """
    check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors: {error}") from error


def check_entities(path: Path, metadata: Mapping[str, str], digest: str) -> None:
    """Check that features belong to the list of entities with this digest.

    Raises:
        ValueError: they were made for another list of entities.
    """
    if metadata.get("entities", digest) != digest:
        raise ValueError(
            f"{path}: was made for another list of entities (another entities.txt, or another "
            f"order); encode the modality again for this graph"
        )


def unpack_modality(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], num_entities: int
) -> AnyModality:
    """Restore the modality of which `packed` returned these tensors and metadata.

    Raises:
        ValueError: a tensor or metadata is missing, unknown, or not what `packed` returns.
    """
    if metadata.get("format") != FORMAT:
        raise ValueError(f"has the format {metadata.get('format')!r}; it must be {FORMAT!r}")
    provenance = provenance_of(metadata)
    if "tail" in tensors:
        basis = _unpack_basis(tensors, metadata, num_entities)
        own = {name: t for name, t in tensors.items() if not name.startswith("basis/")}
        check_tensors(own, dict.fromkeys(("kind", "head", "tail"), _IDS))
        kinds = _names(metadata, "vocabulary")
        kind, head, tail = own["kind"], own["head"], own["tail"]
        return Pairs(kinds, kind, head, tail, num_entities, provenance, basis)
    # The tensors decide the type, because a dense file may have metadata called "vocabulary".
    if "token" in tensors:
        check_tensors(tensors, {"entity": _IDS, "token": _IDS})
        vocabulary = _names(metadata, "vocabulary")
        return Tokens(vocabulary, tensors["entity"], tensors["token"], num_entities, provenance)
    check_tensors(tensors, {"values": _VALUES, "rows": _IDS})
    return Modality(tensors["values"], tensors["rows"], num_entities, provenance)


def _unpack_basis(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], num_entities: int
) -> Basis | None:
    """Restore what `Basis.packed` returned; None if the file has no basis.

    Raises:
        ValueError: a tensor or a field is missing, unknown, or not what `packed` returns.
    """
    own = {name: t for name, t in tensors.items() if name.startswith("basis/")}
    if "basis" not in metadata:
        check_tensors(own, {})
        return None
    fields, vectors = parse_json(metadata["basis"]), None
    roles = _basis_roles(fields)
    wanted = {f"basis/{r}/{n}": f for r in roles for n, f in EntityTexts.fields(r).items()}
    if "basis/values" in own or "basis/rows" in own:
        wanted |= {"basis/values": _VALUES, "basis/rows": _IDS}
    check_tensors(own, wanted)
    if "basis/values" in own:
        values, rows = own["basis/values"], own["basis/rows"]
        vectors = Modality(values, rows, num_entities, provenance_of(metadata))
    texts = {r: EntityTexts.unpacked(own, f"basis/{r}/", num_entities) for r in roles}
    return Basis(fields["way"], fields["settings"], texts, vectors, fields["modality"])


def _basis_roles(fields: Any) -> list[str]:
    """The roles of the texts of a basis, after a check of all fields.

    Raises:
        ValueError: a field is missing, unknown or has another type.
    """
    if not isinstance(fields, dict) or set(fields) != {"way", "settings", "modality", "texts"}:
        raise ValueError("basis does not hold way, settings, modality and texts")
    roles, modality = fields["texts"], fields["modality"]
    if not isinstance(roles, list) or any(role not in ("names", "texts") for role in roles):
        raise ValueError(f"basis: texts must be a list of 'names' and 'texts', not {roles!r}")
    if not isinstance(fields["settings"], dict) or not isinstance(fields["way"], str):
        raise ValueError("basis: way must be a string, and settings an object")
    if modality is not None and not isinstance(modality, str):
        raise ValueError(f"basis: modality must be a name or null, not {modality!r}")
    return roles


def _names(metadata: Mapping[str, str], key: str) -> tuple[str, ...]:
    """Read a list of strings in metadata."""
    if key not in metadata:
        raise ValueError(f"the metadata {key!r} is missing")
    names = parse_json(metadata[key])
    if not isinstance(names, list) or not all(type(name) is str for name in names):
        raise ValueError(f"the metadata {key!r} is not a list of strings")
    return tuple(names)
