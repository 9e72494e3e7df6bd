"""Modality dropout: which modalities of which entities a step may see."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mocme.core.rng import seeded

BLOCK = 4096


def keep_mask(
    present: Bool[Tensor, "N M"], probability: Float[Tensor, " M"], seed: int, step: int
) -> Bool[Tensor, "N M"]:
    """Presence with some modalities hidden, one draw an entity and step.

    Where everything an entity has would be hidden, one modality drawn uniformly stays. Rows are
    drawn in blocks seeded by (seed, step, block): the mask of a row does not depend on how the
    table is sharded, nor on whether the training was interrupted.
    """
    parts = []
    for block, rows in enumerate(present.cpu().split(BLOCK)):
        generator = seeded(seed, step, block)
        kept = rows & (torch.rand(rows.shape, generator=generator) >= probability)
        lots = torch.rand(rows.shape, generator=generator).masked_fill(~rows, -1.0)
        last = torch.zeros_like(rows).scatter_(1, lots.argmax(1, keepdim=True), True) & rows
        parts.append(torch.where(kept.any(1, keepdim=True), kept, last))
    return torch.cat(parts).to(present.device) if parts else present
