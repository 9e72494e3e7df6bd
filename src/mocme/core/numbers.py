"""Numbers as people and programs write them: decimal digits, a point, an exponent.

Python reads more: underscores between digits, the digits of every script, and words for infinity
and for "not a number". In data these are slips, and a number that no other program reads.
"""

from __future__ import annotations

import math
import re

_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:([,.'_\u2019\u00a0\u202f ])[0-9]{3})+([.,][0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")


def parse_number(text: str) -> float:
    """The finite number that a text is; white space around it is allowed.

    Raises:
        ValueError: it is not one; the message says what it is instead, with the remedy.
    """
    try:
        number = float(text)
    except ValueError:
        raise ValueError(_problem(text)) from None
    if "_" in text or not text.strip().isascii():
        raise ValueError(_problem(text))
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def _problem(text: str) -> str:
    text = text.strip()
    if _DECIMAL_COMMA.fullmatch(text) and not _THOUSANDS.fullmatch(text):
        return "not a number; write a point for the decimal comma"
    if _THOUSANDS.fullmatch(text):
        return "not a number; write it without separators of thousands, and with a decimal point"
    if not text.isascii():
        return "not a number; write it in the digits 0 to 9"
    return "not a number"
