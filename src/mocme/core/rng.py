"""Random number generators seeded from a tuple of integers."""

from __future__ import annotations

import torch


def seeded_generator(*numbers: int) -> torch.Generator:
    """Create a generator whose stream depends on each of `numbers` and on their order.

    The numbers are mixed by splitmix64 (Steele, Lea and Flood, OOPSLA 2014), so that neighbouring
    seeds give unrelated streams.
    """
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return torch.Generator().manual_seed(state)
