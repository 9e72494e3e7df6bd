"""Explanations against naive recomputation: modalities, patterns, paths, gradients, notes."""

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
from mocme.explanation import faithfulness
from mocme.explanation import influence as supporting
from mocme.explanation.context import FAITHFULNESS
from mocme.explanation.influence import EmbeddingInfluence, InfluenceEstimator
from mocme.explanation.schema import Explanation
from mocme.mixture.weight_search import Weight
from mocme.prediction.predictor import Predictor
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


# -- the whole -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fact", FACTS)
def test_score_probability_and_ranks_are_those_of_the_predictor(
    fact: tuple[str, str, str], predictor: Predictor
) -> None:
    found = predictor.explain(*fact)
    graph = predictor.graph
    h, r, t = ids(graph, fact)
    (checked,) = predictor.score_facts([fact])
    assert found.score == pytest.approx(checked.score, rel=1e-6)
    assert found.probability == checked.probability
    assert found.known == checked.known
    for asked, answer, rank in (
        (("tails", h, r), t, found.tail_rank),
        (("heads", t, r), h, found.head_rank),
    ):
        what, given_id, relation = asked
        directed = relation + (graph.num_relations if what == "heads" else 0)
        scores = predictor.mixture.score(
            Queries(torch.tensor([given_id]), torch.tensor([directed]))
        )[0]
        known = set(
            predictor.known.lookup(Queries(torch.tensor([given_id]), torch.tensor([directed])))[
                1
            ].tolist()
        )
        others = [
            n
            for n in range(graph.num_entities)
            if n not in known and n != answer and (n != given_id or relation in predictor.reflexive)
        ]
        above = sum(bool(scores[n] > scores[answer]) for n in others)
        ties = sum(bool(scores[n] == scores[answer]) for n in others)
        assert rank == 1 + above + ties // 2


@pytest.mark.parametrize("fact", FACTS)
def test_every_field_serialises_as_the_contract_says(
    fact: tuple[str, str, str], predictor: Predictor
) -> None:
    found = predictor.explain(*fact)
    table = json.loads(json.dumps(asdict(found), allow_nan=False))
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


def test_names_are_checked(predictor: Predictor) -> None:
    for fact in (("e", "r0", "e3"), ("e0", "rr", "e3"), ("e0", "r0", "ee")):
        with pytest.raises(UnknownName):
            predictor.explain(*fact)


def test_a_fact_between_an_entity_and_itself(predictor: Predictor) -> None:
    found = predictor.explain("e1", "r0", "e1")
    json.dumps(asdict(found), allow_nan=False)
    assert found.score == pytest.approx(predictor.score("e1", "r0", "e1"))
    assert any("one entity" in note for note in found.notes)
    assert not found.paths


def test_an_entity_without_facts_or_modalities_says_so(predictor: Predictor) -> None:
    found = predictor.explain("e0", "r1", "e11")
    assert any("e11 is in no training fact" in note for note in found.notes)
    assert any("nothing is known of e11" in note for note in found.notes)
    shares = [share for share in found.modalities if share.of == "tail"]
    assert [share.present for share in shares] == [False] * 3
    assert [share.without for share in shares] == [None] * 3
    assert all("e11" not in (row.head, row.tail) for row in found.supports)
    assert {own.of for own in found.neighbours} == {"head"}


def test_words_act_through_training_and_show_as_tokens(predictor: Predictor) -> None:
    assert any("words act through training" in n for n in predictor.explain(*FACTS[0]).notes)
    context = predictor.explainer.context
    assert context is not None
    kinds = {}
    for fact in FACTS:
        found, _ = context.supports(*ids(predictor.graph, fact), 1000)
        kinds |= {row.kind: row for row in found}
    token = kinds["token"]
    assert token.relation == "word"
    assert re.fullmatch(r"word\d", token.tail)
    assert token.by_rules == 0
    assert kinds["fact"].relation in predictor.graph.relations


