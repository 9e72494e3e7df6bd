"""Names are taken as they stand or refused, and those that look alike are told."""

from __future__ import annotations

import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocme.data.names import (
    LONGEST_NAME,
    alike,
    check_name,
    look_alikes,
    look_key,
    name_notes,
    name_problem,
    refused,
)


def is_refused(char: str) -> bool:
    code = ord(char)
    nonchar = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return unicodedata.category(char) in ("Cc", "Cs") or nonchar


def test_which_characters_are_refused() -> None:
    ends = [code for plane in range(17) for code in range(plane << 16, (plane + 1) << 16, 0x3FFF)]
    codes = {*range(0x3000), *range(0xD7F0, 0xE010, 7), *range(0xFDC0, 0xFE00), *ends}
    codes |= {plane << 16 | low for plane in range(17) for low in (0xFFFD, 0xFFFE, 0xFFFF)}
    for char in map(chr, sorted(codes)):
        assert bool(name_problem(f"a{char}b")) == is_refused(char), hex(ord(char))
    for char in "\t\n\r":
        assert not name_problem(f"a{char}b", breaks=False)
    assert "begins with a byte order mark" in name_problem("\ufeffa")
    assert not name_problem("a\ufeff")
    assert not name_problem("x" * LONGEST_NAME)
    assert "shorten it" in name_problem("x" * (LONGEST_NAME + 1))


@given(st.lists(st.text(st.characters()), max_size=8), st.booleans())
def test_names_are_refused_together_as_alone(names: list[str], breaks: bool) -> None:
    assert refused(names, breaks) == {name for name in names if name_problem(name, breaks)}


def test_a_problem_quotes_the_name_with_escapes() -> None:
    with pytest.raises(ValueError, match=r"the name 'a\\x00b' holds a null character \(U\+0000\)"):
        check_name("a\0b")
    assert name_problem("a\x1b[2J").isprintable()
    assert len(name_problem("\0" * 60_000)) < 500


@pytest.mark.parametrize(
    ("one", "two", "how"),
    [
        ("Ada", "Ada ", "white space"),
        ("Ada Byron", "Ada  Byron", "white space"),
        ("Ada Byron", "Ada\u00a0Byron", "white space"),
        ("Ada", "ADA", "case"),
        ("Zo\u00eb", "Zoe\u0308", "composition"),
        ("Ada", "A\u200bda", "invisible"),
        ("Ada", "\u202eAda", "invisible"),
        ("Ada", "\u0410da", "other scripts"),
        ("\uff21da", "Ada", "NFKC"),
        ("stra\u00dfe", "STRASSE", "case"),
    ],
)
def test_names_that_look_alike(one: str, two: str, how: str) -> None:
    found = look_alikes(["x", one, "y", two])
    assert (found.count, found.pairs[0][:2]) == (1, (one, two))
    assert how in found.pairs[0][2]
    assert alike(two, ["x", one]) == one
    assert alike(one, [one]) is None


@given(st.lists(st.text("aAbé\u0301 \u00a0\u200b\u0430\t", max_size=4), unique=True, max_size=12))
def test_look_alikes_are_those_with_equal_keys(names: list[str]) -> None:
    keys = list(map(look_key, names))
    assert look_alikes(names).count == len(names) - len(set(keys))


def test_different_names_do_not_look_alike() -> None:
    source = random.Random(0)
    names = list({f"{source.choice(['Ada', 'Zoë', '名'])} {n}" for n in range(500)})
    assert look_alikes(names).count == 0
    assert name_notes("g", names, "entities") == []


def test_notes_count_and_name_the_first() -> None:
    names = [f"{word}{end}" for word in ("a", "b", "c", "d", "e") for end in ("", " ")]
    (note,) = name_notes("g", names, "entities")
    assert note.startswith("g: 5 names of entities look like another one")
    assert "'a' and 'a ' (white space)" in note
    (note,) = name_notes("g", ["a\u202eb", "c\u200dd"], "relations")
    assert note.startswith("g: 2 names of relations hold characters that are not seen")
    assert note.isprintable()
