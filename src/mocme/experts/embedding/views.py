"""Several views of one modality (CMoE, first half)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mocme.core.registry import Configurable


class ModalityViews(nn.Module, Configurable):
    """K whitening linear maps of one modality: subtract a learned mean, project to D.

    After UniSRec (Hou et al., KDD 2022), where each map owns its mean and its projection. Inputs
    are expected with unit deviation, so views start with the deviation of the tables.

    Args:
        feature_dim: F, the dimension of the modality's vectors.
        embedding_dim: D, the dimension of a view.
        count: K, the number of views.
        nonlinearity: applied after the linear map.

    Raises:
        ValueError: `count` is below 1.
    """

    trial = (2, 2, torch.Generator())
    init_std = 0.01

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        generator: torch.Generator,
        *,
        count: int = 4,
        nonlinearity: Literal["none", "tanh", "gelu"] = "none",
    ) -> None:
        super().__init__()
        if count < 1:
            raise ValueError("count must be at least 1")
        self.count, self.embedding_dim, self.nonlinearity = count, embedding_dim, nonlinearity
        scale = self.init_std / feature_dim**0.5
        weight = torch.randn(feature_dim, count, embedding_dim, generator=generator) * scale
        self.weight = nn.Parameter(weight)
        self.mean = nn.Parameter(torch.zeros(count, feature_dim))

    def forward(self, values: Float[Tensor, "n F"]) -> Float[Tensor, "n K D"]:
        """Views of n entities."""
        # (x - mean) W = x W - mean W, so the input is never copied K times.
        shift = torch.einsum("kf,fkd->kd", self.mean, self.weight)
        views = torch.addmm(-shift.flatten(), values, self.weight.flatten(1))
        views = views.view(-1, self.count, self.embedding_dim)
        if self.nonlinearity == "tanh":
            return views.tanh()
        if self.nonlinearity == "gelu":
            return nn.functional.gelu(views)
        return views
