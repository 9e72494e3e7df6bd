"""Texts for terminals, tables and spreadsheets."""

from __future__ import annotations

import json
from collections.abc import Callable

# Spreadsheets run a cell that begins with one of these as a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")

# Spaces of typography, and the joiners that some scripts need within a word.
_SHOWN = frozenset("\u00a0\u2007\u2009\u202f\u3000\u200c\u200d")


def guard_formula(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run as a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def visible(text: str, keep: str = "", escape: Callable[[str], str] | None = None) -> str:
    r"""Write each character that cannot be printed as an escape (``\x1b``), except those in `keep`.

    A terminal would act on a control character, and on the marks that reverse the direction of
    text, so a name or a path could hide or forge what stands beside it. Joiners within words stay.

    Args:
        escape: the escape of a character; by default as in Python.
    """
    if text.isprintable():
        return text
    kept, escape = {*_SHOWN, *keep}, escape or _python_escape
    return "".join([c if c.isprintable() or c in kept else escape(c) for c in text])


def json_escape(char: str) -> str:
    """The escape of a character in a string of JSON."""
    return json.dumps(char)[1:-1]


def _python_escape(char: str) -> str:
    code = ord(char)
    width, letter = (2, "x") if code < 0x100 else (4, "u") if code < 0x10000 else (8, "U")
    return f"\\{letter}{code:0{width}x}"


def printable(text: str, keep: str = "") -> str:
    """Replace each character that cannot be printed by a space, except those in `keep`."""
    return "".join(c if c.isprintable() or c in keep else " " for c in text)


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun: 1 fact, 1,200 facts.

    Args:
        plural: of the noun, where it is not the noun with an "s".
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def shorten(text: str, most: int) -> str:
    """Put a text on one line, and cut it where it is longer than `most` characters."""
    line = printable(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"