def test_a_model_of_structure_alone(data: Graph, tmp_path: Path) -> None:
    quick = {**SETTINGS, "data.only": [], "experts.rules": {"support": 1}}
    predictor = mocme.train(
        data, "structure", out=tmp_path / "run", settings=quick, device="cpu"
    ).predictor("cpu")
    found = predictor.explain(*FACTS[0])
    assert [(share.name, share.of) for share in found.modalities] == [
        ("structure", "head"),
        ("structure", "tail"),
    ]
    assert found.weights.correlation is None
    assert not found.weights.reasons
    assert any("all that is known of e0" in note for note in found.notes)
    assert {own.by for own in found.neighbours} == {"vector"}
    assert repr(found).startswith("(e0, r0, e3)")


def test_without_its_run_a_model_still_explains(predictor: Predictor) -> None:
    found = Predictor(predictor.mixture, predictor.graph).explain(*FACTS[0])
    assert not found.supports
    assert any("without its run" in note for note in found.notes)
    assert found.modalities == predictor.explain(*FACTS[0]).modalities
    assert found.weights == predictor.explain(*FACTS[0]).weights


# -- modalities ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Fusion.kinds, ids=lambda kind: kind.__name__)
def test_withheld_changes_equal_naive_recomputation(kind: Any, tiny_graph: Callable) -> None:
    tiny = tiny_graph(facts=50)
    settings = Embedding(embedding_dim=8, across=Spec(kind), within=Spec(kind), init_std=0.5)
    model = EmbeddingModel(settings, tiny.facts(), tiny.features.dense).eval()
    found = Predictor(mixture_of(model), tiny.graph).explain("e0", "r1", "e10")
    whole = mean_score(model, (0, 1, 10), 3)
    assert any(share.without for share in found.modalities)
    for share in found.modalities:
        entity = {"head": 0, "tail": 10}[share.of]
        place = model.modalities.index(share.name)
        assert share.present == bool(model.present[entity, place])
        if not share.present:
            assert share.without is None
            continue
        mask = torch.zeros(12, dtype=torch.bool)
        mask[entity] = True
        with torch.no_grad():
            table = model.table(hide={share.name: mask})
        without = whole - mean_score(model, (0, 1, 10), 3, table)
        assert share.without == pytest.approx(without, abs=1e-5)
        assert share.weight == pytest.approx(float(model.frozen().weights[entity, place]))
        if share.views:
            rows = model.get_buffer(f"rows_{share.name}").tolist()
            expected = model.frozen().views[share.name][rows.index(entity)].tolist()
            assert list(share.views) == expected


def test_tables_are_those_made_one_by_one(predictor: Predictor) -> None:
    model = predictor.embedding().model
    mask = torch.zeros(model.num_entities, dtype=torch.bool)
    mask[3] = True
    hides: list[Any] = [(), ("shape",), {"shape": mask, "structure": mask}]
    for hide, table in zip(hides, model.tables(hides), strict=True):
        with torch.no_grad():
            alone = model.table(hide=hide)
        assert torch.equal(table.vectors, alone.vectors)
        assert torch.equal(table.weights, alone.weights)


def naive_falls(model: EmbeddingModel, graph: Graph, name: str) -> list[tuple[float, float]]:
    place, whole, rows = model.modalities.index(name), model.frozen(), []
    for h, r, t in graph.directed("valid").tolist():
        if not model.present[t, place] or model.present[t].sum() < 2:
            continue
        mask = torch.zeros(graph.num_entities, dtype=torch.bool)
        mask[t] = True
        with torch.no_grad():
            table = model.table(hide={name: mask})
            query = model.query(whole.vectors[[h]], torch.tensor([r]))
            before = model.scorer.compare(query, whole.vectors[[t]])
            after = model.scorer.compare(query, table.vectors[[t]])
        rows.append((float(whole.weights[t, place]), float(before - after)))
    return rows


