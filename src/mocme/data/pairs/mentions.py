"""Which entity's text names which other entity, and which names share words.

Names are looked for word by word: in small letters, with the combining marks of every script (see
`tokens.words`). A stop within a name (``St. Louis``) may be left out, but a stop of the text stands
within a mention only where the name has it: "in Paris. Hilton" does not name Paris Hilton.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Int

from mocme.data.modality import Pairs
from mocme.data.words import STOPS, running

# "Paris (Texas)" is written "Paris" in texts; also in the brackets of Chinese and Japanese.
_BRACKET = re.compile(r"\s*[(\uff08][^()\uff08\uff09]*[)\uff09]\s*$")
# A name after these belongs to the same list as the name before.
_LISTING = {",", "\u060c", "\u3001", "\uff0c", "and", "&", "as", "well", "or"}
_LONGEST_CONTEXT = 2
_STOPS = frozenset(STOPS)

Phrase = tuple[str, ...]
Found = list[tuple[int, tuple[int, ...]]]


def mentions(
    names: Mapping[int, Sequence[str]],
    texts: Mapping[int, Sequence[str]],
    num_entities: int,
    *,
    contexts: int = 15,
    part: int = 3,
    share: int = 10,
    shortest: int = 3,
    provenance: Mapping[str, str] | None = None,
) -> Pairs:
    """Pairs of entities whose names stand in each other's texts and names.

    The kinds, each only where there is such a pair:

    - ``mentions``: the head's text holds a full name of the tail, be it within a longer name. A
      trailing ``(...)`` is no part of a name, unless there is nothing else.
    - ``mentions, after WORDS``: the one or two tokens before a longest mention. A mention that
      continues a list takes the words before the list; a name with a stop is read as one name and
      as the list that it may be.
    - ``named within``: the head's name holds a full name of the tail.
    - ``mentions a part``: a word of the head's text outside of all mentions stands in the tail's
      name; without pairs that are mentions.
    - ``shares a name word``: a word of both names; in both directions.

    Args:
        names: names and other names by entity.
        texts: texts by entity; a mention does not reach from one to the next.
        contexts: a context is a kind if at least so many pairs have it; 0 for none.
        part: `mentions a part` looks for words of at most so many entities' names; 0 for none.
        share: `shares a name word` takes words of at most so many entities' names; 0 for none.
        shortest: letters of the shortest word that is looked for by itself.

    Raises:
        ValueError: a limit is out of range.
    """
    check_limits(contexts, part, share, shortest)
    columns = mention_keys(
        names, texts, num_entities, contexts=contexts, part=part, share=share, shortest=shortest
    )
    return paired(columns, num_entities, provenance or {})


def mention_keys(
    names: Mapping[int, Sequence[str]],
    texts: Mapping[int, Sequence[str]],
    num_entities: int,
    *,
    contexts: int,
    part: int,
    share: int,
    shortest: int,
    kinds: Collection[str] | None = None,
) -> dict[str, Int[np.ndarray, " n"]]:
    """The pairs of `mentions` by kind, each as head * N + tail, ascending.

    Args:
        kinds: these contexts and no others, however few pairs have them.
    """
    index = _Index.of(names, shortest, max(part, share))
    seen = _Seen()
    for head in sorted(texts):
        for text in texts[head]:
            _read(index, seen, head * num_entities, running(text, stops=True), contexts, part)
    full = _distinct(seen.full, num_entities)
    columns = {"mentions": full}
    columns |= _contexts(seen, contexts, num_entities, kinds)
    columns["named within"] = _distinct(_within(index, names, num_entities), num_entities)
    parts = _distinct(seen.parts, num_entities)
    columns["mentions a part"] = np.setdiff1d(parts, full, assume_unique=True)
    shared = _sharing(index, share, num_entities)
    columns["shares a name word"] = _distinct(shared, num_entities)
    return columns


def check_limits(contexts: int, part: int, share: int, shortest: int) -> None:
    """Refuse limits that mean nothing.

    Raises:
        ValueError: one is out of range.
    """
    if min(contexts, part, share) < 0 or shortest < 1:
        raise ValueError("contexts, part and share are 0 or more; shortest is 1 or more")


def paired(
    columns: Mapping[str, Int[np.ndarray, " n"]], num_entities: int, provenance: Mapping[str, str]
) -> Pairs:
    """Pairs of keys head * N + tail, ascending, by kind; kinds without a pair are left out."""
    held = {kind: keys for kind, keys in columns.items() if len(keys)}
    sizes = [len(keys) for keys in held.values()]
    keys = np.concatenate([np.zeros(0, np.int64), *held.values()])
    return Pairs(
        tuple(held),
        torch.from_numpy(np.repeat(np.arange(len(held)), sizes)),
        torch.from_numpy(keys // num_entities),
        torch.from_numpy(keys % num_entities),
        num_entities,
        provenance,
    )


@dataclass(frozen=True)
class _Index:
    """Names to look for.

    Attributes:
        owners: entities of each name, as the tokens it is written with.
        lengths: how many tokens names have that begin with a word, the longest first.
        bearers: entities with a word in their name, for words that are rare and long enough.
    """

    owners: Mapping[Phrase, tuple[int, ...]]
    lengths: Mapping[str, tuple[int, ...]]
    bearers: Mapping[str, tuple[int, ...]]

    @staticmethod
    def of(names: Mapping[int, Sequence[str]], shortest: int, most: int) -> _Index:
        owners: dict[Phrase, dict[int, None]] = {}
        bearers: dict[str, dict[int, None]] = {}
        for entity in sorted(names):
            for name in names[entity]:
                for phrase in _phrases(name):
                    if len(phrase) > 1 or len(phrase[0]) >= shortest:
                        owners.setdefault(phrase, {})[entity] = None
                    for word in phrase:
                        if len(word) >= shortest and word not in STOPS:
                            bearers.setdefault(word, {})[entity] = None
        lengths: dict[str, set[int]] = {}
        for phrase in owners:
            lengths.setdefault(phrase[0], set()).add(len(phrase))
        return _Index(
            {phrase: tuple(found) for phrase, found in owners.items()},
            {word: tuple(sorted(found, reverse=True)) for word, found in lengths.items()},
            {word: tuple(found) for word, found in bearers.items() if len(found) <= most},
        )

    def at(self, tokens: Sequence[str], place: int) -> Found:
        """Length and owners of every name that begins at a place, the longest first."""
        found = []
        for length in self.lengths.get(tokens[place], ()):
            if owners := self.owners.get(tuple(tokens[place : place + length])):
                found.append((length, owners))
        return found


class _Seen:
    """What texts hold: keys of pairs, and contexts by number with the keys of theirs."""

    def __init__(self) -> None:
        self.full, self.parts = array("q"), array("q")
        self.numbers: dict[Phrase, int] = {}
        self.context, self.after = array("q"), array("q")


def _phrases(name: str) -> set[Phrase]:
    """A name as it is written and without its stops, both without a trailing bracket."""
    tokens = _stripped(running(_BRACKET.sub("", name), stops=True))
    tokens = tokens or _stripped(running(name, stops=True))
    plain = tuple(token for token in tokens if token not in STOPS)
    return {tuple(tokens), plain} if plain else set()


def _stripped(tokens: list[str]) -> list[str]:
    """Without stops at both ends."""
    words = [place for place, token in enumerate(tokens) if token not in STOPS]
    return tokens[words[0] : words[-1] + 1] if words else []


def _read(
    index: _Index, seen: _Seen, base: int, tokens: list[str], contexts: int, part: int
) -> None:
    """Note all that a text mentions; `base` is the key of its entity with entity 0."""
    named = 0  # tokens before this place are part of a mention
    found_at: list[tuple[int, Found]] = []
    for place, token in enumerate(tokens):
        if token in index.lengths and (found := index.at(tokens, place)):
            found_at.append((place, found))
            named = max(named, place + found[0][0])
            for _, owners in found:
                seen.full.extend([base + owner for owner in owners])
        elif part and place >= named and len(bearers := index.bearers.get(token, ())) <= part:
            seen.parts.extend([base + bearer for bearer in bearers])
    if contexts:
        # A name with a stop may be a list, too: "located in Northampton, Massachusetts".
        plain = _without_stops(tokens, found_at)
        listed = [*_listed(tokens, found_at), *(_listed(tokens, plain) if plain else ())]
        for context, owners in listed:
            for length in range(1, min(len(context), _LONGEST_CONTEXT) + 1):
                number = seen.numbers.setdefault(context[-length:], len(seen.numbers))
                seen.context.extend([number] * len(owners))
                seen.after.extend([base + owner for owner in owners])


def _without_stops(
    tokens: Sequence[str], found_at: Sequence[tuple[int, Found]]
) -> list[tuple[int, Found]]:
    """The mentions without a stop; empty if that is all of them."""
    plain = [
        (place, [(n, o) for n, o in found if _STOPS.isdisjoint(tokens[place : place + n])])
        for place, found in found_at
    ]
    fewer = any(len(few) < len(all_) for (_, few), (_, all_) in zip(plain, found_at, strict=True))
    return [(place, found) for place, found in plain if found] if fewer else []


def _listed(
    tokens: Sequence[str], found_at: Sequence[tuple[int, Found]]
) -> Iterator[tuple[Phrase, tuple[int, ...]]]:
    """Longest mentions, from the left and apart from each other, with the words before them."""
    end = -1
    context: Phrase = ()
    for place, found in found_at:
        if place < end:
            continue
        if end < 0 or not _LISTING.issuperset(tokens[end:place]):
            context = tuple(tokens[max(0, place - _LONGEST_CONTEXT) : place])
        length, owners = found[0]
        end = place + length
        yield context, owners


def _contexts(
    seen: _Seen, least: int, size: int, kinds: Collection[str] | None
) -> dict[str, Int[np.ndarray, " n"]]:
    """Keys of pairs by context, in alphabetical order.

    Contexts are those of at least `least` pairs, or those of `kinds`.
    """
    if not least:
        return {}
    number, after = np.array(seen.context, np.int64), np.array(seen.after, np.int64)
    order = np.argsort(number, kind="stable")
    edges = np.cumsum(np.bincount(number, minlength=len(seen.numbers)))[:-1]
    groups = np.split(after[order], edges)
    columns = {}
    for context in sorted(seen.numbers):
        kind, group = f"mentions, after {' '.join(context)}", groups[seen.numbers[context]]
        if kinds is not None:
            if kind in kinds:
                columns[kind] = _distinct(group, size)
        elif len(group) >= least and len(keys := _distinct(group, size)) >= least:
            columns[kind] = keys
    return columns


def _within(index: _Index, names: Mapping[int, Sequence[str]], size: int) -> array[int]:
    """Keys of pairs whose head's name, with its bracket, holds the tail's."""
    keys = array("q")
    for head, own in names.items():
        for name in own:
            tokens = running(name, stops=True)
            for place in range(len(tokens)):
                for _, owners in index.at(tokens, place):
                    keys.extend([head * size + owner for owner in owners])
    return keys


def _sharing(index: _Index, share: int, size: int) -> array[int]:
    keys = array("q")
    for bearers in index.bearers.values():
        if len(bearers) <= share:
            keys.extend([head * size + tail for head, tail in permutations(bearers, 2)])
    return keys


def _distinct(keys: array[int] | Int[np.ndarray, " n"], size: int) -> Int[np.ndarray, " k"]:
    """Distinct keys in ascending order, without those of an entity and itself."""
    distinct: Int[np.ndarray, " k"] = np.unique(np.array(keys, np.int64))
    apart: Int[np.ndarray, " k"] = distinct[distinct // size != distinct % size]
    return apart
