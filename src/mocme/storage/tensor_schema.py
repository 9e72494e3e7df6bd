"""What tensors a file has to hold: names, types, shapes and ranges."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mocme.storage.errors import RunError


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
        ValueError: with the name of the tensor and the first position.
    """
    if not values.is_floating_point() or not values.numel():
        return
    # Only a sum of finite numbers is finite. It takes a quarter of the time of `isfinite`, which is
    # asked only where the sum is not: finite numbers may overflow.
    if math.isfinite(float(values.sum(dtype=torch.promote_types(values.dtype, torch.float32)))):
        return
    bad = ~torch.isfinite(values)
    if bool(bad.any()):
        first = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"the tensor {name!r} holds {int(bad.sum()):,} numbers that are NaN or infinite, first "
            f"at {list(first)}"
        )


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


def memory_of_machine() -> int:
    """Bytes of physical memory; a very large number where the system does not tell."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return sys.maxsize
    return memory if memory > 0 else sys.maxsize


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
