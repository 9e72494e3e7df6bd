"""Modality dropout: the modalities of each entity that a training step may see."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mocme.core.rng import seeded_generator

# Entities that share a generator.
BLOCK = 4096


def keep_mask(
    present: Bool[Tensor, "N M"], probability: Float[Tensor, " M"], seed: int, step: int
) -> Bool[Tensor, "N M"]:
    """Presence with modalities hidden at random, drawn once an entity and step.

    Where all modalities of an entity would be hidden, one of them stays, chosen uniformly. Blocks
    of rows are seeded by (seed, step, block): the mask of a row depends neither on how the table
    is sharded (in whole blocks) nor on whether the training was interrupted.

    Args:
        probability: of hiding each modality.
    """
    masks = []
    for block, rows in enumerate(present.cpu().split(BLOCK)):
        generator = seeded_generator(seed, step, block)
        kept = rows & (torch.rand(rows.shape, generator=generator) >= probability)
        # The modality that stays is the present one with the largest random number. All rows draw,
        # so that the stream does not depend on what was hidden.
        priority = torch.rand(rows.shape, generator=generator).masked_fill(~rows, -1.0)
        last = torch.zeros_like(rows).scatter_(1, priority.argmax(1, keepdim=True), True) & rows
        masks.append(torch.where(kept.any(1, keepdim=True), kept, last))
    return torch.cat(masks).to(present.device) if masks else present
