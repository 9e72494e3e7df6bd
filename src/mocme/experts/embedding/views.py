"""Views of one modality by a mixture of experts (CMoE, first half)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mocme.core.registry import Configurable


class ModalityViews(Configurable):
    """Settings of a modality's experts: how many views, and what follows the linear map."""

    def __init__(self, *, count: int = 4, nonlinearity: str = "none") -> None:
        if count < 1:
            raise ValueError("count must be at least 1")
        if nonlinearity not in ("none", "tanh", "gelu"):
            raise ValueError(f"nonlinearity must be none, tanh or gelu, not {nonlinearity!r}")
        self.count, self.nonlinearity = count, nonlinearity

    def make(self, width_in: int, width: int, generator: torch.Generator) -> WhiteningViews:
        """The experts of one modality with vectors of length `width_in`."""
        return WhiteningViews(width_in, width, self.count, self.nonlinearity, generator)


class WhiteningViews(nn.Module):
    """K whitening linear maps: subtract a learned mean, project to D.

    After UniSRec (Hou et al., KDD 2022), where each expert owns its mean and its projection. Inputs
    are expected with unit deviation, so the views start with the deviation of the tables.
    """

    start_deviation = 0.01

    def __init__(
        self, width_in: int, width: int, count: int, nonlinearity: str, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.count, self.width = count, width
        scale = self.start_deviation / width_in**0.5
        weight = torch.randn(width_in, count, width, generator=generator) * scale
        self.weight = nn.Parameter(weight)
        self.mean = nn.Parameter(torch.zeros(count, width_in))
        self.nonlinearity = nonlinearity

    def forward(self, values: Float[Tensor, "n F"]) -> Float[Tensor, "n K D"]:
        """Views of n entities."""
        # (x - mean) W = x W - mean W: the input is never copied K times.
        shift = torch.einsum("kf,fkd->kd", self.mean, self.weight)
        views = torch.addmm(-shift.flatten(), values, self.weight.flatten(1))
        views = views.view(-1, self.count, self.width)
        if self.nonlinearity == "tanh":
            return views.tanh()
        if self.nonlinearity == "gelu":
            return nn.functional.gelu(views)
        return views


ModalityViews.kinds = ()
