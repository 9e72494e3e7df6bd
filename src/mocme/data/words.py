"""Words of a text: the one rule by which all rooms split text into words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache
from itertools import chain, pairwise

# Where Unicode has combining marks: below the rare ideographs, and some variation selectors.
_MARKED = (range(0x300, 0x20000), range(0xE0100, 0xE01F0))


# Zero-width joiners, which may stand within a word.
_JOINERS = "\u200c\u200d"


_PLAIN = re.compile(r"[^\W_]+")


# What parts the items of a list, or sentences; commas of Arabic and Chinese, and the danda, too.
STOPS = ",&.;\u060c\u061b\u3001\u3002\uff0c\uff1b\u0964"


_PLAIN_STOPS = re.compile(rf"[^\W_]+|[{STOPS}]")


def words(text: str) -> list[str]:
    """Distinct lower-case words of a text, in order.

    A word is a run of letters and digits, with the combining marks that follow them (vowel signs
    of Hindi, points of Hebrew and Arabic) and the joiners between them; composed where Unicode has
    a letter for it (NFC), so that a word is the same however its accents are stored.
    """
    return list(dict.fromkeys(running(text)))


def bigrams(text: str) -> list[str]:
    """Distinct pairs of words that follow each other within a line, with a space between them."""
    pairs: dict[str, None] = {}
    for line in text.splitlines():
        pairs.update(dict.fromkeys(map(" ".join, pairwise(running(line)))))
    return list(pairs)


def running(text: str, stops: bool = False) -> list[str]:
    """Lower-case words of a text as often as they stand there, in order.

    Args:
        stops: give the `STOPS` between words too, each as a token of its own.
    """
    text = text.lower()
    if text.isascii():
        return (_PLAIN_STOPS if stops else _PLAIN).findall(text)
    return _marked(stops).findall(unicodedata.normalize("NFC", text))


@cache
def _marked(stops: bool) -> re.Pattern[str]:
    return re.compile(f"{word_pattern()}|[{STOPS}]" if stops else word_pattern())


@cache
def word_pattern() -> str:
    """The regular expression of a word."""
    marks = "".join(c for c in map(chr, chain(*_MARKED)) if unicodedata.category(c)[0] == "M")
    inner = rf"(?:[^\W_]|[{marks}])"
    return rf"[^\W_](?:{inner}|[{_JOINERS}]+(?={inner}))*"


UNITS: Mapping[str, Callable[[str], list[str]]] = {"words": words, "bigrams": bigrams}
