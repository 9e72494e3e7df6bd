"""Text for spreadsheets, terminals and HTML tables."""

from __future__ import annotations

import html
from collections.abc import Sequence

# A spreadsheet runs a cell that begins with one of these as a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def guarded(text: str) -> str:
    """Prefix the text with an apostrophe if a spreadsheet would run it as a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def short(text: str, most: int) -> str:
    """Put the text on one line, cut to at most `most` characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def html_cells(tag: str, texts: Sequence[str]) -> str:
    """Return one row of an HTML table, each text in a cell ``<tag>``."""
    return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)
