"""Published tensors are read as numbers, and code in them is never run."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mocme.data.formats.tensors import read

VALUES = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


class Code:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (self.path,))


def saved(folder: Path, value: object, name: str = "x.pth", zipped: bool = True) -> Path:
    torch.save(value, folder / name, _use_new_zipfile_serialization=zipped)
    return folder / name


@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_of_torch(tmp_path: Path, zipped: bool) -> None:
    path = saved(tmp_path, VALUES, zipped=zipped)
    values, provenance = read(path)
    assert torch.equal(values, VALUES)
    assert provenance == {
        "source": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "matched by": "row number",
    }


def test_changing_the_values_does_not_change_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VALUES.numpy())
    for path in (saved(tmp_path, VALUES), tmp_path / "x.npy"):
        before = path.read_bytes()
        values, _ = read(path)
        values.zero_()
        assert path.read_bytes() == before


def test_an_embedding_and_a_parameter(tmp_path: Path) -> None:
    layer = torch.nn.Embedding.from_pretrained(VALUES, freeze=False)
    values, provenance = read(saved(tmp_path, layer.state_dict()))
    assert torch.equal(values, VALUES)
    assert provenance["key"] == "weight"
    values, _ = read(saved(tmp_path, layer.weight))
    assert torch.equal(values, VALUES)
    assert not values.requires_grad


def test_several_tensors_need_a_key(tmp_path: Path) -> None:
    state = OrderedDict(image=VALUES, model={"text": VALUES + 1}, epoch=3)
    path = saved(tmp_path, state)
    with pytest.raises(
        ValueError, match=r"x.pth: holds 2 tensors; choose one with key: image, model"
    ):
        read(path)
    with pytest.raises(ValueError, match=r"holds no 'sound'; key is one of: image, model.text"):
        read(path, "sound")
    assert torch.equal(read(path, "model.text")[0], VALUES + 1)
    save_file({"a": VALUES, "b": VALUES + 1}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="holds 2 tensors; choose one with key: a, b"):
        read(tmp_path / "x.safetensors")
    values, provenance = read(tmp_path / "x.safetensors", "b")
    assert torch.equal(values, VALUES + 1)
    assert provenance["key"] == "b"
    with pytest.raises(ValueError, match="without a name; leave out key = 'a'"):
        read(saved(tmp_path, VALUES), "a")
    with pytest.raises(ValueError, match="holds no tensor"):
        read(saved(tmp_path, {"epoch": 3}))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.arange(6).reshape(2, 3), torch.float32),
        (np.ones((2, 3), np.float16), torch.float16),
        (np.ones((2, 3), ">f4"), torch.float32),
        (np.ones((2, 3), bool), torch.float32),
        (np.asfortranarray(np.ones((2, 3))), torch.float64),
    ],
)
def test_arrays_of_numpy(tmp_path: Path, array: np.ndarray, expected: torch.dtype) -> None:
    np.save(tmp_path / "x.npy", array)
    values, _ = read(tmp_path / "x.npy")
    assert values.dtype == expected
    assert values.tolist() == array.tolist()


def test_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["deep/image"] = VALUES.numpy()
    values, provenance = read(path)
    assert torch.equal(values, VALUES)
    assert provenance["key"] == "deep/image"
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["words"] = ["a", "b"]
        file["away"] = h5py.ExternalLink(str(path), "deep/image")
    with pytest.raises(ValueError, match="words holds object, not numbers"):
        read(tmp_path / "other.hdf5")
    with pytest.raises(ValueError, match="holds no 'away'; key is one of: words"):
        read(tmp_path / "other.hdf5", "away")
    (tmp_path / "bytes").write_bytes(bytes(range(48)))
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file.create_dataset("x", (2, 3), "f8", external=[(str(tmp_path / "bytes"), 0, 48)])
    with pytest.raises(ValueError, match="x is stored in other files"):
        read(tmp_path / "outside.h5")
    path.write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="cannot be read as HDF5"):
        read(path)


def test_code_is_never_run(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    for name in ("x.pth", "x.pt"):
        for zipped in (True, False):
            path = saved(tmp_path, {"weight": VALUES, "more": Code(str(trap))}, name, zipped)
            with pytest.raises(
                ValueError, match=rf"{name}: contains more than tensors.*numpy.save"
            ):
                read(path)
    sink = io.BytesIO()
    pickle.dump(Code(str(trap)), sink)
    for name in ("x.pkl", "x.pickle", "x.PKL"):
        (tmp_path / name).write_bytes(sink.getvalue())
        with pytest.raises(ValueError, match=r"pickles are not read.*torch.save"):
            read(tmp_path / name)
    np.save(tmp_path / "x.npy", np.array([[Code(str(trap))]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="contains objects, perhaps code"):
        read(tmp_path / "x.npy")
    (tmp_path / "y.npy").write_bytes(sink.getvalue())
    with pytest.raises(ValueError, match=r"is not an .npy file, perhaps a pickle with code"):
        read(tmp_path / "y.npy")
    assert not trap.exists()
    with pytest.raises(ValueError, match="contains more than tensors"):
        read(saved(tmp_path, torch.nn.Embedding(2, 2)))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (torch.zeros(3), r"has shape \(3,\); needed is \(n, F\)"),
        (torch.zeros(3, 2, 2), "average several vectors per entity"),
        (torch.zeros(0, 2), r"has shape \(0, 2\)"),
        (torch.zeros(2, 2, dtype=torch.complex64), "make it dense and real"),
        ([torch.zeros(2)], r"holds a list, not a tensor; write it with torch.save\(torch.stack"),
    ],
)
def test_values_that_are_not_a_table_are_refused(
    tmp_path: Path, value: object, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        read(saved(tmp_path, value))


def test_a_sparse_table_is_refused(tmp_path: Path) -> None:
    sparse = torch.sparse_coo_tensor(
        torch.tensor([[0], [1]]), torch.ones(1), (2, 2), check_invariants=True
    )
    with pytest.raises(ValueError, match="make it dense"):
        read(saved(tmp_path, sparse))


@pytest.mark.parametrize("name", ["x.pth", "x.npy", "x.safetensors"])
def test_damaged_and_absent_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: there is no such file"):
        read(tmp_path / name)
    for content in (b"", b"rubbish", b"\x80\x02", b"PK\x03\x04", b"\x93NUMPY\x01"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read(tmp_path / name)


def test_an_unknown_ending_is_an_error_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x.csv: its ending is none of .pth, .pt, .npy, .h5"):
        read(tmp_path / "x.csv")
