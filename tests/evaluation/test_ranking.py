"""Filtered ranks equal a loop over answers, to the last tie."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mocme.data.graph import AnswerIndex, Graph, Queries, Vocabulary
from mocme.evaluation.metrics import summary
from mocme.evaluation.ranking import NaNScoreError, Ranks, batch_size_for, rank, rank_split
from mocme.experts.embedding import Embedding
from mocme.experts.embedding.model import EmbeddingModel

Table = dict[tuple[int, int], list[float]]


def random_graph(seed: int) -> Graph:
    """A small graph with all four splits; some may be empty."""
    rng = random.Random(seed)
    entities, relations = rng.randint(2, 8), rng.randint(1, 3)
    triples = [
        (h, r, t) for h in range(entities) for r in range(relations) for t in range(entities)
    ]
    rng.shuffle(triples)
    splits, first = {}, 0
    for split in ("train", "valid", "test", "known"):
        count = rng.randint(1, max(1, len(triples) // 4))
        rows = triples[first : first + count]
        splits[split] = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)
        first += count
    names = Vocabulary([str(n) for n in range(entities)])
    return Graph(names, Vocabulary([str(n) for n in range(relations)], "relation"), splits)


def random_scores(graph: Graph, seed: int, low: int = -2, high: int = 2) -> Table:
    """Scores by (head, relation): whole numbers, so that many are tied."""
    rng = random.Random(seed)
    return {
        (head, relation): [float(rng.randint(low, high)) for _ in range(graph.num_entities)]
        for head in range(graph.num_entities)
        for relation in range(2 * graph.num_relations)
    }


def scores_of(table: Table) -> Callable[[Queries], Tensor]:
    def score(queries: Queries) -> Tensor:
        questions = zip(queries.head.tolist(), queries.relation.tolist(), strict=True)
        return torch.tensor([table[question] for question in questions])

    return score


def naive_ranks(
    graph: Graph, table: Table, split: str, known: tuple[str, ...]
) -> dict[tuple, tuple]:
    """(head, relation, answer) -> (above, ties, candidates), an answer at a time."""

    def directed(*names: str) -> set[tuple[int, int, int]]:
        facts: set[tuple[int, int, int]] = set()
        for name in names:
            for h, r, t in graph.splits[name].tolist():
                facts |= {(h, r, t), (t, r + graph.num_relations, h)}
        return facts

    left_out = directed(*known, split)
    ranks = {}
    for head, relation, answer in directed(split):
        scores = table[head, relation]
        above = ties = 0
        candidates = 1
        for other in range(graph.num_entities):
            if other == answer or (head, relation, other) in left_out:
                continue
            candidates += 1
            above += scores[other] > scores[answer]
            ties += scores[other] == scores[answer]
        ranks[head, relation, answer] = (above, ties, candidates)
    return ranks


def as_dict(ranks: Ranks) -> dict[tuple, tuple]:
    keys = zip(ranks.head.tolist(), ranks.relation.tolist(), ranks.answer.tolist(), strict=True)
    values = zip(ranks.above.tolist(), ranks.ties.tolist(), ranks.candidates.tolist(), strict=True)
    return dict(zip(keys, values, strict=True))


@pytest.mark.parametrize("seed", range(300))
def test_ranks_equal_a_loop_over_answers(seed: int) -> None:
    graph = random_graph(seed)
    table = random_scores(graph, seed)
    known = ("train", "valid", "test", "known") if seed % 2 else ("train",)
    split = ("test", "valid", "train")[seed % 3]
    questions = graph.answers(split)
    batch = 1 + seed % 7
    ranks = rank(scores_of(table), questions, graph.answers(*known), batch=batch)
    assert as_dict(ranks) == naive_ranks(graph, table, split, known)
    assert len(ranks) == 2 * len(graph.facts(split))
    # The three conventions for ties.
    for optimistic, realistic, pessimistic, above, ties in zip(
        ranks.optimistic.tolist(),
        ranks.realistic.tolist(),
        ranks.pessimistic.tolist(),
        ranks.above.tolist(),
        ranks.ties.tolist(),
        strict=True,
    ):
        assert optimistic == above + 1
        assert pessimistic == above + ties + 1
        assert realistic == (optimistic + pessimistic) / 2


def test_the_batch_size_does_not_change_a_rank() -> None:
    graph = random_graph(11)
    table = random_scores(graph, 11)
    questions, known = graph.answers("test"), graph.answers("train", "valid", "test", "known")
    results = [rank(scores_of(table), questions, known, batch=size) for size in (1, 2, 3, 1000)]
    for other in results[1:]:
        for name in Ranks.__dataclass_fields__:
            assert torch.equal(getattr(other, name), getattr(results[0], name))


def test_other_answers_are_filtered_and_the_ranked_one_is_not() -> None:
    """Head 0 has answers 1 (train), 2 and 3 (test); 4 is no answer, and has the best score."""
    train = torch.tensor([[0, 0, 1]])
    test = torch.tensor([[0, 0, 2], [0, 0, 3]])
    graph = Graph(Vocabulary("abcde"), Vocabulary("r", "relation"), {"train": train, "test": test})
    table = {(head, r): [0.0] * 5 for head in range(5) for r in range(2)}
    table[0, 0] = [0.0, 9.0, 5.0, 3.0, 10.0]
    ranks = as_dict(rank(scores_of(table), graph.answers("test"), graph.answers("train", "test")))
    assert ranks[0, 0, 2] == (1, 0, 3)  # below 4 only; 1 and 3 are filtered
    assert ranks[0, 0, 3] == (1, 0, 3)


def test_known_facts_are_filtered_and_not_ranked() -> None:
    """The same graph with and without a fact of the split `known`."""
    train, test = torch.tensor([[1, 0, 0]]), torch.tensor([[0, 0, 2]])
    splits = {"train": train, "test": test}
    names = Vocabulary("abcd"), Vocabulary("r", "relation")
    table = {(head, r): [0.0, 9.0, 5.0, 3.0] for head in range(4) for r in range(2)}
    without = Graph(*names, splits)
    known = Graph(*names, {**splits, "known": torch.tensor([[0, 0, 1]])})
    first, second = (
        as_dict(rank(scores_of(table), graph.answers("test"), graph.answers(*graph.splits)))
        for graph in (without, known)
    )
    assert first.keys() == second.keys()
    assert first[0, 0, 2] == (1, 0, 4)
    assert second[0, 0, 2] == (0, 0, 3)


@pytest.mark.parametrize("constant", [0.0, -3.5, float("inf"), float("-inf")])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_constant_scores_rank_in_the_middle(seed: int, constant: float) -> None:
    graph = random_graph(seed)
    table = {question: [constant] * graph.num_entities for question in random_scores(graph, 0)}
    ranks = rank(scores_of(table), graph.answers("test"), graph.answers(*graph.splits))
    assert torch.equal(ranks.realistic, (ranks.candidates.double() + 1) / 2)
    assert torch.equal(ranks.optimistic, torch.ones(len(ranks), dtype=torch.float64))
    assert torch.equal(ranks.pessimistic, ranks.candidates.double())
    assert summary(ranks)["amri"] == pytest.approx(0, abs=1e-12)


def test_infinite_scores_are_ranked() -> None:
    inf = float("inf")
    graph = Graph(
        Vocabulary("abcd"), Vocabulary("r", "relation"), {"test": torch.tensor([[0, 0, 1]])}
    )
    table = {(h, r): [-inf, 1.0, inf, -inf] for h in range(4) for r in range(2)}
    ranks = as_dict(rank(scores_of(table), graph.answers("test"), graph.answers("test")))
    assert ranks[0, 0, 1] == (1, 0, 4)  # below +inf, above two -inf
    assert ranks[1, 1, 0] == (2, 1, 4)  # -inf is tied with -inf
    best = {question: [inf, inf, 0.0, -inf] for question in table}
    ranks = as_dict(rank(scores_of(best), graph.answers("test"), graph.answers("test")))
    assert ranks[0, 0, 1] == (0, 1, 4)


@pytest.mark.parametrize("entity", [0, 1, 2, 3])
def test_nan_is_an_error_that_names_the_question(entity: int) -> None:
    graph = Graph(
        Vocabulary("abcd"), Vocabulary("r", "relation"), {"test": torch.tensor([[2, 0, 1]])}
    )
    scores = [float("inf"), 1.0, float("-inf"), 0.0]
    table = {(h, r): list(scores) for h in range(4) for r in range(2)}
    table[2, 0][entity] = float("nan")
    with pytest.raises(NaNScoreError, match="1 scores are NaN, first for head 2 and relation 0"):
        rank(scores_of(table), graph.answers("test"), graph.answers("test"))


def test_scores_are_compared_in_fp32() -> None:
    graph = Graph(
        Vocabulary("abc"), Vocabulary("r", "relation"), {"test": torch.tensor([[0, 0, 1]])}
    )

    def score(queries: Queries) -> Tensor:
        return torch.tensor([[0.0, 1.0, 1.0 + 1e-12]], dtype=torch.float64).repeat(len(queries), 1)

    ranks = as_dict(rank(score, graph.answers("test"), graph.answers("test")))
    assert ranks[0, 0, 1] == (0, 1, 3)


def test_a_question_may_have_more_answers_than_a_batch_has_questions() -> None:
    """Answers are then counted in several chunks."""
    entities = 30
    facts = torch.stack([torch.zeros(20).long(), torch.zeros(20).long(), torch.arange(5, 25)], 1)
    names = Vocabulary([str(n) for n in range(entities)])
    graph = Graph(names, Vocabulary("r", "relation"), {"test": facts})
    table = random_scores(graph, 3)
    ranks = rank(scores_of(table), graph.answers("test"), graph.answers("test"), batch=2)
    assert as_dict(ranks) == naive_ranks(graph, table, "test", ("test",))


def test_no_questions_give_no_ranks() -> None:
    empty = AnswerIndex(torch.empty(0, 3, dtype=torch.int64))
    ranks = rank(scores_of({}), empty, empty)
    assert len(ranks) == 0
    assert summary(ranks) == {"count": 0}


def test_progress_is_reported_after_every_batch() -> None:
    graph = random_graph(5)
    questions = graph.answers("train")
    calls = []
    rank(
        scores_of(random_scores(graph, 5)),
        questions,
        questions,
        batch=3,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [
        (min(n + 3, len(questions)), len(questions)) for n in range(0, len(questions), 3)
    ]


def test_a_model_is_ranked_among_entities_only(tiny_graph: Callable) -> None:
    """Ranks of a model equal those of its scores of one question at a time."""
    tiny = tiny_graph()
    model = EmbeddingModel(
        Embedding(embedding_dim=4, init_std=0.5), tiny.facts(), tiny.features.dense
    )
    ranks = rank_split(model, tiny.graph, "test", 0.5)
    assert int(ranks.candidates.max()) <= tiny.graph.num_entities
    table: Table = {}
    for head in range(12):
        for relation in range(6):
            query = Queries(torch.tensor([head]), torch.tensor([relation]))
            table[head, relation] = model.score(query)[0].tolist()
    splits = ("train", "valid", "test")
    assert as_dict(ranks) == naive_ranks(tiny.graph, table, "test", splits)
    # Validation does not filter answers of the test split.
    ranks = rank_split(model, tiny.graph, "valid", 0.5)
    assert as_dict(ranks) == naive_ranks(tiny.graph, table, "valid", ("train", "valid"))


def test_a_batch_fits_its_memory() -> None:
    assert batch_size_for(15_000, 0.5) == 1024
    assert 1 <= batch_size_for(10**7, 0.5) <= 0.5 * 2**30 / (10**7 * 10)
    assert batch_size_for(10**12, 1e-6) == 1
    assert batch_size_for(0, 0.5) == 1024
