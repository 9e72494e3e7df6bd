"""Where downloads lie, and how only one process at a time writes there."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """Where downloads lie: ``MOCME_CACHE``, or the place for such on this system."""
    if chosen := os.environ.get("MOCME_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mocme"
    # The XDG rules ignore a path that is not absolute.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "mocme"


@contextmanager
def locked(home: Path, name: str, wait: bool = False) -> Iterator[None]:
    """Be the only one that writes here; the system frees it when the process ends."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = (home / "lock").open("a")
    except OSError as error:
        raise ValueError(
            f"{home}: cannot be written ({error.strerror}); set MOCME_CACHE to a folder that can"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ValueError(
                f"{home}: another process is fetching {name}; wait for it, then try again"
            ) from None
        yield
