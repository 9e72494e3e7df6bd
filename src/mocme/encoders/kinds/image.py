"""Encode images as vectors."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mocme.encoders.image_backbones import ImageEngine
from mocme.encoders.image_io import ENDINGS, MAX_BYTES
from mocme.encoders.inputs import read_file
from mocme.encoders.store import RawItem
from mocme.encoders.visual import VisualEncoder


@dataclass(frozen=True, kw_only=True)
class ImageEncoder(VisualEncoder):
    """Images as the vectors of a network; several images of an entity are averaged.

    Args:
        patches: with g > 0, the vectors are the last layer's output for g x g parts of the image,
            row by row; the file's metadata has the number of parts as ``patches`` and the numbers
            of each part as ``channels``, so that they can be separated again.
    """

    endings = ENDINGS
    several = "entities with several images, averaged"

    patches: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patches < 0:
            raise ValueError("patches must be at least 0")

    def content(self, item: RawItem) -> bytes:
        return read_file(item, MAX_BYTES)

    def engine(self, device: torch.device, allow_download: bool) -> ImageEngine:
        return self.image_engine(device, allow_download, self.patches)
