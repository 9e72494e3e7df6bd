"""Names of entities and relations: which are refused, and which look like one another.

A name identifies, so it is never changed: a name is taken as it stands or it is refused. Control
characters, halves of surrogate pairs and noncharacters are refused, because they come from a wrong
encoding or from damage, never from a person who names something. Marks that reverse the direction
of text and characters without width have uses, so names with them are taken and counted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

# Characters of a name.
LONGEST_NAME = 1 << 16
_CONTROLS = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_NEVER = "\ud800-\udfff\ufdd0-\ufdef" + "".join(
    f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17)
)
_REFUSED = re.compile(f"[{_CONTROLS}{_NEVER}]")
_REFUSED_OR_BREAK = re.compile(f"[{_CONTROLS}{_NEVER}\\t\\n\\r]|\\A\ufeff")
# Marks of direction, characters without width, and separators of lines and paragraphs.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)
_ODD_SPACES = re.compile(r"  | \n|\n |[\t\x0b\x0c\r\x1c-\x1f]|\A | \Z|\n\n")
# Letters of Greek and Cyrillic that look like one of Latin, after `str.casefold`.
_LATIN = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0455\u0456\u0458"
    "\u04bb\u0501\u051b\u051d\u03b1\u03b2\u03b5\u03b7\u03b9\u03ba\u03bc\u03bd\u03bf\u03c1\u03c4"
    "\u03c5\u03c7\u03b6",
    "abekmhopctyxsijhdqwabehikmnoptyxz",
)


def check_name(name: str) -> None:
    """Check a new name.

    Raises:
        ValueError: it is refused; the message says why.
    """
    if problem := name_problem(name):
        raise ValueError(f"{shown(name)}: {problem}")


def name_problem(name: str, breaks: bool = True) -> str:
    """Why a name is refused, with the remedy; empty if it is not.

    Args:
        breaks: whether tabs, line breaks and a byte order mark at the start are refused too, which
            TSV and lists of names cannot hold.
    """
    if len(name) > LONGEST_NAME:
        return (
            f"the name has {len(name):,} characters, more than {LONGEST_NAME:,}; shorten it (a "
            f"text belongs in [[texts]])"
        )
    match = (_REFUSED_OR_BREAK if breaks else _REFUSED).search(name)
    if match is None:
        return ""
    char = match[0]
    code = f"U+{ord(char):04X}"
    if char in "\t\n\r":
        what = "a tab" if char == "\t" else "a line break"
        return f"the name {shown(name)} holds {what} ({code}); rename it to one without"
    if char == "\ufeff":
        return f"the name {shown(name)} begins with a byte order mark ({code}); remove it"
    if char == "\0":
        return f"the name {shown(name)} holds a null character ({code}); is the file in UTF-8?"
    what = "a control character" if char < "\u0100" else "a code point that is no character"
    return f"the name {shown(name)} holds {what} ({code}); correct it, or the file's encoding"


def refused(names: Sequence[str], breaks: bool = True) -> set[str]:
    """Those of some names that `name_problem` refuses."""
    text = "".join(names)
    # Most names are printable and short, which is quick to see for all of them at once.
    if text.isprintable() and max(map(len, names), default=0) <= LONGEST_NAME:
        return set()
    return {name for name in names if name_problem(name, breaks)}


def shown(name: str) -> str:
    """A name in quotes and with escapes, cut where it is long."""
    return repr(name) if len(name) <= 80 else f"{name[:80]!r}... ({len(name):,} characters)"


@final
@dataclass(frozen=True)
class LookAlikes:
    """Pairs of different names that look alike.

    Attributes:
        pairs: the first ones, each with what differs.
        count: of all: names that look like an earlier one.
    """

    pairs: tuple[tuple[str, str, str], ...]
    count: int


def look_alikes(names: Iterable[str], most: int = 3) -> LookAlikes:
    """Find names that differ only in case, white space, composition, script or what is not seen.

    Args:
        most: the pairs to return.
    """
    names = list(names)
    first: dict[str, str] = {}
    pairs: list[tuple[str, str, str]] = []
    count = 0
    for name, key in _suspects(names):
        other = first.setdefault(key, name)
        if other != name:
            count += 1
            if len(pairs) < most:
                pairs.append((other, name, difference(other, name)))
    return LookAlikes(tuple(pairs), count)


def _suspects(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names with their keys; none at all if it is quick to see that all keys differ."""
    text = "\n".join(names)
    others: list[str] = []
    if not text.isascii():
        others = [name for name in names if not name.isascii()]
        text = "\n".join(filter(str.isascii, names))
    # Where white space is plain, the key of a name in ASCII is the name in lower case.
    lowered = text.lower()
    if not _ODD_SPACES.search(text):
        if not others and lowered == text:
            return
        keys = [*lowered.split("\n"), *map(look_key, others)]
        if len(set(keys)) == len(keys):
            return
    yield from zip(names, map(look_key, names), strict=True)


def look_key(name: str) -> str:
    """A text that is equal for names that look alike."""
    if name.isascii():
        return " ".join(name.casefold().split())
    name = _INVISIBLE.sub("", unicodedata.normalize("NFKC", name))
    name = unicodedata.normalize("NFKC", name.casefold())
    return " ".join(name.translate(_LATIN).split())


def alike(name: str, names: Iterable[str]) -> str | None:
    """The first of some names that looks like a given one and is not equal to it."""
    key = look_key(name)
    return next((other for other in names if look_key(other) == key and other != name), None)


def difference(one: str, two: str) -> str:
    """What differs between two names that look alike."""
    steps = (
        ("case", str.casefold),
        ("composition of characters (Unicode NFC and NFD)", _composed),
        ("white space", lambda name: " ".join(name.split())),
        ("invisible characters", lambda name: _INVISIBLE.sub("", name)),
        ("forms of characters (Unicode NFKC)", lambda name: unicodedata.normalize("NFKC", name)),
        ("letters of other scripts", lambda name: name.casefold().translate(_LATIN)),
    )
    for what, simplified in steps:
        if simplified(one) == simplified(two):
            return what
    return "several of case, white space, composition and script"


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def name_notes(where: str, names: Sequence[str], what: str) -> list[str]:
    """Notes on names that look alike, and on names with invisible characters.

    Args:
        where: the file or folder, with which a note begins.
        what: entities or relations.
    """
    notes = []
    alike = look_alikes(names)
    if alike.count:
        pairs = ", ".join(f"{a!a} and {b!a} ({how})" for a, b, how in alike.pairs)
        who = f"name of {what} looks" if alike.count == 1 else f"names of {what} look"
        notes.append(
            f"{where}: {alike.count:,} {who} like another one; they are different {what}: {pairs}"
            f"{', ...' if alike.count > len(alike.pairs) else ''}; rename them in the file if they "
            f"are the same"
        )
    invisible = [] if "".join(names).isprintable() else list(filter(_INVISIBLE.search, names))
    if invisible:
        notes.append(
            f"{where}: {len(invisible):,} names of {what} hold characters that are not seen (marks "
            f"of direction, joiners, characters without width), the first {invisible[0]!a}"
        )
    return notes
