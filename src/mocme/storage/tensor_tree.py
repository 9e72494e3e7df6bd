"""Nested states as files: tensors in safetensors and the rest in JSON, exact to the bit.

Optimizers and training loops keep their state in nested dicts and lists. `pack` splits such a tree
into the two parts that these formats can hold, `unpack` joins them. Nothing is ever pickled.
"""

import os
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

Tree: TypeAlias = Any  # nested dict, list and tuple of Tensor, int, float, str, bool and None


def pack(tree: Tree) -> tuple[dict[str, Tensor], Any]:
    """Split a tree into its tensors and a skeleton that JSON can hold.

    An object of the skeleton has one key, which says what it stands for: no dict is mistaken for
    a mark. An OrderedDict comes back as a dict, a tensor without its history of gradients.

    Raises TypeError for other types, even subclasses (NumPy's float): they would come back changed.
    """
    tensors: dict[str, Tensor] = {}

    def encode(node: Any, where: str) -> Any:
        kind = type(node)
        if node is None or kind in (bool, int, str):
            return node
        if kind is float:  # JSON has no infinity and no NaN; it writes the others exactly
            finite = abs(node) < float("inf")
            return node if finite else {"float": struct.pack(">d", node).hex()}
        if isinstance(node, Tensor):
            tensors[key := str(len(tensors))] = node.detach()
            return {"tensor": key}
        if kind in (list, tuple):
            items = [encode(item, f"{where}[{i}]") for i, item in enumerate(node)]
            return items if kind is list else {"tuple": items}
        if kind in (dict, OrderedDict):
            keys = [encode(key, f"a key of {where}") for key in node]
            values = [encode(value, f"{where}[{key!r}]") for key, value in node.items()]
            return {"dict": [list(pair) for pair in zip(keys, values, strict=True)]}
        name = f"{kind.__module__}.{kind.__qualname__}"
        raise TypeError(f"{where} is a {name}: use tensors, plain numbers, strings, lists, dicts")

    return tensors, encode(tree, "state")


def unpack(tensors: Mapping[str, Tensor], skeleton: Any) -> Tree:
    """The tree that `pack` split. Raises ValueError if the two parts are not from one `pack`."""
    marks: dict[str, Callable[[Any], Any]] = {
        "float": lambda held: struct.unpack(">d", bytes.fromhex(held))[0],
        "tensor": lambda held: tensors[held],
        "tuple": lambda held: tuple(map(decode, held)),
        "dict": lambda held: {decode(key): decode(value) for key, value in held},
    }

    def decode(node: Any) -> Any:
        if isinstance(node, dict):
            ((mark, held),) = node.items()
            return marks[mark](held)
        return [decode(item) for item in node] if isinstance(node, list) else node

    try:
        return decode(skeleton)
    except (TypeError, LookupError, ValueError, struct.error) as error:
        raise ValueError(f"the state does not fit its tensors: {error!r}") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> None:
    """Write a safetensors file from tensors of any device.

    Raises one of several errors for what the format lacks (sparse, complex128), OSError where the
    disk is full or refuses.
    """
    if "__metadata__" in tensors:
        raise ValueError("safetensors reserves the name __metadata__")
    plain: dict[str, Tensor] = {}
    addresses: set[int] = set()
    for key, tensor in tensors.items():
        dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        # safetensors refuses tensors that share memory (tied weights): each gets its own.
        address = dense.untyped_storage().data_ptr()
        plain[key] = dense.clone() if address in addresses else dense
        addresses.add(address)
    path.touch()
    mode = path.stat().st_mode  # save_file ignores the umask: nobody else could read the run
    try:
        save_file(plain, path, dict(meta) or None)  # {} would make an unreadable header
    except SafetensorError as error:
        # The library tells of a full disk as of a wrong tensor.
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            code = int(number[1])
            raise OSError(code, os.strerror(code), str(path)) from error
        raise
    path.chmod(mode)


def load_tensors(path: Path, device: str | torch.device) -> dict[str, Tensor]:
    """The tensors of a safetensors file in the order of their names, independent of the file."""
    found: dict[str, Tensor] = load_file(path, str(device))
    # On the CPU they are windows on the file: a later change of the file would reach them, and
    # their alignment depends on the header, which vectorised sums can show in the last bit.
    return {key: t.clone() if t.device.type == "cpu" else t for key, t in sorted(found.items())}
