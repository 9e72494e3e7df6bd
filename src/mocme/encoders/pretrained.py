"""Pretrained models by name or folder; nothing is downloaded unless it is allowed."""

from __future__ import annotations

import hashlib
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mocme.core.digest import file_digest
from mocme.encoders.items import extra as extra

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


def check_model_name(model: str) -> None:
    """Refuse an empty model name.

    Raises:
        ValueError: it is empty.
    """
    if not model.strip():
        raise ValueError(
            "model is the folder of a model or its name on a hub, and must not be empty"
        )


@contextmanager
def loading(model: str, allow_download: bool) -> Iterator[None]:
    """Turn an error while a model is loaded into one with a remedy.

    Raises:
        ValueError: the model cannot be loaded.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = textwrap.shorten(str(error).strip().partition("\n")[0], 200, placeholder=" ...")
        if Path(model).exists():
            remedy = "check the files in that folder"
        elif allow_download:
            remedy = "check its name, and that the hub can be reached"
        else:
            remedy = "name a folder that holds it, or allow the download with --allow-download"
        raise ValueError(f"the model {model!r} cannot be loaded: {reason}; {remedy}") from error


# Weights that a checkpoint may lack: an output layer that is then not used, parts that only
# training needs, and tables that follow from the sizes.
_POOLER, _OPTIONAL = "pooler", ("mask", "position_ids", "num_batches_tracked")


def load_settings(kind: Any, model: str, allow_download: bool, **options: Any) -> Any:
    """Load a model's settings with a class of transformers (AutoConfig, AutoFeatureExtractor, ...).

    Raises:
        ValueError: they cannot be loaded; with the remedy.
    """
    if model.startswith(("/", "./", "../", "~")) and not Path(model).is_dir():
        raise ValueError(f"the model {model!r} cannot be loaded: there is no such folder")
    with loading(model, allow_download), _quiet():
        return kind.from_pretrained(
            model, local_files_only=not allow_download, trust_remote_code=False, **options
        )


def load_network(kind: Any, model: str, allow_download: bool) -> tuple[Any, bool]:
    """Load a network with a class of transformers, in float32 and evaluation mode.

    Returns:
        The network, and whether the weights of its pooler, if it has one, were loaded. A checkpoint
        for another task may lack them; they are random then.

    Raises:
        ValueError: it cannot be loaded, or other weights are missing; with the remedy.
    """
    info: Any
    with loading(model, allow_download), _quiet():
        network, info = kind.from_pretrained(
            model,
            local_files_only=not allow_download,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    missing = sorted(info["missing_keys"])
    required = [
        key
        for key in missing
        if _POOLER not in key and not any(optional in key for optional in _OPTIONAL)
    ]
    if required:
        raise ValueError(
            f"the model {model!r} has no weights for {len(required):,} parts of the network, such "
            f"as {required[0]}; name a model whose files are complete"
        )
    return network.eval(), not any(_POOLER in key for key in missing)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars, tables and warnings of transformers; errors are raised anyway."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def revision(model: str, network: Any = None) -> str:
    """The version of a model's weights: a digest of its folder, or the hub's commit."""
    folder = Path(model)
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.suffix in _WEIGHTS)
        digest = hashlib.sha256()
        for path in files:
            digest.update(file_digest(path).encode())
        return f"sha256 {digest.hexdigest()}"
    commit = getattr(getattr(network, "config", None), "_commit_hash", None)
    return f"commit {commit}" if commit else "unknown"
