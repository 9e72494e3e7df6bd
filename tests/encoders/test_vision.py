"""Vision models of transformers, loaded from a folder and compared with the library."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from media import TEXT, TINY, encode_folder, save_quietly
from mocme.core.extras import remedy
from mocme.encoders.base import EncodingReport
from mocme.encoders.catalog import encoder_of
from mocme.encoders.image_io import ImageShape, fit_image
from mocme.encoders.kinds.image import ImageEncoder
from mocme.encoders.vision import Grid, VisionEngine, grid_of, pixel_scale, shape_of

transformers = pytest.importorskip("transformers", reason="the extra models is not installed")
from PIL import Image  # noqa: E402
from transformers import AutoImageProcessor  # noqa: E402

VISION = {**TINY, "image_size": 32, "patch_size": 8}
SQUARE = {"height": 32, "width": 32}
CPU = torch.device("cpu")


def processor(kind: str, **settings: Any) -> Any:
    """A processor of the library that needs only Pillow."""
    import importlib

    module = importlib.import_module(
        f"transformers.models.{kind.lower()}.image_processing_pil_{kind.lower()}"
    )
    return getattr(module, f"{kind}ImageProcessorPil")(**settings)


def clip() -> tuple[Any, Any]:
    config = transformers.CLIPConfig(
        vision_config={**VISION, "projection_dim": 12},
        text_config={**TEXT, "projection_dim": 12},
        projection_dim=12,
    )
    settings = processor("CLIP", size={"shortest_edge": 32}, crop_size=SQUARE)
    return transformers.CLIPModel(config), settings


def clip_tower() -> tuple[Any, Any]:
    config = transformers.CLIPVisionConfig(**VISION, projection_dim=12)
    settings = processor("CLIP", size={"shortest_edge": 32}, crop_size=SQUARE)
    return transformers.CLIPVisionModelWithProjection(config), settings


def siglip() -> tuple[Any, Any]:
    text = {**TEXT, "projection_size": 16}
    config = transformers.SiglipConfig(vision_config=VISION, text_config=text)
    return transformers.SiglipModel(config), processor("Siglip", size=SQUARE)


def dinov2() -> tuple[Any, Any]:
    settings = processor("Bit", size={"shortest_edge": 36}, crop_size=SQUARE)
    config = transformers.Dinov2Config(**{**VISION, "image_size": 40})
    return transformers.Dinov2Model(config), settings


def beit() -> tuple[Any, Any]:
    settings = processor("Beit", size={"height": 36, "width": 36}, crop_size=SQUARE)
    settings.do_center_crop = True
    return transformers.BeitModel(transformers.BeitConfig(**VISION)), settings


def vit() -> tuple[Any, Any]:
    """A classifier without weights for a pooler, as most are published."""
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**VISION))
    return model, processor("ViT", size=SQUARE)


def resnet() -> tuple[Any, Any]:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    return transformers.ResNetModel(config), processor("ConvNext", size={"shortest_edge": 64})


MODELS = (clip, clip_tower, siglip, dinov2, beit, vit, resnet)


def saved(kind: Callable[[], tuple[Any, Any]], folder: Path) -> tuple[str, Any]:
    torch.manual_seed(0)
    model, settings = kind()
    return str(save_quietly(model, folder / kind.__name__, settings)), model


def natural(width: int, height: int, seed: int = 0) -> Any:
    """An image with edges and gradients."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def engine(name: str, **settings: Any) -> VisionEngine:
    return VisionEngine(
        name,
        settings.get("fit", "own"),
        settings.get("pooling", "own"),
        settings.get("patches", 0),
        CPU,
        False,
    )


