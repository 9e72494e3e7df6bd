"""Nested states survive packing to the bit; other types are refused."""

import json
import resource
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from mocme.storage.tensor_tree import pack, save_tensors, unpack

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
]


def same(left: Any, right: Any) -> bool:
    """Compare values, types, the order of keys and the bits of floats."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return (
            left.dtype == right.dtype
            and left.shape == right.shape
            and torch.equal(bits(left), bits(right))
        )
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            same(k, m) and same(v, w)
            for (k, v), (m, w) in zip(left.items(), right.items(), strict=True)
        )
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return np.float64(left).tobytes() == np.float64(right).tobytes()
    return bool(left == right)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


tensors = st.builds(
    lambda dtype, shape, seed: (
        torch.randint(
            0, 256, (*shape, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
        )
        .view(torch.int64)
        .remainder(5)
        .reshape(shape)
        .to(dtype)
    ),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3),
    st.integers(0, 99),
)
keys = st.one_of(st.text(max_size=4), st.integers(), st.none(), st.tuples(st.integers()))
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), tensors
)
nested = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.sampled_from(["dict", "tensor"]), keys), inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(tree=nested)
def test_a_tree_survives_as_tensors_and_json(tree: Any) -> None:
    parts, skeleton = pack(tree)
    assert all(type(key) is str and "/" not in key for key in parts)
    text = json.dumps(skeleton, allow_nan=False)
    assert same(unpack(parts, json.loads(text)), tree)


def test_an_ordered_dict_is_restored_as_a_dict() -> None:
    parts, skeleton = pack(OrderedDict(b=1, a=2))
    assert same(unpack(parts, skeleton), {"b": 1, "a": 2})


@pytest.mark.parametrize(
    "value", [np.float64(1.0), {1, 2}, b"x", object(), torch.Size([1]), torch.float32]
)
def test_the_error_about_an_unsupported_type_names_its_path(value: Any) -> None:
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a .*" + type(value).__name__):
        pack({"a": [0, value]})


@pytest.mark.parametrize(
    "skeleton",
    [{"tensor": "9"}, {"odd": 1}, {}, {"float": "zz"}, {"float": "00"}, {"a": 1, "b": 2},
     {"dict": [[[1], 2]]}, {"tuple": 3}],
)  # fmt: skip
def test_a_skeleton_that_does_not_fit_is_refused(skeleton: Any) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        unpack({}, skeleton)


def test_a_full_disk_is_an_os_error_that_names_the_file(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save_tensors(tmp_path / "it.safetensors", {"large": torch.zeros(1_000_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(tmp_path / "it.safetensors")


def test_equal_tensors_and_metadata_are_equal_files(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(5), "a": torch.ones(2, 3)}
    odd = '\u00e9\U0001f600\x01\n"\\\x7f/\u2028'
    metadata = {f"{odd}{n}": odd * n for n in range(9)}
    contents = set()
    for n in range(20):
        save_tensors(tmp_path / str(n), tensors, metadata)
        contents.add((tmp_path / str(n)).read_bytes())
    assert len(contents) == 1
    with safe_open(tmp_path / "0", "pt") as file:
        assert file.metadata() == metadata
        assert torch.equal(file.get_tensor("a"), tensors["a"])
        assert torch.equal(file.get_tensor("b"), tensors["b"])
