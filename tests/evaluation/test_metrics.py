"""Metrics and their parts, by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mocme.data.graph import Graph, Queries, Vocabulary
from mocme.evaluation.breakdown import breakdown, cardinality
from mocme.evaluation.metrics import of_ranks, paired, summary
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


def test_an_example_by_hand() -> None:
    """Realistic ranks 1, 2.5, 4, 11 of 11 candidates each."""
    ranks = ranks_of([0, 1, 2, 10], [0, 1, 2, 0], [11, 11, 11, 11])
    found = summary(ranks)
    assert found["mrr"] == pytest.approx((1 + 1 / 2.5 + 1 / 4 + 1 / 11) / 4)
    assert found["mr"] == pytest.approx(18.5 / 4)
    assert found["hits@1"] == 0.25
    assert found["hits@3"] == 0.5
    assert found["hits@10"] == 0.75
    assert found["count"] == 4
    assert found["tied"] == 0.5
    # Mean rank less 1, over what chance gives: 1 - (18.5 / 4 - 1) / (6 - 1).
    assert found["amri"] == pytest.approx(1 - 3.625 / 5)
    assert found["optimistic"]["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 11) / 4)
    assert found["pessimistic"]["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 5 + 1 / 11) / 4)
    assert found["optimistic"]["hits@3"] == 0.75


def test_hits_count_a_rank_of_at_most_k() -> None:
    """Two answers tied at the top have rank 1.5: no hit at 1."""
    assert of_ranks(torch.tensor([1.5]).double())["hits@1"] == 0
    assert of_ranks(torch.tensor([1.0]).double())["hits@1"] == 1
    assert of_ranks(torch.tensor([3.0]).double())["hits@3"] == 1
    assert of_ranks(torch.tensor([3.5]).double())["hits@3"] == 0
    assert of_ranks(torch.tensor([10.0]).double())["hits@10"] == 1
    assert of_ranks(torch.tensor([10.5]).double())["hits@10"] == 0


def test_amri_of_the_best_the_middle_and_the_worst() -> None:
    candidates = [9, 5, 21]
    assert summary(ranks_of([0, 0, 0], [0, 0, 0], candidates))["amri"] == 1
    assert summary(ranks_of([0, 0, 0], [8, 4, 20], candidates))["amri"] == pytest.approx(0)
    assert summary(ranks_of([8, 4, 20], [0, 0, 0], candidates))["amri"] == pytest.approx(-1)
    assert summary(ranks_of([0, 0], [0, 0], [1, 1]))["amri"] == 0  # nobody to lose to


def test_no_ranks_have_no_metrics() -> None:
    assert of_ranks(torch.empty(0, dtype=torch.float64)) == {}


def test_paired_differences_are_of_the_same_pairs() -> None:
    first, second = ranks_of([0, 1], [0, 0], [9, 9]), ranks_of([1, 1], [0, 0], [9, 9])
    assert paired(first, second).tolist() == [0.5, 0.0]
    with pytest.raises(ValueError, match="not of the same questions"):
        paired(first, ranks_of([0, 1, 2], [0, 0, 0], [9, 9, 9]))


# -- parts -----------------------------------------------------------------------------------------


def graph_of(
    rows: list[tuple[int, int, int]], entities: int, relations: int, **more: list
) -> Graph:
    splits = {"train": rows, **more}
    return Graph(
        Vocabulary([f"e{n}" for n in range(entities)]),
        Vocabulary([f"r{n}" for n in range(relations)], "relation"),
        {name: torch.tensor(facts).reshape(-1, 3) for name, facts in splits.items()},
    )


def test_cardinality_by_hand() -> None:
    rows = [
        (0, 0, 1), (2, 0, 3),  # each head one tail, each tail one head
        (0, 1, 1), (0, 1, 2), (0, 1, 3),  # one head, three tails
        (1, 2, 0), (2, 2, 0), (3, 2, 0),  # three heads, one tail
        (0, 3, 2), (0, 3, 3), (1, 3, 2), (1, 3, 3),  # two by two
        # Relation 4: tails of 0 are two, of 1 one: 1.5 in the mean counts as n; heads 3 / 3.
        (0, 4, 1), (0, 4, 2), (1, 4, 3),
    ]  # fmt: skip
    assert cardinality(graph_of(rows, 4, 6)) == ["1-1", "1-n", "n-1", "n-n", "1-n", "1-1"]


def test_cardinality_looks_at_train_only() -> None:
    graph = graph_of([(0, 0, 1)], 4, 1, test=[(0, 0, 2), (0, 0, 3)])
    assert cardinality(graph) == ["1-1"]


@pytest.mark.parametrize("seed", range(4))
def test_parts_sum_to_the_whole(seed: int, tiny_graph: Callable) -> None:
    tiny = tiny_graph(seed, test=15)
    graph = tiny.graph
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(-3, 3, (12, 6, 12), generator=generator).float()

    def score(queries: Queries) -> torch.Tensor:
        return table[queries.head, queries.relation]

    ranks = rank(score, graph.answers("test"), graph.answers(*graph.splits))
    whole = summary(ranks)
    present = {"structure": graph.linked(), **tiny.features.present()}
    found = breakdown(ranks, graph, present)
    assert set(found) == {"direction", "relation", "cardinality", "answer", "head", "answer has"}
    for parts in found.values():
        assert sum(part["count"] for part in parts.values()) == whole["count"] == 30
        for name in ("mrr", "mr", "hits@1", "hits@3", "hits@10"):
            mean = sum(part[name] * part["count"] for part in parts.values()) / whole["count"]
            assert mean == pytest.approx(whole[name])
    assert found["direction"]["head"]["count"] == found["direction"]["tail"]["count"] == 15


def test_parts_hold_the_pairs_they_name() -> None:
    rows = [(0, 0, 1), (1, 0, 2)]
    graph = graph_of(rows, 4, 2, test=[(0, 0, 2), (0, 1, 3)])

    def score(queries: Queries) -> torch.Tensor:
        return torch.arange(4.0).repeat(len(queries), 1)  # entity 3 is always best

    ranks = rank(score, graph.answers("test"), graph.answers("train", "test"))
    # (0, r0, 2): 3 above. (2, r0^-1, 0): 2, 3 above (1 is known). (0, r1, 3): best.
    # (3, r1^-1, 0): three above.
    found = breakdown(ranks, graph, {"picture": torch.tensor([False, False, True, False])})
    assert found["direction"]["tail"]["mr"] == pytest.approx((2 + 1) / 2)
    assert found["direction"]["head"]["mr"] == pytest.approx((3 + 4) / 2)
    assert found["relation"]["r0"]["mr"] == pytest.approx((2 + 3) / 2)
    assert found["relation"]["r1"]["mr"] == pytest.approx((1 + 4) / 2)
    assert found["answer"]["unseen in training"]["count"] == 1
    assert found["answer"]["unseen in training"]["mr"] == 1
    assert found["head"]["unseen in training"]["mr"] == 4
    assert found["answer has"] == {
        "picture": {**found["answer has"]["picture"], "mr": 2.0, "count": 1},
        "nothing": {**found["answer has"]["nothing"], "mr": pytest.approx(8 / 3), "count": 3},
    }


def test_without_modalities_there_is_no_part_of_them(tiny_graph: Callable) -> None:
    graph = tiny_graph().graph

    def score(queries: Queries) -> torch.Tensor:
        return torch.zeros(len(queries), 12)

    ranks = rank(score, graph.answers("test"), graph.answers("train"))
    assert "answer has" not in breakdown(ranks, graph)
