"""The learned mixture: its score, its choice of experts, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mocme
from mocme.data.graph import AnswerIndex, Graph
from mocme.evaluation.ranking import rank, rank_split
from mocme.mixture import held_out, learned
from mocme.mixture import learned_fit as module
from mocme.mixture import sum as sums
from mocme.mixture.base import packed_experts
from mocme.mixture.fact_index import FactIndex
from mocme.mixture.learned import Learned
from mocme.mixture.pool import make_pool
from mocme.mixture.ranker import RankerSettings
from mocme.mixture.sum import Sum
from mocme.mixture.trees import Trees
from small_experts import all_queries
from table_experts import DenseTable, SparseTable, random_experts, random_graph

SMALL: dict[str, Any] = {"pool": 4, "trees": 8, "trials": 8, "leaves": 4, "least": 2, "parts": 3}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees are fitted on small graphs too."""
    monkeypatch.setattr(module, "FEW_FACTS", 5)
    monkeypatch.setattr(module, "FEWEST_FACTS", 5)


def world(seed: int = 0) -> tuple[Graph, list]:
    graph = random_graph(entities=20, relations=2, facts=300, seed=seed)
    return graph, random_experts(graph, seed)


def knowing(graph: Graph, name: str, share: float, seed: int) -> DenseTable:
    """An expert that scores a share of the held-out answers high."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2 * graph.num_relations * graph.num_entities, graph.num_entities)
    table = torch.randn(shape, generator=generator)
    facts = graph.directed("valid")
    known = facts[torch.rand(len(facts), generator=generator) < share]
    table[known[:, 1] * graph.num_entities + known[:, 0], known[:, 2]] += 6
    return DenseTable(name, table)


# -- scores ----------------------------------------------------------------------------------------


def test_the_pool_stands_above_everything_else(ranker_of: Callable[..., Learned]) -> None:
    graph, experts = world()
    mixture, queries = ranker_of(graph, experts, 3), all_queries(graph)
    scores = mixture.score(queries)
    pool = make_pool(experts, mixture.weights, FactIndex.of(graph), queries, 3)
    inside = torch.zeros(scores.shape, dtype=torch.bool)
    inside[torch.from_numpy(pool.row), torch.from_numpy(pool.column)] = True
    assert float(scores[inside].min()) >= 1
    assert float(scores[~inside].max()) <= 0
    assert 0 < int(inside.sum()) < inside.numel()


def test_given_candidates_score_as_among_all(ranker_of: Callable[..., Learned]) -> None:
    graph, experts = world()
    mixture, queries = ranker_of(graph, experts, 3), all_queries(graph)
    scores = mixture.score(queries)
    shared = torch.tensor([3, 0, 11, 3])
    assert torch.equal(mixture.score(queries, shared), scores[:, shared])
    own = torch.randint(graph.num_entities, (len(queries), 5))
    assert torch.equal(mixture.score(queries, own), scores.gather(1, own))


def test_added_entities_change_no_score_and_get_the_place_they_would_have(
    ranker_of: Callable[..., Learned],
) -> None:
    graph, experts = world()
    size, relations = graph.num_entities, graph.num_relations
    mixture, queries = ranker_of(graph, experts, 3), all_queries(graph)

    def wider(table: Tensor, answers: Tensor) -> Tensor:
        """The table with one more entity, whose answers are those of `answers`."""
        rows = table.view(2 * relations, size, size)
        grown = torch.zeros(2 * relations, size + 1, size + 1)
        grown[:, :size, :size] = rows
        grown[:, :size, size] = answers.view(2 * relations, size)
        return grown.view(-1, size + 1)

    twin = 7  # the new entity is answered for exactly as entity 7 is
    more = [
        type(e)(e.name, wider(e.table, e.table[:, twin]))  # type: ignore[call-arg]
        for e in experts
    ]
    names = mocme.data.graph.Vocabulary([*graph.entities, "new"])
    facts = torch.cat([graph.facts("train"), torch.tensor([[size, 0, 2], [1, 1, size]])])
    extended = mixture.extended(more, replace(graph, entities=names, splits={"train": facts}))
    assert extended.num_entities == size + 1
    before, after = mixture.score(queries), extended.score(queries)
    # (1, r1, ?) has the new entity as an answer, which competes with nobody there either.
    assert torch.equal(after[:, :size], before)
    pools = [make_pool(m.experts, m.weights, m.facts, queries, m.pool) for m in (mixture, extended)]
    trained = pools[1].column < size
    assert np.array_equal(pools[1].features[trained], pools[0].features)
    assert bool(after.isfinite().all())
    inside = before[:, twin] >= 1
    known = torch.zeros(len(queries), dtype=torch.bool)
    row, answer = graph.answers("train").lookup(queries)
    known[row[answer == twin]] = True
    # Where the twin is no training answer, both are in the pool or neither is.
    assert torch.equal((after[:, size] >= 1)[~known], inside[~known])


def test_unpacked_is_the_same_to_the_bit(ranker_of: Callable[..., Learned]) -> None:
    graph, experts = world()
    mixture, queries = ranker_of(graph, experts, 3), all_queries(graph)
    packed = mixture.packed()
    again = RankerSettings(pool=3).unpacked(packed, experts, graph)
    with pytest.raises(ValueError, match="has a pool of 3; the settings have 50"):
        RankerSettings().unpacked(packed, experts, graph)
    assert isinstance(again, Learned)
    assert torch.equal(again.score(queries), mixture.score(queries))
    assert packed_experts(packed) == ["first", "rules", "second"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "mocme learned mixture 9"}, "cannot be read"),
        ({"experts": '["first"]'}, "has weights of"),
        ({"experts": "{}"}, "names no experts"),
        ({"features": "[]"}, "other features"),
        ({"pool": "-1"}, "size of the pool"),
        ({"pool": "99999"}, "size of the pool"),
        ({"pool": "\u0663"}, "size of the pool"),
    ],
)
def test_damaged_metadata_is_refused(
    changes: dict[str, str], message: str, ranker_of: Callable[..., Learned]
) -> None:
    graph, experts = world()
    tensors, metadata = ranker_of(graph, experts, 3).packed()
    with pytest.raises(ValueError, match=message):
        RankerSettings().unpacked((tensors, {**metadata, **changes}), experts, graph)


def test_a_damaged_weight_is_refused(ranker_of: Callable[..., Learned]) -> None:
    graph, experts = world()
    tensors, metadata = ranker_of(graph, experts, 3).packed()
    for bad in (float("nan"), -1.0):
        weights = tensors["weights"].clone()
        weights[0, 0] = bad
        with pytest.raises(ValueError, match="weights"):
            RankerSettings().unpacked(({**tensors, "weights": weights}, metadata), experts, graph)


# -- fitting ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few")
def test_experts_that_complement_each_other_join_and_noise_does_not_serve_alone() -> None:
    graph, _ = world()
    experts = [
        knowing(graph, "noise", 0.0, 1),
        knowing(graph, "half", 0.5, 2),
        knowing(graph, "other-half", 0.5, 3),
    ]
    mixture, record = RankerSettings(**SMALL).fit(experts, graph, 0.5)
    names = {expert.name for expert in mixture.experts}
    assert {"half", "other-half"} <= names
    assert record["alone"]["noise"] < record["alone"]["half"]
    assert max(record["learned"], record["sum"]) > max(record["alone"].values())
    assert set(record["left_out"]) == {"noise", "half", "other-half"} - names
    assert json.loads(json.dumps(record)) == record


@pytest.mark.usefixtures("few")
def test_a_perfect_expert_serves_alone() -> None:
    graph, experts = world()
    perfect = knowing(graph, "perfect", 1.0, 1)
    perfect.table[perfect.table < 5] *= 0.01
    mixture, record = RankerSettings(**SMALL).fit([*experts, perfect], graph, 0.5)
    assert isinstance(mixture, Sum)
    assert [expert.name for expert in mixture.experts] == ["perfect"]
    assert record["kind"] == "Sum"
    assert "perfect alone" in record["reason"]
    queries = all_queries(graph)
    assert torch.equal(mixture.score(queries), perfect.score(queries))


@pytest.mark.usefixtures("few")
def test_the_mrr_of_an_expert_alone_is_that_of_the_filtered_ranking() -> None:
    graph, experts = world()
    _, record = RankerSettings(**SMALL).fit(experts, graph, 0.5)
    for expert in experts:
        alone = Sum([expert], graph.num_entities, {expert.name: module.alone_weight(expert)})
        ranks = rank_split(alone, graph, "valid", 0.5)
        assert record["alone"][expert.name] == pytest.approx(float((1 / ranks.realistic).mean()))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_fit_has_equal_bits_twice(threads: int) -> None:
    graph, experts = world()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        first, second = (RankerSettings(**SMALL).fit(experts, graph, 0.5)[0] for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert first.packed()[1] == second.packed()[1]
    for name, tensor in first.packed()[0].items():
        assert torch.equal(second.packed()[0][name], tensor)


@pytest.mark.usefixtures("few")
def test_a_fit_does_not_depend_on_the_batch() -> None:
    graph, experts = world()
    first = RankerSettings(**SMALL).fit(experts, graph, 0.5)[0].packed()
    second = RankerSettings(**SMALL).fit(experts, graph, 1e-9)[0].packed()
    assert first[1] == second[1]
    for name, tensor in first[0].items():
        torch.testing.assert_close(second[0][name], tensor)


def test_with_few_facts_experts_join_a_sum_while_it_rises() -> None:
    graph, experts = world()
    experts = [*experts, knowing(graph, "half", 0.6, 2), knowing(graph, "other-half", 0.5, 3)]
    facts = len(graph.facts("valid"))
    assert module.FEWEST_FACTS <= facts < module.FEW_FACTS
    mixture, record = RankerSettings(**SMALL).fit(experts, graph, 0.5)
    assert isinstance(mixture, Sum)
    assert record["reason"] == f"{facts} facts are fewer than the 200 that a Ranker needs"
    assert record["learned"] is None
    names = {expert.name for expert in mixture.experts}
    assert {"half", "other-half"} <= names
    assert set(record["left_out"]) == {expert.name for expert in experts} - names
    assert record["sum"] > max(record["alone"].values())
    joined = [step["sum"] for step in record["steps"] if step["expert"] in names]
    assert joined == sorted(joined)
    assert record["sum"] == joined[-1]
    ranks = rank_split(mixture, graph, "valid", 0.5)
    assert float((1 / ranks.realistic).mean()) == pytest.approx(record["sum"], abs=0.01)
    assert json.loads(json.dumps(record)) == record


def test_with_few_facts_the_best_expert_serves_alone_where_no_other_helps() -> None:
    graph, _ = world()
    perfect = knowing(graph, "perfect", 1.0, 1)
    noise = knowing(graph, "noise", 0.0, 2)
    mixture, record = RankerSettings(**SMALL).fit([noise, perfect], graph, 0.5)
    assert [expert.name for expert in mixture.experts] == ["perfect"]
    assert record["reason"] == "no mixture is above perfect alone"
    assert set(record["left_out"]) == {"noise"}


def test_with_fewer_facts_the_sum_has_default_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, experts = world()
    held = len(graph.facts("valid"))
    monkeypatch.setattr(module, "FEWEST_FACTS", held + 1)
    mixture, record = RankerSettings(**SMALL).fit(experts, graph, 0.5)
    assert isinstance(mixture, Sum)
    assert mixture.experts == tuple(experts)
    assert record["reason"] == f"{held} facts of the valid split are fewer than {held + 1}: " + (
        "the sum has default weights"
    )
    _, record = RankerSettings(**SMALL).fit(experts, graph, 0.5, held_out=True)
    assert record["reason"].startswith(f"{held} held-out facts are fewer than {held + 1}")


@pytest.mark.usefixtures("few")
def test_experts_that_are_all_silent_or_all_sparse_are_no_error() -> None:
    graph, experts = world()
    silent = SparseTable("silent", torch.full_like(experts[1].table, torch.nan))
    for chosen in ([silent], [silent, experts[1]], [experts[0], silent]):
        mixture, record = RankerSettings(**SMALL).fit(chosen, graph, 0.5)
        scores = mixture.score(all_queries(graph))
        assert bool(scores.isfinite().all())
        assert set(record["alone"]) == {expert.name for expert in chosen}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("held_out", 0.0),
            ("held_out", 0.9),
            ("pool", 0),
            ("negatives", 10_000),
            ("leaves", 1),
            ("parts", 1),
        ),
        *(("learning_rate", float("nan")), ("features", 1.5), ("trees", 0)),
    ],
)
def test_settings_out_of_range_are_errors(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be "):
        RankerSettings(**{name: value})


@pytest.mark.usefixtures("few")
def test_experts_alone_are_measured_on_the_answers_of_the_mixtures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A question with many answers counts as often for an expert as for a mixture."""
    graph, experts = world()
    monkeypatch.setattr(held_out, "GROUPS", 1)
    _, record = RankerSettings(**SMALL).fit(experts, graph, 0.5)
    weights = {expert.name: module.alone_weight(expert) for expert in experts}
    answers = graph.answers("valid")
    counted = held_out.counted_answers(answers, graph.num_relations, 0)
    assert int(counted.sum()) == len(answers)
    for expert in experts:
        ranks = rank_split(Sum([expert], graph.num_entities, weights), graph, "valid", 0.5)
        wanted = float((1 / ranks.realistic)[counted].mean())
        assert record["alone"][expert.name] == pytest.approx(wanted)


