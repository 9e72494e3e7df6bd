"""Name search: prefix, then word, then similarity; compared with a plain scan."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mocme.serving.name_search import NameSearch, normalized

NAMES = ["Chad", "Lake Chad", "Charlotte", "São Tomé", "New Chadwick", "N'Djamena", "Niger"]
FACTS = [28, 5, 3, 4, 1, 3, 9]


def search(typed: str, k: int = 20) -> list[str]:
    return [NAMES[index] for index in NameSearch(NAMES, FACTS)(typed, k)]


def test_prefixes_of_names_come_before_prefixes_of_words() -> None:
    assert search("cha")[:4] == ["Chad", "Charlotte", "Lake Chad", "New Chadwick"]
    assert search("CHAD")[0] == "Chad"
    assert search("sao")[0] == "São Tomé"
    assert search("tome")[0] == "São Tomé"
    assert search("cha", 2) == ["Chad", "Charlotte"]


def test_an_empty_query_returns_the_most_important() -> None:
    assert search("", 2) == search("  ", 2) == ["Chad", "Niger"]


def test_a_typo_finds_similar_names() -> None:
    assert "N'Djamena" in search("ndjamina")
    assert search("zzzzzzzz") == []


@given(
    st.lists(st.text("ab é", min_size=1, max_size=6), unique=True, min_size=1, max_size=30),
    st.text("ab", min_size=1, max_size=3),
)
def test_prefix_matches_equal_a_linear_scan(names: list[str], typed: str) -> None:
    facts = [len(name) for name in names]
    indices = NameSearch(names, facts)(typed, 100)
    assert len(set(indices)) == len(indices)
    by_name = [index for index, name in enumerate(names) if normalized(name).startswith(typed)]
    by_name.sort(key=lambda index: (normalized(names[index]) != typed, -facts[index], index))
    assert indices[: len(by_name)] == by_name
    by_word = {
        index
        for index, name in enumerate(names)
        if any(word.startswith(typed) for word in normalized(name).split()[1:])
    } - set(by_name)
    assert set(indices[len(by_name) : len(by_name) + len(by_word)]) == by_word
