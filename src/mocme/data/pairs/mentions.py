"""Find which entity's text names which other entity, and which names share words.

Names are matched word by word in lower case, with the combining marks of every script (see
`mocme.data.words`). A text may leave out a stop in a name (``St. Louis``), but a stop of the text
may be inside a mention only if the name has it: "in Paris. Hilton" does not name Paris Hilton.
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

# "Paris (Texas)" is written "Paris" in texts. The other brackets are those of Chinese and Japanese.
_BRACKET = re.compile(r"\s*[(\uff08][^()\uff08\uff09]*[)\uff09]\s*$")
# Two names belong to the same list if there are only such tokens between them.
_LIST_WORDS = {",", "\u060c", "\u3001", "\uff0c", "and", "&", "as", "well", "or"}
_LONGEST_CONTEXT = 2
_STOPS = frozenset(STOPS)

Phrase = tuple[str, ...]
# The number of tokens and the owners of each name that begins at a position, the longest first.
Matches = list[tuple[int, tuple[int, ...]]]


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
    """Find pairs of entities whose names occur in each other's texts and names.

    These are the kinds; a kind without a pair is left out:

    - ``mentions``: the head's text contains a full name of the tail, possibly inside a longer name.
      A trailing ``(...)`` is not part of a name, unless there is nothing else.
    - ``mentions, after WORDS``: a longest mention after these one or two tokens. A mention that
      continues a list has the context of the list. A name with a stop is read both as one name and
      as a list of names.
    - ``named within``: the head's name contains a full name of the tail.
    - ``mentions a part``: a word of the head's text, outside all mentions, occurs in the tail's
      name; pairs of the kind ``mentions`` are left out.
    - ``shares a name word``: both names contain the same word; in both directions.

    Args:
        names: names and other names by entity.
        texts: texts by entity; a mention does not extend from one text to the next.
        contexts: the least number of pairs that make a context a kind; 0 for no contexts.
        part: `mentions a part` looks for words in the names of at most `part` entities; 0 for none.
        share: `shares a name word` uses words in the names of at most `share` entities; 0 for none.
        shortest: the least number of letters of a single word to look for.

    Raises:
        ValueError: a limit is out of range.
    """
    check_limits(contexts, part, share, shortest)
    keys = mention_keys(
        names, texts, num_entities, contexts=contexts, part=part, share=share, shortest=shortest
    )
    return pairs_of_keys(keys, num_entities, provenance or {})


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
    """Find the pairs of `mentions` by kind, each pair as a key head * N + tail, ascending.

    Args:
        kinds: if given, the contexts to keep, however few pairs have them.
    """
    index = _NameIndex.of(names, shortest, max(part, share))
    matched = _MatchedKeys()
    for head in sorted(texts):
        for text in texts[head]:
            tokens = running(text, stops=True)
            _match_text(index, matched, head * num_entities, tokens, contexts, part)
    full = _distinct(matched.full, num_entities)
    keys = {"mentions": full}
    keys |= _context_keys(matched, contexts, num_entities, kinds)
    keys["named within"] = _distinct(_nested_keys(index, names, num_entities), num_entities)
    parts = _distinct(matched.parts, num_entities)
    keys["mentions a part"] = np.setdiff1d(parts, full, assume_unique=True)
    shared = _shared_word_keys(index, share, num_entities)
    keys["shares a name word"] = _distinct(shared, num_entities)
    return keys


def check_limits(contexts: int, part: int, share: int, shortest: int) -> None:
    """Check the limits of `mentions`.

    Raises:
        ValueError: a limit is out of range.
    """
    if min(contexts, part, share) < 0 or shortest < 1:
        raise ValueError("contexts, part and share are 0 or more; shortest is 1 or more")


def pairs_of_keys(
    keys_by_kind: Mapping[str, Int[np.ndarray, " n"]],
    num_entities: int,
    provenance: Mapping[str, str],
) -> Pairs:
    """Build pairs from ascending keys head * N + tail; kinds without a pair are left out."""
    kept = {kind: keys for kind, keys in keys_by_kind.items() if len(keys)}
    sizes = [len(keys) for keys in kept.values()]
    all_keys = np.concatenate([np.zeros(0, np.int64), *kept.values()])
    return Pairs(
        tuple(kept),
        torch.from_numpy(np.repeat(np.arange(len(kept)), sizes)),
        torch.from_numpy(all_keys // num_entities),
        torch.from_numpy(all_keys % num_entities),
        num_entities,
        provenance,
    )


@dataclass(frozen=True)
class _NameIndex:
    """The names to look for.

    Attributes:
        owners: the entities with a name, by the tokens of the name.
        lengths: the numbers of tokens of the names that begin with a word, the largest first.
        bearers: the entities with a word in their name, for words that are rare and long enough.
    """

    owners: Mapping[Phrase, tuple[int, ...]]
    lengths: Mapping[str, tuple[int, ...]]
    bearers: Mapping[str, tuple[int, ...]]

    @staticmethod
    def of(names: Mapping[int, Sequence[str]], shortest: int, most: int) -> _NameIndex:
        # Dictionaries serve as sets that keep the order of insertion.
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
        return _NameIndex(
            {phrase: tuple(entities) for phrase, entities in owners.items()},
            {word: tuple(sorted(sizes, reverse=True)) for word, sizes in lengths.items()},
            {word: tuple(entities) for word, entities in bearers.items() if len(entities) <= most},
        )

    def at(self, tokens: Sequence[str], position: int) -> Matches:
        """Return length and owners of every name that begins at a position, longest first."""
        matches = []
        for length in self.lengths.get(tokens[position], ()):
            if owners := self.owners.get(tuple(tokens[position : position + length])):
                matches.append((length, owners))
        return matches


class _MatchedKeys:
    """Keys head * N + tail that texts gave, repetitions included, in compact arrays.

    Attributes:
        full: keys of mentions.
        parts: keys of single words of a name.
        context_ids: the id of each context.
        context, after: parallel arrays: the id of a context, and the key of a mention after it.
    """

    def __init__(self) -> None:
        self.full, self.parts = array("q"), array("q")
        self.context_ids: dict[Phrase, int] = {}
        self.context, self.after = array("q"), array("q")


def _phrases(name: str) -> set[Phrase]:
    """Return the tokens of a name with and without stops, in both cases without a bracket."""
    tokens = _strip_stops(running(_BRACKET.sub("", name), stops=True))
    tokens = tokens or _strip_stops(running(name, stops=True))
    plain = tuple(token for token in tokens if token not in STOPS)
    return {tuple(tokens), plain} if plain else set()


def _strip_stops(tokens: list[str]) -> list[str]:
    """Remove stops at both ends."""
    words = [position for position, token in enumerate(tokens) if token not in STOPS]
    return tokens[words[0] : words[-1] + 1] if words else []


def _match_text(
    index: _NameIndex,
    matched: _MatchedKeys,
    base: int,
    tokens: list[str],
    contexts: int,
    part: int,
) -> None:
    """Add the keys of everything that a text mentions; `base` is head * N of its entity."""
    mention_end = 0  # tokens before this position are part of a mention
    mentioned: list[tuple[int, Matches]] = []
    # A name of many entities that a text repeats gives their keys once.
    seen: set[int] = set()
    for position, token in enumerate(tokens):
        if token in index.lengths and (matches := index.at(tokens, position)):
            mentioned.append((position, matches))
            mention_end = max(mention_end, position + matches[0][0])
            for _, owners in matches:
                if id(owners) not in seen:
                    seen.add(id(owners))
                    matched.full.extend([base + owner for owner in owners])
        elif (
            part
            and position >= mention_end
            and len(bearers := index.bearers.get(token, ())) <= part
        ):
            matched.parts.extend([base + bearer for bearer in bearers])
    if contexts:
        # A name with a stop may be a list too: "located in Northampton, Massachusetts".
        plain = _without_stops(tokens, mentioned)
        in_context = [*_in_context(tokens, mentioned), *_in_context(tokens, plain)]
        seen_after: set[tuple[int, int]] = set()
        for context, owners in in_context:
            for length in range(1, min(len(context), _LONGEST_CONTEXT) + 1):
                context_id = matched.context_ids.setdefault(
                    context[-length:], len(matched.context_ids)
                )
                if (context_id, id(owners)) not in seen_after:
                    seen_after.add((context_id, id(owners)))
                    matched.context.extend([context_id] * len(owners))
                    matched.after.extend([base + owner for owner in owners])


def _without_stops(
    tokens: Sequence[str], mentioned: Sequence[tuple[int, Matches]]
) -> list[tuple[int, Matches]]:
    """Return the mentions without a stop; none if no mention has a stop."""
    plain = [
        (
            position,
            [(n, o) for n, o in matches if _STOPS.isdisjoint(tokens[position : position + n])],
        )
        for position, matches in mentioned
    ]
    if all(len(few) == len(all_) for (_, few), (_, all_) in zip(plain, mentioned, strict=True)):
        return []
    return [(position, matches) for position, matches in plain if matches]


def _in_context(
    tokens: Sequence[str], mentioned: Sequence[tuple[int, Matches]]
) -> Iterator[tuple[Phrase, tuple[int, ...]]]:
    """Yield context and owners of the longest mentions, from the left, without overlaps.

    The context is the tokens before the mention, or before the list that the mention continues.
    """
    end = -1
    context: Phrase = ()
    for position, matches in mentioned:
        if position < end:
            continue
        if end < 0 or not _LIST_WORDS.issuperset(tokens[end:position]):
            context = tuple(tokens[max(0, position - _LONGEST_CONTEXT) : position])
        length, owners = matches[0]
        end = position + length
        yield context, owners


def _context_keys(
    matched: _MatchedKeys, least: int, num_entities: int, kinds: Collection[str] | None
) -> dict[str, Int[np.ndarray, " n"]]:
    """Return the keys of pairs by context, contexts in alphabetical order.

    Contexts are those of at least `least` pairs, or those among `kinds` if that is given.
    """
    if not least:
        return {}
    context = np.array(matched.context, np.int64)
    after = np.array(matched.after, np.int64)
    order = np.argsort(context, kind="stable")
    edges = np.cumsum(np.bincount(context, minlength=len(matched.context_ids)))[:-1]
    groups = np.split(after[order], edges)
    keys_by_kind = {}
    for words in sorted(matched.context_ids):
        kind, group = f"mentions, after {' '.join(words)}", groups[matched.context_ids[words]]
        if kinds is not None:
            if kind in kinds:
                keys_by_kind[kind] = _distinct(group, num_entities)
        # Counted before and after duplicates are removed, because the first test is cheap.
        elif len(group) >= least and len(keys := _distinct(group, num_entities)) >= least:
            keys_by_kind[kind] = keys
    return keys_by_kind


def _nested_keys(
    index: _NameIndex, names: Mapping[int, Sequence[str]], num_entities: int
) -> array[int]:
    """Return keys of pairs whose head's name, with its bracket, contains the tail's name."""
    keys = array("q")
    for head, head_names in names.items():
        for name in head_names:
            tokens = running(name, stops=True)
            for position in range(len(tokens)):
                for _, owners in index.at(tokens, position):
                    keys.extend([head * num_entities + owner for owner in owners])
    return keys


def _shared_word_keys(index: _NameIndex, share: int, num_entities: int) -> array[int]:
    """Return keys of pairs whose names share a word of at most `share` entities."""
    keys = array("q")
    for bearers in index.bearers.values():
        if len(bearers) <= share:
            keys.extend([head * num_entities + tail for head, tail in permutations(bearers, 2)])
    return keys


def _distinct(keys: array[int] | Int[np.ndarray, " n"], num_entities: int) -> Int[np.ndarray, " k"]:
    """Return distinct keys in ascending order, without pairs of an entity and itself."""
    distinct: Int[np.ndarray, " k"] = np.unique(np.array(keys, np.int64))
    different: Int[np.ndarray, " k"] = distinct[distinct // num_entities != distinct % num_entities]
    return different
