"""A small benchmark on a tiny graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_benchmark import TEXT


@pytest.fixture(autouse=True)
def no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's choice of a precision takes longer than a tiny training."""
    monkeypatch.setattr("mocme.experts.embedding.settings.faster_precision", lambda *_: "float32")


@pytest.fixture
def home(tmp_path: Path, tiny_graph: Callable[..., Any], tiny_folder: Callable[..., Any]) -> Path:
    """A folder with a benchmark file and the graph that it names."""
    tiny_folder(tmp_path / "tiny", tiny_graph())
    (tmp_path / "small.toml").write_text(TEXT)
    return tmp_path
