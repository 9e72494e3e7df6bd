"""Formats by file name ending and by name, collected from the modules of `kinds`."""

from __future__ import annotations

from pathlib import Path

from mocme.core.registry import modules
from mocme.data.formats import kinds
from mocme.data.formats.base import Format
from mocme.data.formats.streams import COMPRESSED

FORMATS: tuple[Format, ...] = tuple(
    sorted((module.FORMAT for module in modules(kinds)), key=lambda known: known.endings)
)
# Endings of files that can be read.
ENDINGS = tuple(ending for known in FORMATS if known.readable for ending in known.endings)
# Formats that can be chosen for output, by name.
KINDS = {known.endings[0].removeprefix("."): known for known in FORMATS if known.writable}


def ending(path: str | Path) -> str:
    """The ending of a file name in lower case, without the ending of a compression."""
    name = Path(path).name.lower()
    for compression in COMPRESSED:
        name = name.removesuffix(compression)
    return Path(name).suffix


def find_format(path: str | Path) -> Format | None:
    """The format that a file name's ending belongs to, or None."""
    suffix = ending(path)
    return next((known for known in FORMATS if suffix in known.endings), None)


def format_of(path: str | Path) -> Format:
    """The format of a file, by the ending of its name.

    Raises:
        ValueError: the ending belongs to no format.
    """
    known = find_format(path)
    if known is None:
        raise ValueError(
            f"{path}: the ending {ending(path)!r} belongs to no known format; known: "
            f"{', '.join(ENDINGS)}, each also with {' or '.join(COMPRESSED)}"
        )
    return known


def format_named(kind: str) -> Format:
    """The format of a name such as ``csv``: its first ending without the dot.

    Raises:
        ValueError: there is no such format.
    """
    if kind not in KINDS:
        raise ValueError(f"a format is one of {', '.join(KINDS)}, not {kind!r}")
    return KINDS[kind]
