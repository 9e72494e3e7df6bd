"""Metrics and breakdowns, by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mocme.data.graph import Graph, Queries, Vocabulary
from mocme.evaluation.breakdown import breakdown, cardinality
from mocme.evaluation.metrics import paired, rank_metrics, summary
from mocme.evaluation.ranking import Ranks, rank


def ranks_of(above: list[int], ties: list[int], candidates: list[int]) -> Ranks:
    n = len(above)
    zeros = torch.zeros(n, dtype=torch.int64)
    return Ranks(
        zeros,
        zeros,
        torch.arange(n),
        torch.tensor(above),
        torch.tensor(ties),
        torch.tensor(candidates),
    )


def test_metrics_of_four_ranks_by_hand() -> None:
    """Realistic ranks 1, 2.5, 4, 11 of 11 candidates each."""
    ranks = ranks_of([0, 1, 2, 10], [0, 1, 2, 0], [11, 11, 11, 11])
    metrics = summary(ranks)
    assert metrics["mrr"] == pytest.approx((1 + 1 / 2.5 + 1 / 4 + 1 / 11) / 4)
    assert metrics["mr"] == pytest.approx(18.5 / 4)
    assert metrics["hits@1"] == 0.25
    assert metrics["hits@3"] == 0.5
    assert metrics["hits@10"] == 0.75
    assert metrics["count"] == 4
    assert metrics["tied"] == 0.5
    # Mean rank minus 1, over its expected value: 1 - (18.5 / 4 - 1) / (6 - 1).
    assert metrics["amri"] == pytest.approx(1 - 3.625 / 5)
    assert metrics["optimistic"]["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 11) / 4)
    assert metrics["pessimistic"]["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 5 + 1 / 11) / 4)
    assert metrics["optimistic"]["hits@3"] == 0.75


def test_hits_count_a_rank_of_at_most_k() -> None:
    """Two answers tied at the top have rank 1.5: no hit at 1."""
    assert rank_metrics(torch.tensor([1.5]).double())["hits@1"] == 0
    assert rank_metrics(torch.tensor([1.0]).double())["hits@1"] == 1
    assert rank_metrics(torch.tensor([3.0]).double())["hits@3"] == 1
    assert rank_metrics(torch.tensor([3.5]).double())["hits@3"] == 0
    assert rank_metrics(torch.tensor([10.0]).double())["hits@10"] == 1
    assert rank_metrics(torch.tensor([10.5]).double())["hits@10"] == 0


def test_amri_of_best_random_and_worst_ranks() -> None:
    candidates = [9, 5, 21]
    assert summary(ranks_of([0, 0, 0], [0, 0, 0], candidates))["amri"] == 1
    assert summary(ranks_of([0, 0, 0], [8, 4, 20], candidates))["amri"] == pytest.approx(0)
    assert summary(ranks_of([8, 4, 20], [0, 0, 0], candidates))["amri"] == pytest.approx(-1)
    assert summary(ranks_of([0, 0], [0, 0], [1, 1]))["amri"] == 0  # no competitors


def test_no_ranks_have_no_metrics() -> None:
    assert rank_metrics(torch.empty(0, dtype=torch.float64)) == {}


def test_paired_differences_need_the_same_answers() -> None:
    first, second = ranks_of([0, 1], [0, 0], [9, 9]), ranks_of([1, 1], [0, 0], [9, 9])
    assert paired(first, second).tolist() == [0.5, 0.0]
    with pytest.raises(ValueError, match="not of the same questions"):
        paired(first, ranks_of([0, 1, 2], [0, 0, 0], [9, 9, 9]))


# -- breakdowns ------------------------------------------------------------------------------------


def graph_of(
    facts: list[tuple[int, int, int]], entities: int, relations: int, **splits: list
) -> Graph:
    return Graph(
        Vocabulary([f"e{n}" for n in range(entities)]),
        Vocabulary([f"r{n}" for n in range(relations)], "relation"),
        {
            name: torch.tensor(rows).reshape(-1, 3)
            for name, rows in {"train": facts, **splits}.items()
        },
    )


def test_cardinality_by_hand() -> None:
    rows = [
        (0, 0, 1), (2, 0, 3),  # each head one tail, each tail one head
        (0, 1, 1), (0, 1, 2), (0, 1, 3),  # one head, three tails
        (1, 2, 0), (2, 2, 0), (3, 2, 0),  # three heads, one tail
        (0, 3, 2), (0, 3, 3), (1, 3, 2), (1, 3, 3),  # two by two
        # Relation 4: tails of 0 are two, of 1 one: a mean of 1.5 counts as n; heads 3 / 3.
        (0, 4, 1), (0, 4, 2), (1, 4, 3),
    ]  # fmt: skip
    assert cardinality(graph_of(rows, 4, 6)) == ["1-1", "1-n", "n-1", "n-n", "1-n", "1-1"]


def test_cardinality_uses_train_only() -> None:
    graph = graph_of([(0, 0, 1)], 4, 1, test=[(0, 0, 2), (0, 0, 3)])
    assert cardinality(graph) == ["1-1"]


@pytest.mark.parametrize("seed", range(4))
def test_parts_average_to_the_summary(seed: int, tiny_graph: Callable) -> None:
    tiny = tiny_graph(seed, test=15)
    graph = tiny.graph
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(-3, 3, (12, 6, 12), generator=generator).float()

    def score(queries: Queries) -> torch.Tensor:
        return table[queries.head, queries.relation]

    ranks = rank(score, graph.answers("test"), graph.answers(*graph.splits))
    total = summary(ranks)
    present = {"structure": graph.linked(), **tiny.features.present()}
    parts = breakdown(ranks, graph, present)
    assert set(parts) == {"direction", "relation", "cardinality", "answer", "head", "answer has"}
    for by_label in parts.values():
        assert sum(part["count"] for part in by_label.values()) == total["count"] == 30
        for name in ("mrr", "mr", "hits@1", "hits@3", "hits@10"):
            mean = sum(part[name] * part["count"] for part in by_label.values())
            mean /= total["count"]
            assert mean == pytest.approx(total[name])
    assert parts["direction"]["head"]["count"] == parts["direction"]["tail"]["count"] == 15


def test_parts_have_the_answers_they_name() -> None:
    rows = [(0, 0, 1), (1, 0, 2)]
    graph = graph_of(rows, 4, 2, test=[(0, 0, 2), (0, 1, 3)])

    def score(queries: Queries) -> torch.Tensor:
        return torch.arange(4.0).repeat(len(queries), 1)  # entity 3 is always best

    ranks = rank(score, graph.answers("test"), graph.answers("train", "test"))
    # (0, r0, 2): 3 above. (2, r0^-1, 0): 2, 3 above (1 is known). (0, r1, 3): best.
    # (3, r1^-1, 0): three above.
    parts = breakdown(ranks, graph, {"picture": torch.tensor([False, False, True, False])})
    assert parts["direction"]["tail"]["mr"] == pytest.approx((2 + 1) / 2)
    assert parts["direction"]["head"]["mr"] == pytest.approx((3 + 4) / 2)
    assert parts["relation"]["r0"]["mr"] == pytest.approx((2 + 3) / 2)
    assert parts["relation"]["r1"]["mr"] == pytest.approx((1 + 4) / 2)
    assert parts["answer"]["unseen in training"]["count"] == 1
    assert parts["answer"]["unseen in training"]["mr"] == 1
    assert parts["head"]["unseen in training"]["mr"] == 4
    assert parts["answer has"] == {
        "picture": {**parts["answer has"]["picture"], "mr": 2.0, "count": 1},
        "nothing": {**parts["answer has"]["nothing"], "mr": pytest.approx(8 / 3), "count": 3},
    }


def test_without_modalities_there_is_no_breakdown_by_them(tiny_graph: Callable) -> None:
    graph = tiny_graph().graph

    def score(queries: Queries) -> torch.Tensor:
        return torch.zeros(len(queries), 12)

    ranks = rank(score, graph.answers("test"), graph.answers("train"))
    assert "answer has" not in breakdown(ranks, graph)
