"""Pretrained models by name or folder: nothing comes from the network unless it is allowed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


@contextmanager
def extra(package: str, name: str) -> Iterator[None]:
    """Turns a missing package into an error that names the extra that brings it.

    Raises:
        ValueError: `package` is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f'{package} is not installed; install it with: pip install "mocme[{name}]" ({error})'
        ) from error


@contextmanager
def loading(model: str, allow_download: bool) -> Iterator[None]:
    """Turns what goes wrong while a model is loaded into an error with a remedy."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        remedy = (
            "check its name, and whether the hub can be reached"
            if allow_download
            else "name a folder that holds it, or allow the download with --allow-download"
        )
        raise ValueError(f"the model {model!r} cannot be loaded: {reason}; {remedy}") from error


def revision(model: str, loaded: Any = None) -> str:
    """What tells one version of a model's weights from another: a digest, or the hub's commit."""
    folder = Path(model)
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.suffix in _WEIGHTS)
        total = hashlib.sha256()
        for path in files:
            total.update(sha256(path).encode())
        return f"sha256 {total.hexdigest()}"
    commit = getattr(getattr(loaded, "config", None), "_commit_hash", None)
    return f"commit {commit}" if commit else "unknown"


def sha256(path: Path) -> str:
    """The digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
