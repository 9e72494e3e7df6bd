"""Vision models of transformers: loaded from a folder, and equal to what the library gives."""

from __future__ import annotations

import builtins
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from media import TEXT, TINY, make, save_quietly
from mocme.encoders.catalog import encoder_of
from mocme.encoders.image_io import ImageShape, shaped
from mocme.encoders.kinds.image import ImageEncoder as Encoder
from mocme.encoders.vision import Grid, VisionEngine, grid_of, pixel_scale, shape_of

transformers = pytest.importorskip("transformers", reason="the extra models is not installed")
from PIL import Image  # noqa: E402
from transformers import AutoImageProcessor  # noqa: E402

VISION = {**TINY, "image_size": 32, "patch_size": 8}
SQUARE = {"height": 32, "width": 32}
CPU = torch.device("cpu")


def processor(kind: str, **settings: Any) -> Any:
    """A processor of the library that needs nothing but Pillow."""
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
    """A classifier, as most are published: without weights for a pooler."""
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
    """A picture with edges and gradients."""
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


def asked(name: str, kind: Any, picture: Any) -> Any:
    """What the library makes of a picture, all by itself."""
    settings = AutoImageProcessor.from_pretrained(name, backend="pil")
    pixels = settings(picture, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        return kind(pixel_values=pixels)


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
def test_pixels_are_those_of_the_library(size: tuple[int, int], settings: tuple[str, Any]) -> None:
    theirs = processor(settings[0], **settings[1])
    picture = natural(*size)
    expected = theirs(picture, return_tensors="np")["pixel_values"][0]
    scale, shift = pixel_scale(theirs)
    pixels = shaped(picture, shape_of(theirs, "own", "it")).transpose(2, 0, 1)
    found = pixels * scale[:, None, None] + shift[:, None, None]
    assert found.shape == expected.shape
    # In steps of 8 bits: rounding twice, in another order.
    steps = np.abs(found - expected) / scale[:, None, None]
    assert steps.max() < 2.01
    assert steps.mean() < 0.1


@pytest.mark.parametrize(
    ("kind", "attribute"),
    [(clip_tower, "image_embeds"), (dinov2, "pooler_output"), (beit, "pooler_output")],
)
def test_own_vectors_are_those_of_the_library(tmp_path: Path, kind: Any, attribute: str) -> None:
    name, model = saved(kind, tmp_path)
    picture = natural(45, 60)
    ours = engine(name)
    found = ours.encode([shaped(picture, ours.shape)])
    expected = getattr(asked(name, model, picture), attribute)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0.05, atol=0.02)
    assert ours.width == expected.shape[1]


def test_a_tower_gives_what_the_whole_model_gives(tmp_path: Path) -> None:
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 255
    for kind in (clip, siglip):
        name, model = saved(kind, tmp_path)
        ours = engine(name)
        scale, shift = (torch.from_numpy(v)[:, None, None] for v in (ours.scale, ours.shift))
        with torch.inference_mode():
            whole = model.get_image_features(pixel_values=pixels * scale + shift)
            whole = getattr(whole, "pooler_output", whole)
            torch.testing.assert_close(ours.vectors(pixels), whole)


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
def test_pooling_and_patches(tmp_path: Path, kind: Any) -> None:
    name, _ = saved(kind, tmp_path)
    pixels = engine(name).shape.side
    picture = np.random.default_rng(0).integers(0, 256, (pixels, pixels, 3), dtype=np.uint8)
    means = engine(name, pooling="mean").encode([picture])[0]
    grid = engine(name).grid
    assert grid.side > 1
    patches = engine(name, patches=grid.side)
    cut = patches.encode([picture])[0].reshape(grid.side**2, -1)
    np.testing.assert_allclose(cut.mean(0), means, rtol=1e-4, atol=1e-5)
    assert patches.identity["patches"] == str(grid.side**2)
    assert patches.identity["channels"] == str(cut.shape[1])
    assert patches.width == cut.size
    if grid.special:
        classes = engine(name, pooling="cls").encode([picture])[0]
        assert not np.allclose(classes, means, atol=1e-3)
    else:
        with pytest.raises(ValueError, match="no class token"):
            engine(name, pooling="cls")
    with pytest.raises(ValueError, match=f"at most {grid.side}"):
        engine(name, patches=grid.side + 1)


def test_patches_stand_row_by_row(tmp_path: Path) -> None:
    name, model = saved(dinov2, tmp_path)
    picture = natural(32, 32)
    ours = engine(name, patches=4)
    found = ours.encode([np.asarray(picture)])[0].reshape(4, 4, 16)
    scale, shift = (torch.from_numpy(v)[:, None, None] for v in (ours.scale, ours.shift))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] * scale + shift
    with torch.inference_mode():
        hidden = model(pixel_values=pixels).last_hidden_state[0]
    for row in range(4):
        for column in range(4):
            token = hidden[1 + 4 * row + column]
            np.testing.assert_allclose(found[row, column], token, rtol=1e-4, atol=1e-5)


