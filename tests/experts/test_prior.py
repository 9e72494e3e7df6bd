"""The expert `prior`: how often a candidate answers a relation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from mocme.data.graph import Graph, Queries
from mocme.data.modality import Features
from mocme.experts.base import FitTask
from mocme.experts.prior import Prior, PriorExpert
from small_experts import CPU, all_queries, odds_matrix


def fitted(graph: Graph, **settings: float) -> PriorExpert:
    task = FitTask("prior", graph, Features(), 0, CPU, 0.5)
    return Prior(**settings).fit(task)[0]


@pytest.mark.parametrize("smoothing", [1.0, 0.25])
def test_odds_equal_counts_of_training_facts(tiny_graph: Callable, smoothing: float) -> None:
    graph = tiny_graph(facts=40).graph
    facts = graph.directed("train").tolist()
    answers = Counter((relation, tail) for _, relation, tail in facts)
    number = Counter(relation for _, relation, _ in facts)
    queries = all_queries(graph)
    odds = odds_matrix(fitted(graph, smoothing=smoothing), queries)
    for row, relation in enumerate(queries.relation.tolist()):
        for entity in range(graph.num_entities):
            count = answers[relation, entity]
            chance = count / (number[relation] + smoothing)
            expected = chance / (1 - chance)
            assert float(odds[row, entity]) == pytest.approx(expected, rel=1e-6)


def test_facts_of_other_splits_do_not_count(tiny_graph: Callable) -> None:
    graph = tiny_graph().graph
    only = replace(graph, splits={"train": graph.splits["train"]})
    queries = all_queries(graph)
    assert torch.equal(odds_matrix(fitted(graph), queries), odds_matrix(fitted(only), queries))


def test_an_answer_of_every_fact_has_finite_odds(tiny_graph: Callable) -> None:
    graph = tiny_graph().graph
    facts = torch.tensor([[0, 0, 5], [1, 0, 5], [2, 0, 5]])
    graph = replace(graph, splits={"train": facts})
    query = Queries(torch.tensor([3]), torch.tensor([0]))
    assert fitted(graph).odds(query).odds.tolist() == [3.0]
    assert bool(fitted(graph, smoothing=1e-300).odds(query).odds.isfinite().all())


def test_the_reason_names_relation_and_count(tiny_graph: Callable) -> None:
    graph = tiny_graph().graph
    facts = torch.tensor([[0, 0, 5], [1, 0, 5], [2, 0, 4]])
    expert = fitted(replace(graph, splits={"train": facts}))
    (reason,) = expert.explain(7, 0, 5)
    assert reason.name == "answers r0 in 2 of 3 facts"
    assert reason.share == pytest.approx(math.log1p(2 / 2))
    (reason,) = expert.explain(7, graph.num_relations, 0)
    assert reason.name == "answers inverse of r0 in 1 of 3 facts"
    assert not expert.explain(7, 0, 3)
    assert not expert.explain(7, 1, 5)


@pytest.mark.parametrize("smoothing", [0.0, -1.0, math.inf, math.nan])
def test_a_smoothing_out_of_range_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="smoothing must be finite and above 0"):
        Prior(smoothing=smoothing)


def test_counts_of_other_facts_are_refused(tiny_graph: Callable) -> None:
    graph = tiny_graph().graph
    packed = fitted(graph).packed()
    fewer = replace(graph, splits={"train": graph.splits["train"][1:]})
    with pytest.raises(ValueError, match="prior: was fitted on other facts"):
        Prior().unpacked(packed, FitTask("prior", fewer, Features(), 0, CPU, 0.5))
    tensors = {**packed[0], "count": packed[0]["count"] - 1}
    with pytest.raises(ValueError, match="'count' has values from 0"):
        Prior().unpacked((tensors, {}), FitTask("prior", graph, Features(), 0, CPU, 0.5))
