"""Texts that spreadsheets leave alone."""

from __future__ import annotations

import html
from collections.abc import Sequence

# A cell that begins so is run as a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def guarded(text: str) -> str:
    """The text, preceded by an apostrophe where a spreadsheet would run it as a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def short(text: str, most: int) -> str:
    """A text on one line, cut where it is longer than `most` characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def html_cells(tag: str, texts: Sequence[str]) -> str:
    """A row of an HTML table: cells of one sort."""
    return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)
