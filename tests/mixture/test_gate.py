"""The gate: a weighted sum whose weights depend on the query."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from mocme.data.graph import Graph
from mocme.evaluation.ranking import rank_split
from mocme.mixture import learned_fit as module
from mocme.mixture.fact_index import FactIndex
from mocme.mixture.gate import LARGEST, OF_QUERY, Gate, GateSettings
from mocme.mixture.learned import Learned
from mocme.mixture.pool import feature_names, make_pool
from mocme.mixture.weight_search import Weight
from small_experts import all_queries
from table_experts import DenseTable, SparseTable, random_experts, random_graph

WEIGHTS = {"first": Weight(1.0), "rules": Weight(2.0, 3.0), "second": Weight(0.5)}
SMALL: dict[str, Any] = {"pool": 6, "steps": 60, "parts": 3}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate is fitted on small graphs too."""
    monkeypatch.setattr(module, "FEW_FACTS", 5)
    monkeypatch.setattr(module, "FEWEST_FACTS", 5)


def random_gate(experts: list, relations: int, seed: int = 0) -> Gate:
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(field.shape, dtype=torch.float64, generator=generator)  # type: ignore[arg-type]
        for name, field in Gate.fields(len(experts), relations).items()
    }
    tensors["deviation"] = tensors["deviation"].abs() + 0.1
    return Gate.of(experts, tensors)


def test_scores_equal_a_naive_sum() -> None:
    graph = random_graph()
    experts, queries = random_experts(graph), all_queries(graph)
    names = feature_names(experts)
    pool = make_pool(experts, WEIGHTS, FactIndex.of(graph), queries, 5)
    relation = queries.relation.numpy()[pool.row]
    gate = random_gate(experts, 2 * graph.num_relations)
    own = {name: tensor.numpy() for name, tensor in gate.tensors.items()}
    found = gate(pool.features, relation)
    for row, asked, score in zip(pool.features, relation, found, strict=True):
        told = dict(zip(names, row.astype(np.float64), strict=True))
        logits, values = [], []
        for e, expert in enumerate(experts):
            sparse = isinstance(expert, SparseTable)
            certainty = told[f"{expert.name}: {'reached' if sparse else 'entropy'}"]
            overlap = told[f"{expert.name}: complementarity"]

            def scaled(value: float, place: int) -> float:
                return float((value - own["mean"][place]) / own["deviation"][place])

            logit = own["bias"][e] + own["by_relation"][asked, e]
            logit += own["certainty"][e] * scaled(certainty, e)
            logit += own["complementarity"][0] * scaled(overlap, len(experts) + e)
            for i, name in enumerate(OF_QUERY):
                logit += own["of_query"][i, e] * scaled(told[name], 2 * len(experts) + i)
            logits.append(-math.inf if sparse and certainty == 0 else logit)
            values.append(told[f"{expert.name}: {'gain' if sparse else 'log_share'}"])
        weights = [math.exp(logit - max(logits)) for logit in logits]
        strength = np.exp(own["log_strength"])
        wanted = sum(
            w / sum(weights) * s * v for w, s, v in zip(weights, strength, values, strict=True)
        )
        assert score == pytest.approx(max(-LARGEST, min(LARGEST, wanted)), rel=1e-9, abs=1e-9)


def test_scaled_scores_are_multiples() -> None:
    graph = random_graph()
    experts, queries = random_experts(graph), all_queries(graph)
    pool = make_pool(experts, WEIGHTS, FactIndex.of(graph), queries, 5)
    relation = queries.relation.numpy()[pool.row]
    gate = random_gate(experts, 2 * graph.num_relations)
    before, after = gate(pool.features, relation), gate.scaled(0.5)(pool.features, relation)
    inside = np.abs(before) < LARGEST
    np.testing.assert_allclose(after[inside], before[inside] / 2)
    assert gate.least <= before.min()


def by_relation(graph: Graph) -> list[DenseTable]:
    """Two experts, each of which knows the answers of one relation and misleads in the other."""
    experts = []
    facts, size = graph.directed("valid"), graph.num_entities
    for known in range(2):
        generator = torch.Generator().manual_seed(known)
        table = torch.randn(2 * graph.num_relations * size, size, generator=generator)
        row = facts[:, 1] * size + facts[:, 0]
        right = facts[:, 1] % graph.num_relations == known
        table[row[right], facts[right, 2]] += 4
        wrong = torch.randint(size, (int((~right).sum()), 3), generator=generator)
        table[row[~right].unsqueeze(1), wrong] += 5
        experts.append(DenseTable(f"knows-{known}", table))
    return experts


def test_a_gate_learns_which_expert_knows_which_relation() -> None:
    graph = random_graph(entities=40, relations=2, facts=900)
    experts = by_relation(graph)
    mixture, record = GateSettings(**SMALL).fit(experts, graph, 0.5)
    assert isinstance(mixture, Learned)
    assert record["kind"] == "Gate"
    assert record["learned"] > record["sum"] + 0.05
    assert record["learned"] > max(record["alone"].values()) + 0.05
    unseen = float((1 / rank_split(mixture, graph, "valid", 0.5).realistic).mean())
    assert unseen > record["sum"] + 0.05
    packed = mixture.packed()
    again = GateSettings(**SMALL).unpacked(packed, experts, graph)
    queries = all_queries(graph)
    assert torch.equal(again.score(queries), mixture.score(queries))


def test_a_gate_has_equal_bits_twice() -> None:
    graph = random_graph(entities=40, relations=2, facts=900)
    first, second = (
        GateSettings(**SMALL).fit(by_relation(graph), graph, 0.5)[0].packed()[0] for _ in range(2)
    )
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor)


@pytest.mark.parametrize("name", ["bias", "deviation", "by_relation"])
def test_damaged_parameters_are_refused(name: str) -> None:
    graph = random_graph()
    experts = random_experts(graph)
    gate = random_gate(experts, 2 * graph.num_relations)
    of = FactIndex.of(graph), WEIGHTS, gate.scaled(1.0), 6
    tensors, metadata = Learned("Gate", experts, *of).packed()
    for bad in (float("nan"), -1e9):
        changed = tensors[name].clone()
        changed.view(-1)[0] = bad
        with pytest.raises(ValueError, match=name):
            GateSettings(**SMALL).unpacked(({**tensors, name: changed}, metadata), experts, graph)
    rest = {key: value for key, value in tensors.items() if key != name}
    with pytest.raises(ValueError, match=name):
        GateSettings(**SMALL).unpacked((rest, metadata), experts, graph)


def test_a_mixture_of_another_kind_is_refused() -> None:
    from mocme.mixture.ranker import RankerSettings

    graph = random_graph()
    experts = random_experts(graph)
    gate = random_gate(experts, 2 * graph.num_relations)
    packed = Learned("Gate", experts, FactIndex.of(graph), WEIGHTS, gate, 6).packed()
    with pytest.raises(ValueError, match="is a 'Gate'; the settings are of a Ranker"):
        RankerSettings(pool=6).unpacked(packed, experts, graph)
