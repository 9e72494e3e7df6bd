"""Vocabularies, facts and known answers, compared with naive dictionaries."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mocme.data.graph import (
    MAX_MISSPELT,
    SPLITS,
    AnswerIndex,
    Graph,
    Queries,
    UnknownName,
    Vocabulary,
    contained,
    distinct,
)

Facts = list[tuple[int, int, int]]


def graph_of(splits: dict[str, Facts], entities: int = 6, relations: int = 3) -> Graph:
    return Graph(
        Vocabulary(f"e{n}" for n in range(entities)),
        Vocabulary((f"r{n}" for n in range(relations)), "relation"),
        {s: torch.tensor(f, dtype=torch.int64).reshape(-1, 3) for s, f in splits.items()},
    )


def random_splits(rng: random.Random, entities: int, relations: int) -> dict[str, Facts]:
    def fact() -> tuple[int, int, int]:
        return (
            rng.randrange(entities),
            rng.randrange(relations),
            rng.randrange(entities),
        )

    chosen = [split for split in SPLITS if rng.random() < 0.8]
    return {split: [fact() for _ in range(rng.randrange(12))] for split in chosen}


def naive_answers(graph: Graph, *splits: str) -> dict[tuple[int, int], set[int]]:
    known: dict[tuple[int, int], set[int]] = defaultdict(set)
    for split in splits or SPLITS:
        for h, r, t in graph.splits.get(split, torch.empty(0, 3)).tolist():
            known[h, r].add(t)
            known[t, r + graph.num_relations].add(h)
    return known


def test_answers_equal_those_of_a_dictionary() -> None:
    rng = random.Random(0)
    for _ in range(300):
        entities, relations = rng.randint(1, 9), rng.randint(1, 4)
        graph = graph_of(random_splits(rng, entities, relations), entities, relations)
        splits = tuple(rng.sample(SPLITS, rng.randint(0, 4)))
        known, index = naive_answers(graph, *splits), graph.answers(*splits)
        # All queries, and some with ids of heads and relations beyond the largest.
        queries = [(h, r) for h in range(entities + 3) for r in range(2 * relations + 2)]
        rng.shuffle(queries)
        heads, relation_ids = torch.tensor(queries).unbind(1)
        positions, answers = index.lookup(Queries(heads, relation_ids))
        assert (positions.diff() >= 0).all()
        looked_up = defaultdict(list)
        for position, answer in zip(positions.tolist(), answers.tolist(), strict=True):
            looked_up[queries[position]].append(answer)
        assert dict(looked_up) == {query: sorted(known[query]) for query in looked_up}
        assert set(looked_up) == {query for query, answers in known.items() if answers}
        # The index has each of its queries once, with the same answers.
        assert len(index) == len(looked_up)
        positions, answers = index.rows(torch.arange(len(index)))
        pairs = list(zip(index.queries.head.tolist(), index.queries.relation.tolist(), strict=True))
        indexed = defaultdict(list)
        for position, answer in zip(positions.tolist(), answers.tolist(), strict=True):
            indexed[pairs[position]].append(answer)
        assert dict(indexed) == dict(looked_up)


def test_queries_may_repeat_or_be_empty() -> None:
    index = graph_of({"train": [(0, 0, 1), (0, 0, 2), (5, 2, 1)]}).answers()
    twice = Queries(torch.tensor([0, 4, 0]), torch.tensor([0, 0, 0]))
    positions, answers = index.lookup(twice)
    assert (positions.tolist(), answers.tolist()) == ([0, 0, 2, 2], [1, 2, 1, 2])
    none = Queries(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    for empty in (index.lookup(none), graph_of({}).answers().lookup(twice)):
        assert [part.tolist() for part in empty] == [[], []]
    assert len(graph_of({"train": []}).answers()) == 0


def test_a_head_beyond_the_index_is_not_mistaken_for_another_relation() -> None:
    # With keys relation * span + head, head 2 of relation 0 would be head 0 of relation 1.
    index = AnswerIndex(torch.tensor([[0, 1, 7], [1, 0, 8]]))
    positions, _ = index.lookup(Queries(torch.tensor([2, 3]), torch.tensor([0, 0])))
    assert positions.tolist() == []


def test_directed_facts_have_both_directions() -> None:
    rng = random.Random(1)
    for _ in range(50):
        graph = graph_of(random_splits(rng, 5, 3), 5, 3)
        forward = {f for facts in graph.splits.values() for f in map(tuple, facts.tolist())}
        assert list(map(tuple, graph.facts().tolist())) == sorted(forward)
        both = list(map(tuple, graph.directed().tolist()))
        assert len(both) == len(set(both)) == 2 * len(forward)
        assert set(both) == forward | {(t, r + 3, h) for h, r, t in forward}
        linked = {e for h, _, t in graph.facts("train").tolist() for e in (h, t)}
        assert set(graph.linked().nonzero().flatten().tolist()) == linked


def test_a_training_sees_neither_test_nor_known() -> None:
    splits = {split: [(n, 0, n)] for n, split in enumerate(SPLITS)}
    graph = graph_of(splits)
    view = graph.training_view()
    assert list(view.splits) == ["train", "valid"]
    assert view.facts().tolist() == [[0, 0, 0], [1, 0, 1]]
    assert not len(view.facts("test", "known"))
    assert view.entities is graph.entities
    assert (view.name, view.notes) == (graph.name, graph.notes)


def test_valid_facts_that_are_trained_on_choose_nothing() -> None:
    rng = random.Random(0)
    for _ in range(50):
        graph = graph_of(random_splits(rng, 3, 2), 3, 2)
        train = set(map(tuple, graph.facts("train").tolist()))
        view = graph.training_view()
        assert torch.equal(view.facts("train"), graph.facts("train"))
        left = [fact for fact in map(tuple, graph.facts("valid").tolist()) if fact not in train]
        assert list(map(tuple, view.facts("valid").tolist())) == left


def test_the_digest_depends_on_the_content_only() -> None:
    splits: dict[str, Facts] = {"train": [(0, 0, 1), (2, 1, 3)], "test": [(1, 0, 2)]}
    digest = graph_of(splits).digest()
    again = {"test": [(1, 0, 2)] * 2, "train": [(2, 1, 3), (0, 0, 1), (2, 1, 3)]}
    assert graph_of(again).digest() == digest
    others = [
        graph_of({**splits, "train": [(0, 0, 1)]}),
        graph_of({**splits, "train": [(0, 0, 1), (3, 1, 2)]}),
        graph_of({"train": splits["train"], "known": splits["test"]}),
        graph_of({"train": [*splits["train"], *splits["test"]]}),
        graph_of(splits, entities=7),
        graph_of(splits, relations=4),
    ]
    renamed = graph_of(splits)
    names = [*renamed.entities.names[:-1], "other"]
    others.append(Graph(Vocabulary(names), renamed.relations, renamed.splits))
    assert len({digest, *(other.digest() for other in others)}) == len(others) + 1


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n")), unique=True))
def test_ids_are_positions(names: list[str]) -> None:
    vocabulary = Vocabulary(names)
    assert [vocabulary.id(name) for name in names] == list(range(len(names)))
    assert [vocabulary[n] for n in range(len(vocabulary))] == names == list(vocabulary)
    assert vocabulary.get("\n") is None
    assert "\n" not in vocabulary


def test_the_digest_of_names_is_that_of_the_file() -> None:
    names = ["b", "a", "é"]
    assert Vocabulary(names).digest() == hashlib.sha256("b\na\né\n".encode()).hexdigest()
    assert Vocabulary(sorted(names)).digest() != Vocabulary(names).digest()


@pytest.mark.parametrize("limit", [3, 40, 2**40])
def test_distinct_facts_equal_a_sorted_set(limit: int) -> None:
    generator = torch.Generator().manual_seed(limit)
    for size in (0, 1, 2, 30, 300):
        facts = torch.randint(limit, (size, 3), generator=generator)
        expected = sorted(set(map(tuple, facts.tolist())))
        assert [tuple(fact) for fact in distinct(facts).tolist()] == expected


def test_unknown_names_suggest_similar_names() -> None:
    vocabulary = Vocabulary(["Chad", "Chile", "China", "United States", "Lake Chad", "!?"])
    assert vocabulary.suggest("chad")[0] == "Chad"
    assert vocabulary.suggest("Untied States")[0] == "United States"
    assert len(vocabulary.suggest("Ch")) <= 3
    with pytest.raises(UnknownName, match=r"no entity named 'Chda'.*; did you mean 'Chad'"):
        vocabulary.id("Chda")
    with pytest.raises(UnknownName, match=r"named 'zzzzzz' in the graph$"):
        vocabulary.id("zzzzzz")
    assert Vocabulary([]).suggest("a") == []


def test_a_repeated_name_is_refused() -> None:
    with pytest.raises(ValueError, match="relation name 'a' occurs twice"):
        Vocabulary(["a", "b", "c", "b", "a"], "relation")


def test_names_with_line_feeds_have_distinct_digests() -> None:
    lists = [["a\nb"], ["a", "b"], ["a\n", "b"], ["a", "\nb"], ["", "a", "b"], ["a\nb\n"], []]
    assert len({Vocabulary(names).digest() for names in lists}) == len(lists)
    assert Vocabulary(["a", "b"]).digest() == hashlib.sha256(b"a\nb\n").hexdigest()


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        (torch.zeros(2, 2, dtype=torch.int64), r"shape \(2, 2\)"),
        (torch.zeros(2, 3, dtype=torch.int32), "int32"),
        (torch.tensor([[0, 0, 6]]), "outside the 6 entities and 3 relations"),
        (torch.tensor([[0, 3, 0]]), "outside"),
        (torch.tensor([[-1, 0, 0]]), "outside"),
    ],
)
def test_a_graph_refuses_malformed_facts(facts: torch.Tensor, problem: str) -> None:
    good = graph_of({})
    # Either beartype or the graph itself refuses the wrong shape first.
    with pytest.raises(Exception, match=problem if facts.shape[1] == 3 else "."):
        Graph(good.entities, good.relations, {"train": facts})


def test_a_split_has_one_of_the_four_names() -> None:
    good = graph_of({})
    with pytest.raises(ValueError, match="train, valid, test, known, not 'dev'"):
        Graph(good.entities, good.relations, {"dev": torch.zeros(0, 3, dtype=torch.int64)})


def test_a_very_long_name_is_compared_with_no_other() -> None:
    """Comparing takes time by its length, for each of the names."""
    names = Vocabulary(["a" * 300, "b"])
    assert names.suggest("a" * MAX_MISSPELT) == ["a" * 300]
    assert names.suggest("a" * (MAX_MISSPELT + 1)) == []
    with pytest.raises(UnknownName) as refused:
        names.id("a" * 10_000)
    assert refused.value.near == ()


@pytest.mark.parametrize("scale", [1, 3_000_000])
def test_facts_are_found_among_others_whether_a_key_fits_or_not(scale: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        # With the scale, (head, relation, tail) needs more than the 63 bits of a key.
        facts, others = (
            torch.randint(4, (size, 3), generator=generator) * scale for size in (30, 25)
        )
        naive = [fact in others.tolist() for fact in facts.tolist()]
        assert contained(facts, others).tolist() == naive
    assert contained(facts, facts[:0]).tolist() == [False] * 30
    assert not len(contained(facts[:0], facts))
