"""Makes writing beneath a folder fail as a read-only or full medium does, for root too."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.utime")
_refused: dict[str, int] = {}
_installed = False


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not _refused or event not in ("open", *_CHANGES):
        return
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITES):
        return
    if not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    path = os.path.abspath(os.fsdecode(arguments[0]))
    for folder, number in _refused.items():
        if path == folder or path.startswith(folder + os.sep):
            raise OSError(number, os.strerror(number), path)


@contextmanager
def unwritable(folder: Path, number: int = errno.EROFS) -> Iterator[None]:
    """Let every attempt of this process to write beneath a folder fail with an error number."""
    global _installed
    if not _installed:
        sys.addaudithook(_refuse)  # cannot be removed again
        _installed = True
    _refused[str(folder)] = number
    try:
        yield
    finally:
        del _refused[str(folder)]


@contextmanager
def mounted_read_only(source: Path, target: Path) -> Iterator[Path]:
    """Mount a folder at another one, read-only; the test is skipped where that is not allowed."""
    target.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("needs the right to mount")
    bind = subprocess.run(["mount", "--bind", source, target], capture_output=True)
    if bind.returncode:
        pytest.skip("needs the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", target], check=True)
        yield target
    finally:
        subprocess.run(["umount", "--lazy", target], check=True)
