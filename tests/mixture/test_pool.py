"""Pools and their features equal naive references; groups rank as the filtered ranking does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from mocme.data.graph import Graph, Queries
from mocme.evaluation.ranking import rank_split
from mocme.experts.base import Expert, SparseExpert
from mocme.mixture import held_out
from mocme.mixture.fact_index import FactIndex
from mocme.mixture.held_out import hold_out, make_groups
from mocme.mixture.learned import Learned
from mocme.mixture.pool import SHARPNESS, feature_names, make_pool
from mocme.mixture.weight_search import Weight
from small_experts import all_queries
from table_experts import random_experts, random_graph

WEIGHTS = {"first": Weight(1.0), "rules": Weight(2.0, 3.0), "second": Weight(0.5)}


def naive_pool(
    experts: Sequence[Expert], graph: Graph, query: Queries, size: int
) -> tuple[dict[int, dict[str, float]], dict[int, set[int]], list[float]]:
    """Features by candidate, the best of each expert, and scores outside the pool."""
    head, relation = int(query.head), int(query.relation)
    facts = [tuple(fact) for fact in graph.directed("train").tolist()]
    known = {t for h, r, t in facts if (h, r) == (head, relation)}
    everyone = range(graph.num_entities)
    rivals = [c for c in everyone if c not in known]
    said: list[dict[int, float]] = []
    total = [0.0] * graph.num_entities
    for expert in experts:
        weight = WEIGHTS[expert.name]
        if isinstance(expert, SparseExpert):
            _, column, odds = expert.odds(query)
            by_candidate = dict(zip(column.tolist(), odds.tolist(), strict=True))
            said.append({c: math.log1p(SHARPNESS * o) for c, o in by_candidate.items()})
            summed = {c: math.log1p(weight.sharpness * o) for c, o in by_candidate.items()}
        else:
            summed = dict(enumerate(expert.score(query)[0].tolist()))  # type: ignore[attr-defined]
            said.append(summed)
        for c, value in summed.items():
            total[c] += weight.strength * value
    best: dict[int, set[int]] = {}
    member: set[int] = set()
    for number, values in enumerate(said):
        speaking = sorted((c for c in rivals if c in values), key=lambda c: (-values[c], c))[:size]
        best[number] = set(speaking)
        # A training answer is in the pool if it would be among them.
        above = {c: sum(values[o] > values[c] for o in rivals if o in values) for c in values}
        worst = min((values[c] for c in speaking), default=math.inf)
        more = {c for c in known if c in values and (above[c] < size and values[c] >= worst)}
        more |= {c for c in known if c in values and len(speaking) < size}
        member |= best[number] | more
    mass = math.log(sum(math.exp(total[c]) for c in rivals)) if rivals else math.nan
    features: dict[int, dict[str, float]] = {}
    for c in sorted(member):
        row: dict[str, float] = {}
        for number, (expert, values) in enumerate(zip(experts, said, strict=True)):
            heard = [values[o] for o in rivals if o in values]
            above_c = sum(v > values[c] for v in heard) if c in values else 0
            others = [f for f in best if f != number and best[f]]
            alone = not best[number] or not others
            row[f"{expert.name}: complementarity"] = (
                0.0
                if alone
                else sum(1 - len(best[number] & best[f]) / len(best[number]) for f in others)
                / len(others)
            )
            row[f"{expert.name}: reciprocal_rank"] = 1 / (1 + above_c) if c in values else 0.0
            if isinstance(expert, SparseExpert):
                row[f"{expert.name}: gain"] = values.get(c, 0.0)
                row[f"{expert.name}: spoken"] = float(c in values)
                row[f"{expert.name}: gap"] = values.get(c, 0.0) - max(heard, default=0.0)
                row[f"{expert.name}: reached"] = math.log1p(len(heard))
            else:
                share = math.log(sum(math.exp(v) for v in heard))
                row[f"{expert.name}: log_share"] = values[c] - share
                row[f"{expert.name}: gap"] = values[c] - max(heard)
                row[f"{expert.name}: entropy"] = -sum(
                    math.exp(v - share) * (v - share) for v in heard
                )
        times = sum(r == relation and t == c for _, r, t in facts)
        of_relation = sum(r == relation for _, r, _ in facts)
        row["times"], row["share"] = math.log1p(times), times / max(of_relation, 1)
        row["degree"] = math.log1p(sum(h == c for h, _, _ in facts))
        row["head_degree"] = math.log1p(sum(h == head for h, _, _ in facts))
        row["known"], row["facts"] = math.log1p(len(known)), math.log1p(of_relation)
        row["inverse"] = float(relation >= graph.num_relations)
        features[c] = row
    outside = [min(0.0, value - mass) for value in total]
    return features, best, outside


@pytest.mark.parametrize("size", [1, 3, 8, 100])
@pytest.mark.parametrize("ties", [False, True])
def test_a_pool_equals_the_naive_one(size: int, ties: bool) -> None:
    graph = random_graph()
    experts = random_experts(graph, ties=ties)
    queries = all_queries(graph)
    pool = make_pool(experts, WEIGHTS, FactIndex.of(graph), queries, size)
    names = feature_names(experts)
    assert pool.features.shape == (len(pool.row), len(names))
    assert pool.features.dtype == np.float32
    for index in range(len(queries)):
        expected, best, outside = naive_pool(experts, graph, queries[index : index + 1], size)
        inside = pool.row == index
        assert pool.column[inside].tolist() == sorted(expected)
        np.testing.assert_allclose(pool.outside[index], outside, atol=1e-5)
        for column, row in zip(pool.column[inside], pool.features[inside], strict=True):
            wanted = [expected[column][name] for name in names]
            np.testing.assert_allclose(row, wanted, atol=2e-5, err_msg=str(names))
        for number in best:
            members = set(pool.column[inside & pool.member[:, number]].tolist())
            assert best[number] <= members


def test_a_query_has_the_same_pool_alone_and_among_others() -> None:
    graph = random_graph()
    experts, facts, queries = random_experts(graph), FactIndex.of(graph), all_queries(graph)
    together = make_pool(experts, WEIGHTS, facts, queries, 4)
    for index in (0, 7, len(queries) - 1):
        alone = make_pool(experts, WEIGHTS, facts, queries[index : index + 1], 4)
        inside = together.row == index
        assert np.array_equal(alone.column, together.column[inside])
        assert np.array_equal(alone.features, together.features[inside])
        assert torch.equal(alone.outside[0], together.outside[index])


def test_a_query_whose_candidates_are_all_known_is_no_error() -> None:
    graph = random_graph(entities=3, relations=1, facts=4)
    everything = torch.tensor([[h, 0, t] for h in range(3) for t in range(3)])
    graph = replace(graph, splits={"train": everything, "valid": everything[:0]})
    pool = make_pool(random_experts(graph), WEIGHTS, FactIndex.of(graph), all_queries(graph), 2)
    assert np.isfinite(pool.features).all()
    assert bool(pool.outside.isfinite().all())


def test_held_out_facts_are_taken_out_of_train() -> None:
    graph = random_graph(facts=200)
    graph = replace(graph, splits={**graph.splits, "test": graph.facts("valid")})
    rest, held = hold_out(graph.training_view(), 0.25, seed=3)
    train = {tuple(fact) for fact in graph.facts("train").tolist()}
    left, out = ({tuple(f) for f in g.tolist()} for g in (rest.facts("train"), held.facts("valid")))
    assert left | out == train
    assert not left & out
    assert len(out) == round(0.25 * len(train))
    assert torch.equal(held.facts("train"), rest.facts("train"))
    assert torch.equal(rest.facts("valid"), graph.facts("valid"))
    again, _ = hold_out(graph.training_view(), 0.25, seed=3)
    assert torch.equal(again.facts("train"), rest.facts("train"))
    other, _ = hold_out(graph.training_view(), 0.25, seed=4)
    assert {tuple(f) for f in other.facts("train").tolist()} != left


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("memory", [0.5, 1e-9])
def test_ranks_in_groups_are_those_of_the_filtered_ranking(
    size: int, ties: bool, memory: float, ranker_of: Callable[..., Learned]
) -> None:
    """For every answer, in its pool or not; the mixture is fitted for what is measured."""
    graph = random_graph(facts=150)
    experts = random_experts(graph, ties=ties)
    ranker = ranker_of(graph, experts, size)
    groups = make_groups(experts, WEIGHTS, graph, size, 5, 0, memory)
    assert 0 < groups.covered < 1
    ranks = rank_split(ranker, graph, "valid", 0.5)
    expected = sorted((1 / ranks.realistic).tolist())
    found = sorted(groups.reciprocal_ranks(ranker.model(groups.features, groups.relation)).tolist())
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_both_directions_of_a_fact_are_in_one_part() -> None:
    graph = random_graph(facts=150)
    groups = make_groups(random_experts(graph), WEIGHTS, graph, 3, 4, 0, 0.5)
    count = len(graph.facts("valid"))
    assert len(groups) == 2 * count
    sizes = np.bincount(groups.part, minlength=4)
    assert sizes.sum() == 2 * count
    assert (sizes % 2 == 0).all()
    assert sizes.min() > 0


def test_the_part_of_a_fact_does_not_depend_on_direction_or_other_facts() -> None:
    graph = random_graph(facts=400)
    facts = graph.directed("train")
    part = held_out.parts_of(facts, graph.num_relations, 5, 3)
    half = len(facts) // 2
    assert torch.equal(part[:half], part[half:])
    some = torch.arange(0, len(facts), 7)
    assert torch.equal(held_out.parts_of(facts[some], graph.num_relations, 5, 3), part[some])
    sizes = torch.bincount(part[:half], minlength=5)
    assert len(sizes) == 5
    assert int(sizes.min()) > half // 10
    assert not torch.equal(held_out.parts_of(facts, graph.num_relations, 5, 4), part)


def test_groups_are_of_a_bounded_number_of_facts_drawn_by_the_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = random_graph(facts=300)
    answers, relations = graph.answers("valid"), graph.num_relations
    whole = held_out.counted_answers(answers, relations, 0)
    assert bool(whole.all())
    monkeypatch.setattr(held_out, "FACTS", 10)
    some = held_out.counted_answers(answers, relations, 0)
    assert int(some.sum()) == 20  # both directions
    assert not torch.equal(held_out.counted_answers(answers, relations, 1), some)
    experts = random_experts(graph)
    made = {}
    for memory in (0.5, 1e-9):
        groups = make_groups(experts, WEIGHTS, graph, 3, 4, 0, memory)
        assert len(groups) == 20
        made[memory] = groups
    assert np.array_equal(made[0.5].cell, made[1e-9].cell)
    assert np.array_equal(made[0.5].outside, made[1e-9].outside)


def test_a_question_with_many_answers_has_a_bounded_number_of_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = random_graph(facts=150)
    monkeypatch.setattr(held_out, "GROUPS", 1)
    groups = make_groups(random_experts(graph), WEIGHTS, graph, 3, 4, 0, 0.5)
    assert len(groups) == len(graph.answers("valid")) < 2 * len(graph.facts("valid"))


@pytest.mark.parametrize("most", [1, 3, 100])
def test_learnable_groups_are_the_chosen_ones_with_their_answers_and_some_others(
    most: int,
) -> None:
    graph = random_graph(facts=150)
    groups = make_groups(random_experts(graph), WEIGHTS, graph, 3, 4, 0, 0.5)
    chosen = groups.part != 0
    kept = groups.learnable(chosen, most, 1)
    index = np.flatnonzero(chosen & (groups.answer >= 0))
    whole = [groups.cell[groups.start[i] : groups.start[i + 1]].tolist() for i in index]
    found = [kept.cell[a:b].tolist() for a, b in zip(kept.start, kept.start[1:], strict=False)]
    answers = groups.cell[groups.answer[index]].tolist()
    assert kept.cell[kept.answer].tolist() == answers
    for some, all_of_them, answer in zip(found, whole, answers, strict=True):
        assert some == [cell for cell in all_of_them if cell in some]  # in their order
        assert answer in some
        assert len(some) == min(most + 1, len(all_of_them))
    if most == 1:
        again = groups.learnable(chosen, most, 1)
        assert np.array_equal(again.cell, kept.cell)
        assert not np.array_equal(groups.learnable(chosen, most, 2).cell, kept.cell)
    rows = groups.rows(chosen)
    cells = [groups.cell[groups.start[i] : groups.start[i + 1]] for i in np.flatnonzero(chosen)]
    assert np.array_equal(rows, np.unique(np.concatenate(cells)))


def test_the_likeliest_factor_is_that_of_a_grid() -> None:
    graph = random_graph(facts=150)
    groups = make_groups(random_experts(graph), WEIGHTS, graph, 3, 4, 0, 0.5)
    rng = np.random.default_rng(0)
    score = rng.normal(size=len(groups.cell))
    inside = np.flatnonzero(groups.answer >= 0)
    score[groups.answer[inside]] += 1

    def loss(factor: float) -> float:
        total = 0.0
        for i in inside:
            values = factor * score[groups.start[i] : groups.start[i + 1]]
            total += np.log(np.exp(values).sum()) - factor * score[groups.answer[i]]
        return total

    found = groups.likeliest_factor(score)
    grid = np.exp(np.linspace(-3, 3, 121))
    best = grid[np.argmin([loss(factor) for factor in grid])]
    assert found == pytest.approx(best, rel=0.06)
    assert groups.likeliest_factor(score * found) == pytest.approx(1.0, rel=0.01)


def test_without_an_answer_in_its_pool_the_factor_is_1() -> None:
    graph = random_graph(facts=150)
    groups = make_groups(random_experts(graph), WEIGHTS, graph, 3, 4, 0, 0.5)
    none = dataclasses.replace(groups, answer=np.full(len(groups), -1))
    assert none.likeliest_factor(np.ones(len(groups.cell))) == 1.0
