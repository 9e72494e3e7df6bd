"""A limit on new tensors, for sizes that come from a file of someone else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch.overrides import TorchFunctionMode

_BY_SIZE = (torch.randn, torch.rand, torch.zeros, torch.ones, torch.empty, torch.full, torch.eye)
_BY_RANGE = (torch.arange, torch.linspace)


class TooManyNumbers(ValueError):
    """A tensor would have more numbers than the limit allows."""


@final
class AllocationLimit(TorchFunctionMode):
    """Refuse to create a tensor with more than `limit` numbers, before memory is taken.

    A build on the device ``meta`` would need no memory at all, but imports the compiler of torch,
    which takes a second.

    Raises:
        TooManyNumbers: in the code that runs within this context.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        count = _numbers(func, args, kwargs or {})
        if count > self._limit:
            raise TooManyNumbers(f"a setting is too large; it asks for {count:,} numbers at once")
        return func(*args, **(kwargs or {}))


def _numbers(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """How many numbers a function is asked to make; 0 if it makes none by size."""
    if func in _BY_SIZE:
        size = kwargs.get("size", args[0] if args and not isinstance(args[0], int) else args)
        return math.prod(n for n in size if isinstance(n, int))
    if func in _BY_RANGE:
        return max((abs(n) for n in args if isinstance(n, int)), default=0)
    return 0
