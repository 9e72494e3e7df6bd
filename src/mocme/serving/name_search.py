"""Find names as they are typed."""

from __future__ import annotations

import heapq
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice

# Names beyond which near matches are not looked for letter by letter: that takes too long a key.
FUZZY_LIMIT = 200_000


def folded(text: str) -> str:
    """A text without case and accents, for comparing."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in plain if not unicodedata.combining(letter))


class NameSearch:
    """Names that begin with what is typed, then names with such a word, then near ones.

    Within each sort the more important come first. Case and accents do not matter.

    Args:
        importance: of each name, for instance its number of facts.
    """

    def __init__(self, names: Sequence[str], importance: Sequence[int]) -> None:
        self.names, self.importance = names, importance
        self._folded = [folded(name) for name in names]
        self._whole = sorted((text, place) for place, text in enumerate(self._folded))
        words = {
            (word, place)
            for place, text in enumerate(self._folded)
            for word in text.split()[1:]
            if word
        }
        self._words = sorted(words)

    def __call__(self, typed: str, k: int = 20) -> list[int]:
        """Places of up to k names, best first."""
        wanted = folded(typed).strip()
        if not wanted:
            everyone = range(len(self.names))
            return heapq.nsmallest(k, everyone, key=lambda p: (-self.importance[p], p))
        found = self._best(self._beginning(self._whole, wanted), k, wanted)
        for more in (self._beginning(self._words, wanted), self._near(wanted, k)):
            if len(found) >= k:
                break
            had = set(found)
            fresh = {place for place in more if place not in had}
            found += self._best(iter(fresh), k - len(found), wanted)
        return found[:k]

    def _best(self, places: Iterator[int], k: int, wanted: str) -> list[int]:
        """The most important, the very name itself before all."""

        def order(place: int) -> tuple[bool, int, int]:
            return self._folded[place] != wanted, -self.importance[place], place

        return heapq.nsmallest(k, places, key=order)

    @staticmethod
    def _beginning(pairs: list[tuple[str, int]], wanted: str) -> Iterator[int]:
        for text, place in islice(pairs, bisect_left(pairs, (wanted, -1)), None):
            if not text.startswith(wanted):
                return
            yield place

    def _near(self, wanted: str, k: int) -> Iterator[int]:
        if len(self.names) > FUZZY_LIMIT:
            return
        from rapidfuzz import fuzz, process

        found = process.extract(
            wanted, self._folded, scorer=fuzz.WRatio, limit=k, score_cutoff=75, processor=None
        )
        for _, _, place in found:
            yield place