def test_scores_do_not_depend_on_the_block(
    ranker_of: Callable[..., Learned], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, experts = world()
    mixture, queries = ranker_of(graph, experts, 3), all_queries(graph)
    scores = mixture.score(queries)
    monkeypatch.setattr(learned, "CELLS", 1)
    assert torch.equal(mixture.score(queries), scores)


def test_an_expert_that_cannot_be_fitted_again_is_refused_before_the_training(
    tmp_path: Path,
) -> None:
    table: dict[str, Any] = {
        "experts": [{"kind": "rules"}, {"kind": "scores", "path": str(tmp_path / "s")}],
        "mixture": {"kind": "Ranker", "fitted_on": "train"},
    }
    with pytest.raises(mocme.ConfigError, match=r"scores cannot be fitted without them; set mixt"):
        mocme.Experiment.load(table)
    for choice in ("auto", "valid"):
        table["mixture"]["fitted_on"] = choice
        mocme.Experiment.load(table).components()


def test_what_fits_a_mixture_is_chosen_by_the_number_of_facts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = random_graph(entities=20, relations=2, facts=300)
    train, valid = len(graph.facts("train")), len(graph.facts("valid"))
    auto = RankerSettings(held_out=0.1)
    assert round(0.1 * train) < valid < 200
    for few, share in ((valid, 0.0), (valid + 1, 0.0)):
        monkeypatch.setattr(module, "FEW_FACTS", few)
        assert auto.share(graph, True) == share
    # Too few in valid, enough in train.
    monkeypatch.setattr(module, "FEW_FACTS", valid + 1)
    more = RankerSettings(held_out=0.5)
    assert more.share(graph, True) == 0.5
    assert more.share(graph, False) == 0.0
    # Too few in valid for a sum too, and too few in train for a model: more of train.
    monkeypatch.setattr(module, "FEWEST_FACTS", valid + 1)
    assert auto.share(graph, True) == 0.0  # a fifth of train is too few too
    few = replace(graph, splits={"train": graph.facts("train"), "valid": graph.facts("valid")[:5]})
    monkeypatch.setattr(module, "FEWEST_FACTS", 6)
    monkeypatch.setattr(module, "FEW_FACTS", 35)
    assert auto.share(few, True) == 35 / train
    monkeypatch.setattr(module, "FEW_FACTS", 10 * train)
    assert auto.share(few, True) == 0.2
    assert auto.share(few, False) == 0.0
    monkeypatch.setattr(module, "FEWEST_FACTS", 5)
    assert auto.share(few, True) == 0.0
    # Facts of valid that are training facts do not count.
    leaked = replace(graph, splits={**graph.splits, "valid": graph.facts("train", "valid")})
    monkeypatch.setattr(module, "FEW_FACTS", valid + 1)
    assert RankerSettings(held_out=0.5).share(leaked.training_view(), True) == 0.5
    assert RankerSettings(held_out=0.1, fitted_on="train").share(graph, True) == 0.1
    assert RankerSettings(held_out=0.5, fitted_on="valid").share(graph, True) == 0.0


# -- valid after it fitted the trees ---------------------------------------------------------------


@pytest.mark.usefixtures("few")
def test_what_fitted_the_trees_is_ranked_by_trees_that_have_not_seen_it() -> None:
    """Of an expert whose second answer is right, trees learn it, and a sum cannot."""
    graph, experts = world()
    second = knowing(graph, "second-is-right", 1.0, 1)
    worst = second.table.argmin(1, keepdim=True)
    second.table.scatter_(1, worst, 20.0)
    ranker, record = RankerSettings(**SMALL).fit([*experts, second], graph, 0.5)
    assert isinstance(ranker, Learned)
    assert record["fitted_on"] == "valid"
    parts = ranker.unseen(graph, "valid")
    assert len(parts) == SMALL["parts"]
    together = torch.cat([facts for _, facts in parts])
    assert torch.equal(torch.unique(together, dim=0), torch.unique(graph.directed("valid"), dim=0))
    ranks = rank_split(ranker, graph, "valid", 0.5)
    whole = rank(ranker.score, graph.answers("valid"), graph.answers("train", "valid"))
    for name in ("head", "relation", "answer"):
        assert torch.equal(getattr(ranks, name), getattr(whole, name))
    for part, facts in parts:
        # By what has been fitted on all other facts.
        rest = torch.tensor(
            [f for f in graph.directed("valid").tolist() if f not in facts.tolist()]
        )
        assert len(rest) + len(facts) == len(graph.directed("valid"))
        wanted = rank(part.score, AnswerIndex(facts), graph.answers("train", "valid"))
        of_part = {
            tuple(row): place
            for row, place in zip(
                torch.stack([wanted.head, wanted.relation, wanted.answer], 1).tolist(),
                wanted.realistic.tolist(),
                strict=True,
            )
        }
        for row, place in zip(
            torch.stack([ranks.head, ranks.relation, ranks.answer], 1).tolist(),
            ranks.realistic.tolist(),
            strict=True,
        ):
            assert tuple(row) not in of_part or of_part[tuple(row)] == place
    # Test facts were never seen: the whole mixture ranks them.
    [(mixture, facts)] = ranker.unseen(graph, "train")
    assert mixture is ranker
    assert torch.equal(facts, graph.directed("train"))
    held_out_trees, _ = RankerSettings(**SMALL).fit([*experts, second], graph, 0.5, held_out=True)
    [(mixture, _)] = held_out_trees.unseen(graph, "valid")
    assert mixture is held_out_trees


@pytest.mark.usefixtures("few")
def test_valid_says_no_more_of_noise_than_test_would() -> None:
    """Trees of random features fit their own facts well, and facts that they have not seen not."""
    graph = random_graph(entities=40, relations=2, facts=900)
    experts = random_experts(graph, 1)
    settings = RankerSettings(**{**SMALL, "trees": 60, "leaves": 16, "pool": 10})
    ranker, _ = settings.fit(experts, graph, 0.5)
    if not isinstance(ranker, Learned):  # noise has no mixture that is above its best expert
        weights = {expert.name: sums.default_weight(expert) for expert in experts}
        groups = held_out.make_groups(experts, weights, graph, 10, 3, 0, 0.5)
        every = np.ones(len(groups), bool)
        trees = [
            settings.fitted_model(groups, groups.part != part, experts, False) for part in range(3)
        ]
        whole = settings.fitted_model(groups, every, experts, False)
        ranker = Learned("Ranker", experts, FactIndex.of(graph), weights, whole, 10, trees)
    seen = rank(ranker.score, graph.answers("valid"), graph.answers("train", "valid"))
    unseen = rank_split(ranker, graph, "valid", 0.5)
    mrr_seen, mrr_unseen = ((1 / ranks.realistic).mean() for ranks in (seen, unseen))
    assert float(mrr_seen) > 1.5 * float(mrr_unseen)


def test_parts_are_packed_and_unpacked(ranker_of: Callable[..., Learned]) -> None:
    graph, experts = world()
    one = ranker_of(graph, experts, 3)
    mixture = Learned(
        "Ranker", experts, one.facts, one.weights, one.model, 3, [one.model, Trees.none(27)], 5
    )
    tensors, metadata = mixture.packed()
    again = RankerSettings(pool=3).unpacked((tensors, metadata), experts, graph)
    assert isinstance(again, Learned)
    assert again.seed == 5
    assert [len(trees.leaves) for trees in again.parts] == [len(one.model.leaves), 0]
    changed = {**metadata, "parts": "1"}
    with pytest.raises(ValueError, match="part 1 tree_leaves"):
        RankerSettings(pool=3).unpacked((tensors, changed), experts, graph)
