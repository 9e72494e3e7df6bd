"""Published feature tensors: one row per entity, in the order of the published ids.

``.pth`` and ``.pt`` (without running code in them), ``.npy``, ``.h5`` and ``.safetensors``. Pickles
are not read, because reading one runs any code that it contains.
"""

from __future__ import annotations

import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mocme.core.device import memory_of_machine
from mocme.core.digest import file_digest
from mocme.core.extras import extra
from mocme.core.files import check_regular
from mocme.data.modality_files import read_safetensors

# Environment variable: GiB that a tensor may take, instead of half of the memory.
LIMIT = "MOCME_TENSOR_GIB"
# Of tables in a file of torch: levels, and how many are looked through.
MAX_DEPTH = 100
MAX_TABLES = 100_000
NUMPY = b"\x93NUMPY"
CONVERT = (
    "if you trust its author, load it once as its author says and write it as numbers only, with "
    "numpy.save('features.npy', array) or torch.save(tensor, 'features.pth')"
)


def read(path: str | Path, key: str | None = None) -> tuple[Float[Tensor, "n F"], dict[str, str]]:
    """Read a table of vectors; row i belongs to the entity with the published id i.

    Integers become float32. `.npy` and newer `.pth` files are memory-mapped copy-on-write, so
    changing the values never changes the file.

    Args:
        key: the tensor to read from a file that holds several; nested names are joined by ``.``
            (in ``.h5`` by ``/``).

    Returns:
        The values and their provenance.

    Raises:
        ValueError: the file is absent or damaged, contains code or several tensors, or is not a
            table of real numbers.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if path.suffix.lower() in (".pkl", ".pickle"):
        raise ValueError(f"{path}: pickles are not read, because they can contain code; {CONVERT}")
    if reader is None:
        raise ValueError(f"{path}: its ending is none of {', '.join(READERS)}; {CONVERT}")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; download it or correct the path")
    if (size := path.stat().st_size) > _memory():
        raise _too_large(path, "it", size)
    try:
        chosen, values = reader(path, key)
        values = _table(path, values)
    except (ValueError, *_LIBRARY_ERRORS) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise  # written here, and names the file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: cannot be read ({reason}); download it again") from error
    provenance = {"source": str(path), "sha256": file_digest(path), "matched by": "row number"}
    if chosen is not None:
        provenance["key"] = chosen
    return values, provenance


# What the libraries raise for headers and directories that nobody writes.
_LIBRARY_ERRORS = (
    *(MemoryError, RuntimeError, TypeError, AttributeError, ArithmeticError, LookupError),
    *(OSError, EOFError, struct.error, zlib.error, zipfile.BadZipFile),
)
# A tensor and its key, None if the file holds one tensor without a name.
KeyedTensor = tuple[str | None, Tensor]


def _torch(path: Path, key: str | None) -> KeyedTensor:
    mapped = zipfile.is_zipfile(path)
    if mapped:
        _check_zip(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    # For code, torch raises a class of the pickle module, which this package does not import.
    except Exception as error:
        reason = str(error).strip().splitlines()
        if "weights_only" in str(error) or "Weights only" in str(error):
            raise ValueError(
                f"{path}: contains more than tensors, perhaps code; {CONVERT}"
            ) from error
        raise ValueError(
            f"{path}: cannot be read ({reason[0] if reason else type(error).__name__}); download "
            f"it again"
        ) from error
    if isinstance(content, Tensor):
        _refuse_key(path, key)
        return None, content
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path}: holds a {type(content).__name__}, not a tensor; write it with "
            f"torch.save(torch.stack(list(...)), 'features.pth')"
        )
    return _choose(path, _flatten(path, content), key)


def _check_zip(path: Path) -> None:
    """Refuse compressed entries: torch.save writes none, and a small one may become terabytes.

    Raises:
        ValueError: an entry is compressed, or the archive is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); download it again") from error
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > path.stat().st_size:
            raise ValueError(
                f"{path}: its entry {entry.filename!r} is compressed, which torch.save never does; "
                f"{CONVERT}"
            )


