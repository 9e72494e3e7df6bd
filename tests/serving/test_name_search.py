"""Names as they are typed: prefix, then word, then near; compared with a plain scan."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mocme.serving.name_search import NameSearch, folded

NAMES = ["Chad", "Lake Chad", "Charlotte", "São Tomé", "New Chadwick", "N'Djamena", "Niger"]
FACTS = [28, 5, 3, 4, 1, 3, 9]


def found(typed: str, k: int = 20) -> list[str]:
    return [NAMES[place] for place in NameSearch(NAMES, FACTS)(typed, k)]


def test_the_beginning_of_a_name_comes_before_that_of_a_word() -> None:
    assert found("cha")[:4] == ["Chad", "Charlotte", "Lake Chad", "New Chadwick"]
    assert found("CHAD")[0] == "Chad"
    assert found("sao")[0] == "São Tomé"
    assert found("tome")[0] == "São Tomé"
    assert found("cha", 2) == ["Chad", "Charlotte"]


def test_nothing_typed_gives_the_most_linked() -> None:
    assert found("", 2) == found("  ", 2) == ["Chad", "Niger"]


def test_a_slip_is_forgiven() -> None:
    assert "N'Djamena" in found("ndjamina")
    assert found("zzzzzzzz") == []


@given(
    st.lists(st.text("ab é", min_size=1, max_size=6), unique=True, min_size=1, max_size=30),
    st.text("ab", min_size=1, max_size=3),
)
def test_every_prefix_is_found_as_a_scan_finds_it(names: list[str], typed: str) -> None:
    facts = [len(name) for name in names]
    places = NameSearch(names, facts)(typed, 100)
    assert len(set(places)) == len(places)
    begins = [place for place, name in enumerate(names) if folded(name).startswith(typed)]
    begins.sort(key=lambda place: (folded(names[place]) != typed, -facts[place], place))
    assert places[: len(begins)] == begins
    words = {
        place
        for place, name in enumerate(names)
        if any(word.startswith(typed) for word in folded(name).split()[1:])
    }
    rest = words - set(begins)
    assert set(places[len(begins) : len(begins) + len(rest)]) == rest
