"""Pictures to vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mocme.encoders.image_backbones import ImageEngine, Lite0Engine
from mocme.encoders.image_io import BYTES, ENDINGS
from mocme.encoders.inputs import read_file
from mocme.encoders.neural import NeuralEncoder
from mocme.encoders.pretrained import named
from mocme.encoders.store import RawItem
from mocme.encoders.vision import Fit, Pooling, VisionEngine

DEFAULT = "efficientnet-lite0"


class ImageEncoder(NeuralEncoder):
    """Pictures by a network; several of an entity count as their mean.

    Args:
        model: ``efficientnet-lite0``, which comes with a package; or a vision model of transformers
            (CLIP, SigLIP, DINOv2, BEiT, ViT), by its folder or by its name on a hub.
        fit: ``crop`` takes the middle, as most networks were trained; ``whole`` shows all of the
            picture on a grey square; ``own`` is what the model's own settings say.
        pooling: of a model of transformers: ``own``, the embedding that it was trained to give;
            ``cls``, its class token; ``mean``, of what stands for parts of the picture.
        patches: with g > 0 the vectors are what the last layer says of g x g parts of the picture,
            row by row; the file's metadata has their number as ``patches`` and the numbers of each
            as ``channels``, so that they can be told apart again.
    """

    column = "path"
    endings = ENDINGS
    several = "entities with several pictures, averaged"

    def __init__(
        self,
        *,
        paths: Sequence[str],
        entity: str | None = None,
        columns: Sequence[str] = (),
        delimiter: str | None = None,
        model: str = DEFAULT,
        fit: Fit = "own",
        pooling: Pooling = "own",
        patches: int = 0,
    ) -> None:
        super().__init__(paths=paths, entity=entity, columns=columns, delimiter=delimiter)
        check(model, pooling)
        if patches < 0:
            raise ValueError("patches must be at least 0")
        self.model, self.fit, self.pooling, self.patches = model, fit, pooling, patches

    def content(self, item: RawItem) -> bytes:
        return read_file(item, BYTES)

    def engine(self, device: torch.device, allow_download: bool) -> ImageEngine:
        """The network of these settings."""
        return engine_of(self.model, self.fit, self.pooling, self.patches, device, allow_download)


def check(model: str, pooling: Pooling) -> None:
    """Refuse what the default network does not have.

    Raises:
        ValueError: a pooling other than its own.
    """
    named(model)
    if model == DEFAULT and pooling == "cls":
        raise ValueError(f'{DEFAULT} has no class token; use pooling = "own"')


def engine_of(
    model: str,
    fit: Fit,
    pooling: Pooling,
    patches: int,
    device: torch.device,
    allow_download: bool,
) -> ImageEngine:
    """A network for pictures, by its name.

    Raises:
        ValueError: it cannot be loaded; with the remedy.
    """
    if model == DEFAULT:
        return Lite0Engine("crop" if fit == "own" else fit, device, patches)
    return VisionEngine(model, fit, pooling, patches, device, allow_download)
