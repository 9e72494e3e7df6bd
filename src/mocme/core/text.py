"""Texts for terminals, tables and spreadsheets."""

from __future__ import annotations

# Spreadsheets run a cell that begins with one of these as a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def guard_formula(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run as a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def printable(text: str, keep: str = "") -> str:
    """Replace each character that cannot be printed by a space, except those in `keep`."""
    return "".join(c if c.isprintable() or c in keep else " " for c in text)


def shorten(text: str, most: int) -> str:
    """Put a text on one line, and cut it where it is longer than `most` characters."""
    line = printable(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"
