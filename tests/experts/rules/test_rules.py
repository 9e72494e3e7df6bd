"""Patterns against naive references: support, pairs, paths, chances; planted rules are found."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mocme.data.graph import Queries
from mocme.data.modality import Pairs
from mocme.experts.rules import adjacency as relations
from mocme.experts.rules import rule_mining as mining
from mocme.experts.rules import rule_regression as fitting
from mocme.experts.rules.adjacency import Adjacency, Walks
from mocme.experts.rules.path_counting import connected
from mocme.experts.rules.rule_mining import mine, supports
from mocme.experts.rules.rule_model import RuleModel, RuleSettings
from mocme.experts.rules.rule_regression import design, regress

Edges = dict[int, set[tuple[int, int]]]
Body = tuple[int, int]


def make_pairs(kinds: Mapping[str, Sequence[tuple[int, int]]], entities: int) -> Pairs:
    rows = sorted(
        {(kind, h, t) for kind, own in enumerate(kinds.values()) for h, t in own if h != t}
    )
    columns = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).unbind(1)
    return Pairs(tuple(kinds), *columns, entities)


def make(
    facts: Sequence[tuple[int, int, int]],
    links: int,
    entities: int,
    kinds: Mapping[str, Sequence[tuple[int, int]]] | None = None,
) -> Adjacency:
    pairs = {} if kinds is None else {"text": make_pairs(kinds, entities)}
    names = [f"r{link}" for link in range(links)]
    triples = torch.tensor(facts, dtype=torch.int64).reshape(-1, 3)
    return Adjacency.of(triples, links, entities, pairs, names)


@st.composite
def graphs(draw: Any) -> tuple[Any, ...]:
    """Small, with loops, duplicates, a hub and sometimes pairs."""
    entities, links = draw(st.integers(2, 9)), draw(st.integers(1, 3))
    node = st.integers(0, entities - 1)
    fact = st.tuples(node, st.integers(0, links - 1), node)
    facts = draw(st.lists(fact, max_size=40))
    if draw(st.booleans()):
        facts += [(0, 0, other) for other in range(entities)]
    facts += facts[: draw(st.integers(0, 3))]
    pair = st.lists(st.tuples(node, node), max_size=12)
    kinds = draw(st.none() | st.fixed_dictionaries({"mentions": pair, "similar": pair}))
    # Not the relations yet: the checks of shapes use chance, which a strategy may not.
    return facts, links, entities, kinds


def edges_of(known: Adjacency) -> Edges:
    return {
        k: set(zip(*map(np.ndarray.tolist, known.pairs(k)), strict=True)) for k in range(len(known))
    }


def bodies_of(known: Adjacency) -> list[Body]:
    kinds = range(len(known))
    return [(k, -1) for k in kinds] + list(itertools.product(kinds, kinds))


def paths_of(edges: Edges, body: Body) -> Counter[tuple[int, int]]:
    """Naive: how many paths lead from h to t, through neither, h != t."""
    first, second = body
    if second < 0:
        return Counter(edges[first])
    return Counter(
        (h, t)
        for h, x in edges[first]
        for y, t in edges[second]
        if x == y and h != t and x not in (h, t)
    )


def naive_supports(known: Adjacency) -> dict[tuple[int, int, int], int]:
    edges = edges_of(known)
    found = {}
    for body in bodies_of(known):
        paths = paths_of(edges, body)
        for link in range(2 * known.num_links):
            if body != (link, -1):
                count = sum(pair in paths for pair in edges[link])
                if count:
                    found[(link, *body)] = count
    return found


def columns(bodies: mining.RuleBodies, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(getattr(bodies, name).tolist() for name in names), strict=True))


def everything(known: Adjacency, **changes: Any) -> mining.RuleBodies:
    settings: dict[str, Any] = {"support": 1, "confidence": 1e-9, "most": 10**6, "degree": 10**6}
    return mine(known, **{**settings, "paths": 1e9, "seed": 0, **changes})


def test_numbering_and_names() -> None:
    known = make([(0, 0, 1), (0, 0, 1), (1, 1, 1), (2, 1, 0)], 2, 3, {"mentions": [(0, 2)]})
    assert known.names[:4] == ["r0", "r1", "inverse of r0", "inverse of r1"]
    assert known.names[4:] == ["text: mentions", "inverse of text: mentions"]
    assert known.inverse.tolist() == [2, 3, 0, 1, 5, 4]
    # A duplicate counts once, a loop not at all.
    assert edges_of(known) == {
        0: {(0, 1)},
        1: {(2, 0)},
        2: {(1, 0)},
        3: {(0, 2)},
        4: {(0, 2)},
        5: {(2, 0)},
    }
    for k in range(6):
        matrix = known.matrix(k)
        assert matrix.dtype == np.float32
        assert matrix.has_sorted_indices
        assert (
            set(zip(*map(np.ndarray.tolist, matrix.nonzero()), strict=True)) == edges_of(known)[k]
        )
        assert (known.matrix(int(known.inverse[k])) != matrix.T).nnz == 0


def test_what_relations_refuse() -> None:
    with pytest.raises(ValueError, match="outside the 3 entities"):
        make([(0, 0, 3)], 1, 3)
    with pytest.raises(ValueError, match="1 names for 2 relations"):
        Adjacency.of(torch.empty(0, 3, dtype=torch.int64), 2, 3, {}, ["r"])
    with pytest.raises(ValueError, match="'text' was made for 4 entities"):
        Adjacency.of(torch.empty(0, 3, dtype=torch.int64), 1, 3, {"text": make_pairs({}, 4)}, ["r"])


@given(graphs())
def test_rows_are_found_with_and_without_a_table(drawn: Any) -> None:
    known = make(*drawn)
    kind, head = np.divmod(np.arange(len(known) * known.num_entities), known.num_entities)
    by_table = known.rows(kind, head)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relations, "TABLE", 0)
        searched = Adjacency(**{k: v for k, v in vars(known).items() if k != "_table"})
        assert (searched.rows(kind, head) == by_table).all()


@given(graphs(), st.sampled_from([1, 3, 1 << 22]))
def test_support_equals_the_naive_count(drawn: Any, piece: int) -> None:
    known = make(*drawn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mining, "PATHS", piece)
        found = supports(known, 10**6, 0, lambda share: None)
    expected = {key: n for key, n in naive_supports(known).items() if key[0] < known.num_links}
    own = {(r, a, b): n for r, a, b, n in columns(found, "relation", "first", "second", "support")}
    assert own == expected


@given(graphs())
def test_mined_bodies_have_naive_counts_in_both_directions(drawn: Any) -> None:
    known = make(*drawn)
    edges = edges_of(known)
    found = columns(everything(known), "relation", "first", "second", "support", "confidence")
    assert [row[0] for row in found] == sorted(row[0] for row in found)
    expected = naive_supports(known)
    assert {row[:3]: row[3] for row in found} == expected
    for link, first, second, support, confidence in found:
        connects = len(paths_of(edges, (first, second)))
        assert confidence == support / (connects + 5)
        back = mining.backwards(known, np.array([first]), np.array([second]))
        mirrored = (int(known.inverse[link]), int(back[0][0]), int(back[1][0]))
        assert expected[mirrored] == support


@given(graphs(), st.floats(0.01, 0.6), st.integers(1, 4), st.integers(1, 5))
def test_bounds_keep_what_a_full_list_would(
    drawn: Any, confidence: float, support: int, most: int
) -> None:
    known = make(*drawn)
    names = ("relation", "first", "second", "support", "confidence")
    full = columns(everything(known), *names)
    kept = columns(everything(known, confidence=confidence, support=support, most=most), *names)
    for link in range(known.num_links):
        able = [r for r in full if r[0] == link and r[3] >= support and r[4] >= confidence]
        able.sort(key=lambda row: (-row[4] * min(1, row[3] / 10), row[1], row[2]))
        assert [row for row in kept if row[0] == link] == able[:most]
    half = len(kept) // 2
    assert [row[3:] for row in kept[:half]] == [row[3:] for row in kept[half:]]


@given(graphs(), st.sampled_from([1, 4, 1 << 22]))
def test_connected_pairs_in_blocks(drawn: Any, piece: int) -> None:
    known = make(*drawn)
    first, second = np.array(bodies_of(known)).T
    edges = edges_of(known)
    expected = [len(paths_of(edges, body)) for body in bodies_of(known)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mocme.experts.rules.path_counting.PATHS", piece)
        enough = np.full(len(first), np.inf)
        found = connected(known, first, second, enough, 1e9, lambda share: None)
    assert found.tolist() == expected
    # What is given up has too many pairs indeed.
    some = connected(known, first, second, np.full(len(first), 2.0), 1e9, lambda share: None)
    assert all(a == b or (math.isinf(a) and b > 2) for a, b in zip(some, expected, strict=True))


def test_too_many_paths_are_not_multiplied_out() -> None:
    facts = [(h, 0, 6) for h in range(5)] + [(6, 0, t) for t in range(7, 12)]
    known = make(facts, 1, 12)
    body = np.array([0]), np.array([0])
    none = connected(known, *body, np.array([20.0]), 10.0, lambda share: None)
    assert np.isinf(none).all()
    assert connected(known, *body, np.array([25.0]), 10.0, lambda share: None).tolist() == [25]


@given(graphs(), st.sampled_from([1, 3, 1 << 22]))
def test_walks_count_paths(drawn: Any, piece: int) -> None:
    known = make(*drawn)
    edges = edges_of(known)
    asked = [(h, *body) for h in range(known.num_entities) for body in bodies_of(known)]
    head, first, second = np.array(asked).T
    found: Counter[tuple[int, int]] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relations, "PATHS", piece)
        for walk, end, paths in Walks.of(known, head, first, second).made():
            found.update(
                {(w, t): int(n) for w, t, n in zip(walk.tolist(), end.tolist(), paths, strict=True)}
            )
    expected = {
        (place, t): count
        for place, (h, *body) in enumerate(asked)
        for (start, t), count in paths_of(edges, (body[0], body[1])).items()
        if start == h
    }
    assert found == expected


def naive_rows(
    known: Adjacency, link: int, bodies: mining.RuleBodies
) -> dict[tuple[int, int], list[float]]:
    """Features of each (h, t) that a body connects, heads of training facts only."""
    edges = edges_of(known)
    heads = {h for h, _ in edges[link]}
    counts = [paths_of(edges, body) for body in columns(bodies, "first", "second")]
    pairs = {pair for own in counts for pair in own if pair[0] in heads}
    return {pair: [math.log2(1 + own[pair]) for own in counts] for pair in pairs}


def of_link(bodies: mining.RuleBodies, link: int) -> mining.RuleBodies:
    return bodies[bodies.relation == link]


@given(graphs(), st.sampled_from([1, 20, 1 << 22]))
def test_the_design_counts_every_pair(drawn: Any, cells: int) -> None:
    known = make(*drawn)
    bodies, edges = everything(known), edges_of(known)
    for link in range(2 * known.num_links):
        own = of_link(bodies, link)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fitting, "CELLS", cells)
            seen = design(known, link, own, 0)
        expected: Counter[tuple[float, ...]] = Counter()
        true: Counter[tuple[float, ...]] = Counter()
        for pair, row in naive_rows(known, link, own).items():
            expected[tuple(row)] += 1
            true[tuple(row)] += pair in edges[link]
        rows = [tuple(row) for row in seen.features.toarray().tolist()]
        assert dict(zip(rows, seen.number.tolist(), strict=True)) == expected
        assert dict(zip(rows, seen.true.tolist(), strict=True)) == dict(true)


def random_facts(
    seed: int, entities: int = 60, links: int = 3, count: int = 400
) -> list[tuple[int, int, int]]:
    generator = np.random.default_rng(seed)
    table = generator.integers(0, [entities, links, entities], (count, 3))
    return [(int(h), int(r), int(t)) for h, r, t in table]


def test_heads_are_drawn_where_paths_are_too_many() -> None:
    known = make(random_facts(0), 3, 60)
    own = of_link(everything(known), 0)
    full, part = design(known, 0, own, 0), design(known, 0, own, 0, most=2000)
    assert 0 < part.number.sum() < full.number.sum() / 3
    assert (part.features != design(known, 0, own, 0, most=2000).features).nnz == 0
    # One head at least, however many its paths.
    assert design(known, 0, own, 0, most=1).number.sum() > 0


def test_the_regression_is_at_its_minimum() -> None:
    known = make(random_facts(1), 3, 60)
    seen = design(known, 0, of_link(everything(known, support=3), 0), 0)
    weight, bias = regress(seen, 1.0)

    def loss(weight: np.ndarray, bias: float) -> float:
        logit = seen.features @ weight + bias
        fit = seen.number @ np.logaddexp(0, logit) - seen.true @ logit
        return float(fit + 0.5 * weight @ weight)

    best = loss(weight, bias)
    generator = np.random.default_rng(0)
    for _ in range(20):
        assert loss(weight + 0.02 * generator.standard_normal(len(weight)), bias) > best
    assert loss(weight, bias + 0.02) > best < loss(weight, bias - 0.02)


@given(graphs())
def test_chances_equal_the_formula(drawn: Any) -> None:
    known = make(*drawn)
    size = known.num_entities
    evidence = RuleModel.fit(known, RuleSettings(support=1, confidence=0.01))
    head, link = np.divmod(np.arange(size * 2 * known.num_links), 2 * known.num_links)
    queries = Queries(torch.from_numpy(head), torch.from_numpy(link))
    found = evidence.chances(queries)
    edges = edges_of(known)
    expected = np.zeros((len(head), size))
    odds: dict[tuple[int, int], float] = {}
    counts = [paths_of(edges, body) for body in columns(evidence.bodies, "first", "second")]
    for row, (h, r) in enumerate(zip(head, link, strict=True)):
        for number, own in enumerate(counts):
            if evidence.bodies.relation[number] == r:
                for (start, t), count in own.items():
                    if start == h:
                        share = evidence.weight[number] * math.log2(1 + count)
                        odds[row, t] = odds.get((row, t), evidence.bias[r]) + share
    for place, value in odds.items():
        expected[place] = 1 / (1 + math.exp(-value))
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    assert set(zip(*found.nonzero(), strict=True)) == set(odds)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-5)


def test_no_fact_is_its_own_evidence() -> None:
    # With its loops, r0 then r0 would lead from 0 to 1 over the fact (0, r0, 1) itself.
    facts = [(h, 0, h + 1) for h in range(0, 20, 2)] + [(h, 0, h) for h in range(20)]
    evidence = RuleModel.fit(make(facts, 1, 20), RuleSettings(support=1))
    assert len(evidence.bodies) == 0


def planted(seed: int = 0) -> tuple[Adjacency, list[tuple[int, int]]]:
    """r2 = r0 then r1; r3 = inverse of r0; a mention implies r4. Some facts of r2 are held out."""
    generator = np.random.default_rng(seed)
    first = [(h, int(generator.integers(30, 60))) for h in range(30)]
    second = [(x, int(generator.integers(60, 90))) for x in range(30, 60)]
    lead = dict(second)
    composed = [(h, lead[x]) for h, x in first]
    mentions = [(h, int(generator.integers(60, 90))) for h in range(30)]
    facts = [(h, 0, x) for h, x in first] + [(x, 1, t) for x, t in second]
    facts += [(h, 2, t) for h, t in composed[5:]] + [(x, 3, h) for h, x in first]
    facts += [(h, 4, t) for h, t in mentions[3:]]
    noise = random_facts(seed, 90, 5, 60)
    return make(facts + noise, 5, 90, {"mentions": mentions}), composed[:5]


def test_planted_rules_are_found() -> None:
    known, held_out = planted()
    evidence = RuleModel.fit(known, RuleSettings())
    wanted = {2: (0, 1), 3: (5, -1), 4: (10, -1)}
    for link, body in wanted.items():
        own = evidence.bodies.relation == link
        best = int(np.argmax(np.where(own, evidence.weight, -np.inf)))
        assert (evidence.bodies.first[best], evidence.bodies.second[best]) == body
    for head, tail in held_out:
        row = evidence.chances(Queries(torch.tensor([head]), torch.tensor([2]))).toarray()[0]
        assert row.argmax() == tail
        assert evidence.reasons(head, 2, tail)[0].name == "r0, then r1"


def test_reasons_sum_to_the_log_odds() -> None:
    known = make(random_facts(2), 3, 60, {"mentions": [(h, (7 * h) % 60) for h in range(60)]})
    evidence = RuleModel.fit(known, RuleSettings(support=2))
    row = evidence.chances(Queries(torch.tensor([3]), torch.tensor([4]))).tocoo()
    assert row.nnz > 10
    for answer, chance in zip(row.col.tolist(), row.data.tolist(), strict=True):
        reasons = evidence.reasons(3, 4, answer)
        shares = [reason.share for reason in reasons]
        assert shares == sorted(shares, reverse=True)
        assert all(r.share == r.weight * math.log2(1 + r.count) for r in reasons)
        expected = math.log(chance / (1 - chance)) - evidence.bias[4]
        assert sum(shares) == pytest.approx(expected, abs=1e-4)
    assert evidence.reasons(3, 4, 3) == []


def test_add_equals_the_formula() -> None:
    known, _ = planted()
    evidence = RuleModel.fit(known, RuleSettings(strength=0.5, sharpness=3.0, ridge=1e-4))
    queries = Queries(torch.arange(40), torch.arange(40) % 10)
    chances = torch.from_numpy(evidence.chances(queries).toarray()).double().clamp(max=0.99)
    assert float(chances.max()) == pytest.approx(0.99)
    scores = torch.randn(40, 90, generator=torch.Generator().manual_seed(0))
    expected = scores.double() + 0.5 * torch.log1p(3.0 * chances / (1 - chances))
    result = evidence.add_(scores, queries)
    assert result is scores
    torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(evidence.weighed(0.0, 1.0).add_(scores.clone(), queries), scores)


@pytest.mark.parametrize("facts", [[], [(0, 0, 1), (2, 1, 3)]])
def test_without_patterns_nothing_changes(facts: list[tuple[int, int, int]]) -> None:
    evidence = RuleModel.fit(make(facts, 2, 4), RuleSettings())
    queries = Queries(torch.tensor([0, 1, 2]), torch.tensor([0, 3, 1]))
    assert evidence.chances(queries).nnz == 0
    assert evidence.reasons(0, 0, 1) == []
    scores = torch.randn(3, 4)
    assert torch.equal(evidence.add_(scores.clone(), queries), scores)
    assert evidence.chances(Queries(torch.empty(0).long(), torch.empty(0).long())).shape == (0, 4)


def test_a_second_fit_gives_the_same_bits_and_packing_keeps_them() -> None:
    known = make(random_facts(3), 3, 60)
    settings = RuleSettings(support=2, degree=5, strength=0.25, sharpness=7.0)
    one, two = RuleModel.fit(known, settings), RuleModel.fit(known, settings)
    assert len(one.bodies)
    tensors, metadata = one.packed()
    again, _ = two.packed()
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
    back = RuleModel.unpacked(tensors, metadata, known)
    assert (back.strength, back.sharpness) == (0.25, 7.0)
    queries = Queries(torch.arange(60), torch.arange(60) % 6)
    assert (back.chances(queries) != one.chances(queries)).nnz == 0
    with pytest.raises(ValueError, match="other facts or pairs"):
        RuleModel.unpacked(tensors, metadata, make(random_facts(4), 3, 60))
    with pytest.raises(ValueError, match="format 'x'"):
        RuleModel.unpacked(tensors, {**metadata, "format": "x"}, known)


def test_a_batch_gives_what_its_questions_give_alone() -> None:
    known = make(random_facts(5), 3, 60)
    evidence = RuleModel.fit(known, RuleSettings(support=2))
    queries = Queries(torch.arange(60), torch.arange(60) % 6)
    together = evidence.chances(queries)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mocme.experts.rules.rule_model.CELLS", 1)
        assert (evidence.chances(queries) != together).nnz == 0


def test_sampled_neighbours_lower_support_only() -> None:
    known = make(random_facts(6, 20, 2, 300), 2, 20)
    names = ("relation", "first", "second", "support")
    full = {row[:3]: row[3] for row in columns(supports(known, 100, 0, lambda share: None), *names)}
    some = {row[:3]: row[3] for row in columns(supports(known, 4, 0, lambda share: None), *names)}
    assert all(full[key] >= count for key, count in some.items())
    assert 0 < sum(some.values()) < sum(full.values())


def test_progress_is_told_until_the_end() -> None:
    told: list[tuple[int, int]] = []
    RuleModel.fit(make(random_facts(7), 3, 60), RuleSettings(), lambda *at: told.append(at))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == 12
    assert len({total for _, total in told}) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"support": 0}, "support of patterns must be at least 1, not 0"),
        ({"most": 0}, "most of patterns must be at least 1"),
        ({"degree": 0}, "degree of patterns must be at least 1"),
        ({"paths": float("nan")}, "paths of patterns must be at least 1"),
        ({"confidence": 0.0}, "confidence of patterns must be within"),
        ({"confidence": 1.5}, "confidence of patterns must be within"),
        ({"ridge": 0.0}, "ridge of patterns must be above 0"),
        ({"seed": -1}, "seed of patterns must not be negative"),
        ({"strength": -0.1}, "strength of patterns must be a number from 0 on"),
        ({"sharpness": float("inf")}, "sharpness of patterns must be a number from 0 on"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RuleSettings(**settings)
