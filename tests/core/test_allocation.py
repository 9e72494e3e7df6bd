"""A limit on new tensors refuses a size before memory is taken, and changes nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from mocme.core.allocation import AllocationLimit, TooManyNumbers

HUGE = 10**12


@pytest.mark.parametrize(
    "make",
    [
        lambda n: torch.randn(n),
        lambda n: torch.randn(2, n),
        lambda n: torch.zeros((n, 2)),
        lambda n: torch.empty(size=(n,)),
        lambda n: torch.full((n,), 1.0),
        lambda n: torch.ones(torch.Size([n])),
        lambda n: torch.arange(n),
        lambda n: torch.eye(n),
    ],
)
def test_a_tensor_above_the_limit_is_refused(make: Callable[[int], torch.Tensor]) -> None:
    with AllocationLimit(100), pytest.raises(TooManyNumbers, match="numbers at once"):
        make(HUGE)
    with AllocationLimit(100):
        assert make(1).numel() in (1, 2)


def test_values_are_those_without_a_limit() -> None:
    expected = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    with AllocationLimit(12):
        drawn = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn, expected)


def test_opening_a_run_does_not_import_the_compiler_of_torch() -> None:
    """It would take a second of each command."""
    code = (
        "import sys, mocme\n"
        "mocme.Experiment.load('default').components()\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
