"""Published feature tensors: one row an entity, in the order of the published ids.

``.pth`` and ``.pt`` (without running what they hold), ``.npy``, ``.h5`` and ``.safetensors``.
Pickles are not read, because reading one runs whatever its maker put into it.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

NUMPY = b"\x93NUMPY"
CONVERT = (
    "where you trust its maker, load it once as its maker says and write it as numbers only, by "
    "numpy.save('features.npy', array) or torch.save(tensor, 'features.pth')"
)


def read(path: str | Path, key: str | None = None) -> tuple[Float[Tensor, "n F"], dict[str, str]]:
    """Read a table of vectors; row i belongs to the entity with the published id i.

    Whole numbers become float32. `.npy` and newer `.pth` files are memory-mapped, so that changing
    the values never changes the file.

    Args:
        key: which tensor of a file that holds several; names within names are joined by ``.``
            (in ``.h5`` by ``/``).

    Returns:
        The values, and where they come from.

    Raises:
        ValueError: the file is absent, damaged, holds code or several tensors, or no table of
            real numbers; with the remedy.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if path.suffix.lower() in (".pkl", ".pickle"):
        raise ValueError(f"{path}: pickles are not read, for they can hold code; {CONVERT}")
    if reader is None:
        raise ValueError(f"{path}: its ending is none of {', '.join(READERS)}; {CONVERT}")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; download it, or correct the path")
    chosen, values = reader(path, key)
    provenance = {"source": str(path), "sha256": _digest(path), "matched by": "row number"}
    if chosen is not None:
        provenance["key"] = chosen
    return _table(path, values), provenance


Read = tuple[str | None, Tensor]


def _torch(path: Path, key: str | None) -> Read:
    mapped = zipfile.is_zipfile(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    # What torch raises for code is a class of pickle, which is not imported in this package.
    except Exception as error:
        reason = str(error).strip().splitlines()
        if "weights_only" in str(error) or "Weights only" in str(error):
            raise ValueError(f"{path}: holds more than tensors, perhaps code; {CONVERT}") from error
        raise ValueError(
            f"{path}: cannot be read ({reason[0] if reason else type(error).__name__}); download "
            f"it again"
        ) from error
    if isinstance(found, Tensor):
        _refuse_key(path, key)
        return None, found
    if not isinstance(found, Mapping):
        raise ValueError(
            f"{path}: holds a {type(found).__name__}, not a tensor; write it by "
            f"torch.save(torch.stack(list(...)), 'features.pth')"
        )
    return _chosen(path, _tensors(found), key)


def _tensors(found: Mapping[Any, Any], before: str = "") -> dict[str, Tensor]:
    """All tensors of tables within tables, by their joined names."""
    tensors: dict[str, Tensor] = {}
    for name, value in found.items():
        if isinstance(value, Tensor):
            tensors[f"{before}{name}"] = value
        elif isinstance(value, Mapping):
            tensors |= _tensors(value, f"{before}{name}.")
    return tensors


def _npy(path: Path, key: str | None) -> Read:
    _refuse_key(path, key)
    with path.open("rb") as file:
        start = file.read(len(NUMPY))
    if start != NUMPY:
        raise ValueError(f"{path}: is no .npy file, perhaps one that holds code; {CONVERT}")
    try:
        # Copy on write: torch warns of memory that it may not write to.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        if "Python objects" in str(error):
            raise ValueError(f"{path}: holds objects, perhaps code; {CONVERT}") from error
        raise ValueError(f"{path}: cannot be read as .npy ({error}); download it again") from error
    return None, _from_numpy(path, array)


def _h5(path: Path, key: str | None) -> Read:
    try:
        import h5py
    except ImportError as error:
        raise ValueError(f"{path}: to read HDF5 files, pip install 'mocme[tensors]'") from error
    found: dict[str, Any] = {}

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item

    try:
        with h5py.File(path, "r") as file:
            # Goes through what the file itself holds, not through links to other files.
            file.visititems(note)
            name = _name(path, list(found), key)
            data = found[name]
            if data.external or data.is_virtual:
                raise ValueError(f"{path}: {name} lies in other files; write it into one file")
            if data.dtype.kind not in "fiub":
                raise ValueError(f"{path}: {name} holds {data.dtype}, not numbers")
            array = np.asarray(data[()])
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path}: cannot be read as HDF5 ({error}); download it again") from error
    return name, _from_numpy(path, array)


def _safetensors(path: Path, key: str | None) -> Read:
    from mocme.data.modality import read_safetensors

    tensors, _ = read_safetensors(path)
    return _chosen(path, tensors, key)


READERS: Mapping[str, Callable[[Path, str | None], Read]] = {
    ".pth": _torch,
    ".pt": _torch,
    ".npy": _npy,
    ".h5": _h5,
    ".hdf5": _h5,
    ".safetensors": _safetensors,
}


def _chosen(path: Path, tensors: Mapping[str, Tensor], key: str | None) -> Read:
    name = _name(path, list(tensors), key)
    return name, tensors[name]


def _name(path: Path, names: list[str], key: str | None) -> str:
    """The tensor that is asked for, or the only one."""
    listed = ", ".join(names[:12]) + (f" and {len(names) - 12:,} more" if len(names) > 12 else "")
    if key is not None and key not in names:
        raise ValueError(f"{path}: holds no {key!r}; key is one of: {listed or 'nothing'}")
    if key is None and len(names) != 1:
        if not names:
            raise ValueError(f"{path}: holds no tensor; check that it is the right file")
        raise ValueError(f"{path}: holds {len(names):,} tensors; say which by key: {listed}")
    return names[0] if key is None else key


def _refuse_key(path: Path, key: str | None) -> None:
    if key is not None:
        raise ValueError(f"{path}: holds one tensor without a name; leave out key = {key!r}")


def _from_numpy(path: Path, array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: holds {array.dtype}, not numbers")
    if array.dtype.kind != "f" or not array.dtype.isnative or array.dtype.itemsize > 8:
        array = array.astype(np.float32)
    return torch.from_numpy(array)


def _table(path: Path, values: Tensor) -> Float[Tensor, "n F"]:
    """The values as rows of floating point.

    Raises:
        ValueError: they are no table of real numbers.
    """
    if values.layout != torch.strided or values.is_quantized or values.is_complex():
        raise ValueError(f"{path}: holds {values.layout} {values.dtype}; make it dense and real")
    if values.ndim != 2 or not values.numel():
        more = "; with several vectors an entity, average them" if values.ndim == 3 else ""
        raise ValueError(
            f"{path}: has shape {tuple(values.shape)}; needed is (n, F), one row an entity{more}"
        )
    values = values.detach()
    return values if values.is_floating_point() else values.float()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
