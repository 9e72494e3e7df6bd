"""Words, the rarest tokens, and the ids of token facts, compared with naive references."""

from __future__ import annotations

import random
import re
import sys
import unicodedata
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mocme.data.features.tokens import TrainingFacts, rarest_tokens
from mocme.data.graph import Graph, Vocabulary
from mocme.data.modality import Tokens
from mocme.data.words import bigrams, word_pattern, words


def sets_of(tokens: Tokens) -> dict[int, list[str]]:
    sets: dict[int, list[str]] = {}
    for entity, token in zip(tokens.entity.tolist(), tokens.token.tolist(), strict=True):
        sets.setdefault(entity, []).append(tokens.vocabulary[token])
    return sets


def test_words_are_runs_of_letters_and_digits() -> None:
    assert words("Film, 2001 film_by: Ōzu's FILM!") == ["film", "2001", "by", "ōzu", "s"]
    assert words("名前 — é") == ["名前", "é"]
    assert words(" .,_- ") == []


def test_a_word_keeps_its_combining_marks() -> None:
    assert words("हिन्दी में लिखा") == ["हिन्दी", "में", "लिखा"]
    assert words("مُحَمَّد، كتاب") == ["مُحَمَّد", "كتاب"]
    # Joiners belong to a word only between two of its letters.
    assert words("می\u200cخواهم \u200cکتاب\u200c") == ["می\u200cخواهم", "کتاب"]  # noqa: RUF001
    # A word is the same however accents are stored; the lower case of "İ" has two characters.
    assert words("Cafe\u0301 CAFÉ") == ["café"]
    assert words("İlhan") == ["i\u0307lhan"]
    # A mark alone is not a word.
    assert words("\u0301 a_\u0301b") == ["a", "b"]


def test_every_combining_mark_is_known() -> None:
    marks = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c)[0] == "M"]
    pattern = re.compile(word_pattern())
    assert [mark for mark in marks if not pattern.fullmatch(f"a{mark}b")] == []


@given(st.text(alphabet="aZé1_ ́\n-\u200dम्ि", max_size=12))
def test_words_equal_those_of_a_naive_scan(text: str) -> None:
    expected, word = [], ""
    text = unicodedata.normalize("NFC", text.lower())
    for position, character in enumerate([*text, " "]):
        mark = unicodedata.category(character)[0] == "M"
        after = text[position:].lstrip("\u200d\u200c")[:1]
        inner = bool(after) and (after.isalnum() or unicodedata.category(after)[0] == "M")
        if character.isalnum() or (word and (mark or (character == "\u200d" and inner))):
            word += character
        elif word:
            expected.append(word)
            word = ""
    assert words(text) == list(dict.fromkeys(expected))


def test_bigrams_are_adjacent_words_of_a_line() -> None:
    assert bigrams("Red dog, red DOG\nsun") == ["red dog", "dog red"]
    assert bigrams("one\n\ntwo") == bigrams("") == []
    assert bigrams("Zürich ist schön") == ["zürich ist", "ist schön"]


@given(
    st.dictionaries(st.integers(0, 9), st.lists(st.sampled_from("abcdefg"), unique=True)),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([0.2, 0.25, 0.5, 0.9, 1.0]),
)
def test_rarest_tokens_equal_those_of_a_naive_count(
    sets: Mapping[int, list[str]], per_entity: int, at_least: int, at_most: float
) -> None:
    tokens = rarest_tokens(
        sets, 10, per_entity=per_entity, at_least=at_least, at_most=at_most, provenance={}
    )
    expected = {}
    for entity, tokens_of_entity in sets.items():
        ranked = []
        for token in tokens_of_entity:
            frequency = sum(token in other for other in sets.values())
            if at_least <= frequency <= at_most * len(sets) + 1e-9:
                ranked.append((frequency, token))
        if kept := [token for _, token in sorted(ranked)[:per_entity]]:
            expected[entity] = sorted(kept)
    assert sets_of(tokens) == expected
    assert list(tokens.vocabulary) == sorted({t for kept in expected.values() for t in kept})
    pairs = ((entity, iter(unread)) for entity, unread in sets.items())
    limits = {"at_least": at_least, "at_most": at_most, "provenance": {}}
    assert rarest_tokens(pairs, 10, per_entity=per_entity, **limits).digest() == tokens.digest()
    unlimited = rarest_tokens(sets, 10, per_entity=None, **limits)
    assert unlimited.digest() == rarest_tokens(sets, 10, per_entity=99, **limits).digest()


