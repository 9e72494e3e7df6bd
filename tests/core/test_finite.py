"""`all_finite` agrees with a look at each number."""

from __future__ import annotations

import pytest
import torch

from mocme.core.finite import all_finite

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_number_that_is_not_finite_is_found(dtype: torch.dtype) -> None:
    for bad in (torch.nan, torch.inf, -torch.inf):
        values = torch.zeros(3, 2, dtype=dtype)
        assert all_finite(values)
        values[1, 1] = bad
        assert not all_finite(values)
    assert not all_finite(torch.tensor([torch.inf, -torch.inf], dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_whose_sum_overflows_are_finite(dtype: torch.dtype) -> None:
    assert all_finite(torch.full((3,), torch.finfo(dtype).max, dtype=dtype))


def test_no_numbers_are_finite() -> None:
    assert all_finite(torch.zeros(0, 4))
