"""What tensors a file has to hold: names, types, shapes and ranges."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mocme.core.device import memory_of_machine
from mocme.core.finite import all_finite
from mocme.storage.errors import NotFinite, RunError


@dataclass(frozen=True)
class Field:
    """A tensor of a file. Floating point numbers have to be finite.

    Attributes:
        dtype: its type; ``floating`` for any floating point type.
        shape: a number, or a name that stands for one size throughout the file; a name that begins
            with ``*`` stands for any size of its own.
        low, high: bounds of its values, both included.
        order: ``ascending`` (equal values may follow each other), ``distinct`` (ascending, each
            value once) or empty for any.
    """

    dtype: torch.dtype | Literal["floating"]
    shape: tuple[int | str, ...]
    low: float = -math.inf
    high: float = math.inf
    order: str = ""


def check_tensors(
    tensors: Mapping[str, Tensor], fields: Mapping[str, Field], **sizes: int
) -> dict[str, int]:
    """Check tensors against their fields.

    Args:
        sizes: known sizes by name.

    Returns:
        All sizes by name.

    Raises:
        ValueError: a tensor is missing or unknown, or is not as its field says; the message has its
            name.
    """
    if missing := [name for name in fields if name not in tensors]:
        raise ValueError(f"the tensor {missing[0]!r} is missing")
    if unknown := [name for name in tensors if name not in fields]:
        raise ValueError(f"holds a tensor {unknown[0]!r}, which does not belong there")
    for name, field in fields.items():
        _check_form(name, tensors[name], field, sizes)
        check_finite(name, tensors[name])
        _check_values(name, tensors[name], field)
    return sizes


def check_finite(name: str, values: Tensor) -> None:
    """Refuse NaN and infinite numbers.

    Raises:
        NotFinite: with the name of the tensor and the first position.
    """
    if not values.is_floating_point() or all_finite(values):
        return
    bad = ~torch.isfinite(values)
    first = tuple(bad.nonzero()[0].tolist())
    count = int(bad.sum())
    what = "a number that is" if count == 1 else f"{count:,} numbers that are"
    where = "at" if count == 1 else "first at"
    raise NotFinite(f"the tensor {name!r} holds {what} NaN or infinite, {where} {list(first)}")


def check_like(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Check that tensors have the names, types and shapes of others, and are finite.

    Args:
        wanted: tensors whose values do not matter; they may be on the device ``meta``.

    Raises:
        ValueError: with the name of the tensor that differs.
    """
    fields = {name: Field(like.dtype, tuple(like.shape)) for name, like in wanted.items()}
    check_tensors(tensors, fields)


def check_memory(path: Path) -> None:
    """Refuse a file that is larger than the memory of this machine, before it is read.

    Raises:
        RunError: with both sizes.
    """
    try:
        size, memory = os.lstat(path).st_size, memory_of_machine()
    except OSError:  # there is no such file, which opening it says
        return
    if size > memory:
        raise RunError(
            f"{path} has {size / 2**30:,.1f} GiB, and this machine has {memory / 2**30:,.1f} GiB "
            f"of memory; use a larger machine, or restore the file if it should be smaller"
        )


def _check_form(name: str, tensor: Tensor, field: Field, sizes: dict[str, int]) -> None:
    """Check type and shape; sizes that are not known yet are added."""
    fits = tensor.is_floating_point() if field.dtype == "floating" else tensor.dtype == field.dtype
    if not fits:
        raise ValueError(
            f"the tensor {name!r} has the type {_short(tensor.dtype)}; it must be "
            f"{_short(field.dtype)}"
        )
    fits = tensor.ndim == len(field.shape)
    for size, wanted in zip(tensor.shape, field.shape, strict=False):
        if isinstance(wanted, int):
            fits = fits and size == wanted
        elif not wanted.startswith("*"):
            fits = fits and size == sizes.setdefault(wanted, size)
    if not fits:
        wanted_shape: Sequence[int | str] = [
            sizes.get(size, size) if isinstance(size, str) else size for size in field.shape
        ]
        text = ", ".join(str(size).lstrip("*") for size in wanted_shape)
        raise ValueError(
            f"the tensor {name!r} has the shape {list(tensor.shape)}; it must be [{text}]"
        )


def _check_values(name: str, tensor: Tensor, field: Field) -> None:
    if not tensor.numel():
        return
    if field.low > -math.inf or field.high < math.inf:
        low, high = (bound.item() for bound in torch.aminmax(tensor))
        if low < field.low or high > field.high:
            raise ValueError(
                f"the tensor {name!r} has values from {low:g} to {high:g}; they must be within "
                f"{field.low:g} and {field.high:g}"
            )
    if field.order:
        steps = tensor.diff()
        wrong = (steps <= 0) if field.order == "distinct" else (steps < 0)
        if bool(wrong.any()):
            each = ", each value once" if field.order == "distinct" else ""
            raise ValueError(f"the values of the tensor {name!r} must ascend{each}")


def _short(dtype: torch.dtype | str) -> str:
    return "floating point" if dtype == "floating" else str(dtype).removeprefix("torch.")
