"""What all tests share: shapes are checked, one thread, small random graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

# Before anything of the package is imported: shape annotations are checked under test only. The
# rooms without tensors stay out: their tests hand them wrong content on purpose.
DATA = ("graph", "modality", "strings", "words", "paths", "load", "features", "formats", "ingest")
ROOMS = (
    *(f"data.{name}" for name in (*DATA, "pairs", "quality", "benchmarks")),
    *("encoders", "experts", "mixture", "evaluation", "prediction", "explanation"),
    *("inductive", "calibration", "runs"),
)
install_import_hook([f"mocme.{room}" for room in ROOMS], "beartype.beartype")

from tiny_graphs import Tiny, make_tiny, write_tiny  # noqa: E402

settings.register_profile("mocme", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("mocme")
torch.set_num_threads(1)
torch.set_warn_always(True)  # a warning is an error in whichever test comes first


@pytest.fixture(scope="session")
def tiny_graph() -> Callable[..., Tiny]:
    """The factory of tiny random graphs."""
    return make_tiny


@pytest.fixture(scope="session")
def tiny_folder() -> Callable[[Path, Tiny], Path]:
    """Writes a tiny graph as a folder."""
    return write_tiny
