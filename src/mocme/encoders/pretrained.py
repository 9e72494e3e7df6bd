"""Pretrained models by name or folder: nothing comes from the network unless it is allowed."""

from __future__ import annotations

import hashlib
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

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


def named(model: str) -> None:
    """Refuse the name of a model that is none.

    Raises:
        ValueError: it is empty.
    """
    if not model.strip():
        raise ValueError("model is the folder of a model, or its name on a hub")


@contextmanager
def loading(model: str, allow_download: bool) -> Iterator[None]:
    """Turns what goes wrong while a model is loaded into an error with a remedy."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = textwrap.shorten(str(error).strip().partition("\n")[0], 200, placeholder=" ...")
        if Path(model).exists():
            remedy = "check the files in that folder"
        elif allow_download:
            remedy = "check its name, and whether the hub can be reached"
        else:
            remedy = "name a folder that holds it, or allow the download with --allow-download"
        raise ValueError(f"the model {model!r} cannot be loaded: {reason}; {remedy}") from error


# Weights that a checkpoint may lack: an output layer that is then not used, what is only needed in
# training, and tables that follow from the sizes.
_POOLER, _SPARE = "pooler", ("mask", "position_ids", "num_batches_tracked")


def load_settings(kind: Any, model: str, allow_download: bool, **more: Any) -> Any:
    """What a class of transformers (AutoConfig, AutoFeatureExtractor, ...) reads of a model.

    Raises:
        ValueError: it cannot be loaded; with the remedy.
    """
    if model.startswith(("/", "./", "../", "~")) and not Path(model).is_dir():
        raise ValueError(f"the model {model!r} cannot be loaded: there is no such folder")
    with loading(model, allow_download), _quiet():
        return kind.from_pretrained(
            model, local_files_only=not allow_download, trust_remote_code=False, **more
        )


def load_network(kind: Any, model: str, allow_download: bool) -> tuple[Any, bool]:
    """A network of a class of transformers, in float32, ready to be asked.

    Returns:
        It, and whether its pooler (if it has one) has weights; a checkpoint for another purpose
        may lack them, and then they are random.

    Raises:
        ValueError: it cannot be loaded, or lacks other weights; with the remedy.
    """
    report: Any
    with loading(model, allow_download), _quiet():
        network, report = kind.from_pretrained(
            model,
            local_files_only=not allow_download,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    lacking = sorted(report["missing_keys"])
    needed = [key for key in lacking if _POOLER not in key and not any(s in key for s in _SPARE)]
    if needed:
        raise ValueError(
            f"the model {model!r} has no weights for {len(needed):,} parts of the network, such as "
            f"{needed[0]}; name a model whose files are complete"
        )
    return network.eval(), not any(_POOLER in key for key in lacking)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars, tables and warnings of transformers; what matters becomes an error."""
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
