"""Checkpoints: the state of a training at a step, each in its own directory."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mocme.storage.atomic_io import FORMAT_ERRORS, RunError, digest
from mocme.storage.tensor_tree import Tree, load_tensors, unpack


@dataclass(frozen=True)
class Checkpoint:
    """What was saved at a step.

    Attributes:
        state: the state; its tensors are on the CPU, whatever device they were saved from.
        logs: the size of each log in bytes.
        name: the name of its directory.
    """

    step: int
    state: Tree
    logs: Mapping[str, int] = field(default_factory=dict)
    name: str = ""


def checkpoint_order(name: str) -> tuple[int, int]:
    """Return step and revision of a checkpoint's directory; (-1, 0) for any other name."""
    match = re.fullmatch(r"step-(\d{9,})(?:\.(\d+))?", name)
    return (int(match[1]), int(match[2] or 1)) if match else (-1, 0)


def manifest(folder: Path) -> bytes:
    """Return the content of the manifest: sizes and checksums of the other files.

    The manifest is a function of these files, so a comparison checks the manifest too.
    """
    files = [folder / "state.json", folder / "tensors.safetensors"]
    entries = {f.name: {"bytes": f.stat().st_size, "sha256": digest(f)} for f in files}
    return (json.dumps(entries, indent=2) + "\n").encode()


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the checkpoint in a directory.

    Raises:
        RunError: it is damaged.
    """
    try:
        if (folder / "manifest.json").read_bytes() != manifest(folder):
            raise ValueError("its files and manifest.json disagree: one was cut short or altered")
        saved = json.loads((folder / "state.json").read_bytes())
        if saved["step"] != checkpoint_order(folder.name)[0]:
            raise ValueError(f"it was renamed, and contains step {saved['step']}")
        state = unpack(load_tensors(folder / "tensors.safetensors", "cpu"), saved["state"])
        return Checkpoint(saved["step"], state, saved["logs"], folder.name)
    except (OSError, *FORMAT_ERRORS) as error:
        raise RunError(f"the checkpoint {folder} is damaged ({error})") from error
