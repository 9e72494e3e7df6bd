"""Removes paths of the server's machine from what clients read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import final

# An absolute path of at least two parts.
_ABSOLUTE = re.compile(r"(?<![\w.:/\\])(?:[A-Za-z]:)?(?:[/\\][^/\\\s:;,'\"()]+){2,}")


@final
class PrivatePaths:
    """Files and folders whose place must not be told; of each, only its name is.

    Args:
        paths: of the served runs, their graphs, the decisions and the uploaded pictures.
    """

    def __init__(self, paths: Iterable[str | Path]) -> None:
        folders = set()
        for path in paths:
            for form in (str(path), os.path.abspath(path), os.path.realpath(path)):
                folders.add(os.path.dirname(form))
        # What lies in the root or is named without a folder has no place to hide.
        folders -= {"", ".", os.sep}
        inner = "|".join(re.escape(name) for name in sorted(folders, key=len, reverse=True))
        self._known = re.compile(rf"(?<![\w.-])(?:{inner})[/\\]") if inner else None

    def hide(self, text: str) -> str:
        """Return a message without the folders in which known files are."""
        return text if self._known is None else self._known.sub("", text)

    def hide_all(self, text: str) -> str:
        """Return a note that names no entity, without any absolute path but the last part."""
        return _ABSOLUTE.sub(lambda match: re.split(r"[/\\]", match[0])[-1], self.hide(text))