def _flatten(path: Path, tables: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of nested tables, by their joined names.

    Raises:
        ValueError: tables are nested more than `MAX_DEPTH` levels deep, as in one that contains
            itself, or are more than `MAX_TABLES`, as where each is twice in the one above it.
    """
    tensors: dict[str, Tensor] = {}
    waiting: list[tuple[str, int, Mapping[Any, Any]]] = [("", 1, tables)]
    read = 0
    while waiting:
        prefix, depth, table = waiting.pop()
        read += 1
        if depth > MAX_DEPTH or read > MAX_TABLES:
            raise ValueError(
                f"{path}: its tables are nested more than {MAX_DEPTH} levels deep, contain "
                f"themselves, or are more than {MAX_TABLES:,}; {CONVERT}"
            )
        for name, value in table.items():
            if isinstance(value, Tensor):
                tensors[f"{prefix}{name}"] = value
            elif isinstance(value, Mapping):
                waiting.append((f"{prefix}{name}.", depth + 1, value))
    return tensors


def _npy(path: Path, key: str | None) -> KeyedTensor:
    _refuse_key(path, key)
    with path.open("rb") as file:
        start = file.read(len(NUMPY))
    if start != NUMPY:
        raise ValueError(f"{path}: is not an .npy file, perhaps a pickle with code; {CONVERT}")
    try:
        array = map_npy(path)
    except (OSError, ValueError, EOFError) as error:
        if "Python objects" in str(error):
            raise ValueError(f"{path}: contains objects, perhaps code; {CONVERT}") from error
        raise ValueError(f"{path}: cannot be read as .npy ({error}); download it again") from error
    return None, _from_numpy(path, array)


def map_npy(path: Path) -> np.ndarray:
    """The array of an ``.npy`` file, memory-mapped copy on write.

    Raises:
        ValueError, EOFError: it is no such file, contains objects, or declares more than it has.
        OSError: it cannot be read.
    """
    check_regular(path)
    _check_npy(path)
    # Copy-on-write, because torch warns about read-only memory.
    array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
    return array


def _h5(path: Path, key: str | None) -> KeyedTensor:
    with extra("h5py", "tensors", f"{path}: HDF5 files need"):
        import h5py
    datasets: dict[str, Any] = {}

    def collect(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            datasets[name] = item

    try:
        with h5py.File(path, "r") as file:
            # Visits the items of this file, without following links to other files.
            file.visititems(collect)
            name = _choose_name(path, list(datasets), key)
            data = datasets[name]
            if data.external or data.is_virtual:
                raise ValueError(f"{path}: {name} is stored in other files; write it into one file")
            if data.dtype.kind not in "fiub":
                raise ValueError(f"{path}: {name} holds {data.dtype}, not numbers")
            # Compressed or never written, a file of a few kilobytes may declare terabytes.
            if data.size * max(4, data.dtype.itemsize) > _memory():
                raise _too_large(path, name, data.size * max(4, data.dtype.itemsize))
            array = np.asarray(data[()])
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path}: cannot be read as HDF5 ({error}); download it again") from error
    return name, _from_numpy(path, array)


def _safetensors(path: Path, key: str | None) -> KeyedTensor:
    tensors, _ = read_safetensors(path)
    return _choose(path, tensors, key)


READERS: Mapping[str, Callable[[Path, str | None], KeyedTensor]] = {
    ".pth": _torch,
    ".pt": _torch,
    ".npy": _npy,
    ".h5": _h5,
    ".hdf5": _h5,
    ".safetensors": _safetensors,
}


def _choose(path: Path, tensors: Mapping[str, Tensor], key: str | None) -> KeyedTensor:
    name = _choose_name(path, list(tensors), key)
    return name, tensors[name]


def _choose_name(path: Path, names: list[str], key: str | None) -> str:
    """The name of the requested tensor, or of the only one.

    Raises:
        ValueError: there is no such tensor, none at all, or several and no `key`.
    """
    listed = ", ".join(names[:12]) + (f" and {len(names) - 12:,} more" if len(names) > 12 else "")
    if key is not None and key not in names:
        raise ValueError(f"{path}: holds no {key!r}; key is one of: {listed or 'nothing'}")
    if key is None and len(names) != 1:
        if not names:
            raise ValueError(f"{path}: holds no tensor; check that it is the right file")
        raise ValueError(f"{path}: holds {len(names):,} tensors; choose one with key: {listed}")
    return names[0] if key is None else key


def _memory() -> int:
    """Bytes that a tensor may take."""
    if limit := os.environ.get(LIMIT):
        try:
            return int(float(limit) * 2**30)
        except (ValueError, OverflowError):
            raise ValueError(f"{LIMIT}={limit}: must be a number of GiB") from None
    return memory_of_machine() // 2


def _too_large(path: Path, name: str, size: int) -> ValueError:
    return ValueError(
        f"{path}: {name} takes {size / 2**30:,.1f} GiB, and a tensor may take "
        f"{_memory() / 2**30:,.1f} GiB (half of this machine's memory); set {LIMIT} to a larger "
        f"number of GiB, or write fewer rows"
    )


def _check_npy(path: Path) -> None:
    """Compare the size that a header declares with that of the file.

    Raises:
        ValueError: the file is shorter, or its header is not one of numbers.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if reader is None:
            raise ValueError(f"version {version} of the format is not known")
        try:
            shape, _, dtype = reader(file)
        except (SyntaxError, tokenize.TokenError, RecursionError) as error:
            raise ValueError("its header cannot be parsed") from error
        size = math.prod(shape) * dtype.itemsize
        if any(n < 0 for n in shape) or size > path.stat().st_size - file.tell():
            raise ValueError(f"its header declares {size:,} bytes, more than it has")


def _refuse_key(path: Path, key: str | None) -> None:
    if key is not None:
        raise ValueError(f"{path}: holds one tensor without a name; leave out key = {key!r}")


def _from_numpy(path: Path, array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: holds {array.dtype}, not numbers")
    # torch has no tensors with steps backwards.
    if any(step < 0 for step in array.strides):
        array = array.copy()
    if array.dtype.kind != "f" or not array.dtype.isnative or array.dtype.itemsize > 8:
        array = array.astype(np.float32)
    return torch.from_numpy(array)


def _table(path: Path, values: Tensor) -> Float[Tensor, "n F"]:
    """The values as rows of floating point numbers.

    Raises:
        ValueError: they are not a table of real numbers.
    """
    if values.layout != torch.strided or values.is_quantized or values.is_complex():
        raise ValueError(f"{path}: holds {values.layout} {values.dtype}; make it dense and real")
    if values.is_nested or values.device.type != "cpu":
        raise ValueError(f"{path}: holds a tensor without values; write a dense one")
    # A tensor of torch may repeat one stored number any number of times.
    if values.numel() * max(4, values.itemsize) > _memory():
        raise _too_large(path, "its tensor", values.numel() * max(4, values.itemsize))
    if values.ndim != 2 or not values.numel():
        more = "; average several vectors per entity" if values.ndim == 3 else ""
        raise ValueError(
            f"{path}: has shape {tuple(values.shape)}; needed is (n, F), one row per entity{more}"
        )
    values = values.detach()
    return values if values.is_floating_point() else values.float()
