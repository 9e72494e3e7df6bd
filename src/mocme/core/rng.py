"""Random numbers from a tuple of integers."""

from __future__ import annotations

import torch


def seeded(*numbers: int) -> torch.Generator:
    """A generator that depends on all of some whole numbers, and on their order."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        # A round of splitmix64: neighbouring seeds give unrelated streams.
        state = (state + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return torch.Generator().manual_seed(state)