def test_falls_equal_withholding_from_one_answer_after_the_other(
    tiny_graph: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = tiny_graph(facts=50, valid=20)
    model = EmbeddingModel(
        Embedding(embedding_dim=8, across=Spec(MeanFusion), init_std=0.5),
        tiny.facts(),
        tiny.features.dense,
    ).eval()
    monkeypatch.setattr(faithfulness, "PART", 4)
    names = []
    for own in faithfulness.falls(model, tiny.graph):
        expected = naive_falls(model, tiny.graph, own.modality)
        found = list(zip(own.weight.tolist(), own.fall.tolist(), strict=True))
        assert np.allclose(found, expected, atol=1e-5)
        names.append(own.modality)
    assert names == model.modalities


def test_the_measure_is_kept_in_the_run(trained: Path) -> None:
    run = Run.open(trained)
    first = run.predictor("cpu").explain(*FACTS[0])
    kept = run.folder.read_json(FAITHFULNESS)
    assert kept["together"]["correlation"] == first.weights.correlation
    run.folder.write_json(FAITHFULNESS, {**kept, "together": {"correlation": 0.75, "facts": 9}})
    again = run.predictor("cpu").explain(*FACTS[0])
    assert (again.weights.correlation, again.weights.facts) == (0.75, 9)
    assert again.weights.reasons
    assert "predict" in again.weights.text
    run.folder.write_json(FAITHFULNESS, kept)


@pytest.mark.parametrize(
    ("correlation", "reasons"), [(0.5, True), (0.49, False), (-0.9, False), (None, False)]
)
def test_weights_are_reasons_only_where_they_predict(
    correlation: float | None, reasons: bool
) -> None:
    found = faithfulness.Faithfulness(faithfulness.Agreement(correlation, 40), {})
    assert found.reasons == reasons
    assert ("no reasons" in found.text) == (not reasons)
    assert correlation is None or f"{correlation:.2f}" in found.text
    assert faithfulness.Faithfulness.unpacked(found.packed()) == found


# -- patterns --------------------------------------------------------------------------------------


def make_evidence(facts: list[Any], links: int, entities: int, seed: int) -> RuleModel:
    """Every body of every link, with weights and biases drawn."""
    known = rebuilt(facts, links, entities)
    directed = range(2 * links)
    rows = [
        (link, first, second)
        for link, first, second in itertools.product(directed, directed, [-1, *directed])
        if (first, second) != (link, -1)
    ]
    relation, first, second = np.array(rows).T
    lots = np.random.default_rng(seed)
    none = np.zeros(len(rows), np.int64)
    bodies = RuleBodies(relation, first, second, none, none.astype(np.float64))
    weight, bias = lots.normal(size=len(rows)), lots.normal(size=2 * links)
    return RuleModel(known, bodies, weight, bias)


@st.composite
def evidences(draw: Any) -> tuple[list[tuple[int, int, int]], int, int, int]:
    """A small graph with loops and parallel facts, and a seed."""
    entities, links = draw(st.integers(3, 6)), draw(st.integers(1, 2))
    node = st.integers(0, entities - 1)
    fact = st.tuples(node, st.integers(0, links - 1), node)
    facts = draw(st.lists(fact, min_size=2, max_size=20, unique=True))
    return sorted(facts), links, entities, draw(st.integers(0, 99))


def rebuilt(facts: list[tuple[int, int, int]], links: int, entities: int) -> Adjacency:
    triples = torch.tensor(facts, dtype=torch.int64).reshape(-1, 3)
    return Adjacency.of(triples, links, entities, {}, [f"r{n}" for n in range(links)])


@given(evidences())
@examples(max_examples=10)
def test_by_rules_equals_evidence_on_a_graph_without_the_fact(drawn: Any) -> None:
    facts, links, entities, seed = drawn
    evidence = make_evidence(facts, links, entities, seed)
    pairs = list(itertools.product(range(entities), range(2 * links)))
    queries = Queries(*torch.tensor(pairs).unbind(1))

    def scores(which: RuleModel) -> torch.Tensor:
        return mixture_of(rules=which, weight=Weight(1.5, 20.0)).score(queries)

    whole = scores(evidence)
    contribution = partial(
        mixture_of(rules=evidence, weight=Weight(1.5, 20.0)).contribution, "rules"
    )
    changes = [
        [score_changes(evidence, *pair, answer, contribution) for answer in range(entities)]
        for pair in pairs
    ]
    for fact in facts[:5]:
        left = [other for other in facts if other != fact]
        without = scores(replace(evidence, relations=rebuilt(left, links, entities)))
        found = torch.tensor([[own.get(fact, 0.0) for own in row] for row in changes])
        assert torch.allclose(found, without - whole, atol=2e-4)


@given(evidences())
@examples(max_examples=6)
def test_counted_paths_are_those_of_reasons(drawn: Any) -> None:
    facts, links, entities, seed = drawn
    evidence = make_evidence(facts, links, entities, seed)
    for head, relation, answer in itertools.product((0, 1), range(2 * links), range(3)):
        reasons = evidence.reasons(head, relation, answer)
        by_body = {
            (int(evidence.bodies.first[b]), int(evidence.bodies.second[b])): count
            for b, count in count_paths(evidence, head, relation, answer).paths.items()
        }
        assert by_body == {(*r.body, -1)[:2]: r.count for r in reasons}


def test_patterns_of_both_directions_are_told_from_head_to_tail(predictor: Predictor) -> None:
    graph, evidence = predictor.graph, rules_of(predictor.mixture)
    seen = 0
    for fact in [(h, "r0", t) for h in ("e0", "e1", "e2") for t in ("e3", "e4", "e5")]:
        h, r, t = ids(graph, fact)
        there = {reason.body: reason for reason in evidence.reasons(h, r, t)}
        back = evidence.reasons(t, r + graph.num_relations, h)
        turned = {tuple(int(evidence.relations.inverse[s]) for s in b.body[::-1]): b for b in back}
        found = predictor.explain(*fact).rules
        assert len(found) == len(there.keys() | turned.keys())
        best = [
            max(own.share for own in (there.get(body), turned.get(body)) if own is not None)
            for body in there.keys() | turned.keys()
        ]
        assert [p.share for p in found] == sorted(best, reverse=True)
        seen += len(found)
    assert seen


def ring(size: int = 12) -> tuple[Graph, RuleModel]:
    """Neighbours on a ring, told both ways; a flag that two neighbours share; patterns of these."""
    entities = Vocabulary([f"e{n}" for n in range(2 * size)])
    near = [(n, 0, (n + 1) % size) for n in range(size)]
    near += [(t, r, h) for h, r, t in near]
    flags = [(n, 1, size + n // 2) for n in range(1, size)]
    facts = torch.tensor([*near, *flags])
    graph = Graph(entities, Vocabulary(["near", "flag"], "relation"), {"train": facts})
    relations = Adjacency.of(facts, 2, 2 * size, {}, list(graph.relations))
    return graph, RuleModel.fit(relations, Rules(support=1, confidence=0.001))


def test_patterns_that_say_the_same_are_one() -> None:
    graph, evidence = ring()
    assert evidence.relations.told.tolist() == [0, 1, 0, 3]
    model = EmbeddingModel(Embedding(embedding_dim=4), TrainingFacts.of(graph, {}), {}).eval()
    found = Predictor(mixture_of(model, evidence), graph).explain("e0", "flag", "e12").rules
    there = evidence.reasons(0, 1, 12)
    assert {reason.name for reason in there} >= {"near, then flag", "inverse of near, then flag"}
    assert "near, then flag" in {pattern.name for pattern in found}
    assert not any("inverse of near" in pattern.name for pattern in found)
    (one,) = [pattern for pattern in found if pattern.name == "near, then flag"]
    both = [r for r in there if r.name in ("near, then flag", "inverse of near, then flag")]
    assert one.share >= sum(reason.share for reason in both) - 1e-9
    assert one.paths == both[0].count == both[1].count


# -- paths -----------------------------------------------------------------------------------------


def test_a_path_is_told_once_where_facts_say_the_same() -> None:
    graph, _ = ring()
    plain = FactNetwork(graph, "train", symmetric=()).paths(0, 2, (0, 0, 2))
    folded = FactNetwork(graph, "train").paths(0, 2, (0, 0, 2))
    assert len([path for path in plain.paths if len(path) == 2]) == 4
    assert [path for path in folded.paths if len(path) == 2] == [((0, 0, 1), (1, 0, 2))]
    # What may not be used leaves the other fact to be told.
    assert FactNetwork(graph, "train").paths(0, 1, (0, 0, 1)).paths[0] == ((1, 0, 0),)
    told = Predictor(
        mixture_of(
            EmbeddingModel(Embedding(embedding_dim=4), TrainingFacts.of(graph, {}), {}).eval()
        ),
        graph,
    )
    stops = [[(s.head, s.tail) for s in path] for path in told.explain("e0", "near", "e2").paths]
    assert [("e0", "e1"), ("e1", "e2")] in stops
    assert [("e1", "e0"), ("e1", "e2")] not in stops


@st.composite
def networks(draw: Any) -> tuple[list[tuple[int, int, int]], int, int, int, int, int]:
    """Facts, how many entities and relations, and a fact that is asked for."""
    entities, links = draw(st.integers(2, 7)), draw(st.integers(1, 3))
    node, link = st.integers(0, entities - 1), st.integers(0, links - 1)
    facts = draw(st.lists(st.tuples(node, link, node), min_size=1, max_size=25, unique=True))
    return sorted(facts), entities, links, draw(node), draw(link), draw(node)


def naive_paths(
    graph: Graph, head: int, tail: int, without: tuple[int, int, int]
) -> list[tuple[int, float, tuple[int, ...], tuple[Any, ...]]]:
    """Length, cost, inner entities and facts of all simple paths of up to three facts."""
    facts = [tuple(f) for f in graph.facts("train").tolist() if f[0] != f[2]]
    degree = [sum(n in (f[0], f[2]) for f in facts) for n in range(graph.num_entities)]
    found = []
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
            found += [(length, cost, inner, own) for own in itertools.product(*steps)]
    return found


@given(networks(), st.integers(1, 12))
@examples(max_examples=60)
def test_paths_equal_brute_force(drawn: Any, most: int) -> None:
    facts, entities, links, head, relation, tail = drawn
    names = Vocabulary([f"e{n}" for n in range(entities)])
    relations = Vocabulary([f"r{n}" for n in range(links)], "relation")
    graph, without = Graph(names, relations, {"train": torch.tensor(facts)}), (head, relation, tail)
    found = FactNetwork(graph, "train", symmetric=()).paths(head, tail, without, most)
    expected = naive_paths(graph, head, tail, without)
    assert found.left_out == 0
    assert len(found.paths) == len(set(found.paths)) == min(most, len(expected))
    key = {own: (length, cost, inner) for length, cost, inner, own in expected}
    order = sorted(key.values())
    assert [key[path] for path in found.paths] == order[: len(found.paths)]
    if most >= len(expected):
        assert set(found.paths) == set(key)


def test_hubs_bound_the_work_and_are_told(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "EDGES", 3)
    monkeypatch.setattr(supporting, "MOST_FACTS", 2)
    fact = ("e0", "r1", "e11")
    assert predictor.graph.linked()[0]
    found = predictor.explain(*fact)
    assert any(re.search(r"of \d+ training facts of e0, 2 were weighed", n) for n in found.notes)
    hub = FactNetwork(predictor.graph, "train")
    h, _, t = ids(predictor.graph, FACTS[0])
    assert hub._two_between(h, t)[1] > 0


# -- vectors ---------------------------------------------------------------------------------------


def make_pull(
    tiny: Any, objective: Objective, scorer: Spec[Scorer] | None = None, double: bool = True
) -> InfluenceEstimator:
    more = {} if scorer is None else {"scorer": scorer}
    model = EmbeddingModel(
        Embedding(embedding_dim=6, init_std=0.5, **more), tiny.facts(), tiny.features.dense
    ).eval()
    return InfluenceEstimator(objective, model.double() if double else model, tiny.facts())


@torch.no_grad()
def whole_loss(pull: InfluenceEstimator, nodes: range) -> float:
    """Sum of the losses of all facts, directed away from some nodes."""
    total, table = 0.0, pull.model.frozen().vectors
    for node in nodes:
        own = pull.facts_of(node)
        if len(own):
            total += float(pull.losses(own, table[node].expand(len(own), -1)).sum())
    return total


@pytest.mark.parametrize("answers", ["together", "apart"])
@pytest.mark.parametrize(
    "weighting",
    [UniformWeighting(), EntropyWeighting(), SelfAdversarialWeighting(), HardestWeighting(count=3)],
)
def test_losses_of_facts_sum_to_those_of_the_objective(
    answers: Any, weighting: Any, tiny_graph: Callable
) -> None:
    tiny = tiny_graph(facts=40)
    objective = Objective(loss=Softmax(weighting=weighting, answers=answers))
    pull = make_pull(tiny, objective, double=False)
    trained = LinkPrediction(objective, pull.model, tiny.facts(), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    batch = trained.batch(torch.arange(len(trained.index)), generator)
    rows = GradientBuffer(pull.model.frozen().vectors)
    terms = trained.backward(batch, rows, torch.zeros(()), generator)
    # Each question and answer is a fact's own twice: seen from its head and from its tail.
    found = whole_loss(pull, range(tiny.facts().num_nodes))
    assert found == pytest.approx(2 * float(terms["loss"]) * batch.norm, rel=1e-4)


@pytest.mark.parametrize("kind", Scorer.kinds, ids=lambda kind: kind.__name__)
def test_gradients_equal_finite_differences(kind: Any, tiny_graph: Callable) -> None:
    tiny = tiny_graph(facts=40)
    scorer = Spec(kind, relation_dim=4) if kind.__name__ == "TuckER" else Spec(kind)
    pull = make_pull(tiny, Objective(n3=0.1), scorer)
    own = pull.facts_of(3)
    vectors = pull.model.frozen().vectors[3].expand(len(own), -1).clone().requires_grad_()
    (found,) = torch.autograd.grad(pull.losses(own, vectors).sum(), vectors)
    for place in range(len(own)):
        for column in range(vectors.shape[1]):
            step = torch.zeros_like(vectors)
            step[place, column] = 1e-6
            with torch.no_grad():
                up = pull.losses(own, vectors + step)
                down = pull.losses(own, vectors - step)
            slope = float((up - down)[place]) / 2e-6
            assert float(found[place, column]) == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_slopes_are_gradients_of_the_mean_score(tiny_graph: Callable) -> None:
    tiny = tiny_graph(facts=40)
    pull = make_pull(tiny, Objective())
    model, number = pull.model, tiny.graph.num_relations
    found = EmbeddingInfluence(
        EmbeddingExpert("embedding", (), model, Objective()), tiny.graph, tiny.features
    )
    for fact in ((0, 1, 4), (2, 2, 2)):
        for entity, slope in found.slopes(*fact).items():
            for column in range(len(slope)):
                values = []
                for side in (1e-6, -1e-6):
                    vectors = model.frozen().vectors.clone()
                    vectors[entity, column] += side
                    moved = replace(model.frozen(), vectors=vectors)
                    queries = Queries(
                        torch.tensor([fact[0], fact[2]]), torch.tensor([fact[1], fact[1] + number])
                    )
                    answers = torch.tensor([[fact[2]], [fact[0]]])
                    with torch.no_grad():
                        values.append(float(model.score(queries, answers, moved).mean()))
                slope_there = (values[0] - values[1]) / 2e-6
                assert float(slope[column]) == pytest.approx(slope_there, rel=1e-4, abs=1e-7)


def test_changes_equal_a_dense_solution(
    tiny_graph: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supporting, "STEPS", 100)
    monkeypatch.setattr(supporting, "RESIDUAL", 1e-9)
    tiny = tiny_graph(facts=40)
    pull = make_pull(tiny, Objective(n3=0.05))
    own, vector = pull.facts_of(3), pull.model.frozen().vectors[3]
    slope = torch.randn(len(vector), generator=torch.Generator().manual_seed(1)).double()

    def total(shared: torch.Tensor) -> torch.Tensor:
        return pull.losses(own, shared.expand(len(own), -1)).sum()

    curve = torch.autograd.functional.hessian(total, vector)
    signs = torch.randn(len(vector), generator=torch.Generator().manual_seed(0)).sign().double()
    damping = supporting.DAMPING * float((signs * (curve @ signs)).mean())
    each = vector.expand(len(own), -1).clone().requires_grad_()
    (pulls,) = torch.autograd.grad(pull.losses(own, each).sum(), each)
    turned = torch.linalg.solve(curve + damping * torch.eye(len(vector)), slope)
    with torch.no_grad():
        found = pull.changes(3, own, slope, 1.0)
    assert torch.allclose(found, pulls @ turned, rtol=1e-5)


def test_a_vector_that_is_trained_on_moves_as_estimated(tiny_graph: Callable) -> None:
    """The estimate against a vector that was really fitted again without each fact."""
    tiny = tiny_graph(facts=60, tokens={})
    pull = make_pull(tiny, Objective(n3=0.2))
    own, table = pull.facts_of(3), pull.model.frozen().vectors

    def fitted(left: torch.Tensor) -> torch.Tensor:
        vector = table[3].clone().requires_grad_()
        optimizer = torch.optim.LBFGS([vector], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = pull.losses(left, vector.expand(len(left), -1)).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return vector.detach()

    rest = fitted(own)
    with torch.no_grad():
        table[3] = rest
    slope = torch.randn(len(rest), generator=torch.Generator().manual_seed(2)).double()
    real = []
    for place in range(len(own)):
        left = torch.cat([own[:place], own[place + 1 :]])
        real.append(float((fitted(left) - rest) @ slope))
    found = pull.changes(3, own, slope, 1.0).tolist()
    assert faithfulness.spearman(torch.tensor(found), torch.tensor(real)) > 0.8


# -- neighbours ------------------------------------------------------------------------------------


def test_nearest_to_one_are_those_of_all() -> None:
    values = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    values[7] = 0
    rows = torch.arange(30)
    head, tail = similar_vectors(values, rows, 5, least=-2.0)
    for place in range(30):
        near, cosines = nearest_to(values, place, 5)
        if place == 7:
            assert not near
            continue
        assert {n for n in near if n != 7} == set(tail[head == place].tolist()) - {7}
        assert cosines == sorted(cosines, reverse=True)
        units = torch.nn.functional.normalize(values)
        assert np.allclose(cosines, (units @ units[place])[near].tolist(), atol=1e-6)


# -- shown -----------------------------------------------------------------------------------------


def test_text_and_html_hold_everything_harmlessly(predictor: Predictor) -> None:
    found = predictor.explain(*FACTS[0])
    evil = replace(found, head="<script>alert('$x$')</script>", notes=("a & b",))
    shown = evil._repr_html_()
    assert "<script>" not in shown
    assert "a &amp; b" in shown
    text = repr(found)
    for row in found.supports:
        assert f"({row.head}, {row.relation}, {row.tail})" in text
    for note in (*found.notes, found.weights.text):
        assert note in text
    for reasons in (True, False):
        told = replace(found, weights=replace(found.weights, reasons=reasons))
        assert ("(weights are not reasons)" in repr(told)) == (not reasons)


def test_the_picture_is_the_same_every_time(predictor: Predictor, tmp_path: Path) -> None:
    found = predictor.explain(*FACTS[0])
    odd = replace(found, head="$\\frac{$ <b>" + "x" * 200)
    files = [tmp_path / f"{n}.svg" for n in range(2)]
    for file in files:
        odd.picture(file)
    assert files[0].read_bytes() == files[1].read_bytes()
    bare = replace(found, modalities=(), supports=(), rules=(), neighbours=())
    bare.picture(tmp_path / "bare.png")


def test_the_command_gives_text_json_and_a_picture(
    trained: Path, predictor: Predictor, tmp_path: Path
) -> None:
    asked = ["explain", str(trained), "--head", "e0", "--relation", "r0", "--tail", "e3"]
    asked += ["--device", "cpu"]
    file = tmp_path / "why.png"
    done = CliRunner().invoke(main, [*asked, "--json", "--picture", str(file)])
    assert done.exit_code == 0, done.output
    expected: Explanation = predictor.explain(*FACTS[0])
    assert json.loads(done.stdout) == json.loads(json.dumps(asdict(expected)))
    assert file.exists()
    told = CliRunner().invoke(main, asked)
    assert told.exit_code == 0, told.output
    assert "What each modality adds" in told.stdout
    assert expected.weights.text in told.stdout.replace("\n", " ")
    wrong = CliRunner().invoke(main, [*asked[:-2], "--tail", "nobody"])
    assert wrong.exit_code == 1
    assert "there is no entity named" in wrong.output
