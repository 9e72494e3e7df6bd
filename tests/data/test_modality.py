"""Checks of modalities, their digests, and the round trip through a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mocme.data.modality import FORMAT, Features, Modality, Tokens
from mocme.data.modality_files import check_entities, read_safetensors, unpack_modality

ROWS = torch.tensor([0, 2, 5])
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def dense(**changes: object) -> Modality:
    settings = {"values": torch.arange(6.0).reshape(3, 2), "rows": ROWS, "num_entities": 6}
    return Modality(**{**settings, **changes})


def sets(**changes: object) -> Tokens:
    settings = {
        "vocabulary": ("a", "b", "c"),
        "entity": torch.tensor([0, 0, 4]),
        "token": torch.tensor([0, 2, 1]),
        "num_entities": 6,
    }
    return Tokens(**{**settings, **changes})


def test_a_modality_knows_which_entities_have_it() -> None:
    modality = dense()
    assert modality.present().tolist() == [True, False, True, False, False, True]
    assert modality.width == 2
    assert sets().present().tolist() == [True, False, False, False, True, False]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rows": torch.tensor([0, 2, 6])}, "ascend within 0 .. 5"),
        ({"rows": torch.tensor([-1, 2, 5])}, "ascend within 0 .. 5"),
        ({"rows": torch.tensor([0, 2, 2])}, "ascend within 0 .. 5"),
        ({"rows": torch.tensor([2, 0, 5])}, "ascend within 0 .. 5"),
        ({"rows": torch.tensor([0, 2, 5], dtype=torch.int32)}, "int32"),
        (
            {"values": torch.tensor([[0.0], [float("nan")], [1.0]])},
            "1 vectors contain NaN.*entity 2",
        ),
        ({"values": torch.tensor([[float("inf")]] * 3)}, "3 vectors contain NaN or inf.*entity 0"),
        ({"values": torch.tensor([[1e300]] * 3, dtype=torch.float64)}, "in float32"),
    ],
)
def test_malformed_vectors_are_refused(changes: dict[str, torch.Tensor], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        dense(**changes)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"vocabulary": ("a", "b", "a")}, "contains a token twice"),
        ({"vocabulary": ("a", "b")}, "token ids must be within 0 .. 1"),
        ({"token": torch.tensor([0, -1, 1])}, "token ids"),
        ({"token": torch.tensor([0, 0, 1])}, "each pair once"),
        ({"token": torch.tensor([2, 0, 1])}, "each pair once"),
        ({"entity": torch.tensor([4, 0, 0])}, "entities of tokens must ascend"),
        ({"entity": torch.tensor([0, 0, 6])}, "ascend within 0 .. 5"),
    ],
)
def test_malformed_tokens_are_refused(changes: dict[str, torch.Tensor], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        sets(**changes)


def test_shapes_are_checked_without_beartype_too() -> None:
    modality = dense()
    object.__setattr__(modality, "rows", torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"required are \(n, F\) and \(n,\)"):
        modality.__post_init__()
    tokens = sets()
    object.__setattr__(tokens, "token", torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"pairs of shapes \(3,\) and \(2,\)"):
        tokens.__post_init__()


@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_survive_a_file(tmp_path: Path, dtype: torch.dtype) -> None:
    # Provenance must not replace the metadata that describes the file.
    provenance = {"source": "here", "vocabulary": "of the encoder", "format": "x", "entities": "y"}
    modality = dense(values=torch.randn(3, 4).to(dtype), provenance=provenance)
    tensors, metadata = modality.packed()
    assert metadata == {"source": "here", "format": FORMAT}
    save_file(tensors, tmp_path / "m.safetensors", metadata)
    restored = unpack_modality(*read_safetensors(tmp_path / "m.safetensors"), 6)
    assert isinstance(restored, Modality)
    assert restored.digest() == modality.digest()
    assert restored.values.dtype == dtype
    assert torch.equal(restored.values, modality.values)
    assert torch.equal(restored.rows, modality.rows)
    assert dict(restored.provenance) == {"source": "here"}


def test_tokens_survive_a_file(tmp_path: Path) -> None:
    tokens = sets(vocabulary=('"', "\u2028é", "c"), provenance={"source": "here"})
    tensors, metadata = tokens.packed()
    save_file(tensors, tmp_path / "t.safetensors", metadata)
    restored = unpack_modality(load_file(tmp_path / "t.safetensors"), metadata, 6)
    assert isinstance(restored, Tokens)
    assert restored.vocabulary == tokens.vocabulary
    assert restored.digest() == tokens.digest()
    assert dict(restored.provenance) == {"source": "here"}


def test_digests_depend_on_the_content_only() -> None:
    different = [
        dense(),
        dense(values=torch.arange(6.0).reshape(3, 2) + 1),
        dense(values=torch.arange(6.0).reshape(3, 2).double()),
        dense(rows=torch.tensor([0, 2, 4])),
        dense(values=torch.zeros(3, 1)),
        sets(),
        sets(vocabulary=("a", "b", "d")),
        sets(entity=torch.tensor([0, 1, 4])),
        sets(token=torch.tensor([0, 1, 1])),
    ]
    assert len({modality.digest() for modality in different}) == len(different)
    assert dense(provenance={"source": "elsewhere"}).digest() == dense().digest()
    features = Features({"x": dense()}, {"y": sets()})
    assert features.digest() == Features({"x": dense()}, {"y": sets()}).digest()
    assert features.digest() != Features({"z": dense()}, {"y": sets()}).digest()
    assert features.names == ["x", "y"]
    assert {name: int(has.sum()) for name, has in features.present().items()} == {"x": 3, "y": 2}


def test_a_file_is_memory_mapped(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"values": torch.randn(50, 8), "rows": torch.arange(50)}, path)
    tensors, _ = read_safetensors(path)
    # All tensors share one mapping of the whole file.
    assert tensors["values"].untyped_storage().nbytes() >= 50 * 8 * 4
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list what is mapped")
    assert str(path) in maps.read_text()


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"\x10\0\0\0\0\0\0\0{}"])
def test_the_error_about_a_damaged_file_names_it(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"m.safetensors: cannot be read as safetensors"):
        read_safetensors(path)
    with pytest.raises(ValueError, match=r"absent.safetensors: cannot be read"):
        read_safetensors(tmp_path / "absent.safetensors")


def test_vectors_of_another_list_of_entities_are_refused() -> None:
    check_entities(Path("m"), {"entities": "abc"}, "abc")
    with pytest.raises(
        ValueError, match=r"m: was made for another list.*encode the modality again"
    ):
        check_entities(Path("m"), {"entities": "abd"}, "abc")
