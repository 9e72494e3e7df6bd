"""Explanations against naive recomputation: modalities, rules, paths, gradients, notes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

import mocme
from mixtures import mixture_of, rules_of
from mocme.cli import main
from mocme.core.deadline import Check, Stopped
from mocme.core.registry import Spec
from mocme.data import paths
from mocme.data.features.tokens import TrainingFacts
from mocme.data.graph import Graph, Queries, UnknownName, Vocabulary
from mocme.data.pairs.similarity import nearest_to, similar_vectors
from mocme.data.paths import FactNetwork
from mocme.experts.embedding import Embedding
from mocme.experts.embedding.expert import EmbeddingExpert
from mocme.experts.embedding.fusion import Fusion, MeanFusion
from mocme.experts.embedding.gradient_buffer import GradientBuffer
from mocme.experts.embedding.link_prediction import LinkPrediction
from mocme.experts.embedding.losses import Softmax
from mocme.experts.embedding.model import EmbeddingModel
from mocme.experts.embedding.negative_weighting import (
    EntropyWeighting,
    HardestWeighting,
    SelfAdversarialWeighting,
    UniformWeighting,
)
from mocme.experts.embedding.objective import Objective
from mocme.experts.embedding.scorers import Scorer
from mocme.experts.rules import Rules
from mocme.experts.rules.adjacency import Adjacency
from mocme.experts.rules.leave_one_out import count_paths, score_changes
from mocme.experts.rules.rule_mining import RuleBodies
from mocme.experts.rules.rule_model import RuleModel
from mocme.explanation import embedding_influence, faithfulness
from mocme.explanation.context import FAITHFULNESS
from mocme.explanation.embedding_influence import EmbeddingInfluence, InfluenceEstimator
from mocme.explanation.schema import Explanation
from mocme.mixture.weight_search import Weight
from mocme.prediction.predictor import Predictor
from mocme.prediction.schema import Question
from mocme.runs.run import Run

SETTINGS = {
    "experts.embedding.embedding_dim": 8,
    "experts.embedding.init_std": 0.5,
    "experts.rules": {"support": 1},
    "experts.embedding.training.epochs": 2,
    "experts.embedding.training.batch_size": 64,
    "experts.embedding.training.precision": "float32",
}
# The last entity, e11, is in no training fact and has no modality.
FACTS = [("e0", "r0", "e3"), ("e4", "r2", "e1"), ("e3", "r1", "e10"), ("e0", "r1", "e11")]


@pytest.fixture(scope="module")
def data(
    tiny_graph: Callable, tiny_folder: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Graph:
    return mocme.load(tiny_folder(tmp_path_factory.mktemp("data"), tiny_graph(facts=60)))


@pytest.fixture(scope="module")
def trained(data: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    return mocme.train(data, "mocme", out=out, settings=SETTINGS, device="cpu").path


@pytest.fixture(scope="module")
def predictor(trained: Path) -> Predictor:
    return mocme.open(trained, device="cpu")


def ids(graph: Graph, fact: tuple[str, str, str]) -> tuple[int, int, int]:
    h, r, t = fact
    return graph.entities.id(h), graph.relations.id(r), graph.entities.id(t)


def mean_score(
    model: EmbeddingModel, fact: tuple[int, int, int], number: int, table: Any = None
) -> float:
    h, r, t = fact
    queries = Queries(torch.tensor([h, t]), torch.tensor([r, r + number]))
    with torch.no_grad():
        return float(model.score(queries, torch.tensor([[t], [h]]), table).mean())


# -- all fields ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fact", FACTS)
def test_score_probability_and_ranks_are_those_of_the_predictor(
    fact: tuple[str, str, str], predictor: Predictor
) -> None:
    explanation = predictor.explain(*fact)
    graph = predictor.graph
    h, r, t = ids(graph, fact)
    (checked,) = predictor.score_facts([fact])
    assert explanation.score == pytest.approx(checked.score, rel=1e-6)
    assert explanation.probability == checked.probability
    assert explanation.known == checked.known
    for given_id, directed, answer, rank in (
        (h, r, t, explanation.tail_rank),
        (t, r + graph.num_relations, h, explanation.head_rank),
    ):
        scores = predictor.mixture.score(
            Queries(torch.tensor([given_id]), torch.tensor([directed]))
        )[0]
        known = set(
            predictor.scorer.known.lookup(
                Queries(torch.tensor([given_id]), torch.tensor([directed]))
            )[1].tolist()
        )
        others = [
            n
            for n in range(graph.num_entities)
            if n not in known and n != answer and (n != given_id or r in predictor.scorer.reflexive)
        ]
        above = sum(bool(scores[n] > scores[answer]) for n in others)
        ties = sum(bool(scores[n] == scores[answer]) for n in others)
        assert rank == 1 + above + ties // 2


@pytest.mark.parametrize("fact", FACTS)
def test_all_fields_serialise_to_json(fact: tuple[str, str, str], predictor: Predictor) -> None:
    explanation = predictor.explain(*fact)
    table = json.loads(json.dumps(asdict(explanation), allow_nan=False))
    assert list(table) == [
        *("head", "relation", "tail", "score", "probability", "known", "tail_rank", "head_rank"),
        *("modalities", "weights", "rules", "supports", "paths", "neighbours", "notes"),
    ]
    assert {*table["modalities"][0]} == {"name", "of", "present", "weight", "views", "without"}
    assert {*table["weights"]} == {"correlation", "facts", "reasons", "text"}
    for row in table["rules"]:
        assert {*row} == {"name", "relations", "paths", "share"}
    for row in table["supports"]:
        parts = ("change", "by_vectors", "by_rules")
        assert {*row} == {"head", "relation", "tail", "kind", *parts}
        assert row["change"] == pytest.approx(row["by_vectors"] + row["by_rules"])
        assert row["change"] < 0
    for path in table["paths"]:
        for step in path:
            assert {*step} == {"head", "relation", "tail"}
    for row in table["neighbours"]:
        assert {*row} == {"of", "by", "entities"}
        assert all({*near} == {"name", "similarity"} for near in row["entities"])


def test_unknown_names_are_rejected(predictor: Predictor) -> None:
    for fact in (("e", "r0", "e3"), ("e0", "rr", "e3"), ("e0", "r0", "ee")):
        with pytest.raises(UnknownName):
            predictor.explain(*fact)


def test_explain_a_self_loop(predictor: Predictor) -> None:
    explanation = predictor.explain("e1", "r0", "e1")
    json.dumps(asdict(explanation), allow_nan=False)
    assert explanation.score == pytest.approx(predictor.score("e1", "r0", "e1"))
    assert any("one entity" in note for note in explanation.notes)
    assert not explanation.paths


def test_an_entity_without_facts_or_modalities_has_notes(predictor: Predictor) -> None:
    explanation = predictor.explain("e0", "r1", "e11")
    assert any("e11 is in no training fact" in note for note in explanation.notes)
    assert any("nothing is known about e11" in note for note in explanation.notes)
    shares = [share for share in explanation.modalities if share.of == "tail"]
    assert [share.present for share in shares] == [False] * 3
    assert [share.without for share in shares] == [None] * 3
    assert all("e11" not in (row.head, row.tail) for row in explanation.supports)
    assert {group.of for group in explanation.neighbours} == {"head"}


def test_words_are_listed_as_supporting_tokens(predictor: Predictor) -> None:
    assert any("words act through training" in n for n in predictor.explain(*FACTS[0]).notes)
    context = predictor.explainer.context
    assert context is not None
    kinds = {}
    for fact in FACTS:
        supports, _ = context.supports(*ids(predictor.graph, fact), 1000)
        kinds |= {row.kind: row for row in supports}
    token = kinds["token"]
    assert token.relation == "word"
    assert re.fullmatch(r"word\d", token.tail)
    assert token.by_rules == 0
    assert kinds["fact"].relation in predictor.graph.relations


def test_explain_a_model_without_content(data: Graph, tmp_path: Path) -> None:
    settings = {**SETTINGS, "data.only": [], "experts.rules": {"support": 1}}
    predictor = mocme.train(
        data, "structure", out=tmp_path / "run", settings=settings, device="cpu"
    ).predictor("cpu")
    explanation = predictor.explain(*FACTS[0])
    assert [(share.name, share.of) for share in explanation.modalities] == [
        ("structure", "head"),
        ("structure", "tail"),
    ]
    assert explanation.weights.correlation is None
    assert not explanation.weights.reasons
    assert any("structure is the only modality of e0" in note for note in explanation.notes)
    assert {group.by for group in explanation.neighbours} == {"vector"}
    assert repr(explanation).startswith("(e0, r0, e3)")


def test_a_mixture_without_its_run_explains_without_supports(predictor: Predictor) -> None:
    explanation = Predictor(predictor.mixture, predictor.graph).explain(*FACTS[0])
    assert not explanation.supports
    assert any("without its run" in note for note in explanation.notes)
    assert explanation.modalities == predictor.explain(*FACTS[0]).modalities
    assert explanation.weights == predictor.explain(*FACTS[0]).weights


# -- modalities ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Fusion.kinds, ids=lambda kind: kind.__name__)
def test_score_drops_equal_naive_recomputation(kind: Any, tiny_graph: Callable) -> None:
    tiny = tiny_graph(facts=50)
    settings = Embedding(embedding_dim=8, across=Spec(kind), within=Spec(kind), init_std=0.5)
    model = EmbeddingModel(settings, tiny.facts(), tiny.features.dense).eval()
    explanation = Predictor(mixture_of(model), tiny.graph).explain("e0", "r1", "e10")
    score = mean_score(model, (0, 1, 10), 3)
    assert any(share.without for share in explanation.modalities)
    for share in explanation.modalities:
        entity = {"head": 0, "tail": 10}[share.of]
        column = model.modalities.index(share.name)
        assert share.present == bool(model.present[entity, column])
        if not share.present:
            assert share.without is None
            continue
        mask = torch.zeros(12, dtype=torch.bool)
        mask[entity] = True
        with torch.no_grad():
            table = model.table(hide={share.name: mask})
        drop = score - mean_score(model, (0, 1, 10), 3, table)
        assert share.without == pytest.approx(drop, abs=1e-5)
        assert share.weight == pytest.approx(float(model.frozen().weights[entity, column]))
        if share.views:
            rows = model.get_buffer(f"rows_{share.name}").tolist()
            expected = model.frozen().views[share.name][rows.index(entity)].tolist()
            assert list(share.views) == expected


def test_tables_equal_tables_computed_one_by_one(predictor: Predictor) -> None:
    model = predictor.embedding().model
    mask = torch.zeros(model.num_entities, dtype=torch.bool)
    mask[3] = True
    hides: list[Any] = [(), ("shape",), {"shape": mask, "structure": mask}]
    for hide, table in zip(hides, model.tables(hides), strict=True):
        with torch.no_grad():
            expected = model.table(hide=hide)
        assert torch.equal(table.vectors, expected.vectors)
        assert torch.equal(table.weights, expected.weights)


def naive_drops(model: EmbeddingModel, graph: Graph, name: str) -> list[tuple[float, float]]:
    column, full, rows = model.modalities.index(name), model.frozen(), []
    for h, r, t in graph.directed("valid").tolist():
        if not model.present[t, column] or model.present[t].sum() < 2:
            continue
        mask = torch.zeros(graph.num_entities, dtype=torch.bool)
        mask[t] = True
        with torch.no_grad():
            table = model.table(hide={name: mask})
            query = model.query(full.vectors[[h]], torch.tensor([r]))
            before = model.scorer.compare(query, full.vectors[[t]])
            after = model.scorer.compare(query, table.vectors[[t]])
        rows.append((float(full.weights[t, column]), float(before - after)))
    return rows


def test_batched_drops_equal_drops_of_single_answers(
    tiny_graph: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = tiny_graph(facts=50, valid=20)
    model = EmbeddingModel(
        Embedding(embedding_dim=8, across=Spec(MeanFusion), init_std=0.5),
        tiny.facts(),
        tiny.features.dense,
    ).eval()
    monkeypatch.setattr(faithfulness, "MASK_DIVISOR", 4)
    names = []
    for drops in faithfulness.score_drops(model, tiny.graph):
        expected = naive_drops(model, tiny.graph, drops.modality)
        cases = list(zip(drops.weight.tolist(), drops.drop.tolist(), strict=True))
        assert np.allclose(cases, expected, atol=1e-5)
        names.append(drops.modality)
    assert names == model.modalities


def test_faithfulness_is_cached_in_the_run(trained: Path) -> None:
    run = Run.open(trained)
    first = run.predictor("cpu").explain(*FACTS[0])
    cached = run.folder.read_json(FAITHFULNESS)
    assert cached["together"]["correlation"] == first.weights.correlation
    run.folder.write_json(FAITHFULNESS, {**cached, "together": {"correlation": 0.75, "facts": 9}})
    again = run.predictor("cpu").explain(*FACTS[0])
    assert (again.weights.correlation, again.weights.facts) == (0.75, 9)
    assert again.weights.reasons
    assert "predict" in again.weights.text
    run.folder.write_json(FAITHFULNESS, cached)


@pytest.mark.parametrize(
    ("correlation", "reasons"), [(0.5, True), (0.49, False), (-0.9, False), (None, False)]
)
def test_weights_are_reasons_only_if_they_predict_drops(
    correlation: float | None, reasons: bool
) -> None:
    measured = faithfulness.Faithfulness(faithfulness.Agreement(correlation, 40), {})
    assert measured.reasons == reasons
    assert ("not reasons" in measured.text) == (not reasons)
    assert correlation is None or f"{correlation:.2f}" in measured.text
    assert faithfulness.Faithfulness.unpacked(measured.packed()) == measured


# -- rules -----------------------------------------------------------------------------------------


def make_rule_model(facts: list[Any], links: int, entities: int, seed: int) -> RuleModel:
    """All rule bodies of all relations, with random weights and biases."""
    relations = make_adjacency(facts, links, entities)
    directed = range(2 * links)
    rows = [
        (link, first, second)
        for link, first, second in itertools.product(directed, directed, [-1, *directed])
        if (first, second) != (link, -1)
    ]
    relation, first, second = np.array(rows).T
    generator = np.random.default_rng(seed)
    zeros = np.zeros(len(rows), np.int64)
    bodies = RuleBodies(relation, first, second, zeros, zeros.astype(np.float64))
    weight, bias = generator.normal(size=len(rows)), generator.normal(size=2 * links)
    return RuleModel(relations, bodies, weight, bias)


@st.composite
def rule_inputs(draw: Any) -> tuple[list[tuple[int, int, int]], int, int, int]:
    """A small graph with loops and parallel facts, and a seed."""
    entities, links = draw(st.integers(3, 6)), draw(st.integers(1, 2))
    node = st.integers(0, entities - 1)
    fact = st.tuples(node, st.integers(0, links - 1), node)
    facts = draw(st.lists(fact, min_size=2, max_size=20, unique=True))
    return sorted(facts), links, entities, draw(st.integers(0, 99))


def make_adjacency(facts: list[tuple[int, int, int]], links: int, entities: int) -> Adjacency:
    triples = torch.tensor(facts, dtype=torch.int64).reshape(-1, 3)
    return Adjacency.of(triples, links, entities, {}, [f"r{n}" for n in range(links)])


@given(rule_inputs())
@examples(max_examples=10)
def test_changes_by_rules_equal_scores_on_a_graph_without_the_fact(drawn: Any) -> None:
    facts, links, entities, seed = drawn
    rule_model = make_rule_model(facts, links, entities, seed)
    pairs = list(itertools.product(range(entities), range(2 * links)))
    queries = Queries(*torch.tensor(pairs).unbind(1))

    def scores(model: RuleModel) -> torch.Tensor:
        return mixture_of(rules=model, weight=Weight(1.5, 20.0)).score(queries)

    all_scores = scores(rule_model)
    contribution = partial(
        mixture_of(rules=rule_model, weight=Weight(1.5, 20.0)).contribution, "rules"
    )
    changes = [
        [score_changes(rule_model, *pair, answer, contribution) for answer in range(entities)]
        for pair in pairs
    ]
    for fact in facts[:5]:
        others = [other for other in facts if other != fact]
        without = scores(replace(rule_model, relations=make_adjacency(others, links, entities)))
        estimates = torch.tensor([[change.get(fact, 0.0) for change in row] for row in changes])
        assert torch.allclose(estimates, without - all_scores, atol=2e-4)


@given(rule_inputs())
@examples(max_examples=6)
def test_path_counts_equal_those_of_reasons(drawn: Any) -> None:
    facts, links, entities, seed = drawn
    rule_model = make_rule_model(facts, links, entities, seed)
    for head, relation, answer in itertools.product((0, 1), range(2 * links), range(3)):
        reasons = rule_model.reasons(head, relation, answer)
        by_body = {
            (int(rule_model.bodies.first[b]), int(rule_model.bodies.second[b])): count
            for b, count in count_paths(rule_model, head, relation, answer).paths.items()
        }
        assert by_body == {(*r.body, -1)[:2]: r.count for r in reasons}


def test_rules_of_both_directions_are_listed_from_head_to_tail(predictor: Predictor) -> None:
    graph, rule_model = predictor.graph, rules_of(predictor.mixture)
    num_rules = 0
    for fact in [(h, "r0", t) for h in ("e0", "e1", "e2") for t in ("e3", "e4", "e5")]:
        h, r, t = ids(graph, fact)
        forward = {reason.body: reason for reason in rule_model.reasons(h, r, t)}
        inverse = rule_model.relations.inverse
        backward = {
            tuple(int(inverse[step]) for step in reason.body[::-1]): reason
            for reason in rule_model.reasons(t, r + graph.num_relations, h)
        }
        rules = predictor.explain(*fact).rules
        assert len(rules) == len(forward.keys() | backward.keys())
        largest = [
            max(
                reason.share
                for reason in (forward.get(body), backward.get(body))
                if reason is not None
            )
            for body in forward.keys() | backward.keys()
        ]
        assert [rule.share for rule in rules] == sorted(largest, reverse=True)
        num_rules += len(rules)
    assert num_rules


def ring(size: int = 12) -> tuple[Graph, RuleModel]:
    """A ring of neighbours with both directions, a flag shared by two neighbours, and its rules."""
    entities = Vocabulary([f"e{n}" for n in range(2 * size)])
    near = [(n, 0, (n + 1) % size) for n in range(size)]
    near += [(t, r, h) for h, r, t in near]
    flags = [(n, 1, size + n // 2) for n in range(1, size)]
    facts = torch.tensor([*near, *flags])
    graph = Graph(entities, Vocabulary(["near", "flag"], "relation"), {"train": facts})
    relations = Adjacency.of(facts, 2, 2 * size, {}, list(graph.relations))
    return graph, RuleModel.fit(relations, Rules(support=1, confidence=0.001))


def test_equivalent_rules_are_merged() -> None:
    graph, rule_model = ring()
    assert rule_model.relations.display.tolist() == [0, 1, 0, 3]
    model = EmbeddingModel(Embedding(embedding_dim=4), TrainingFacts.of(graph, {}), {}).eval()
    rules = Predictor(mixture_of(model, rule_model), graph).explain("e0", "flag", "e12").rules
    reasons = rule_model.reasons(0, 1, 12)
    assert {reason.name for reason in reasons} >= {"near, then flag", "inverse of near, then flag"}
    assert "near, then flag" in {rule.name for rule in rules}
    assert not any("inverse of near" in rule.name for rule in rules)
    (merged,) = [rule for rule in rules if rule.name == "near, then flag"]
    both = [r for r in reasons if r.name in ("near, then flag", "inverse of near, then flag")]
    assert merged.share >= sum(reason.share for reason in both) - 1e-9
    assert merged.paths == both[0].count == both[1].count


# -- paths -----------------------------------------------------------------------------------------


def test_a_path_over_a_symmetric_relation_is_listed_once() -> None:
    graph, _ = ring()
    plain = FactNetwork(graph, "train", symmetric=()).paths(0, 2, (0, 0, 2))
    folded = FactNetwork(graph, "train").paths(0, 2, (0, 0, 2))
    assert len([path for path in plain.paths if len(path) == 2]) == 4
    assert [path for path in folded.paths if len(path) == 2] == [((0, 0, 1), (1, 0, 2))]
    # If one direction may not be used, the other one is listed.
    assert FactNetwork(graph, "train").paths(0, 1, (0, 0, 1)).paths[0] == ((1, 0, 0),)
    predictor = Predictor(
        mixture_of(
            EmbeddingModel(Embedding(embedding_dim=4), TrainingFacts.of(graph, {}), {}).eval()
        ),
        graph,
    )
    explanation = predictor.explain("e0", "near", "e2")
    steps = [[(step.head, step.tail) for step in path] for path in explanation.paths]
    assert [("e0", "e1"), ("e1", "e2")] in steps
    assert [("e1", "e0"), ("e1", "e2")] not in steps


@st.composite
def networks(draw: Any) -> tuple[list[tuple[int, int, int]], int, int, int, int, int]:
    """Facts, numbers of entities and relations, and a fact to explain."""
    entities, links = draw(st.integers(2, 7)), draw(st.integers(1, 3))
    node, link = st.integers(0, entities - 1), st.integers(0, links - 1)
    facts = draw(st.lists(st.tuples(node, link, node), min_size=1, max_size=25, unique=True))
    return sorted(facts), entities, links, draw(node), draw(link), draw(node)


def naive_paths(
    graph: Graph, head: int, tail: int, without: tuple[int, int, int]
) -> list[tuple[int, float, tuple[int, ...], tuple[Any, ...]]]:
    """Length, cost, intermediate entities and facts of all simple paths of up to three facts."""
    facts = [tuple(f) for f in graph.facts("train").tolist() if f[0] != f[2]]
    degree = [sum(n in (f[0], f[2]) for f in facts) for n in range(graph.num_entities)]
    rows = []
    for length in (1, 2, 3):
        for inner in itertools.permutations(range(graph.num_entities), length - 1):
            stops = (head, *inner, tail)
            if len(set(stops)) < len(stops):
                continue
            steps = [
                [f for f in facts if {f[0], f[2]} == {a, b} and f != without]
                for a, b in itertools.pairwise(stops)
            ]
            cost = float(np.prod([degree[n] for n in inner]))
            rows += [(length, cost, inner, path) for path in itertools.product(*steps)]
    return rows


@given(networks(), st.integers(1, 12))
@examples(max_examples=60)
def test_paths_equal_brute_force(drawn: Any, most: int) -> None:
    facts, entities, links, head, relation, tail = drawn
    names = Vocabulary([f"e{n}" for n in range(entities)])
    relations = Vocabulary([f"r{n}" for n in range(links)], "relation")
    graph, without = Graph(names, relations, {"train": torch.tensor(facts)}), (head, relation, tail)
    search = FactNetwork(graph, "train", symmetric=()).paths(head, tail, without, most)
    expected = naive_paths(graph, head, tail, without)
    assert search.left_out == 0
    assert len(search.paths) == len(set(search.paths)) == min(most, len(expected))
    key = {path: (length, cost, inner) for length, cost, inner, path in expected}
    order = sorted(key.values())
    assert [key[path] for path in search.paths] == order[: len(search.paths)]
    if most >= len(expected):
        assert set(search.paths) == set(key)


def test_limits_for_hubs_are_noted(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "EDGES", 3)
    monkeypatch.setattr(embedding_influence, "MOST_FACTS", 2)
    fact = ("e0", "r1", "e11")
    assert predictor.graph.linked()[0]
    explanation = predictor.explain(*fact)
    pattern = r"only 2 of \d+ training facts of e0 were evaluated"
    assert any(re.search(pattern, note) for note in explanation.notes)
    network = FactNetwork(predictor.graph, "train")
    h, _, t = ids(predictor.graph, FACTS[0])
    assert network._two_between(h, t)[1] > 0


# -- vectors ---------------------------------------------------------------------------------------


def make_estimator(
    tiny: Any, objective: Objective, scorer: Spec[Scorer] | None = None, double: bool = True
) -> InfluenceEstimator:
    options = {} if scorer is None else {"scorer": scorer}
    model = EmbeddingModel(
        Embedding(embedding_dim=6, init_std=0.5, **options), tiny.facts(), tiny.features.dense
    ).eval()
    return InfluenceEstimator(objective, model.double() if double else model, tiny.facts())


@torch.no_grad()
def total_loss(estimator: InfluenceEstimator, nodes: range) -> float:
    """Sum of the losses of all facts whose head is one of the nodes."""
    total, table = 0.0, estimator.model.frozen().vectors
    for node in nodes:
        facts = estimator.facts_of(node)
        if len(facts):
            total += float(estimator.losses(facts, table[node].expand(len(facts), -1)).sum())
    return total


@pytest.mark.parametrize("answers", ["together", "apart"])
@pytest.mark.parametrize(
    "weighting",
    [UniformWeighting(), EntropyWeighting(), SelfAdversarialWeighting(), HardestWeighting(count=3)],
)
def test_losses_of_facts_sum_to_the_objective(
    answers: Any, weighting: Any, tiny_graph: Callable
) -> None:
    tiny = tiny_graph(facts=40)
    objective = Objective(loss=Softmax(weighting=weighting, answers=answers))
    estimator = make_estimator(tiny, objective, double=False)
    task = LinkPrediction(objective, estimator.model, tiny.facts(), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    batch = task.batch(torch.arange(len(task.index)), generator)
    gradients = GradientBuffer(estimator.model.frozen().vectors)
    terms = task.backward(batch, gradients, torch.zeros(()), generator)
    # Each query and answer counts twice: for the head and for the tail of the fact.
    total = total_loss(estimator, range(tiny.facts().num_nodes))
    assert total == pytest.approx(2 * float(terms["loss"]) * batch.norm, rel=1e-4)


@pytest.mark.parametrize("kind", Scorer.kinds, ids=lambda kind: kind.__name__)
def test_gradients_equal_finite_differences(kind: Any, tiny_graph: Callable) -> None:
    tiny = tiny_graph(facts=40)
    scorer = Spec(kind, relation_dim=4) if kind.__name__ == "TuckER" else Spec(kind)
    estimator = make_estimator(tiny, Objective(n3=0.1), scorer)
    facts = estimator.facts_of(3)
    vectors = estimator.model.frozen().vectors[3].expand(len(facts), -1).clone().requires_grad_()
    (gradients,) = torch.autograd.grad(estimator.losses(facts, vectors).sum(), vectors)
    for row in range(len(facts)):
        for column in range(vectors.shape[1]):
            step = torch.zeros_like(vectors)
            step[row, column] = 1e-6
            with torch.no_grad():
                up = estimator.losses(facts, vectors + step)
                down = estimator.losses(facts, vectors - step)
            slope = float((up - down)[row]) / 2e-6
            assert float(gradients[row, column]) == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_slopes_equal_finite_differences_of_the_mean_score(tiny_graph: Callable) -> None:
    tiny = tiny_graph(facts=40)
    estimator = make_estimator(tiny, Objective())
    model, num_relations = estimator.model, tiny.graph.num_relations
    embedding = EmbeddingInfluence(
        EmbeddingExpert("embedding", (), model, Objective()), tiny.graph, tiny.features
    )
    for fact in ((0, 1, 4), (2, 2, 2)):
        for entity, slope in embedding.slopes(*fact).items():
            for column in range(len(slope)):
                values = []
                for side in (1e-6, -1e-6):
                    vectors = model.frozen().vectors.clone()
                    vectors[entity, column] += side
                    moved = replace(model.frozen(), vectors=vectors)
                    queries = Queries(
                        torch.tensor([fact[0], fact[2]]),
                        torch.tensor([fact[1], fact[1] + num_relations]),
                    )
                    answers = torch.tensor([[fact[2]], [fact[0]]])
                    with torch.no_grad():
                        values.append(float(model.score(queries, answers, moved).mean()))
                difference = (values[0] - values[1]) / 2e-6
                assert float(slope[column]) == pytest.approx(difference, rel=1e-4, abs=1e-7)


def test_changes_equal_a_dense_solution(
    tiny_graph: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_influence, "STEPS", 100)
    monkeypatch.setattr(embedding_influence, "RESIDUAL", 1e-9)
    tiny = tiny_graph(facts=40)
    estimator = make_estimator(tiny, Objective(n3=0.05))
    facts, vector = estimator.facts_of(3), estimator.model.frozen().vectors[3]
    slope = torch.randn(len(vector), generator=torch.Generator().manual_seed(1)).double()

    def total(shared: torch.Tensor) -> torch.Tensor:
        return estimator.losses(facts, shared.expand(len(facts), -1)).sum()

    hessian = torch.autograd.functional.hessian(total, vector)
    signs = torch.randn(len(vector), generator=torch.Generator().manual_seed(0)).sign().double()
    damping = embedding_influence.DAMPING * float((signs * (hessian @ signs)).mean())
    copies = vector.expand(len(facts), -1).clone().requires_grad_()
    (gradients,) = torch.autograd.grad(estimator.losses(facts, copies).sum(), copies)
    solution = torch.linalg.solve(hessian + damping * torch.eye(len(vector)), slope)
    with torch.no_grad():
        changes = estimator.changes(3, facts, slope, 1.0)
    assert torch.allclose(changes, gradients @ solution, rtol=1e-5)


def test_estimates_agree_with_refitted_vectors(tiny_graph: Callable) -> None:
    """Compare the estimates with the vector fitted again without each fact."""
    tiny = tiny_graph(facts=60, tokens={})
    estimator = make_estimator(tiny, Objective(n3=0.2))
    facts, table = estimator.facts_of(3), estimator.model.frozen().vectors

    def fit(train_facts: torch.Tensor) -> torch.Tensor:
        vector = table[3].clone().requires_grad_()
        optimizer = torch.optim.LBFGS([vector], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = estimator.losses(train_facts, vector.expand(len(train_facts), -1)).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return vector.detach()

    optimum = fit(facts)
    with torch.no_grad():
        table[3] = optimum
    slope = torch.randn(len(optimum), generator=torch.Generator().manual_seed(2)).double()
    expected = []
    for index in range(len(facts)):
        others = torch.cat([facts[:index], facts[index + 1 :]])
        expected.append(float((fit(others) - optimum) @ slope))
    changes = estimator.changes(3, facts, slope, 1.0).tolist()
    assert faithfulness.spearman(torch.tensor(changes), torch.tensor(expected)) > 0.8


# -- neighbours ------------------------------------------------------------------------------------


def test_nearest_to_one_equal_nearest_of_all() -> None:
    values = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    values[7] = 0
    rows = torch.arange(30)
    head, tail = similar_vectors(values, rows, 5, least=-2.0)
    for row in range(30):
        near, cosines = nearest_to(values, row, 5)
        if row == 7:
            assert not near
            continue
        assert {n for n in near if n != 7} == set(tail[head == row].tolist()) - {7}
        assert cosines == sorted(cosines, reverse=True)
        units = torch.nn.functional.normalize(values)
        assert np.allclose(cosines, (units @ units[row])[near].tolist(), atol=1e-6)


# -- output ----------------------------------------------------------------------------------------


def test_text_and_html_are_complete_and_escaped(predictor: Predictor) -> None:
    explanation = predictor.explain(*FACTS[0])
    injected = replace(explanation, head="<script>alert('$x$')</script>", notes=("a & b",))
    page = injected._repr_html_()
    assert "<script>" not in page
    assert "a &amp; b" in page
    text = repr(explanation)
    for row in explanation.supports:
        assert f"({row.head}, {row.relation}, {row.tail})" in text
    for note in (*explanation.notes, explanation.weights.text):
        assert note in text
    for reasons in (True, False):
        changed = replace(explanation, weights=replace(explanation.weights, reasons=reasons))
        assert ("(weights are not reasons)" in repr(changed)) == (not reasons)


def test_the_plot_is_reproducible(predictor: Predictor, tmp_path: Path) -> None:
    explanation = predictor.explain(*FACTS[0])
    unusual = replace(explanation, head="$\\frac{$ <b>" + "x" * 200)
    files = [tmp_path / f"{n}.svg" for n in range(2)]
    for file in files:
        unusual.picture(file)
    assert files[0].read_bytes() == files[1].read_bytes()
    empty = replace(explanation, modalities=(), supports=(), rules=(), neighbours=())
    empty.picture(tmp_path / "empty.png")


def test_the_command_writes_text_json_and_a_plot(
    trained: Path, predictor: Predictor, tmp_path: Path
) -> None:
    arguments = ["explain", str(trained), "--head", "e0", "--relation", "r0", "--tail", "e3"]
    arguments += ["--device", "cpu"]
    file = tmp_path / "why.png"
    json_result = CliRunner().invoke(main, [*arguments, "--json", "--picture", str(file)])
    assert json_result.exit_code == 0, json_result.output
    expected: Explanation = predictor.explain(*FACTS[0])
    assert json.loads(json_result.stdout) == json.loads(json.dumps(asdict(expected)))
    assert file.exists()
    text_result = CliRunner().invoke(main, arguments)
    assert text_result.exit_code == 0, text_result.output
    assert "What each modality adds" in text_result.stdout
    assert expected.weights.text in text_result.stdout.replace("\n", " ")
    unknown = CliRunner().invoke(main, [*arguments[:-2], "--tail", "nobody"])
    assert unknown.exit_code == 1
    assert "there is no entity named" in unknown.output


# -- stopping --------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", ["ask", "relations", "missing", "score_facts", "explain"])
def test_work_stops_at_each_of_its_checks(work: str, predictor: Predictor) -> None:
    """The check is called throughout the work, and what it raises is what the caller gets."""
    facts = [("e0", "r0", "e3"), ("e4", "r2", "e1")]
    calls: dict[str, Callable[[Check], Any]] = {
        "ask": lambda check: predictor.ask(
            [Question(h, r, None) for h, r, _ in facts] + [Question(None, "r1", "e3")], check
        ),
        "relations": lambda check: predictor.ask([Question("e0", None, "e3")], check),
        "missing": lambda check: predictor.missing("e0", check=check),
        "score_facts": lambda check: predictor.score_facts(facts, check),
        "explain": lambda check: predictor.explain("e0", "r0", "e3", check),
    }
    count = 0

    def check() -> None:
        nonlocal count
        count += 1
        if count == last:
            raise Stopped

    last = 0
    expected = repr(calls[work](check))
    assert count >= {"ask": 4, "relations": 7, "missing": 7, "score_facts": 5, "explain": 20}[work]
    for last in sorted({1, 2, 3, count // 2, count - 1, count}):
        count = 0
        with pytest.raises(Stopped):
            calls[work](check)
        assert count == last
    last = 0
    assert repr(calls[work](check)) == expected
