"""Checkpoints: what a training was at a step, each in a folder of its own."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mocme.storage.atomic_io import TROUBLES, RunError, digest
from mocme.storage.tensor_tree import Tree, load_tensors, unpack


@dataclass(frozen=True)
class Checkpoint:
    """What was saved at a step. Tensors are on the CPU, whatever device they were saved from."""

    step: int
    state: Tree
    logs: Mapping[str, int] = field(default_factory=dict)  # bytes that each had
    name: str = ""  # of its folder


def order(name: str) -> tuple[int, int]:
    """Step and revision of a checkpoint's folder; (-1, 0) for anything else."""
    match = re.fullmatch(r"step-(\d{9,})(?:\.(\d+))?", name)
    return (int(match[1]), int(match[2] or 1)) if match else (-1, 0)


def manifest(folder: Path) -> bytes:
    """What the manifest must be: a function of the other files, and so itself checked by them."""
    files = [folder / "state.json", folder / "tensors.safetensors"]
    about = {f.name: {"bytes": f.stat().st_size, "sha256": digest(f)} for f in files}
    return (json.dumps(about, indent=2) + "\n").encode()


def read_checkpoint(folder: Path) -> Checkpoint:
    """What a checkpoint's folder holds.

    Raises:
        RunError: it is damaged.
    """
    try:
        if (folder / "manifest.json").read_bytes() != manifest(folder):
            raise ValueError("its files and manifest.json disagree: one was cut short or altered")
        about = json.loads((folder / "state.json").read_bytes())
        if about["step"] != order(folder.name)[0]:
            raise ValueError(f"it was renamed, and holds step {about['step']}")
        state = unpack(load_tensors(folder / "tensors.safetensors", "cpu"), about["state"])
        return Checkpoint(about["step"], state, about["logs"], folder.name)
    except (OSError, *TROUBLES) as error:
        raise RunError(f"the checkpoint {folder} is damaged ({error})") from error
