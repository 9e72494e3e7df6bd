"""The folder of a run: its files, logs and checkpoints, and who may write it."""

import fcntl
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

import torch
from safetensors import safe_open
from torch import Tensor

from mocme.storage.atomic_io import (
    RunError,
    RunLocked,
    damaged,
    recorded,
    replace,
    reported,
    sync,
    tail,
    truncate,
    whole_bytes,
    write_json,
)
from mocme.storage.checkpoints import Checkpoint, manifest, order, read_checkpoint
from mocme.storage.tensor_tree import Tree, load_tensors, pack, save_tensors

FORMAT_VERSION = 1  # rises when an older version could misread a run; run.json keeps its place
# Tells one state of a file from another.
Stamp = tuple[tuple[int, ...], ...]


@final
class RunFolder:
    """The folder of one run; get one from `create` or `open`.

    A name of a file may have one folder ("modalities/text.safetensors"). All methods raise RunError
    for a name that leaves the run or belongs to its machinery, for content that the format cannot
    hold, and on reading a file that is missing or not as it was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def create(path: str | os.PathLike[str], about: Mapping[str, Any]) -> "RunFolder":
        """Start a run in a folder that is new or empty; raises RunError if it is neither."""
        run = RunFolder(Path(path))
        used = RunError(f"{run.path} is not empty; choose another --out, resume it or delete it")
        ours = {"lock", "run.json.sha256", ".run.json.tmp"}  # left if killed just here
        if run.path.is_file() or (run.path.is_dir() and {*os.listdir(run.path)} - ours):
            raise used
        run.path.mkdir(parents=True, exist_ok=True)
        with run.lock():
            if (run.path / "run.json").exists():  # another process was quicker
                raise used
            created = datetime.now(UTC).isoformat(timespec="seconds")
            run._write_about({"format": FORMAT_VERSION, "created": created, **about})
        sync(run.path.parent)
        return run

    @staticmethod
    def open(path: str | os.PathLike[str]) -> "RunFolder":
        """Raises RunError if there is no run, or it is damaged or of a newer format."""
        run = RunFolder(Path(path))
        if not run.path.exists():
            raise RunError(f"there is no run at {run.path}; check the path, or train one there")
        if not (run.path / "run.json").exists():
            raise RunError(f"{run.path} is not a run, it has no run.json; name a run's folder")
        about = run.about
        version = about.get("format") if isinstance(about, dict) else None
        if type(version) is not int or version < 1:
            raise damaged(run.path / "run.json", "gives no format version")
        if version > FORMAT_VERSION:
            raise RunError(f"{run.path} has the run format {version}; upgrade mocme to read it")
        return run

    @property
    def about(self) -> dict[str, Any]:
        """What run.json says."""
        about: dict[str, Any] = self.read_json("run.json")
        return about

    def update_about(self, **changes: Any) -> None:
        """Change or add keys of run.json."""
        self._write_about({**self.about, **changes})

    def _write_about(self, about: Mapping[str, Any]) -> None:
        if about["format"] != FORMAT_VERSION:
            raise RunError(f"{self.path}/run.json: 'format' is the run's own; use another key")
        replace(self.path / "run.json", lambda fresh: write_json(fresh, about))

    def _file(self, name: str, *, writing: bool = False) -> Path:
        """Where it is; its folder is made if it is to be written."""
        path, parts = self.path / name, name.split("/")
        plain = r"[^.\\\x00-\x1f\x7f\ud800-\udfff][^\\\x00-\x1f\x7f\ud800-\udfff]{0,59}"
        ours = parts[0] in ("lock", "checkpoints") or name.endswith(".sha256")
        if (
            not all(re.fullmatch(plain, part) for part in parts)
            or len(parts) > 2
            or not path.resolve().is_relative_to(self.path.resolve())
            or ours
            or (writing and name == "run.json")
        ):
            raise RunError(f"{name!r} leaves the run {self.path}, is reserved or odd; use another")
        if writing and not path.parent.is_dir():
            path.parent.mkdir()
            sync(self.path)
        return path

    def _checked(self, name: str) -> Path:
        path = self._file(name)
        if not path.is_file():
            raise damaged(path, "is missing")
        # More than once, since another process may be replacing the file and its record.
        if not any(recorded(path) for _ in range(3)):
            remedy = f"(changed on purpose: `sha256sum {path.name} > {path.name}.sha256` beside it)"
            raise damaged(path, f"or its .sha256 was cut short or altered {remedy}")
        return path

    def has(self, name: str) -> bool:
        return self._file(name).is_file()

    def stamp(self, name: str) -> Stamp:
        """What changes whenever the file or its record does; nothing of their content is read."""
        path, found = self._file(name), list[tuple[int, ...]]()
        for file in (path, path.with_name(f"{path.name}.sha256")):
            try:
                about = file.stat()
            except FileNotFoundError:
                found.append(())
                continue
            found.append((about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))
        return tuple(found)

    def write_json(self, name: str, value: Any) -> None:
        """As JSON does: tuples come back as lists and the keys of dicts as strings."""
        replace(self._file(name, writing=True), lambda fresh: write_json(fresh, value))

    def read_json(self, name: str) -> Any:
        with reported(self.path / name, "is not JSON"):
            return json.loads(self._checked(name).read_bytes())

    def write_text(self, name: str, text: str) -> None:
        """In UTF-8, with the line ends that it has."""
        path = self._file(name, writing=True)
        replace(path, lambda fresh: fresh.write_bytes(text.encode()))

    def read_text(self, name: str) -> str:
        with reported(self.path / name, "is not UTF-8"):
            return self._checked(name).read_bytes().decode()

    def write_tensors(
        self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
    ) -> None:
        """From any device; raises RunError for what safetensors lacks (sparse, complex128)."""
        path = self._file(name, writing=True)
        replace(path, lambda fresh: save_tensors(fresh, tensors, metadata or {}))

    def read_tensors(self, name: str, device: str | torch.device = "cpu") -> dict[str, Tensor]:
        """In the order of their names."""
        path = self._checked(name)
        with reported(path, "cannot be read as tensors"):
            return load_tensors(path, device)

    def tensors_metadata(self, name: str) -> dict[str, str]:
        path = self._checked(name)
        with reported(path, "cannot be read as tensors"), safe_open(path, "pt") as file:
            return dict(file.metadata() or {})

    def remove(self, name: str) -> None:
        """Take a file away, and what is recorded of it; no fault if there is none."""
        path = self._file(name, writing=True)
        # Content first: a record without content says nothing, content without one is damage.
        for gone in (path, path.with_name(f"{path.name}.sha256")):
            gone.unlink(missing_ok=True)
            sync(path.parent)

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Add one line to a log; it is on the disk when this returns."""
        path = self._file(name, writing=True)
        with reported(path, "cannot hold this record as JSON"):
            if "_crc32" in record:
                raise ValueError("the key _crc32 is reserved")
            head = json.dumps({**record, "_crc32": "01234567"}).encode()[: -len(tail(b""))]
        is_new = not path.exists()
        truncate(path, whole_bytes(path))  # a line torn by a crash would swallow this one
        with path.open("ab") as file:
            file.write(head + tail(head) + b"\n")
        sync(path)
        if is_new:
            sync(path.parent)

    def records(self, name: str) -> list[dict[str, Any]]:
        """The lines of a log. A torn last one, as a crash leaves, is left out with a warning.

        Raises RunError, with its number, if another line is damaged.
        """
        path, found = self._file(name), []
        if not path.is_file():
            raise damaged(path, "is missing")
        *lines, torn = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, start=1):
            head = line[: -len(tail(b""))]
            if head + tail(head) != line:
                raise damaged(path, f"is damaged in line {number}")
            found.append({k: v for k, v in json.loads(line).items() if k != "_crc32"})
        if torn:
            warnings.warn(f"the last line of {path} is torn, and left out", stacklevel=2)
        return found

    def _checkpoints(self) -> list[str]:
        """Oldest first."""
        folder = self.path / "checkpoints"
        names = os.listdir(folder) if folder.exists() else []
        return sorted((name for name in names if order(name) > (-1, 0)), key=order)

    def _discard(self, names: Sequence[str]) -> None:
        """Remove checkpoints, and what killed processes left of others."""
        folder = self.path / "checkpoints"
        for name in names:  # renamed first, so that none is ever seen half removed
            os.rename(folder / name, folder / f".{name}.old")
        for left in folder.glob(".step-*"):
            shutil.rmtree(left)

    def save_checkpoint(
        self, step: int, state: Tree, logs: Sequence[str] = (), *, keep: int = 2
    ) -> None:
        """Save the state at a step; then remove all but the newest `keep` checkpoints.

        The present lengths of `logs` are remembered for `rewind`, 0 for one that is yet to come.
        Save once before their first lines: no rewind removes what is appended before any save.
        A second save of a step stands beside the first, as ``step-000000123.2``.

        Raises RunError if the state holds what a run cannot, a later step is saved already, or no
        step is and a log has lines.
        """
        if step < 0 or keep < 1:
            raise ValueError(f"step must be 0 or more and keep 1 or more, not {step} and {keep}")
        folder, present = self.path / "checkpoints", self._checkpoints()
        latest, revision = order(present[-1]) if present else (-1, 0)
        if latest > step:
            raise RunError(f"{folder / present[-1]} is later than {step}; resume it or delete it")
        name = f"step-{step:09d}" + (f".{revision + 1}" if latest == step else "")
        fresh = folder / f".{name}.new"
        lengths = {log: whole_bytes(self._file(log)) for log in logs}
        if not present and (begun := [log for log, size in lengths.items() if size]):
            raise damaged(folder, f"holds no checkpoint, though {begun[0]} has lines")
        with reported(folder / name, "cannot hold this state"):
            tensors, skeleton = pack(state)
            self._discard([])
            fresh.mkdir(parents=True)
            save_tensors(fresh / "tensors.safetensors", tensors, {})
            about = {"step": step, "logs": lengths, "state": skeleton}
            (fresh / "state.json").write_bytes(json.dumps(about).encode())
            (fresh / "manifest.json").write_bytes(manifest(fresh))
        for path in (*fresh.iterdir(), fresh):
            sync(path)
        os.rename(fresh, folder / name)
        sync(folder)
        sync(self.path)
        self._discard([*present, name][:-keep])

    def load_checkpoint(self) -> Checkpoint | None:
        """The newest that is intact, or None if none was saved. Changes nothing in the folder.

        Warns of each damaged one that it passes over; raises RunError if no other is left.
        """
        passed: list[str] = []
        for name in reversed(self._checkpoints()):
            try:
                found = read_checkpoint(self.path / "checkpoints" / name)
            except RunError as error:
                if not (self.path / "checkpoints" / name).exists():
                    return self.load_checkpoint()  # its writer has just replaced it by newer ones
                passed.append(str(error))
                continue
            for error_text in passed:
                warnings.warn(f"{error_text}; the previous one, {name}, is used", stacklevel=2)
            return found
        if passed:
            raise damaged(self.path, f"has no intact checkpoint: {'; '.join(passed)}")
        return None

    def rewind(self, checkpoint: Checkpoint) -> None:
        """Make the run what it was when this checkpoint was saved.

        Logs lose what was appended since, so that those of a resumed run equal those of an
        uninterrupted one; later checkpoints, which `load_checkpoint` found damaged, are removed.

        Raises RunError, before any change, if the run has no such checkpoint or a log lost lines.
        """
        present = self._checkpoints()
        if checkpoint.name not in present:
            raise RunError(f"{self.path} has no checkpoint {checkpoint.name!r}; load it again")
        lengths = {self._file(name): size for name, size in checkpoint.logs.items()}
        for path, size in lengths.items():
            if size and (not path.exists() or path.stat().st_size < size):
                raise damaged(path, f"is shorter than the {size} bytes of {checkpoint.name}")
        self._discard(present[present.index(checkpoint.name) + 1 :])
        for path, size in lengths.items():
            truncate(path, size)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to write this run.

        The system takes it back when the process dies, and those that it forked meanwhile.

        Raises RunLocked if another process, or another part of this one, holds it.
        """
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunLocked(f"another process is writing this run: {self.path}") from None
            yield
        finally:
            os.close(descriptor)
