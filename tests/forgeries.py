"""Files of a run as somebody else may have changed them, with checksums that fit."""

from __future__ import annotations

import copy
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tomli_w
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

DEEP = "[" * 5000 + "]" * 5000
# JSON texts that take the place of a value.
FEW = ("null", '"x"', "-1", "1e999", "[]", DEEP)
ODD = ("null", '"x"', "-1", "1e999", "[]", "{}", DEEP, "1" + "0" * 40, '"\\ud800"', "true", "NaN")
# Tensors of one file that are forged.
MOST_TENSORS = 12
MARK = "the place of a value"


def seal(path: Path) -> None:
    """Write the checksum that fits a file."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values in nested objects and lists; of a long list its ends."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = [(n, value[n]) for n in sorted({0, len(value) - 1}) if value]
    else:
        return
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def _parent(value: Any, path: tuple[Any, ...]) -> tuple[Any, Any]:
    for key in path[:-1]:
        value = value[key]
    return value, path[-1]


def without(value: Any, path: tuple[Any, ...]) -> Any:
    """A copy without the value at a path."""
    changed = copy.deepcopy(value)
    parent, key = _parent(changed, path)
    del parent[key]
    return changed


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at a path."""
    changed = copy.deepcopy(value)
    parent, key = _parent(changed, path)
    parent[key] = new
    return changed


def json_texts(value: Any, odds: Sequence[str] = ODD) -> Iterator[tuple[str, str]]:
    """Yield forged JSON texts of a value, each with what was done."""
    for odd in ODD:
        yield f"all is {odd[:12]}", odd
    yield "cut", json.dumps(value)[:-2]
    if isinstance(value, dict):
        yield "unknown key", json.dumps({**value, "unknown": 1})
        yield "key twice", json.dumps(value)[:-1] + f", {json.dumps(next(iter(value)))}: 1}}"
    for path in places(value):
        yield f"without {path}", json.dumps(without(value, path))
        text = json.dumps(replaced(value, path, MARK))
        for odd in odds:
            yield f"{path} is {odd[:12]}", text.replace(json.dumps(MARK), odd)


def toml_texts(table: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield forged TOML texts of a table, each with what was done."""
    yield "deep", f"{tomli_w.dumps(table)}\n[expected]\nx = {DEEP}\n"
    yield "deep keys", f"{tomli_w.dumps(table)}\n[{'.'.join('a' * 3000)}]\n"
    yield "empty", ""
    yield "unknown key", tomli_w.dumps({**table, "unknown": 1})
    odds = ("x", float("inf"), 10**30, 10**9)
    for path in places(table):
        if len(path) > 3:
            continue
        yield f"without {path}", tomli_w.dumps(without(table, path))
        for odd in odds:
            yield f"{path} is {odd!r}", tomli_w.dumps(replaced(table, path, odd))


def log_text(records: list[str]) -> bytes:
    """Lines of a log from JSON objects, with checksums that fit."""
    lines = []
    for record in records:
        prefix = (record[:-1] + (", " if len(record) > 2 else "")).encode()
        lines.append(prefix + b'"_crc32": "%08x"}\n' % zlib.crc32(prefix))
    return b"".join(lines)


Packed = tuple[dict[str, Tensor], dict[str, str]]


def read_packed(path: Path) -> Packed:
    """The tensors and metadata of a file, in memory of their own: the file is written again."""
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        tensors = {name: file.get_tensor(name).clone() for name in names}
        return tensors, dict(file.metadata() or {})


def write_packed(path: Path, packed: Packed) -> None:
    """Write tensors and metadata, with a checksum that fits."""
    tensors, metadata = packed
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in tensors.items()},
        path,
        metadata or None,
    )
    seal(path)


def _with_first(tensor: Tensor, value: float) -> Tensor:
    changed = tensor.clone()
    changed.view(-1)[0] = value
    return changed


def _with_last(tensor: Tensor, value: float) -> Tensor:
    changed = tensor.clone()
    changed.view(-1)[-1] = value
    return changed


def tensor_changes(tensor: Tensor, thorough: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Yield forged tensors, each with what was done."""
    yield "other type", tensor.double() if tensor.dtype != torch.float64 else tensor.float()
    yield "one row less", tensor[:-1] if tensor.ndim else tensor.reshape(1)
    if tensor.numel() and tensor.is_floating_point():
        yield "last nan", _with_last(tensor, float("nan"))
    elif tensor.numel() and tensor.dtype == torch.int64:
        yield "last beyond", _with_last(tensor, 10**6)
    if not thorough:
        return
    yield "integers", tensor.to(torch.int32)
    yield "truth values", tensor.to(torch.bool)
    yield "one row more", torch.cat([tensor, tensor[-1:]]) if tensor.ndim else tensor.repeat(2)
    yield "another dimension", tensor.unsqueeze(0)
    yield "flat", tensor.flatten() if tensor.ndim != 1 else tensor.unsqueeze(1)
    yield "no dimension", tensor.flatten()[:1].sum()
    yield "empty", tensor.flatten()[:0]
    yield "no entries", tensor.new_zeros(0, *tensor.shape[1:])
    if tensor.numel() and tensor.is_floating_point():
        yield "first inf", _with_first(tensor, float("inf"))
        yield "last -inf", _with_last(tensor, -float("inf"))
    elif tensor.numel() and tensor.dtype == torch.int64:
        yield "first below 0", _with_first(tensor, -5)
        yield "last large", _with_last(tensor, 2**62)


def packed_changes(packed: Packed) -> Iterator[tuple[str, Packed]]:
    """Yield forged files of tensors, each with what was done; like tensors are not all forged."""
    tensors, metadata = packed
    yield "unknown tensor", ({**tensors, "unknown": torch.zeros(2)}, metadata)
    seen = set()
    for number, (name, tensor) in enumerate(tensors.items()):
        if number >= MOST_TENSORS:
            break
        if len(tensors) > 1:
            yield f"without {name}", ({k: t for k, t in tensors.items() if k != name}, metadata)
        form = (tensor.dtype, tensor.ndim)
        for what, changed in tensor_changes(tensor, thorough=form not in seen):
            yield f"{name}: {what}", ({**tensors, name: changed}, metadata)
        seen.add(form)
    for key in metadata:
        yield f"without {key}", (tensors, {k: v for k, v in metadata.items() if k != key})
        for odd in ("", *FEW, '"\\ud800"'):
            yield f"{key} is {odd[:12]}", (tensors, {**metadata, key: odd})


def refusals(
    cases: Iterator[tuple[str, Any]],
    write: Callable[[Any], None],
    ask: Callable[[], Any],
    expected: Any,
    name: str,
) -> dict[str, str]:
    """Ask a run with each forgery.

    Args:
        cases: what was done, and the forged content.
        write: stores content.
        ask: answers questions.
        expected: the answers of the run as it was.
        name: that a refusal has to name.

    Returns:
        What was done to the refusal, or "accepted" where nothing changed.

    Raises:
        AssertionError: another exception, a refusal without the name, or another answer.
    """
    results = {}
    for what, content in cases:
        write(content)
        try:
            answer = ask()
        except ValueError as error:
            text = str(error)
            assert name in text, f"{what}: {text}"
            assert "\n" not in text, f"{what}: {text}"
            results[what] = text
        except Exception as error:
            raise AssertionError(f"{name}, {what}: {error!r}") from error
        else:
            assert answer == expected, f"{name}, {what}: another answer"
            results[what] = "accepted"
    return results