def library_output(name: str, model: Any, image: Any) -> Any:
    """The output of a model for an image that the library's own processor prepared."""
    settings = AutoImageProcessor.from_pretrained(name, backend="pil")
    pixels = settings(image, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        return model(pixel_values=pixels)


@pytest.mark.parametrize("size", [(45, 60), (301, 200), (32, 32), (500, 61), (20, 33)])
@pytest.mark.parametrize(
    "settings",
    [
        ("CLIP", {}),
        ("CLIP", {"size": {"shortest_edge": 256}}),
        ("Bit", {"size": {"shortest_edge": 256}}),
        ("Siglip", {}),
        ("ViT", {}),
        ("Beit", {"size": {"height": 256, "width": 256}, "do_center_crop": True}),
        ("DeiT", {}),
        ("ConvNext", {"size": {"shortest_edge": 224}}),
        ("ConvNext", {"size": {"shortest_edge": 384}}),
        ("CLIP", {"do_normalize": False, "size": {"shortest_edge": 230}}),
        ("CLIP", {"do_rescale": False, "image_mean": [127.0] * 3, "image_std": [128.0] * 3}),
    ],
    ids=lambda value: f"{value[0]}-{len(str(value[1]))}" if isinstance(value[0], str) else None,
)
def test_pixels_equal_those_of_the_library(
    size: tuple[int, int], settings: tuple[str, Any]
) -> None:
    library = processor(settings[0], **settings[1])
    image = natural(*size)
    expected = library(image, return_tensors="np")["pixel_values"][0]
    scale, shift = pixel_scale(library)
    pixels = fit_image(image, shape_of(library, "own", "it")).transpose(2, 0, 1)
    inputs = pixels * scale[:, None, None] + shift[:, None, None]
    assert inputs.shape == expected.shape
    # In steps of 8-bit values; both sides round twice, in another order.
    steps = np.abs(inputs - expected) / scale[:, None, None]
    assert steps.max() < 2.01
    assert steps.mean() < 0.1


@pytest.mark.parametrize(
    ("kind", "attribute"),
    [(clip_tower, "image_embeds"), (dinov2, "pooler_output"), (beit, "pooler_output")],
)
def test_own_pooling_equals_that_of_the_library(tmp_path: Path, kind: Any, attribute: str) -> None:
    name, model = saved(kind, tmp_path)
    image = natural(45, 60)
    vision = engine(name)
    vectors = vision.encode([fit_image(image, vision.shape)])
    expected = getattr(library_output(name, model, image), attribute)
    np.testing.assert_allclose(vectors, expected.numpy(), rtol=0.05, atol=0.02)
    assert vision.width == expected.shape[1]


def test_the_vision_part_equals_the_complete_model(tmp_path: Path) -> None:
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 255
    for kind in (clip, siglip):
        name, model = saved(kind, tmp_path)
        vision = engine(name)
        scale, shift = (torch.from_numpy(v)[:, None, None] for v in (vision.scale, vision.shift))
        with torch.inference_mode():
            output = model.get_image_features(pixel_values=pixels * scale + shift)
            output = getattr(output, "pooler_output", output)
            torch.testing.assert_close(vision.vectors(pixels), output)


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
def test_pooling_and_patches_agree(tmp_path: Path, kind: Any) -> None:
    name, _ = saved(kind, tmp_path)
    side = engine(name).shape.side
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    mean = engine(name, pooling="mean").encode([image])[0]
    grid = engine(name).grid
    assert grid.side > 1
    patches = engine(name, patches=grid.side)
    vectors = patches.encode([image])[0].reshape(grid.side**2, -1)
    np.testing.assert_allclose(vectors.mean(0), mean, rtol=1e-4, atol=1e-5)
    assert patches.identity["patches"] == str(grid.side**2)
    assert patches.identity["channels"] == str(vectors.shape[1])
    assert patches.width == vectors.size
    if grid.special:
        class_token = engine(name, pooling="cls").encode([image])[0]
        assert not np.allclose(class_token, mean, atol=1e-3)
    else:
        with pytest.raises(ValueError, match="no class token"):
            engine(name, pooling="cls")
    with pytest.raises(ValueError, match=f"at most {grid.side}"):
        engine(name, patches=grid.side + 1)


def test_patches_are_in_order_row_by_row(tmp_path: Path) -> None:
    name, model = saved(dinov2, tmp_path)
    image = natural(32, 32)
    vision = engine(name, patches=4)
    patches = vision.encode([np.asarray(image)])[0].reshape(4, 4, 16)
    scale, shift = (torch.from_numpy(v)[:, None, None] for v in (vision.scale, vision.shift))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] * scale + shift
    with torch.inference_mode():
        hidden = model(pixel_values=pixels).last_hidden_state[0]
    for row in range(4):
        for column in range(4):
            token = hidden[1 + 4 * row + column]
            np.testing.assert_allclose(patches[row, column], token, rtol=1e-4, atol=1e-5)


def test_missing_weights_of_a_pooler_are_not_used(tmp_path: Path) -> None:
    """A classifier has no pooler; the library would initialise one at random."""
    name, model = saved(vit, tmp_path)
    vision = engine(name)
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 255
    with torch.inference_mode():
        inputs = pixels * float(vision.scale[0]) + float(vision.shift[0])
        expected = model.vit(pixel_values=inputs).last_hidden_state[:, 0]
        torch.testing.assert_close(vision.vectors(pixels), expected)
        torch.testing.assert_close(engine(name).vectors(pixels), expected)


