"""Checkpoints: the state of a training at a step, each in its own directory."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mocme.core.text_formats import parse_json
from mocme.storage.atomic_io import FORMAT_ERRORS, digest
from mocme.storage.errors import RunError
from mocme.storage.regular_files import read_regular
from mocme.storage.tensor_schema import check_memory
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
        check_memory(folder / "tensors.safetensors")
        if read_regular(folder / "manifest.json") != manifest(folder):
            raise ValueError("its files and manifest.json disagree: one was cut short or altered")
        saved = parse_json(read_regular(folder / "state.json"))
        _check(saved)
        if saved["step"] != checkpoint_order(folder.name)[0]:
            raise ValueError(f"it was renamed, and contains step {saved['step']}")
        state = unpack(load_tensors(folder / "tensors.safetensors", "cpu"), saved["state"])
        return Checkpoint(saved["step"], state, saved["logs"], folder.name)
    except (OSError, *FORMAT_ERRORS) as error:
        raise RunError(f"the checkpoint {folder} is damaged ({error})") from error


def _check(saved: Any) -> None:
    """Check what state.json holds besides the state, which `unpack` checks.

    Raises:
        ValueError: with the key that is wrong.
    """
    if not isinstance(saved, dict) or set(saved) != {"step", "logs", "state"}:
        raise ValueError("state.json does not hold step, logs and state")
    if type(saved["step"]) is not int:
        raise ValueError("state.json: step is not an integer")
    logs = saved["logs"]
    if not isinstance(logs, dict) or any(type(n) is not int or n < 0 for n in logs.values()):
        raise ValueError("state.json: logs does not hold a size for each log")