def test_a_share_is_exact_and_a_repeated_token_counts_once() -> None:
    sets = {n: ["x"] if n < 29 else ["y", "y"] for n in range(100)}
    tokens = rarest_tokens(sets, 100, per_entity=1, at_least=1, at_most=0.29, provenance={})
    assert tokens.vocabulary == ("x",)
    sets = {0: ["z", "z"], 1: ["y"]}
    assert not len(
        rarest_tokens(sets, 2, per_entity=1, at_least=2, at_most=1.0, provenance={}).token
    )


def test_token_facts_and_links_have_common_ids(tiny_graph: Callable) -> None:
    for seed in range(20):
        rng = random.Random(seed)
        sizes = {f"m{n}": rng.randint(1, 7) for n in range(rng.randint(0, 3))}
        relations = rng.randint(1, 4)
        tiny = tiny_graph(seed=seed, relations=relations, tokens=sizes)
        graph, facts = tiny.graph, tiny.facts()
        expected, first, base = set(), graph.num_entities, 2 * relations
        for h, r, t in graph.splits["train"].tolist():
            expected |= {(h, r, t), (t, r + relations, h)}
        for number, (name, size) in enumerate(sizes.items()):
            tokens = tiny.features.tokens[name]
            for e, token in zip(tokens.entity.tolist(), tokens.token.tolist(), strict=True):
                expected.add((e, base + 2 * number, first + token))
                expected.add((first + token, base + 2 * number + 1, e))
            assert facts.spans[number + 1] == (first, first + size)
            assert facts.relation_class[base + 2 * number] == number + 1
            assert facts.relation_class[base + 2 * number + 1] == 0
            first += size
        directed = list(map(tuple, facts.facts.tolist()))
        assert len(directed) == len(set(directed))
        assert set(directed) == expected
        assert facts.num_nodes == first
        assert facts.num_relations == base + 2 * len(sizes) == len(facts.inverse)
        assert facts.spans[0] == (0, graph.num_entities)
        # No relation is its own inverse; the inverse of the inverse is the relation.
        every = torch.arange(facts.num_relations)
        assert torch.equal(facts.inverse[facts.inverse], every)
        assert not (facts.inverse == every).any()
        assert {(t, int(facts.inverse[r]), h) for h, r, t in directed} == set(directed)
        # The answer of every query is within the span of the candidate class.
        for _, r, t in directed:
            start, stop = facts.spans[int(facts.relation_class[r])]
            assert start <= t < stop
        occurring = {node for h, _, t in directed for node in (h, t)}
        assert set(facts.present.nonzero().flatten().tolist()) == occurring
        # The queries and answers of a ranking have no tokens.
        ranked = graph.directed()
        assert int(ranked[:, [0, 2]].max()) < graph.num_entities
        assert int(ranked[:, 1].max()) < base


def test_candidates_of_training() -> None:
    # 0 and 1 are linked, 2 has a token only, 3 is in test only, 4 has nothing.
    graph = Graph(
        Vocabulary("abcde"),
        Vocabulary("r", "relation"),
        {"train": torch.tensor([[0, 0, 1]]), "test": torch.tensor([[3, 0, 0]])},
    )
    sets = {"m": Tokens(("x",), torch.tensor([0, 2]), torch.tensor([0, 0]), 5)}
    excluded = {
        kind: TrainingFacts.of(graph, sets, kind).excluded.tolist()
        for kind in ("linked", "trained", "all")
    }
    assert excluded == {"linked": [2, 3, 4], "trained": [3, 4], "all": []}
    assert TrainingFacts.of(graph, {}).excluded.tolist() == [2, 3, 4]


def test_tokens_of_another_graph_are_refused(tiny_graph: Callable) -> None:
    sets = {"m": Tokens(("x",), torch.tensor([0]), torch.tensor([0]), 5)}
    with pytest.raises(ValueError, match="'m' was made for 5 entities, but the graph has 12"):
        TrainingFacts.of(tiny_graph().graph, sets)
