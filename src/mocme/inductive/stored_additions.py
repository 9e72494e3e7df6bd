"""What the file of additions holds, checked when it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mocme.core.registry import Configurable, construct
from mocme.core.text_formats import parse_json
from mocme.storage.tensor_schema import Field, check_tensors

# Of a structure row, a vector of a modality, and pairs of a modality.
_TENSOR = re.compile(r"(\d{1,9}):(row|vector)/(.+)|pairs/(.+)")
_PAIRS = Field(torch.int64, ("*n", 3), low=0)


@dataclass(frozen=True, kw_only=True)
class StoredAddition(Configurable):
    """The JSON of an addition; `mocme.inductive.store.Addition` describes the keys."""

    name: str
    facts: Sequence[tuple[str, str, str]]
    modalities: Sequence[str]
    tokens: Mapping[str, Sequence[str]]
    given: Mapping[str, str]
    notes: Sequence[str]
    fit: Mapping[str, float]
    time: str
    names: Sequence[str]
    texts: Mapping[str, Sequence[str]]
    pairs: Mapping[str, Mapping[str, int]]
    remarks: Sequence[str]


def parse_additions(text: str | None) -> list[dict[str, Any]]:
    """Parse the JSON of all additions.

    Raises:
        ValueError: it is missing, or a key of an addition is missing, unknown or wrong.
    """
    items = parse_json("null" if text is None else text)
    if not isinstance(items, list) or not items:
        raise ValueError("the metadata 'additions' is not a list of additions")
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise ValueError(f"addition {number} is not a JSON object")
        construct(StoredAddition, item, f"addition {number}")
    return items


def check_addition_tensors(
    tensors: Mapping[str, Tensor], items: Sequence[Mapping[str, Any]]
) -> None:
    """Check that the tensors are those of the additions.

    Values of vectors are not looked at here.

    Raises:
        ValueError: a tensor is missing or unknown, or has another type or shape.
    """
    rows, found = [False] * len(items), set[tuple[int, str]]()
    related = set()
    for name, tensor in tensors.items():
        if name == "none" and len(tensors) == 1:
            continue
        match = _TENSOR.fullmatch(name)
        if match is None or (match[1] is not None and int(match[1]) >= len(items)):
            raise ValueError(f"holds a tensor {name!r}, which does not belong there")
        if match[4] is not None:
            check_tensors({name: tensor}, {name: _PAIRS})
            related.add(match[4])
        elif match[2] == "row":
            # Its numbers are looked at where it is used: a bad one costs its own addition.
            if tensor.dtype != torch.float32 or tensor.ndim != 1:
                raise ValueError(f"the tensor {name!r} is not one row of float32")
            rows[int(match[1])] = True
        elif not tensor.is_floating_point() or tensor.ndim != 1:
            raise ValueError(f"the tensor {name!r} is not one vector of floating point numbers")
        else:
            found.add((int(match[1]), match[3]))
    for number, item in enumerate(items):
        content = {*item["tokens"], *(name for name in item["texts"] if name in item["pairs"])}
        vectors = {name for where, name in found if where == number}
        if vectors | content != set(item["modalities"]):
            raise ValueError(f"the vectors of addition {number} are not those of its modalities")
        if rows[number] != bool(item["fit"]):
            raise ValueError(f"the row of addition {number} is missing, or was never fitted")
        if lost := [name for name, kinds in item["pairs"].items() if name not in related]:
            raise ValueError(f"the tensor 'pairs/{lost[0]}' is missing")
