"""Decisions of reviewers in a graph, in a training, and in what a run suggests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mocme
from mocme.core.registry import Spec
from mocme.data.graph import Graph, Queries
from mocme.data.reviewed import reviewed
from mocme.data.reviews import ReviewError, Reviews
from mocme.experts.embedding import Embedding
from mocme.experts.embedding.gradient_buffer import GradientBuffer
from mocme.experts.embedding.link_prediction import LinkPrediction
from mocme.experts.embedding.model import EmbeddingModel
from mocme.experts.embedding.objective import Objective
from mocme.experts.embedding.scorers import ComplEx, Scorer, TransE
from mocme.runs.run import Run

SETTINGS = {
    "experts.embedding.embedding_dim": 16,
    "experts.embedding.training.epochs": 8,
    "experts.embedding.training.precision": "float32",
}


def named(graph: Graph, fact: list[int]) -> tuple[str, str, str]:
    head, relation, tail = fact
    return graph.entities[head], graph.relations[relation], graph.entities[tail]


def absent(graph: Graph, count: int) -> list[list[int]]:
    """Some facts that the graph has not."""
    held = set(map(tuple, graph.facts().tolist()))
    entities, relations = range(graph.num_entities), range(graph.num_relations)
    every = ([h, r, t] for h in entities for r in relations for t in entities if h != t)
    return [fact for fact in every if tuple(fact) not in held][5 : 5 + count]


@pytest.fixture
def graph(tiny_graph: Callable) -> Graph:
    return tiny_graph(dense={}, tokens={}).graph


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "reviews.sqlite"


def test_accepted_facts_join_train_and_rejected_ones_stand_beside(graph: Graph, file: Path) -> None:
    one, two, three = absent(graph, 3)
    held = graph.facts("valid")[0].tolist()
    reviews = Reviews(file)
    reviews.add(named(graph, one), "accept", "Ada")
    reviews.add(named(graph, two), "reject", "Ada")
    reviews.add(named(graph, three), "skip", "Ada")
    reviews.add(named(graph, held), "accept", "Ada")
    found = reviewed(graph, file)
    assert sorted(found.facts("train").tolist()) == sorted([*graph.facts("train").tolist(), one])
    assert found.rejected.tolist() == [two]
    for split in ("valid", "test"):
        assert torch.equal(found.splits[split], graph.splits[split])
    assert any("1 accepted facts are in another split" in note for note in found.notes)
    back = [two[2], two[1] + graph.num_relations, two[0]]
    assert sorted(found.refusals().tolist()) == sorted([two, back])
    assert found.digest() != replace(found, rejected=graph.rejected).digest()


def test_decisions_that_do_not_fit_are_told(graph: Graph, file: Path) -> None:
    with pytest.raises(ValueError, match="no such file of decisions"):
        reviewed(graph, file)
    reviews = Reviews(file)
    made = reviews.add(("nobody", "r0", "e1"), "accept", "Ada")
    with pytest.raises(ValueError, match=r"nobody.*another graph"):
        reviewed(graph, file)
    reviews.remove(made.id)
    fact = named(graph, graph.facts("train")[0].tolist())
    reviews.add(fact, "reject", "Ada")
    with pytest.raises(ValueError, match="a fact of the train split"):
        reviewed(graph, file)
    reviews.add(fact, "accept", "Bob")
    with pytest.raises(ReviewError, match="disagree"):
        reviewed(graph, file)


@pytest.mark.parametrize("scorer", [ComplEx, TransE], ids=["product", "distance"])
def test_rejected_facts_are_asked_to_be_as_unlikely_as_an_average_candidate(
    scorer: Scorer, tiny_graph: Callable
) -> None:
    tiny = tiny_graph()
    rejected = torch.tensor(absent(tiny.graph, 3))
    plain, facts = tiny.facts(), replace(tiny, graph=replace(tiny.graph, rejected=rejected)).facts()
    settings = Embedding(embedding_dim=4, init_std=0.6, scorer=Spec(scorer))
    model = EmbeddingModel(settings, facts, tiny.features.dense, 1).double()

    def gradients(which: object, weight: float) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        objective = Objective(rejected=weight)
        trained = LinkPrediction(objective, model, which, torch.device("cpu"))
        everything = torch.arange(len(trained.index))
        table = model.table(2)
        generator = torch.Generator().manual_seed(0)
        batch = trained.batch(everything, generator)
        terms = trained.backward(batch, GradientBuffer(table.vectors), table.redundancy, generator)
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad(set_to_none=True)
        return dict(terms), found

    with_terms, with_gradient = gradients(facts, 0.7)
    without_terms, without = gradients(plain, 0.7)
    table = model.table(2)
    loss = torch.zeros((), dtype=torch.float64)
    allowed = torch.ones(facts.num_entities, dtype=torch.bool)
    allowed[facts.excluded] = False
    for head, relation, answer in facts.rejected.tolist():
        query = model.query(table.vectors[head : head + 1], torch.tensor([relation]))
        scores = model.scorer.compare(query, table.vectors[: facts.num_entities])[0]
        others = allowed.clone()
        others[answer] = False
        average = scores[others].exp().mean()
        loss = loss + 0.7 * (1 + scores[answer].exp() / average).log()
    loss = loss / with_terms["facts"]
    loss.backward()
    assert with_terms["rejected"] == pytest.approx(loss.item(), rel=1e-6)
    assert with_terms["loss"] == pytest.approx(without_terms["loss"], rel=1e-9)
    for name, parameter in model.named_parameters():
        if name in with_gradient:
            extra = 0 if parameter.grad is None else parameter.grad
            wanted = without[name] + extra
            assert torch.allclose(with_gradient[name], wanted, atol=1e-7), name
    assert gradients(facts, 0.0)[0].keys() == without_terms.keys()


def test_a_training_pushes_rejected_facts_down_and_suggests_them_no_more(
    graph: Graph, tmp_path: Path
) -> None:
    before = mocme.train(graph, "structure", out=tmp_path / "a", settings=SETTINGS, device="cpu")
    predictor = before.predictor("cpu")
    worst = predictor.tails("e0", "r1", 1)[0]
    fact = (worst.head, worst.relation, worst.tail)
    Reviews(tmp_path / "reviews.sqlite").add(fact, "reject", "Ada")
    corrected = reviewed(graph, tmp_path / "reviews.sqlite")
    after = mocme.train(corrected, "structure", out=tmp_path / "b", settings=SETTINGS, device="cpu")
    assert torch.equal(Run.open(after.path).graph().rejected, corrected.rejected)

    def share(run: Run) -> float:
        graph, model = run.graph(), run.predictor("cpu").mixture
        question = Queries(
            torch.tensor([graph.entities.id(fact[0])]), torch.tensor([graph.relations.id(fact[1])])
        )
        return float(model.score(question).detach().softmax(1)[0, graph.entities.id(fact[2])])

    assert share(after) < share(before)
    asked = after.predictor("cpu")
    assert fact[2] not in [item.tail for item in asked.tails(*fact[:2], 1000, "mark")]
    assert fact[0] not in [item.head for item in asked.heads(*fact[1:], 1000)]
    (shown,) = asked.score_facts([fact])
    assert "rejected" in shown.note
    assert all((i.head, i.relation, i.tail) != fact for i in asked.missing(fact[0], 1000))
