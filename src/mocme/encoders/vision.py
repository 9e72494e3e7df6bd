"""Vision models of transformers: CLIP, SigLIP, DINOv2, BEiT, ViT and similar ones.

Images are preprocessed here, from the settings that come with a model, so that only Pillow is
needed for it. The result is that of the library's own processor for Pillow.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mocme.encoders.image_backbones import ImageEngine, patches_identity, pool_patches
from mocme.encoders.image_io import ImageShape
from mocme.encoders.neural import Identity
from mocme.encoders.pretrained import extra, load_network, load_settings, revision

Fit = Literal["own", "crop", "whole"]
Pooling = Literal["own", "mean", "cls"]
# The most tokens that belong to no part of the image: class, distillation, register tokens.
MAX_SPECIAL = 16


class Grid(NamedTuple):
    """Which tokens of a layer belong to which part of an image.

    Attributes:
        side: number of rows and columns; 0 if unknown.
        special: number of tokens before those, the first of which is the class token.
    """

    side: int
    special: int


class VisionEngine(ImageEngine):
    """A loaded vision model of transformers.

    Args:
        model: a folder, or a name on a hub.
        pooling: ``own``: the embedding that the model was trained to give (CLIP: projected;
            SigLIP and BEiT: its pooler; DINOv2, ViT: the normalised class token), else the class
            token, else the mean; ``cls``: the class token of the last layer; ``mean``: the mean of
            the last layer's tokens that belong to parts of the image.
        patches: number of rows and columns that the last layer's tokens are pooled to; 0 for one
            vector of the image.

    Raises:
        ValueError: the model cannot be loaded, or does not support this pooling or these patches.
    """

    def __init__(
        self,
        model: str,
        fit: Fit,
        pooling: Pooling,
        patches: int,
        device: torch.device,
        allow_download: bool,
    ) -> None:
        super().__init__(device)
        with extra("transformers", "models"):
            import transformers
        # Only the settings are used; `fit_image` makes the pixels.
        settings = load_settings(
            transformers.AutoImageProcessor, model, allow_download, backend="pil"
        )
        self.name, self.pooling, self.patches = model, pooling, patches
        self.shape = shape_of(settings, fit, model)
        self.scale, self.shift = pixel_scale(settings)
        config = load_settings(transformers.AutoConfig, model, allow_download)
        network, self.pooled = load_network(_vision_class(config), model, allow_download)
        self.network = network.to(device)
        self.grid = Grid(0, 0)
        channels = self._probe()
        self.identity: Identity = {
            "encoder": f"{model}, {pooling} pooling, {self.shape.describe()}",
            "encoder_revision": revision(model, network),
            "pixels": f"times {self.scale.tolist()} plus {self.shift.tolist()}",
            **patches_identity(patches, channels, self.grid.side),
        }

    def _probe(self) -> int:
        """Encode noise to determine the grid and the width, and to check that it is deterministic.

        Returns:
            Number of channels of the last layer.
        """
        side = self.shape.side
        noise = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        pixels = (255 * noise).to(self.device)
        try:
            with torch.inference_mode():
                hidden = self._forward(pixels).last_hidden_state
        except (RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise ValueError(
                f"the model {self.name!r} does not accept an image of {side} x {side} alone "
                f"({reason}); name a vision model"
            ) from error
        self.grid = grid_of(hidden, side, getattr(self.network.config, "patch_size", None))
        self._check_pooling()
        with torch.inference_mode():
            first, second = self.vectors(pixels), self.vectors(pixels)
        if not torch.allclose(first, second, 1e-3, 1e-4):
            raise ValueError(
                f"the model {self.name!r} does not give the same vector twice for the same image; "
                f"name one that does not mask parts of it at random"
            )
        self.width = first.shape[1]
        return int(hidden.shape[1] if hidden.ndim == 4 else hidden.shape[2])

    def _check_pooling(self) -> None:
        """Raise ValueError if the model does not have this pooling, or has no grid for patches."""
        if self.patches and not self.grid.side:
            raise ValueError(f"the model {self.name!r} has no grid of patches; use patches = 0")
        if self.pooling == "cls" and not self.grid.special and not self.patches:
            raise ValueError(f'the model {self.name!r} has no class token; use pooling = "mean"')

    def _forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Any:
        scale, shift = (
            torch.from_numpy(numbers).to(pixels.device)[:, None, None]
            for numbers in (self.scale, self.shift)
        )
        return self.network(pixel_values=(pixels * scale + shift).contiguous())

    def vectors(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B F"]:
        """Pooled vectors, or patch after patch."""
        output = self._forward(pixels)
        # (B, tokens, channels) of a transformer, (B, channels, h, w) of a convolutional network.
        hidden: Tensor = output.last_hidden_state
        side, special = self.grid
        if self.patches:
            if hidden.ndim == 3:
                hidden = hidden[:, special:].transpose(1, 2).unflatten(2, (side, side))
            return pool_patches(hidden, self.patches)
        if self.pooling == "own":
            embeds = getattr(output, "image_embeds", None)
            if embeds is None and self.pooled:
                embeds = getattr(output, "pooler_output", None)
            if embeds is not None:
                return torch.flatten(embeds, 1)
        if hidden.ndim == 4:
            return hidden.mean((2, 3))
        if self.pooling != "mean" and special:
            return hidden[:, 0]
        return hidden[:, special:].mean(1)


def _vision_class(config: Any) -> Any:
    """The class that loads the vision part of a model."""
    import transformers

    kind = config.model_type
    if kind == "clip" or "CLIPVisionModelWithProjection" in (config.architectures or ()):
        return transformers.CLIPVisionModelWithProjection
    if kind == "siglip":
        return transformers.SiglipVisionModel
    return transformers.AutoModel


def grid_of(hidden: Tensor, side: int, patch: Any) -> Grid:
    """Find the tokens of a last layer that belong to parts of an image.

    Args:
        side: height and width of the image, in pixels.
        patch: height and width of one part, in pixels, if the model declares it.
    """
    if hidden.ndim == 4:  # a convolutional network
        return Grid(min(hidden.shape[2:]), 0)
    tokens = hidden.shape[1]
    if isinstance(patch, int) and 0 <= tokens - (side // patch) ** 2 <= MAX_SPECIAL:
        return Grid(side // patch, tokens - (side // patch) ** 2)
    if math.isqrt(tokens) ** 2 == tokens:  # a network that merges patches between layers
        return Grid(math.isqrt(tokens), 0)
    return Grid(0, 0)


def shape_of(settings: Any, fit: Fit, model: str) -> ImageShape:
    """The image shape that a model's processor settings describe.

    Raises:
        ValueError: they need something that is not supported: several sizes, a rectangle, ...
    """
    size, crop = settings.size, getattr(settings, "crop_size", None)
    short = getattr(size, "shortest_edge", None)
    # ConvNeXT: below 384 pixels, this share of the resized image is cut from its middle.
    share = getattr(settings, "crop_pct", None)
    before = short or _square(size, model)
    if not settings.do_resize or not before or getattr(size, "longest_edge", None):
        raise ValueError(
            f"the model {model!r} does not take images of one fixed size; name another one"
        )
    for setting in ("rescale_offset", "include_top", "do_flip_channel_order"):
        if getattr(settings, setting, False):
            raise ValueError(f"the model {model!r} has {setting} set, which is not supported")
    side, how = before, "crop" if short else "stretch"
    if settings.do_center_crop and crop:
        side = _square(crop, model)
    elif short and share and short < 384:
        before = int(short / share)
    elif short and share:
        how = "stretch"
    if side > before:
        raise ValueError(f"the model {model!r} cuts {side} pixels from {before}; name another one")
    resample = _resampling(settings.resample)
    if fit == "own":
        return ImageShape(side, "crop" if how == "crop" else "stretch", before, resample=resample)
    if fit == "crop" and how != "crop":
        before = round(side / 0.875)
    return ImageShape(side, fit, before, resample=resample)


def _square(size: Any, model: str) -> int:
    height, width = getattr(size, "height", None), getattr(size, "width", None)
    if height != width:
        raise ValueError(
            f"the model {model!r} takes images of {height} x {width}, which is not a square; name "
            f"another one"
        )
    return int(height or 0)


def _resampling(number: Any) -> str:
    with extra("pillow", "image"):
        from PIL import Image
    return Image.Resampling(2 if number is None else int(number)).name.lower()


def pixel_scale(
    settings: Any,
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Factor and summand, by channel, that take values from 0 to 255 to a model's inputs."""
    factor = float(settings.rescale_factor) if settings.do_rescale else 1.0
    mean, deviation = np.zeros(3), np.ones(3)
    if settings.do_normalize:
        mean = np.broadcast_to(np.asarray(settings.image_mean, float), 3)
        deviation = np.broadcast_to(np.asarray(settings.image_std, float), 3)
    scale: Float[np.ndarray, "3"] = (factor / deviation).astype(np.float32)
    shift: Float[np.ndarray, "3"] = (-mean / deviation).astype(np.float32)
    return scale, shift