def test_a_model_without_other_weights_is_an_error(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    name, _ = saved(dinov2, tmp_path)
    path = Path(name, "model.safetensors")
    weights = load_file(path)
    del weights["encoder.layer.1.mlp.fc1.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ValueError, match="has no weights for"):
        engine(name)


def test_a_model_that_masks_parts_at_random_is_an_error(tmp_path: Path) -> None:
    model = transformers.ViTMAEModel(transformers.ViTMAEConfig(**VISION))
    name = str(save_quietly(model, tmp_path / "mae", processor("ViT", size=SQUARE)))
    with pytest.raises(ValueError, match="the same vector"):
        engine(name)


def test_a_language_model_is_an_error(tmp_path: Path) -> None:
    model = transformers.BertModel(transformers.BertConfig(**TEXT))
    name = str(save_quietly(model, tmp_path / "bert", processor("ViT", size=SQUARE)))
    with pytest.raises(ValueError, match="name a vision model"):
        engine(name)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"size": {"height": 32, "width": 48}}, "not a square"),
        ({"do_resize": False}, "of one fixed size"),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "of one fixed size"),
        ({"size": {"shortest_edge": 16}, "crop_size": SQUARE}, "cuts 32 pixels from 16"),
    ],
)
def test_unsupported_processor_settings_are_an_error(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        shape_of(processor("CLIP", **settings), "own", "it")


def test_the_fit_decides_the_shape() -> None:
    settings = processor("ViT")
    assert shape_of(settings, "own", "it") == ImageShape(224, "stretch", 224, resample="bilinear")
    assert shape_of(settings, "crop", "it") == ImageShape(224, "crop", 256, resample="bilinear")
    assert shape_of(settings, "whole", "it").fit == "whole"
    assert shape_of(processor("CLIP"), "crop", "it") == ImageShape(224, "crop", 224)


def test_the_grid_follows_from_the_shape_of_the_last_layer() -> None:
    assert grid_of(torch.zeros(1, 17, 8), 32, 8) == Grid(4, 1)
    assert grid_of(torch.zeros(1, 21, 8), 32, 8) == Grid(4, 5)
    assert grid_of(torch.zeros(1, 49, 8), 224, 4) == Grid(7, 0)
    assert grid_of(torch.zeros(1, 8, 5, 5), 160, None) == Grid(5, 0)
    assert grid_of(torch.zeros(1, 50, 8), 224, None) == Grid(0, 0)


def test_a_missing_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        engine(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="allow the download with --allow-download"):
        engine("nobody-at-all/nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="cannot be loaded"):
        engine(str(tmp_path / "empty"))


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=re.escape(remedy("models"))):
        engine("some/model")


def test_images_of_a_folder_are_encoded(tmp_path: Path) -> None:
    name, _ = saved(clip, tmp_path)
    folder = tmp_path / "images"
    (folder / "b").mkdir(parents=True)
    natural(45, 60, 0).save(folder / "a.png")
    natural(45, 60, 0).save(folder / "b" / "1.png")
    natural(60, 45, 1).save(folder / "b" / "2.png")
    natural(60, 45, 1).save(folder / "c.png")
    (folder / "d.png").write_text("nothing")
    table = {"kind": "image", "paths": ["images"], "model": name, "patches": 2}
    encoded = encode_folder(tmp_path, ["a", "b", "c", "d"], **table)
    assert list(encoded.vectors) == ["a", "b", "c"]
    assert list(encoded.reasons) == ["d.png"]
    assert (encoded.metadata["patches"], encoded.metadata["channels"]) == ("4", "16")
    middle = (encoded.vectors["a"].astype(np.float32) + encoded.vectors["c"].astype(np.float32)) / 2
    np.testing.assert_allclose(encoded.vectors["b"], middle, rtol=2e-3, atol=2e-3)
    again = encode_folder(tmp_path, ["a", "b", "c", "d"], **table)
    assert (again.report.encoded, again.report.reused) == (0, 4)


def test_a_setting_out_of_range_is_an_error() -> None:
    with pytest.raises(ValueError, match="patches"):
        encoder_of({"kind": "image", "paths": ["x"], "patches": -1}, "encode.it")
    with pytest.raises(ValueError, match="no class token"):
        encoder_of({"kind": "image", "paths": ["x"], "pooling": "cls"}, "encode.it")
    assert ImageEncoder(paths=["x"]).patches == 0


def test_an_image_file_is_prepared(tmp_path: Path) -> None:
    name, _ = saved(vit, tmp_path)
    vision = engine(name, fit="whole")
    with io.BytesIO() as file:
        natural(90, 30).save(file, "PNG")
        pixels = vision.prepare(file.getvalue(), EncodingReport("it", "image"))
    assert pixels.shape == (32, 32, 3)
    assert (pixels[0] == 127).all()
