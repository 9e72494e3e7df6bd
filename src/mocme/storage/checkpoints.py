"""Checkpoints: the state of a training at a step, each in its own directory."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from mocme.core.text_formats import parse_json
from mocme.storage.atomic_io import FORMAT_ERRORS, as_run_errors, damage_error, digest, sync
from mocme.storage.errors import RunError
from mocme.storage.logs import complete_size, truncate
from mocme.storage.regular_files import check_parts, is_regular, read_regular
from mocme.storage.tensor_schema import check_memory
from mocme.storage.tensor_tree import Tree, load_tensors, pack, save_tensors, unpack

# The directory of checkpoints in that of a run.
FOLDER = "checkpoints"


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


@final
class Checkpoints:
    """The checkpoints of a run, in a directory of its own.

    Args:
        run: the directory of the run.
        log: returns the path of a log by its name.
    """

    def __init__(self, run: Path, log: Callable[[str], Path]) -> None:
        self._run, self._folder, self._log = run, run / FOLDER, log

    def save(self, step: int, state: Tree, logs: Sequence[str] = (), *, keep: int = 2) -> None:
        """Save the state at a step, then remove all but the newest `keep` checkpoints.

        The checkpoint has the present sizes of `logs` for `rewind`, 0 for a log that does not exist
        yet. Save once before the first line of a log, because no rewind removes lines that were
        appended before any checkpoint. A second checkpoint of the same step is saved next to the
        first one, as ``step-000000123.2``.

        Raises:
            ValueError: `step` is negative, or `keep` is below 1.
            RunError: the state has types that a checkpoint cannot represent, there is a checkpoint
                of a later step, or a log has lines and there is no checkpoint.
        """
        if step < 0 or keep < 1:
            raise ValueError(f"step must be 0 or more and keep 1 or more, not {step} and {keep}")
        folder, present = self._folder, self._names()
        latest, revision = checkpoint_order(present[-1]) if present else (-1, 0)
        if latest > step:
            raise RunError(f"{folder / present[-1]} is later than {step}; resume it or delete it")
        name = f"step-{step:09d}" + (f".{revision + 1}" if latest == step else "")
        new = folder / f".{name}.new"
        sizes = {log: complete_size(self._log(log)) for log in logs}
        if not present and (begun := [log for log, size in sizes.items() if size]):
            raise damage_error(folder, f"has no checkpoint, although {begun[0]} has lines")
        with as_run_errors(folder / name, "cannot store this state"):
            tensors, skeleton = pack(state)
            self._discard([])
            new.mkdir(parents=True)
            save_tensors(new / "tensors.safetensors", tensors, {})
            saved = {"step": step, "logs": sizes, "state": skeleton}
            (new / "state.json").write_bytes(json.dumps(saved).encode())
            (new / "manifest.json").write_bytes(manifest(new))
        for path in (*new.iterdir(), new):
            sync(path)
        os.rename(new, folder / name)
        sync(folder)
        sync(self._run)
        self._discard([*present, name][:-keep])

    def load(self) -> Checkpoint | None:
        """Load the newest intact checkpoint, or return None if there is none; changes no file.

        Each damaged checkpoint that is skipped gives a warning.

        Raises:
            RunError: all checkpoints are damaged.
        """
        skipped: list[str] = []
        for name in reversed(self._names()):
            try:
                check_parts(self._run, FOLDER, name)
                checkpoint = read_checkpoint(self._folder / name)
            except RunError as error:
                if not (self._folder / name).exists():
                    return self.load()  # the writer has just replaced it by newer ones
                skipped.append(str(error))
                continue
            for message in skipped:
                warnings.warn(f"{message}; the previous one, {name}, is used", stacklevel=2)
            return checkpoint
        if skipped:
            raise damage_error(self._run, f"has no intact checkpoint: {'; '.join(skipped)}")
        return None

    def rewind(self, checkpoint: Checkpoint) -> None:
        """Restore the logs of the run to the time of a checkpoint.

        Logs lose what was appended since, so that the logs of a resumed run equal those of an
        uninterrupted one. Later checkpoints, which `load` found damaged, are removed.

        Raises:
            RunError: the run has no such checkpoint, or a log has lost lines; nothing was changed.
        """
        present = self._names()
        if checkpoint.name not in present:
            raise RunError(f"{self._run} has no checkpoint {checkpoint.name!r}; load it again")
        sizes = {self._log(name): size for name, size in checkpoint.logs.items()}
        for path, size in sizes.items():
            if size and (not is_regular(path) or path.stat().st_size < size):
                raise damage_error(path, f"is shorter than the {size} bytes of {checkpoint.name}")
        self._discard(present[present.index(checkpoint.name) + 1 :])
        for path, size in sizes.items():
            truncate(path, size)

    def _names(self) -> list[str]:
        """Return the names of all checkpoints, oldest first."""
        check_parts(self._run, FOLDER)
        names = os.listdir(self._folder) if self._folder.is_dir() else []
        return sorted((n for n in names if checkpoint_order(n) > (-1, 0)), key=checkpoint_order)

    def _discard(self, names: Sequence[str]) -> None:
        """Remove checkpoints, and what killed processes left of others."""
        check_parts(self._run, FOLDER)
        for name in names:  # renamed first, so that no checkpoint is ever partly removed
            os.rename(self._folder / name, self._folder / f".{name}.old")
        for leftover in self._folder.glob(".step-*"):
            if leftover.is_symlink():  # what it leads to is not part of the run
                leftover.unlink()
            else:
                shutil.rmtree(leftover)


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