def test_weights_that_are_not_there_are_not_used(tmp_path: Path) -> None:
    """A classifier has no pooler; the library would make one of random numbers."""
    name, model = saved(vit, tmp_path)
    ours = engine(name)
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 255
    with torch.inference_mode():
        inputs = pixels * float(ours.scale[0]) + float(ours.shift[0])
        expected = model.vit(pixel_values=inputs).last_hidden_state[:, 0]
        torch.testing.assert_close(ours.vectors(pixels), expected)
        torch.testing.assert_close(engine(name).vectors(pixels), expected)


def test_a_model_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    name, _ = saved(dinov2, tmp_path)
    path = Path(name, "experts/embedding.safetensors")
    weights = load_file(path)
    del weights["encoder.layer.1.mlp.fc1.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ValueError, match="has no weights for"):
        engine(name)


def test_a_model_that_hides_parts_at_random_is_refused(tmp_path: Path) -> None:
    model = transformers.ViTMAEModel(transformers.ViTMAEConfig(**VISION))
    name = str(save_quietly(model, tmp_path / "mae", processor("ViT", size=SQUARE)))
    with pytest.raises(ValueError, match="the same vector"):
        engine(name)


def test_a_model_of_texts_is_refused(tmp_path: Path) -> None:
    model = transformers.BertModel(transformers.BertConfig(**TEXT))
    name = str(save_quietly(model, tmp_path / "bert", processor("ViT", size=SQUARE)))
    with pytest.raises(ValueError, match="name a vision model"):
        engine(name)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"size": {"height": 32, "width": 48}}, "no square"),
        ({"do_resize": False}, "no one size"),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "no one size"),
        ({"size": {"shortest_edge": 16}, "crop_size": SQUARE}, "cuts 32 pixels from 16"),
    ],
)
def test_settings_that_are_not_supported(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        shape_of(processor("CLIP", **settings), "own", "it")


def test_fits() -> None:
    theirs = processor("ViT")
    assert shape_of(theirs, "own", "it") == ImageShape(224, "stretch", 224, resample="bilinear")
    assert shape_of(theirs, "crop", "it") == ImageShape(224, "crop", 256, resample="bilinear")
    assert shape_of(theirs, "whole", "it").fit == "whole"
    assert shape_of(processor("CLIP"), "crop", "it") == ImageShape(224, "crop", 224)


def test_grids() -> None:
    assert grid_of(torch.zeros(1, 17, 8), 32, 8) == Grid(4, 1)
    assert grid_of(torch.zeros(1, 21, 8), 32, 8) == Grid(4, 5)
    assert grid_of(torch.zeros(1, 49, 8), 224, 4) == Grid(7, 0)
    assert grid_of(torch.zeros(1, 8, 5, 5), 160, None) == Grid(5, 0)
    assert grid_of(torch.zeros(1, 50, 8), 224, None) == Grid(0, 0)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        engine(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="allow the download with --allow-download"):
        engine("nobody-at-all/nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="cannot be loaded"):
        engine(str(tmp_path / "empty"))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "transformers":
            raise ImportError("No module named 'transformers'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r'pip install "mocme\[models\]"'):
        engine("some/model")


def test_pictures_of_a_folder_by_a_model(tmp_path: Path) -> None:
    name, _ = saved(clip, tmp_path)
    pictures = tmp_path / "pictures"
    (pictures / "b").mkdir(parents=True)
    natural(45, 60, 0).save(pictures / "a.png")
    natural(45, 60, 0).save(pictures / "b" / "1.png")
    natural(60, 45, 1).save(pictures / "b" / "2.png")
    natural(60, 45, 1).save(pictures / "c.png")
    (pictures / "d.png").write_text("nothing")
    made = make(
        tmp_path, ["a", "b", "c", "d"], kind="image", paths=["pictures"], model=name, patches=2
    )
    assert list(made.vectors) == ["a", "b", "c"]
    assert list(made.reasons) == ["d.png"]
    assert (made.metadata["patches"], made.metadata["channels"]) == ("4", "16")
    middle = (made.vectors["a"].astype(np.float32) + made.vectors["c"].astype(np.float32)) / 2
    np.testing.assert_allclose(made.vectors["b"], middle, rtol=2e-3, atol=2e-3)
    again = make(
        tmp_path, ["a", "b", "c", "d"], kind="image", paths=["pictures"], model=name, patches=2
    )
    assert (again.outcome.encoded, again.outcome.reused) == (0, 4)


def test_settings_of_pictures() -> None:
    with pytest.raises(ValueError, match="patches"):
        encoder_of({"kind": "image", "paths": ["x"], "patches": -1}, "encode.it")
    with pytest.raises(ValueError, match="no class token"):
        encoder_of({"kind": "image", "paths": ["x"], "pooling": "cls"}, "encode.it")
    assert Encoder(paths=["x"]).patches == 0


def test_a_picture_file_goes_through(tmp_path: Path) -> None:
    name, _ = saved(vit, tmp_path)
    ours = engine(name, fit="whole")
    with io.BytesIO() as file:
        natural(90, 30).save(file, "PNG")
        from mocme.encoders.base import EncodingReport

        ready = ours.prepare(file.getvalue(), EncodingReport("it", "image"))
    assert ready.shape == (32, 32, 3)
    assert (ready[0] == 127).all()
