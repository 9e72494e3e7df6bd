"""What the encoders of images and of videos share: an image network and its settings."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mocme.encoders.image_backbones import ImageEngine, Lite0Engine
from mocme.encoders.neural import NeuralEncoder
from mocme.encoders.pretrained import check_model_name
from mocme.encoders.vision import Fit, Pooling, VisionEngine

DEFAULT = "efficientnet-lite0"


@dataclass(frozen=True, kw_only=True)
class VisualEncoder(NeuralEncoder):
    """An encoder that uses an image network.

    Args:
        model: ``efficientnet-lite0``, which comes with a package; or a vision model of transformers
            (CLIP, SigLIP, DINOv2, BEiT, ViT), by its folder or by its name on a hub.
        fit: ``crop`` takes the middle of the image, which is how most networks were trained;
            ``whole`` shows the whole image on a grey square; ``own`` is what the model's own
            settings say.
        pooling: of a model of transformers: ``own`` for the embedding that it was trained to give,
            ``cls`` for its class token, ``mean`` for the mean over the parts of the image.
    """

    column = "path"

    model: str = DEFAULT
    fit: Fit = "own"
    pooling: Pooling = "own"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_model_name(self.model)
        if self.model == DEFAULT and self.pooling == "cls":
            raise ValueError(f'{DEFAULT} has no class token; use pooling = "own"')

    def image_engine(
        self, device: torch.device, allow_download: bool, patches: int = 0
    ) -> ImageEngine:
        """Load the image network of these settings.

        Args:
            patches: number of rows and columns of patches; 0 for one vector of the image.

        Raises:
            ValueError: it cannot be loaded; with the remedy.
        """
        if self.model == DEFAULT:
            return Lite0Engine("crop" if self.fit == "own" else self.fit, device, patches)
        return VisionEngine(self.model, self.fit, self.pooling, patches, device, allow_download)
