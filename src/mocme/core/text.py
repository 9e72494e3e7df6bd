"""Texts that spreadsheets leave alone."""

from __future__ import annotations

# A cell that begins so is run as a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def guarded(text: str) -> str:
    """The text, preceded by an apostrophe where a spreadsheet would run it as a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text
