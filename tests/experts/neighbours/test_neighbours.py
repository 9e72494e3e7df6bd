"""The expert `neighbours`: the answers of similar entities, against a naive reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from naive_neighbours import chances, neighbours, reciprocal_rank

from mocme.core.registry import ConfigError
from mocme.data.graph import Graph, Queries, Vocabulary
from mocme.data.modality import Features, Modality, Tokens
from mocme.experts.base import FitTask
from mocme.experts.neighbours import Neighbours
from mocme.experts.neighbours import fit as fit_module
from mocme.experts.neighbours import model as model_module
from mocme.experts.neighbours import similarity as similarity_module
from mocme.experts.neighbours.expert import MAX_P, NeighbourExpert
from mocme.experts.neighbours.fit import SHARPNESS
from mocme.experts.neighbours.model import NeighbourModel, reciprocal_ranks
from small_experts import CPU, all_queries, odds_matrix


def task(graph: Graph, features: Features) -> FitTask:
    return FitTask("near", graph, features, 0, CPU, 0.5)


def fitted(graph: Graph, features: Features, **settings: object) -> NeighbourExpert:
    return Neighbours(**{"sharpness": 4.0, **settings}).fit(task(graph, features))[0]


def parts(features: Features) -> list[Features]:
    """Vectors alone, tokens alone, and all."""
    return [features.only([name]) for name in features.names] + [features]


@pytest.mark.parametrize("k", [1, 3, 50])
def test_odds_equal_the_naive_reference(tiny_graph: Callable, k: int) -> None:
    tiny = tiny_graph(seed=3, facts=60)
    queries = all_queries(tiny.graph)
    for features in parts(tiny.features):
        odds = odds_matrix(fitted(tiny.graph, features, k=k), queries)
        assert 0 < int((odds > 0).sum()) < odds.numel()
        pairs = zip(queries.head.tolist(), queries.relation.tolist(), strict=True)
        for row, (head, relation) in zip(odds, pairs, strict=True):
            expected = torch.zeros(len(row))
            for tail, chance in chances(tiny.graph, features, head, relation, k, 4.0).items():
                expected[tail] = min(chance, MAX_P) / (1 - min(chance, MAX_P))
            torch.testing.assert_close(row, expected, rtol=1e-3, atol=1e-5)


def test_blocks_do_not_matter(tiny_graph: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = tiny_graph(facts=60)
    queries = all_queries(tiny.graph)
    expert = fitted(tiny.graph, tiny.features)
    whole = odds_matrix(expert, queries)
    monkeypatch.setattr(model_module, "CELLS", 20)
    monkeypatch.setattr(similarity_module, "NUMBERS", 7)
    torch.testing.assert_close(odds_matrix(expert, queries), whole)
    torch.testing.assert_close(odds_matrix(fitted(tiny.graph, tiny.features), queries), whole)


def test_an_entity_is_never_its_own_neighbour(tiny_graph: Callable) -> None:
    """What is said of a query does not depend on the answers that it has in training."""
    tiny = tiny_graph(facts=40)
    train = tiny.graph.splits["train"]
    for head, relation, tail in train[:8].tolist():
        other = next(
            t
            for t in range(12)
            if not bool((train == torch.tensor([head, relation, t])).all(1).any())
        )
        changed = train.clone()
        changed[(train == torch.tensor([head, relation, tail])).all(1), 2] = other
        graphs = [replace(tiny.graph, splits={"train": facts}) for facts in (train, changed)]
        query = Queries(torch.tensor([head]), torch.tensor([relation]))
        before, after = (odds_matrix(fitted(g, tiny.features), query) for g in graphs)
        assert torch.equal(before, after)


def test_equally_similar_entities_are_taken_by_id(tiny_graph: Callable) -> None:
    graph = tiny_graph().graph
    facts = torch.tensor([[entity, 0, 11] for entity in (9, 2, 7, 5)])
    graph = replace(graph, splits={"train": facts})
    values = torch.tensor([1.0, -2.0, 0.3]).expand(12, 3).clone()
    values[0] = 0.0
    features = Features({"shape": Modality(values, torch.arange(12), 12)})
    model = NeighbourModel.of(graph, features, 3)
    nearest = model.nearest(Queries(torch.tensor([1, 5, 0]), torch.tensor([0, 0, 0])))
    heads = model.index.queries.head[nearest.pair].tolist()
    assert heads == [[2, 5, 7], [2, 7, 9], [2, 5, 7]]


def test_entities_without_a_modality_and_relations_without_facts_are_silent(
    tiny_graph: Callable,
) -> None:
    tiny = tiny_graph(facts=60)
    train = tiny.graph.splits["train"]
    graph = replace(tiny.graph, splits={"train": train[train[:, 1] != 1]})
    features = tiny.features.only(["shape"])
    has = features.present()["shape"]
    queries = all_queries(graph)
    silent = ~odds_matrix(fitted(graph, features), queries).bool().any(1)
    assert bool(silent[~has[queries.head]].all())
    assert bool(silent[queries.relation % graph.num_relations == 1].all())
    assert not bool(silent.all())


def test_the_sharpness_is_the_best_of_the_training_facts(
    tiny_graph: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = tiny_graph(seed=5, facts=50)
    facts = tiny.graph.directed("train")
    expert, record = Neighbours(k=4).fit(task(tiny.graph, tiny.features))
    assert record["facts"] == len(facts)
    expected = [
        sum(
            reciprocal_rank(tiny.graph, tiny.features, tuple(fact), 4, sharpness)
            for fact in facts.tolist()
        )
        / len(facts)
        for sharpness in SHARPNESS
    ]
    assert list(record["tried"].values()) == pytest.approx(expected, abs=1e-3)
    assert record["sharpness"] == expert.sharpness
    assert record["tried"][f"{expert.sharpness:g}"] == max(record["tried"].values())
    monkeypatch.setattr(fit_module, "SAMPLE", 20)
    first, second, other = (
        Neighbours(k=4, seed=seed).fit(task(tiny.graph, tiny.features))[1] for seed in (0, 0, 1)
    )
    assert first == second
    assert first["facts"] == 20
    assert first["tried"] != other["tried"]


def test_progress_reaches_the_number_of_facts(
    tiny_graph: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = tiny_graph()
    monkeypatch.setattr(model_module, "QUERIES", 8)
    model, facts = NeighbourModel.of(tiny.graph, tiny.features, 4), tiny.graph.directed("train")
    seen: list[tuple[int, int]] = []
    reciprocal_ranks(model, facts, (1.0,), lambda done, total: seen.append((done, total)))
    assert seen[0] == (8, len(facts))
    assert seen[-1] == (len(facts), len(facts))


def test_reasons_are_the_neighbours_with_the_answer(tiny_graph: Callable) -> None:
    tiny = tiny_graph(seed=3, facts=60)
    expert = fitted(tiny.graph, tiny.features, k=5)
    facts = {tuple(fact) for fact in tiny.graph.directed("train").tolist()}
    for head, relation, tail in tiny.graph.directed("valid").tolist():
        near = neighbours(tiny.graph, tiny.features, head, relation, 5)
        reasons = expert.explain(head, relation, tail)
        assert [reason.name for reason in reasons] == [
            f"e{other}" for other, _ in near if (other, relation, tail) in facts
        ]
        query = Queries(torch.tensor([head]), torch.tensor([relation]))
        odds = float(odds_matrix(expert, query)[0, tail])
        whole = sum(reason.share for reason in reasons)
        assert whole == pytest.approx(math.log1p(odds), rel=1e-4)
        assert sum(reason.weight for reason in reasons) <= 1 + 1e-6


def test_values_of_any_size_give_the_same_neighbours(tiny_graph: Callable) -> None:
    tiny = tiny_graph(facts=60)
    shape = tiny.features.dense["shape"]
    queries = all_queries(tiny.graph)
    expected = odds_matrix(fitted(tiny.graph, Features({"shape": shape})), queries)
    for factor in (1e-30, 1e30):
        scaled = Modality(shape.values * factor, shape.rows, shape.num_entities)
        odds = odds_matrix(fitted(tiny.graph, Features({"shape": scaled})), queries)
        torch.testing.assert_close(odds, expected, rtol=1e-4, atol=1e-6)


def test_a_very_sharp_expert_follows_the_nearest_alone(tiny_graph: Callable) -> None:
    tiny = tiny_graph(facts=60)
    queries = all_queries(tiny.graph)
    sharp = fitted(tiny.graph, tiny.features.only(["shape"]), sharpness=1e300)
    nearest = fitted(tiny.graph, tiny.features.only(["shape"]), k=1)
    assert torch.equal(odds_matrix(sharp, queries), odds_matrix(nearest, queries))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k must be at least 1"),
        ({"sharpness": -1.0}, "sharpness must be finite"),
        ({"sharpness": math.nan}, "sharpness must be finite"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Neighbours(**settings)


def test_without_vectors_and_tokens_there_is_an_error(tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    message = r"experts.near.modalities: neighbours compare vectors or tokens.*remove the expert"
    with pytest.raises(ConfigError, match=message):
        Neighbours().fit(task(tiny.graph, Features()))
    with pytest.raises(ConfigError, match=message):
        Neighbours(modalities=()).features_of(tiny.features, "near")


def test_tokens_that_no_entity_of_the_training_has_do_not_count(tiny_graph: Callable) -> None:
    tiny = tiny_graph(facts=60)
    word = tiny.features.tokens["word"]
    more = Tokens((*word.vocabulary, "unused"), word.entity, word.token, word.num_entities)
    queries = all_queries(tiny.graph)
    first, second = (
        odds_matrix(fitted(tiny.graph, Features(tokens={"word": tokens})), queries)
        for tokens in (word, more)
    )
    assert torch.equal(first, second)


def test_added_entities_are_compared_as_those_of_the_training(tiny_graph: Callable) -> None:
    """A copy of an entity has the neighbours of the original, and is no neighbour itself."""
    tiny = tiny_graph(facts=60)
    trained = tiny.features.only(["shape", "word"])
    model = NeighbourModel.of(tiny.graph, trained, 12)
    shape, word = trained.dense["shape"], trained.tokens["word"]
    original = next(e for e in shape.rows.tolist() if bool((word.entity == e).any()))
    tokens = word.token[word.entity == original]
    features = Features(
        {
            "shape": Modality(
                torch.cat([shape.values, shape.values[shape.rows == original]]),
                torch.cat([shape.rows, torch.tensor([12])]),
                13,
            )
        },
        {
            "word": Tokens(
                word.vocabulary,
                torch.cat([word.entity, torch.full((len(tokens),), 12)]),
                torch.cat([word.token, tokens]),
                13,
            )
        },
    )
    copy = torch.tensor([[12, relation, 1] for relation in range(3)])
    graph = replace(
        tiny.graph,
        entities=Vocabulary([*tiny.graph.entities, "copy"]),
        splits={"train": torch.cat([tiny.graph.splits["train"], copy])},
    )
    extended = model.extended(graph, features)
    for relation in range(2 * graph.num_relations):
        both = Queries(torch.tensor([12, original]), torch.tensor([relation, relation]))
        near = extended.nearest(both)
        of_copy, of_original = (
            extended.index.queries.head[pairs[pairs >= 0]].tolist() for pairs in near.pair
        )
        # The original may be a neighbour of its copy.
        assert [entity for entity in of_copy if entity != original] == of_original
        before = model.nearest(both[1:])
        assert torch.equal(near.pair[1], before.pair[0])
        assert torch.equal(near.similarity[1], before.similarity[0])
