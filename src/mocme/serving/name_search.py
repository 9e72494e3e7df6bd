"""Search entity names while they are typed."""

from __future__ import annotations

import heapq
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice

# Fuzzy matching compares with every name; with more names than this it is too slow per keystroke.
FUZZY_LIMIT = 200_000


def normalized(text: str) -> str:
    """Return a text without case and accents, for comparison."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


class NameSearch:
    """Search by prefix of the name, then by prefix of a word in it, then by similarity.

    Within each group, more important names come first. Case and accents are ignored.

    Args:
        importance: one number per name, for instance its number of facts.
    """

    def __init__(self, names: Sequence[str], importance: Sequence[int]) -> None:
        self.names, self.importance = names, importance
        self._normalized = [normalized(name) for name in names]
        # Sorted (text, index) pairs: those with a common prefix are consecutive.
        self._by_name = sorted((text, index) for index, text in enumerate(self._normalized))
        words = {
            (word, index)
            for index, text in enumerate(self._normalized)
            for word in text.split()[1:]
            if word
        }
        self._by_word = sorted(words)

    def __call__(self, typed: str, k: int = 20) -> list[int]:
        """Return the indices of up to k names, best first."""
        query = normalized(typed).strip()
        if not query:
            indices = range(len(self.names))
            return heapq.nsmallest(k, indices, key=lambda i: (-self.importance[i], i))
        matches = self._best(self._with_prefix(self._by_name, query), k, query)
        for candidates in (self._with_prefix(self._by_word, query), self._similar(query, k)):
            if len(matches) >= k:
                break
            previous = set(matches)
            new = {index for index in candidates if index not in previous}
            matches += self._best(iter(new), k - len(matches), query)
        return matches[:k]

    def _best(self, indices: Iterator[int], k: int, query: str) -> list[int]:
        """Return the k most important, with exact matches before all others."""

        def order(index: int) -> tuple[bool, int, int]:
            return self._normalized[index] != query, -self.importance[index], index

        return heapq.nsmallest(k, indices, key=order)

    @staticmethod
    def _with_prefix(pairs: list[tuple[str, int]], query: str) -> Iterator[int]:
        for text, index in islice(pairs, bisect_left(pairs, (query, -1)), None):
            if not text.startswith(query):
                return
            yield index

    def _similar(self, query: str, k: int) -> Iterator[int]:
        if len(self.names) > FUZZY_LIMIT:
            return
        from rapidfuzz import fuzz, process

        matches = process.extract(
            query, self._normalized, scorer=fuzz.WRatio, limit=k, score_cutoff=75, processor=None
        )
        for _, _, index in matches:
            yield index
