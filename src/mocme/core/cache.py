"""The folder for downloads, and a lock that admits one writing process at a time."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for downloads: ``MOCME_CACHE``, or the system's default location."""
    if chosen := os.environ.get("MOCME_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mocme"
    # The XDG Base Directory Specification ignores paths that are not absolute.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "mocme"


@contextmanager
def folder_lock(home: Path, name: str, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock on a folder; the system releases it when the process ends.

    Args:
        home: the folder, created if it does not exist.
        name: what is being downloaded, for the error message.
        wait: wait for another process instead of raising an error.

    Raises:
        ValueError: the folder cannot be written, or another process holds the lock.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = (home / "lock").open("a")
    except OSError as error:
        raise ValueError(
            f"{home}: cannot be written ({error.strerror}); set MOCME_CACHE to a folder with "
            f"write permission"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ValueError(
                f"{home}: another process is fetching {name}; wait for it, then try again"
            ) from None
        yield
