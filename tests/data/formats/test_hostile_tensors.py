"""Files of tensors that nobody writes by accident: an error with the file, never a large array."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mocme.data.formats.tensors import LIMIT, read


def cyclic(path: Path) -> None:
    table: dict[str, Any] = {"values": torch.ones(2, 3)}
    table["self"] = table
    torch.save(table, path)


def deep(path: Path) -> None:
    table: dict[str, Any] = {"values": torch.ones(2, 3)}
    for _ in range(300):
        table = {"in": table}
    torch.save(table, path)


def doubled(path: Path) -> None:
    table: dict[str, Any] = {"values": torch.ones(2, 3)}
    for _ in range(60):
        table = {"left": table, "right": table}
    torch.save(table, path)


def repeated(path: Path) -> None:
    torch.save(torch.zeros(1).expand(10**7, 10**6), path)


def without_values(path: Path) -> None:
    torch.save(torch.zeros(3, 4, device="meta"), path)


def compressed(path: Path) -> None:
    plain = io.BytesIO()
    torch.save(torch.zeros(1000, 1000), plain)
    with (
        zipfile.ZipFile(plain) as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))


def npy(path: Path, shape: str, dtype: str = "'<f4'", data: bytes = b"") -> None:
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}".encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data)


def safetensors(path: Path, header: Any, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def entry(dtype: str, shape: list[int], end: int) -> dict[str, Any]:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


WRITERS: dict[str, Callable[[Path], None]] = {
    "cyclic.pth": cyclic,
    "deep.pth": deep,
    "doubled.pth": doubled,
    "repeated.pth": repeated,
    "without_values.pth": without_values,
    "compressed.pth": compressed,
    "list.pth": lambda path: torch.save([torch.ones(2, 2)], path),
    "large.npy": lambda path: npy(path, "(1000000, 1000000)"),
    "negative.npy": lambda path: npy(path, "(-1, -3)", data=b"0" * 12),
    "overflow.npy": lambda path: npy(path, f"({2**62}, {2**62})"),
    "objects.npy": lambda path: npy(path, "(1, 1)", "'|O'", b"\x80\x04N."),
    "deep.npy": lambda path: npy(path, "(" * 3000),
    "structured.npy": lambda path: npy(path, "(1, 1)", "[('a', '<f4')]", b"0" * 4),
    "zeros.npy": lambda path: npy(path, "(0, 1000000000000)"),
    "texts.npy": lambda path: np.save(path, np.array([["a"]])),
    "large.safetensors": lambda path: safetensors(path, entry("F32", [10**9, 10**9], 4 * 10**18)),
    "short.safetensors": lambda path: safetensors(path, entry("F32", [2, 2], 8), b"0" * 8),
    "header.safetensors": lambda path: path.write_bytes(struct.pack("<Q", 2**62) + b"{}"),
    "deep.safetensors": lambda path: safetensors(path, b'{"x":' + b"[" * 50000),
    "type.safetensors": lambda path: safetensors(path, entry("F99", [1, 1], 4), b"0" * 4),
    "zeros.safetensors": lambda path: safetensors(path, entry("F32", [0, 2**40], 0)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_hostile_file_is_an_error_with_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    with pytest.raises(ValueError, match=rf"{name}: ") as error:
        read(path)
    assert type(error.value) is ValueError
    assert "\n" not in str(error.value)


def test_an_array_that_is_declared_but_not_stored_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", shape=(40_000_000, 60_000), dtype="f4", chunks=(1000, 1000))
    with pytest.raises(ValueError, match=rf"x\.h5: x takes 8,\d.* GiB.* set {LIMIT}"):
        read(tmp_path / "x.h5")
    monkeypatch.setenv(LIMIT, "0.000001")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["y"] = np.ones((30, 10), np.float32)
    with pytest.raises(ValueError, match=r"y\.h5"):
        read(tmp_path / "y.h5")
    monkeypatch.setenv(LIMIT, "0.001")
    assert read(tmp_path / "y.h5")[0].shape == (30, 10)
    monkeypatch.setenv(LIMIT, "much")
    with pytest.raises(ValueError, match=f"{LIMIT}=much: must be a number of GiB"):
        read(tmp_path / "y.h5")


def test_rows_stored_backwards_by_column_are_read(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    np.save(tmp_path / "x.npy", array)
    assert read(tmp_path / "x.npy")[0].tolist() == array.tolist()


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_only_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.npy"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(ValueError, match=r"x\.npy: there is no such file"):
        read(path)
