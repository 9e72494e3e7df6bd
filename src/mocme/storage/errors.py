"""What is raised for a run that cannot be read or written."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from mocme.core.configurable import UnusableCode

# What code raises that is given other content than it was written for.
_CONTENT_ERRORS = (
    *(TypeError, LookupError, ValueError, RuntimeError, ArithmeticError, AttributeError),
    *(AssertionError, MemoryError, SafetensorError, struct.error),
)
# Remedies for a file of what was trained, and of what is computed from it.
RESTORE = "restore it from a copy of the run, or create the run again"
MEASURED_AGAIN = "delete it and its .sha256, and it is computed again"


class RunError(ValueError):
    """A run cannot be read or written; the message names the file and a remedy."""


class NotFinite(ValueError):
    """A tensor of a file holds NaN or an infinite number; the message names it."""


class RunLocked(RunError):
    """Another process, or another part of this one, is writing the run."""


class RunReplaced(RunError):
    """The run's folder holds another model than the one that was opened."""


@contextmanager
def refuse_invalid(
    path: Path, remedy: str = RESTORE, *, config: Path | None = None
) -> Iterator[None]:
    """Turn every error about the content of a file into a `RunError` that names the file.

    Args:
        path: of the file.
        remedy: what its user can do.
        config: the file of the settings that the content is read with, if it is not `path`. It is
            the one to name where code of the settings cannot be used.
    """
    try:
        yield
    except RunError:
        raise
    except UnusableCode as error:  # a copy of the file would not help where code is missing
        raise type(error)(f"{config or path}: {error}") from error
    except _CONTENT_ERRORS as raised:
        cause = _cause(raised)
        line = " ".join(str(cause).split())
        if not isinstance(cause, ValueError):
            # Not a sentence of this package: its type is needed, and torch adds a stack of C++.
            first = str(cause).partition("\n")[0]
            line = f"cannot be used ({type(cause).__name__}: {first})"
        raise RunError(f"{path}: {_shortened(line)}; {remedy}") from raised


def _cause(error: BaseException) -> BaseException:
    """The error to report: that of a bad number, without what its readers made of it."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, NotFinite):
            return inner
        inner = inner.__cause__
    return error


def _shortened(text: str, most: int = 600) -> str:
    return text if len(text) <= most else f"{text[:most]} …"
