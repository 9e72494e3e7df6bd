"""Nested states as files: tensors in safetensors and the rest in JSON, exact to the bit.

Optimizers and training loops have their state in nested dicts and lists. `pack` splits such a tree
into one part for each format, `unpack` joins them. Nothing is ever pickled.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

Tree: TypeAlias = Any  # nested dict, list and tuple of Tensor, int, float, str, bool and None


def pack(tree: Tree) -> tuple[dict[str, Tensor], Any]:
    """Split a tree into its tensors and a skeleton that JSON can represent.

    Every object of the skeleton has a single key, a mark that gives its type: a dict is an object
    with the mark "dict", so its keys cannot be mistaken for marks. An OrderedDict is restored as a
    dict, a tensor without its autograd history.

    Raises:
        TypeError: a type other than those of `Tree`, or a subclass (such as NumPy's float), which
            would be restored as another type.
    """
    tensors: dict[str, Tensor] = {}

    def encode(node: Any, path: str) -> Any:
        kind = type(node)
        if node is None or kind in (bool, int, str):
            return node
        if kind is float:  # JSON has no infinity and no NaN; other floats survive exactly
            is_finite = abs(node) < float("inf")
            return node if is_finite else {"float": struct.pack(">d", node).hex()}
        if isinstance(node, Tensor):
            tensors[key := str(len(tensors))] = node.detach()
            return {"tensor": key}
        if kind in (list, tuple):
            items = [encode(item, f"{path}[{i}]") for i, item in enumerate(node)]
            return items if kind is list else {"tuple": items}
        if kind in (dict, OrderedDict):
            keys = [encode(key, f"a key of {path}") for key in node]
            values = [encode(value, f"{path}[{key!r}]") for key, value in node.items()]
            return {"dict": [list(pair) for pair in zip(keys, values, strict=True)]}
        name = f"{kind.__module__}.{kind.__qualname__}"
        raise TypeError(f"{path} is a {name}: use tensors, plain numbers, strings, lists, dicts")

    return tensors, encode(tree, "state")


def unpack(tensors: Mapping[str, Tensor], skeleton: Any) -> Tree:
    """Restore the tree that `pack` split.

    Raises:
        ValueError: the two parts do not belong together.
    """
    marks: dict[str, Callable[[Any], Any]] = {
        "float": lambda digits: struct.unpack(">d", bytes.fromhex(digits))[0],
        "tensor": lambda key: tensors[key],
        "tuple": lambda items: tuple(map(decode, items)),
        "dict": lambda items: {decode(key): decode(value) for key, value in items},
    }

    def decode(node: Any) -> Any:
        if isinstance(node, dict):
            ((mark, content),) = node.items()
            return marks[mark](content)
        return [decode(item) for item in node] if isinstance(node, list) else node

    try:
        return decode(skeleton)
    except (TypeError, LookupError, ValueError, AttributeError, struct.error) as error:
        raise ValueError(f"the state does not fit its tensors: {error!r}") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> None:
    """Write a safetensors file from tensors on any device.

    Raises:
        OSError: the disk is full or cannot be written.
        Exception: one of `atomic_io.FORMAT_ERRORS`, for content that the format does not support
            (sparse, complex128).
    """
    if "__metadata__" in tensors:
        raise ValueError("safetensors reserves the name __metadata__")
    to_save: dict[str, Tensor] = {}
    addresses: set[int] = set()
    for key, tensor in tensors.items():
        dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        # safetensors refuses tensors that share memory (tied weights), so each is copied.
        address = dense.untyped_storage().data_ptr()
        to_save[key] = dense.clone() if address in addresses else dense
        addresses.add(address)
    path.touch()
    mode = path.stat().st_mode  # save_file ignores the umask, and nobody else could read the run
    try:
        save_file(to_save, path, dict(meta) or None)  # {} would give an unreadable header
    except SafetensorError as error:
        # The library reports a full disk with the same error as a wrong tensor.
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            code = int(number[1])
            raise OSError(code, os.strerror(code), str(path)) from error
        raise
    _sort_metadata(path)
    path.chmod(mode)


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a new file in alphabetical order, in place.

    The library writes it in another order each time, and equal contents need equal digests.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        metadata = header.get("__metadata__")
        if metadata is None:
            return
        header["__metadata__"] = dict(sorted(metadata.items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) > size:
            raise ValueError("the metadata cannot be put in order")
        file.seek(8)
        file.write(text.ljust(size))


def load_tensors(path: Path, device: str | torch.device) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, sorted by name, into memory of their own."""
    loaded: dict[str, Tensor] = load_file(path, str(device))
    # On the CPU they are memory-mapped: a later change of the file would change them, and their
    # alignment depends on the header, which can change the last bit of vectorised sums.
    return {key: t.clone() if t.device.type == "cpu" else t for key, t in sorted(loaded.items())}


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file."""
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})
