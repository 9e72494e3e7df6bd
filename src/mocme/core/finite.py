"""Whether numbers of a tensor are finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def all_finite(values: Tensor) -> bool:
    """Return whether no number of a floating point tensor is NaN or infinite."""
    # Only a sum of finite numbers is finite. It takes a quarter of the time of `isfinite`, which is
    # asked only where the sum is not: finite numbers may overflow.
    total = values.sum(dtype=torch.promote_types(values.dtype, torch.float32))
    return math.isfinite(float(total)) or bool(torch.isfinite(values).all())
