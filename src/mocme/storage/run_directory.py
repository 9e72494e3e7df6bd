"""The directory of a run: its files and logs, and the lock for writing."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from mocme.core.text_formats import parse_json
from mocme.storage.atomic_io import (
    as_run_errors,
    checksum_path,
    damage_error,
    directory_lock,
    replace_file,
    sync,
    valid_line,
    write_json,
)
from mocme.storage.checkpoints import Checkpoints
from mocme.storage.errors import RunError, RunLocked, RunReplaced, refuse_invalid
from mocme.storage.logs import Record, append_record, read_records
from mocme.storage.regular_files import (
    check_parts,
    is_regular,
    open_descriptor,
    read_regular,
)
from mocme.storage.tensor_schema import check_memory
from mocme.storage.tensor_tree import load_tensors, read_metadata, save_tensors
from mocme.storage.workspace import is_workspace, remove_all_leftovers

# Rises when an older version of the package could misread a run; run.json keeps its place.
FORMAT_VERSION = 2
# Identifies a state of a file: inode, size and times of the file and of its checksum.
Stamp = tuple[tuple[int, ...], ...]

# A name has no control characters, no backslash, no lone surrogates, and does not begin with a dot.
_NAME_PART = r"[^.\\\x00-\x1f\x7f\ud800-\udfff][^\\\x00-\x1f\x7f\ud800-\udfff]{0,59}"


def short_digest(model: str | None) -> str:
    """Return the digest of a model for a message."""
    return "none" if model is None else model[:12]


@final
class RunFolder:
    """The directory of a run; `create` or `open` return one.

    The name of a file may have one subdirectory ("modalities/text.safetensors"). All methods with a
    name raise `RunError` if the name leaves the run or is reserved. All methods that write raise it
    for content that the format cannot represent, and all that read for a file that is missing or
    damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def create(
        path: str | os.PathLike[str],
        about: Mapping[str, Any],
        fill: Callable[[RunFolder], None] | None = None,
        started: Sequence[str] = (),
    ) -> RunFolder:
        """Create a run in a new or empty directory, or where a killed process began to create one.

        Args:
            about: content of run.json, in addition to `format` and `created`.
            fill: writes the first files of the run; nobody else writes meanwhile.
            started: names of the files and subdirectories that `fill` writes; with the last one,
                which is a file, the run is complete. A directory that has nothing but the others
                is one where `fill` was killed: they are removed first.

        Raises:
            RunError: the path is a file or a directory with other content, or another process has
                just created a run there.
            RunLocked: another process is creating a run there.
        """
        run = RunFolder(Path(path))
        if run.path.is_file() or (run.path.is_dir() and not run.abandoned(started)):
            raise run._used_error()
        run.path.mkdir(parents=True, exist_ok=True)
        with run.lock():
            if not run.abandoned(started):  # another process was faster
                raise run._used_error()
            for name in started:
                run._remove_tree(name)
            created = datetime.now(UTC).isoformat(timespec="seconds")
            run._write_about({"format": FORMAT_VERSION, "created": created, **about})
            if fill is not None:
                fill(run)
        sync(run.path.parent)
        return run

    def _used_error(self) -> RunError:
        return RunError(f"{self.path} is not empty; choose another --out, resume it or delete it")

    def abandoned(self, started: Sequence[str]) -> bool:
        """Return whether the directory has at most what a killed `create` leaves.

        Args:
            started: as of `create`.
        """
        names = ["run.json", *started]
        known = {"lock", *names[:-1], *(f"{name}.sha256" for name in names)}
        return all(
            name in known or any(is_workspace(name, target) for target in names)
            for name in os.listdir(self.path)
        )

    def _remove_tree(self, name: str) -> None:
        """Remove a file with its checksum, or a directory of such files."""
        path = self.path / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
            checksum_path(path).unlink(missing_ok=True)

    @staticmethod
    def open(path: str | os.PathLike[str]) -> RunFolder:
        """Open an existing run.

        Raises:
            RunError: there is no run, run.json is damaged, or the run has another format.
        """
        run = RunFolder(Path(path))
        if not run.path.exists():
            raise RunError(f"there is no run at {run.path}; check the path, or train one there")
        if not is_regular(run.path / "run.json"):
            remedy = "name a run's folder, or train one there"
            if any(run.path.glob("train.*")):
                remedy = f"train on these data first: mocme train --data {run.path} --out RUN"
            raise RunError(f"{run.path} is not a run, it has no run.json; {remedy}")
        about = run.about
        version = about.get("format")
        if type(version) is not int or version < 1:
            raise damage_error(run.path / "run.json", "gives no format version")
        if version > FORMAT_VERSION:
            raise RunError(
                f"{run.path / 'run.json'} has the run format {version}; upgrade mocme to read it"
            )
        if version < FORMAT_VERSION:
            raise RunError(
                f"{run.path} was written by mocme 0.1, which this version does not read; train it "
                f"again: mocme train EXPERIMENT --data {about.get('data') or 'DATA'} --out FOLDER"
            )
        return run

    @property
    def about(self) -> dict[str, Any]:
        """Read run.json.

        Raises:
            RunError: it is missing or damaged.
        """
        about: dict[str, Any] = self.read_json("run.json", finite=True)
        if not isinstance(about, dict):
            raise damage_error(
                self.path / "run.json", "is not a JSON object and gives no format version"
            )
        return about

    @property
    def model(self) -> str | None:
        """The digest of the trained model in run.json; None before the end of the training.

        Raises:
            RunError: run.json is missing or damaged.
        """
        model: str | None = self.about.get("model")
        return model

    def require_model(self, model: str | None) -> None:
        """Check that the folder still holds a model, before something made with it is written.

        Args:
            model: the digest that `model` returned when the run was opened.

        Raises:
            RunReplaced: it holds another model, or the folder is gone.
        """
        try:
            present = self.model
        except (OSError, RunError) as error:
            raise RunReplaced(
                f"{self.path}: the run is not there any more ({error}); open it again"
            ) from error
        if present != model:
            raise RunReplaced(
                f"{self.path}: the run was replaced since it was opened: its model is "
                f"{short_digest(present)}, and that of the open run is {short_digest(model)}; "
                f"open it again"
            )

    def update_about(self, **changes: Any) -> None:
        """Change or add keys of run.json.

        Raises:
            RunError: run.json is missing or damaged, a value is not JSON, or `format` is changed.
        """
        self._write_about({**self.about, **changes})

    def _write_about(self, about: Mapping[str, Any]) -> None:
        if about["format"] != FORMAT_VERSION:
            raise RunError(f"{self.path}/run.json: 'format' is reserved; use another key")
        replace_file(self.path / "run.json", lambda new: write_json(new, about))

    def _file(self, name: str, *, writing: bool = False) -> Path:
        """Return the path of a file; create its directory for writing.

        Raises:
            RunError: the name leaves the run, is reserved or has invalid characters, or the file or
                its directory is a link.
        """
        path, parts = self.path / name, name.split("/")
        reserved = parts[0] in ("lock", "checkpoints") or name.endswith(".sha256")
        if (
            not all(re.fullmatch(_NAME_PART, part) for part in parts)
            or len(parts) > 2
            or reserved
            or (writing and name == "run.json")
        ):
            raise RunError(
                f"{name!r} leaves the run {self.path}, is reserved, or has invalid characters; use "
                f"another name"
            )
        check_parts(self.path, *parts)
        if writing and not path.parent.is_dir():
            path.parent.mkdir()
            sync(self.path)
        return path

    def _checked(self, name: str) -> Path:
        """Return the path of a file after a comparison with its checksum.

        Raises:
            RunError: the file is missing or damaged.
        """
        path = self._file(name)
        if not is_regular(path):
            raise damage_error(path, "is missing")
        check_memory(path)
        while True:
            before = self.stamp(name)
            try:
                if valid_line(path):
                    return path
            except FileNotFoundError:  # removed meanwhile
                raise damage_error(path, "is missing") from None
            if self.stamp(name) == before:  # otherwise another process is replacing the file
                break
        remedy = (
            f"(if the run is your own and you changed it on purpose, run "
            f"`sha256sum {path.name} > {path.name}.sha256` in its folder)"
        )
        raise damage_error(path, f"or its .sha256 was cut short or altered {remedy}")

    def has(self, name: str) -> bool:
        """Return whether a file exists.

        Raises:
            RunError: the name leaves the run or is reserved, or there is something else than a
                regular file.
        """
        return is_regular(self._file(name))

    def stamp(self, name: str) -> Stamp:
        """Return a value that changes whenever the file or its checksum does, without reading them.

        Raises:
            RunError: the name leaves the run or is reserved.
        """
        path, stamps = self._file(name), list[tuple[int, ...]]()
        for file in (path, checksum_path(path)):
            try:
                status = file.lstat()
            except FileNotFoundError:
                stamps.append(())
                continue
            stamps.append((status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        return tuple(stamps)

    def write_json(self, name: str, value: Any) -> None:
        """Replace a file by JSON, which turns tuples into lists and keys of dicts into strings.

        Raises:
            RunError: the name is reserved or leaves the run, or JSON cannot represent the value.
        """
        replace_file(self._file(name, writing=True), lambda new: write_json(new, value))

    def read_json(self, name: str, *, finite: bool = False) -> Any:
        """Read a JSON file.

        Args:
            finite: whether to refuse numbers that are NaN or infinite.

        Raises:
            RunError: the file is missing, damaged or not JSON (`parse_json`).
        """
        path = self._checked(name)
        with refuse_invalid(path):
            return parse_json(read_regular(path), finite=finite)

    def write_text(self, name: str, text: str) -> None:
        """Replace a file by text in UTF-8; line ends are written as they are.

        Raises:
            RunError: the name is reserved or leaves the run, or the text has lone surrogates.
        """
        path = self._file(name, writing=True)
        replace_file(path, lambda new: new.write_bytes(text.encode()))

    def read_text(self, name: str) -> str:
        """Read a text file in UTF-8; line ends are returned as they are.

        Raises:
            RunError: the file is missing, damaged or not UTF-8.
        """
        path = self._checked(name)
        with as_run_errors(path, "is not UTF-8"):
            return read_regular(path).decode()

    def write_tensors(
        self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
    ) -> None:
        """Replace a file by tensors, which may be on any device, in the format of safetensors.

        Raises:
            RunError: the name is reserved or leaves the run, or the format does not support a
                tensor (sparse, complex128).
        """
        path = self._file(name, writing=True)
        replace_file(path, lambda new: save_tensors(new, tensors, metadata or {}))

    def read_tensors(self, name: str, device: str | torch.device = "cpu") -> dict[str, Tensor]:
        """Read the tensors of a file, sorted by name.

        Raises:
            RunError: the file is missing, damaged or not safetensors, or larger than the memory.
        """
        path = self._checked(name)
        with as_run_errors(path, "cannot be read as tensors"):
            return load_tensors(path, device)

    def tensors_metadata(self, name: str) -> dict[str, str]:
        """Read the metadata of a file of tensors.

        Raises:
            RunError: the file is missing, damaged or not safetensors.
        """
        path = self._checked(name)
        with as_run_errors(path, "cannot be read as tensors"):
            return read_metadata(path)

    def read_packed(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Read the tensors of a file, sorted by name, and its metadata, both of the same content.

        Raises:
            RunError: the file is missing, damaged or not safetensors, or larger than the memory.
        """
        while True:
            before = self.stamp(name)
            path = self._checked(name)
            with as_run_errors(path, "cannot be read as tensors"):
                packed = load_tensors(path, "cpu"), read_metadata(path)
            if self.stamp(name) == before:  # otherwise another process has replaced the file
                return packed

    def remove(self, name: str) -> None:
        """Remove a file and its checksum, if they exist.

        Raises:
            RunError: the name leaves the run or is reserved.
        """
        path = self._file(name, writing=True)
        # Content first: a checksum without content is harmless, content without one is damage.
        with directory_lock(path.parent):
            for file in (path, checksum_path(path)):
                file.unlink(missing_ok=True)
                sync(path.parent)

    def append(
        self, name: str, record: Record | Callable[[Sequence[dict[str, Any]]], Record]
    ) -> None:
        """Append a line to a log; it is on disk when this returns.

        Args:
            record: the line, or a function that makes it from the present lines.

        Raises:
            RunError: the name is reserved or leaves the run, JSON cannot represent the record, or
                the record has the reserved key ``_crc32``.
        """
        append_record(self._file(name, writing=True), record)

    def records(self, name: str) -> list[dict[str, Any]]:
        """Read the lines of a log; an incomplete last line, as after a crash, gives a warning.

        Raises:
            RunError: the log is missing, or a line is damaged; the message has its number.
        """
        return read_records(self._file(name))

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of the training."""
        return Checkpoints(self.path, self._file)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the exclusive lock for writing this run, and remove what killed writers left.

        The system releases it when the process, and all processes forked meanwhile, have ended.

        Raises:
            RunLocked: another process, or another part of this one, holds the lock.
        """
        descriptor = open_descriptor(self.path / "lock", os.O_RDWR | os.O_CREAT)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunLocked(f"another process is writing this run: {self.path}") from None
            remove_all_leftovers(self.path)
            yield
        finally:
            os.close(descriptor)
