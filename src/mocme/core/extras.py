"""Optional libraries: what a user reads where one is missing, and the command that installs it."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import Distribution

PACKAGE = "mocme"


class MissingLibrary(ImportError, ValueError):
    """An optional library is not installed; the message says how to install it."""


@contextmanager
def extra(library: str, name: str, needs: str = "") -> Iterator[None]:
    """Turn a missing library into an error that gives the command to install it.

    Args:
        library: as its users know it.
        name: the extra of this package that brings it.
        needs: who needs it, with the verb, as the begin of the message ("RDF needs").

    Raises:
        MissingLibrary: the block raised an ImportError.
    """
    try:
        yield
    except ImportError as error:
        raise missing(library, name, needs, f" ({error})" if not needs else "") from error


def missing(library: str, name: str, needs: str = "", detail: str = "") -> MissingLibrary:
    """The error for a library that is not installed; see `extra`."""
    what = f"{needs} {library}, which is not installed" if needs else f"{library} is not installed"
    return MissingLibrary(f"{what}{detail}; {remedy(name)}")


def remedy(name: str) -> str:
    """What to do where an extra of this package is missing, as the end of a message."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        requirement = _requirement(distribution(PACKAGE), name)
    except PackageNotFoundError:  # run from a folder of the source that was not installed
        requirement = f'-e ".[{name}]"'
        return f'install the extra "{name}" in the clone of the repository: {_pip()} {requirement}'
    return f'install the extra "{name}": {_pip()} {requirement}'


def _requirement(installed: Distribution, name: str) -> str:
    """What to give to pip to install an extra from where the package came from (PEP 610)."""
    import json
    from urllib.parse import unquote, urlsplit

    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    url = origin.get("url")
    if not url:  # from an index, or a folder of wheels
        return f'"{PACKAGE}[{name}]"'
    if not origin.get("dir_info", {}).get("editable"):
        source = origin.get("vcs_info")
        if source:
            url = f"{source['vcs']}+{url}@{source['commit_id']}"
        return f'"{PACKAGE}[{name}] @ {url}"'
    clone = Path(unquote(urlsplit(url).path))
    constraints = clone / "constraints.txt"
    pinned = f"-c {shlex.quote(str(constraints))} " if constraints.is_file() else ""
    return f'{pinned}-e "{clone}[{name}]"'


def _pip() -> str:
    """The command of the pip that installs for this Python."""
    found = shutil.which("pip")
    if found and Path(found).parent == Path(sys.executable).parent:
        return "pip install"
    return f"{shlex.quote(sys.executable)} -m pip install"
