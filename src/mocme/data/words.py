"""Words of a text: the rule by which the whole package splits text into words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache
from itertools import chain, pairwise

# The ranges with combining marks: below the rare ideographs, and some variation selectors.
_MARK_RANGES = (range(0x300, 0x20000), range(0xE0100, 0xE01F0))

# Zero-width joiners, which may occur inside a word.
_JOINERS = "\u200c\u200d"

_PLAIN = re.compile(r"[^\W_]+")

# Separators of list items and sentences, with the commas of Arabic and Chinese and the danda.
STOPS = ",&.;\u060c\u061b\u3001\u3002\uff0c\uff1b\u0964"

_PLAIN_STOPS = re.compile(rf"[^\W_]+|[{STOPS}]")


def words(text: str) -> list[str]:
    """Return the distinct lower-case words of a text, in order.

    A word is a run of letters and digits, with the combining marks that follow them (vowel signs of
    Hindi, points of Hebrew and Arabic) and the joiners between them. It is composed (Unicode NFC),
    so that a word is the same however its accents are stored.
    """
    return list(dict.fromkeys(running(text)))


def bigrams(text: str) -> list[str]:
    """Return the distinct pairs of adjacent words within a line, joined by a space."""
    pairs: dict[str, None] = {}
    for line in text.splitlines():
        pairs.update(dict.fromkeys(map(" ".join, pairwise(running(line)))))
    return list(pairs)


def running(text: str, stops: bool = False) -> list[str]:
    """Return the lower-case words of a text in order, repetitions included.

    Args:
        stops: return the `STOPS` between words too, each as a separate token.
    """
    text = text.lower()
    if text.isascii():
        return (_PLAIN_STOPS if stops else _PLAIN).findall(text)
    return _pattern(stops).findall(unicodedata.normalize("NFC", text))


@cache
def _pattern(stops: bool) -> re.Pattern[str]:
    return re.compile(f"{word_pattern()}|[{STOPS}]" if stops else word_pattern())


@cache
def word_pattern() -> str:
    """Return the regular expression that matches a word."""
    marks = "".join(c for c in map(chr, chain(*_MARK_RANGES)) if unicodedata.category(c)[0] == "M")
    inner = rf"(?:[^\W_]|[{marks}])"
    return rf"[^\W_](?:{inner}|[{_JOINERS}]+(?={inner}))*"


UNITS: Mapping[str, Callable[[str], list[str]]] = {"words": words, "bigrams": bigrams}
