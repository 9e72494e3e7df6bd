"""Decisions of reviewers: the file, the exports, and their effect on graph, training and run."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mocme
from mocme.core.registry import Spec
from mocme.data.graph import Graph, Queries
from mocme.data.review_export import export_lines, export_name
from mocme.data.review_schema import ReviewError, ReviewsMoved, ReviewsNotWritable
from mocme.data.reviewed_graph import apply_reviews
from mocme.data.reviews import Review, Reviews
from mocme.experts.embedding import Embedding
from mocme.experts.embedding.gradient_buffer import GradientBuffer
from mocme.experts.embedding.link_prediction import LinkPrediction
from mocme.experts.embedding.model import EmbeddingModel
from mocme.experts.embedding.objective import Objective
from mocme.experts.embedding.scorers import ComplEx, Scorer, TransE
from mocme.runs.run import Run
from read_only import mounted_read_only

FACT = ("Chad", "borders", "Mali")
SETTINGS = {
    "experts.embedding.embedding_dim": 16,
    "experts.embedding.training.epochs": 8,
    "experts.embedding.training.precision": "float32",
}


@pytest.fixture
def reviews(tmp_path: Path) -> Reviews:
    return Reviews(tmp_path / "reviews.sqlite")


def test_a_decision_is_stored_with_reviewer_and_time(reviews: Reviews) -> None:
    review = reviews.add(FACT, "reject", " Ada ", "no", probability=0.25, score=-1.5)
    reopened = Reviews(reviews.path)
    assert reopened.find() == (1, [review])
    assert (review.fact, review.decision) == (FACT, "reject")
    assert (review.reviewer, review.note) == ("Ada", "no")
    assert review.time.endswith("Z")
    assert (review.probability, review.score) == (0.25, -1.5)
    assert reopened.count() == {"accept": 0, "reject": 1, "skip": 0}


def test_decisions_are_filtered_by_name_and_type_newest_first(reviews: Reviews) -> None:
    added = [
        reviews.add((f"e{n}", "r", f"e{n + 1}"), ("accept", "reject", "skip")[n % 3], "Ada")
        for n in range(9)
    ]
    assert reviews.find() == (9, added[::-1])
    assert reviews.find(offset=2, limit=3) == (9, added[::-1][2:5])
    assert reviews.find(decision="skip") == (3, [added[8], added[5], added[2]])
    assert reviews.find(name="e4") == (2, [added[4], added[3]])
    assert reviews.remove(added[4].id)
    assert not reviews.remove(added[4].id)
    assert reviews.find(name="e4") == (1, [added[3]])
    # Ids of deleted decisions are not reused, so a late request cannot delete another one.
    assert reviews.remove(added[8].id)
    assert reviews.add(FACT, "skip", "Ada").id > added[8].id


def test_the_last_decision_of_a_reviewer_counts_and_reviewers_must_agree(reviews: Reviews) -> None:
    reviews.add(FACT, "reject", "Ada")
    reviews.add(FACT, "accept", "Ada")
    reviews.add(FACT, "skip", "Ada")
    reviews.add(("a", "r", "b"), "skip", "Ada")
    assert reviews.verdicts() == {FACT: "accept"}
    reviews.add(FACT, "accept", "Bob")
    assert reviews.verdicts() == {FACT: "accept"}
    reviews.add(FACT, "reject", "Cleo")
    with pytest.raises(ReviewError, match=r"disagree on .*Chad.*Ada: accept.*Cleo: reject"):
        reviews.verdicts()


@pytest.mark.parametrize(("decision", "reviewer"), [("maybe", "Ada"), ("accept", "  ")])
def test_invalid_decisions_are_refused(decision: str, reviewer: str, reviews: Reviews) -> None:
    with pytest.raises(ValueError, match="a decision"):
        reviews.add(FACT, decision, reviewer)  # type: ignore[arg-type]
    assert reviews.find()[0] == 0


def test_files_without_decisions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("not a database, " * 100)
    with pytest.raises(ReviewError, match=r"text\.sqlite: .*--reviews FILE"):
        Reviews(tmp_path / "text.sqlite")
    with pytest.raises(ReviewError, match="absent"):
        Reviews(tmp_path / "absent" / "reviews.sqlite")
    with sqlite3.connect(tmp_path / "later.sqlite") as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(ReviewError, match="has format 99 of decisions"):
        Reviews(tmp_path / "later.sqlite")


def test_threads_and_processes_write_at_the_same_time(reviews: Reviews) -> None:
    code = (
        "import sys; from mocme.data.reviews import Reviews; r = Reviews(sys.argv[1])\n"
        "for n in range(20): r.add(('process', 'r', str(n)), 'accept', 'Ada')"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(reviews.path)])

    def write(number: int) -> None:
        for n in range(20):
            reviews.add((f"thread {number}", "r", str(n)), "reject", "Bob")
        reviews.close()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.wait(30) == 0
    total, stored = reviews.find()
    assert total == len({review.fact for review in stored}) == 80


def test_decisions_survive_the_death_of_the_process(tmp_path: Path) -> None:
    code = (
        "import os, sys; from mocme.data.reviews import Reviews; r = Reviews(sys.argv[1])\n"
        "r.add(('a', 'r', 'b'), 'accept', 'Ada'); os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "reviews.sqlite"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert Reviews(path).count()["accept"] == 1


def test_exports_contain_every_decision() -> None:
    names = ["tab\tand\nline", 'quote " and , comma', "=1+1", "back\\slash", "emoji 🏳️‍🌈", "עברית"]
    stored = [
        Review(n, name, "r", name[::-1], "accept", "Ada", name, "2026-01-01T00:00:00Z", None, 0.5)
        for n, name in enumerate(names)
    ]
    lines = "".join(export_lines(stored, "jsonl")).splitlines()
    assert [Review(**json.loads(line)) for line in lines] == stored
    rows = list(csv.DictReader(io.StringIO("".join(export_lines(stored, "csv")))))
    assert [row["head"].removeprefix("'") for row in rows] == names
    assert rows[2]["head"] == "'=1+1"
    tsv = "".join(export_lines(stored, "tsv")).splitlines()
    assert len(tsv) == len(stored) + 1
    assert all(len(line.split("\t")) == 10 for line in tsv)
    with pytest.raises(ValueError, match="tsv, csv, jsonl"):
        list(export_lines(stored, "xlsx"))


@given(st.text(max_size=80))
def test_the_name_of_an_exported_file_is_safe_and_descriptive(graph: str) -> None:
    assert re.fullmatch(
        r"[a-z0-9_][a-z0-9._-]*-decisions-\d{4}-\d\d-\d\d\.csv", export_name(graph, "csv")
    )
    assert export_name("MKG-Y / copy", "tsv").startswith("mkg-y-copy-decisions-")


# -- decisions applied to a graph ------------------------------------------------------------------


def named(graph: Graph, fact: list[int]) -> tuple[str, str, str]:
    head, relation, tail = fact
    return graph.entities[head], graph.relations[relation], graph.entities[tail]


def absent(graph: Graph, count: int) -> list[list[int]]:
    """Return some triples that are not in the graph."""
    facts = set(map(tuple, graph.facts().tolist()))
    entities, relations = range(graph.num_entities), range(graph.num_relations)
    triples = ([h, r, t] for h in entities for r in relations for t in entities if h != t)
    return [triple for triple in triples if tuple(triple) not in facts][5 : 5 + count]


@pytest.fixture
def graph(tiny_graph: Callable) -> Graph:
    return tiny_graph(dense={}, tokens={}).graph


def test_accepted_facts_join_train_and_rejected_facts_are_kept(
    graph: Graph, reviews: Reviews
) -> None:
    one, two, three = absent(graph, 3)
    validated = graph.facts("valid")[0].tolist()
    reviews.add(named(graph, one), "accept", "Ada")
    reviews.add(named(graph, two), "reject", "Ada")
    reviews.add(named(graph, three), "skip", "Ada")
    reviews.add(named(graph, validated), "accept", "Ada")
    reviewed = apply_reviews(graph, reviews.path)
    assert sorted(reviewed.facts("train").tolist()) == sorted([*graph.facts("train").tolist(), one])
    assert reviewed.rejected.tolist() == [two]
    for split in ("valid", "test"):
        assert torch.equal(reviewed.splits[split], graph.splits[split])
    assert any("1 accepted facts are in another split" in note for note in reviewed.notes)
    inverse = [two[2], two[1] + graph.num_relations, two[0]]
    assert sorted(reviewed.refusals().tolist()) == sorted([two, inverse])
    assert reviewed.digest() != replace(reviewed, rejected=graph.rejected).digest()


def test_decisions_that_contradict_the_graph_are_errors(
    graph: Graph, reviews: Reviews, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no such file of decisions"):
        apply_reviews(graph, tmp_path / "absent.sqlite")
    review = reviews.add(("nobody", "r0", "e1"), "accept", "Ada")
    with pytest.raises(ValueError, match=r"nobody.*another graph"):
        apply_reviews(graph, reviews.path)
    reviews.remove(review.id)
    fact = named(graph, graph.facts("train")[0].tolist())
    reviews.add(fact, "reject", "Ada")
    with pytest.raises(ValueError, match="a fact of the train split"):
        apply_reviews(graph, reviews.path)
    reviews.add(fact, "accept", "Bob")
    with pytest.raises(ReviewError, match="disagree"):
        apply_reviews(graph, reviews.path)


@pytest.mark.parametrize("scorer", [ComplEx, TransE], ids=["product", "distance"])
def test_the_loss_compares_rejected_facts_with_the_average_candidate(
    scorer: type[Scorer], tiny_graph: Callable
) -> None:
    tiny = tiny_graph()
    rejected = torch.tensor(absent(tiny.graph, 3))
    plain, facts = tiny.facts(), replace(tiny, graph=replace(tiny.graph, rejected=rejected)).facts()
    settings = Embedding(embedding_dim=4, init_std=0.6, scorer=Spec(scorer))
    model = EmbeddingModel(settings, facts, tiny.features.dense, 1).double()

    def gradients(facts: object, weight: float) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        objective = Objective(rejected=weight)
        task = LinkPrediction(objective, model, facts, torch.device("cpu"))
        everything = torch.arange(len(task.index))
        table = model.table(2)
        generator = torch.Generator().manual_seed(0)
        batch = task.batch(everything, generator)
        terms = task.backward(batch, GradientBuffer(table.vectors), table.redundancy, generator)
        grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad(set_to_none=True)
        return dict(terms), grads

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
            expected = without[name] + extra
            assert torch.allclose(with_gradient[name], expected, atol=1e-7), name
    assert gradients(facts, 0.0)[0].keys() == without_terms.keys()


def test_training_lowers_rejected_facts_and_the_run_no_longer_suggests_them(
    graph: Graph, reviews: Reviews, tmp_path: Path
) -> None:
    before = mocme.train(graph, "structure", out=tmp_path / "a", settings=SETTINGS, device="cpu")
    predictor = before.predictor("cpu")
    worst = predictor.tails("e0", "r1", 1)[0]
    fact = (worst.head, worst.relation, worst.tail)
    reviews.add(fact, "reject", "Ada")
    reviewed = apply_reviews(graph, reviews.path)
    after = mocme.train(reviewed, "structure", out=tmp_path / "b", settings=SETTINGS, device="cpu")
    assert torch.equal(Run.open(after.path).graph().rejected, reviewed.rejected)

    def softmax(run: Run) -> float:
        graph, model = run.graph(), run.predictor("cpu").mixture
        query = Queries(
            torch.tensor([graph.entities.id(fact[0])]), torch.tensor([graph.relations.id(fact[1])])
        )
        return float(model.score(query).detach().softmax(1)[0, graph.entities.id(fact[2])])

    assert softmax(after) < softmax(before)
    predictor = after.predictor("cpu")
    assert fact[2] not in [item.tail for item in predictor.tails(*fact[:2], 1000, "mark")]
    assert fact[0] not in [item.head for item in predictor.heads(*fact[1:], 1000)]
    (scored,) = predictor.score_facts([fact])
    assert "rejected" in scored.note
    assert all((i.head, i.relation, i.tail) != fact for i in predictor.missing(fact[0], 1000))


# -- the file that is at the path ------------------------------------------------------------------


def stored_in(path: Path) -> list[str]:
    """The heads of the decisions in the file alone, as a copy of it has them."""
    with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True) as database:
        return [head for (head,) in database.execute("SELECT head FROM review ORDER BY id")]


@pytest.mark.parametrize("way", ["unlink", "move"])
def test_no_decision_is_acknowledged_into_a_file_that_is_gone(way: str, tmp_path: Path) -> None:
    path = tmp_path / "reviews.sqlite"
    reviews = Reviews(path)
    first = reviews.add(("first", "r", "b"), "accept", "Ada")
    path.unlink() if way == "unlink" else path.rename(tmp_path / "away")
    for act in (
        lambda: reviews.add(("lost", "r", "b"), "accept", "Ada"),
        lambda: reviews.remove(first.id),
        reviews.count,
        reviews.find,
        reviews.check_writable,
    ):
        with pytest.raises(ReviewsMoved, match="put it back, or start the server again"):
            act()
    assert not path.exists()
    if way == "move":
        (tmp_path / "away").rename(path)
        reviews.add(("again", "r", "b"), "accept", "Ada")
        assert stored_in(path) == ["first", "again"]


def test_a_file_that_was_replaced_gets_the_next_decision(tmp_path: Path) -> None:
    path, backup = tmp_path / "reviews.sqlite", tmp_path / "backup.sqlite"
    Reviews(backup).add(("restored", "r", "b"), "accept", "Ada")
    reviews = Reviews(path)
    reviews.add(("first", "r", "b"), "accept", "Ada")
    backup.replace(path)
    reviews.add(("second", "r", "b"), "accept", "Ada")
    assert stored_in(path) == ["restored", "second"]
    path.unlink()
    path.touch()
    with pytest.raises(ReviewsMoved):
        reviews.add(("third", "r", "b"), "accept", "Ada")
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(ReviewError, match="has format 9 of decisions"):
        reviews.add(("third", "r", "b"), "accept", "Ada")


def test_a_file_that_is_replaced_while_a_decision_is_stored_does_not_acknowledge_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "reviews.sqlite"
    reviews = Reviews(path)
    opened = reviews._connection

    def replaced_after_opening() -> sqlite3.Connection:
        connection = opened()
        path.unlink()
        return connection

    monkeypatch.setattr(reviews, "_connection", replaced_after_opening)
    with pytest.raises(ReviewError):
        reviews.add(("lost", "r", "b"), "accept", "Ada")


def test_a_moved_file_has_every_decision_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "reviews.sqlite"
    with sqlite3.connect(path) as old:  # as version 0.1 left it
        old.execute("PRAGMA journal_mode = WAL")
    reviews = Reviews(path)
    for number in range(3):
        reviews.add((f"e{number}", "r", "b"), "accept", "Ada")
        copy = path.rename(tmp_path / f"copy{number}")
        assert stored_in(copy)[-1] == f"e{number}"
        assert sorted(file.name for file in tmp_path.glob("*-wal")) == []
        copy.rename(path)


def test_decisions_on_a_read_only_medium_can_be_read_and_not_stored(tmp_path: Path) -> None:
    path = tmp_path / "reviews.sqlite"
    Reviews(path).add(("a", "r", "b"), "accept", "Ada")
    with mounted_read_only(tmp_path, tmp_path.with_name(f"{tmp_path.name}-ro")) as there:
        reviews = Reviews(there / "reviews.sqlite")
        assert reviews.verdicts() == {("a", "r", "b"): "accept"}
        for act in (
            reviews.check_writable,
            lambda: reviews.add(("c", "r", "b"), "accept", "Ada"),
            lambda: Reviews(there / "new.sqlite"),
        ):
            with pytest.raises(ReviewsNotWritable, match="--reviews FILE"):
                act()
        reviews.close()


def test_a_file_that_cannot_be_created_is_not_called_broken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with mounted_read_only(tmp_path / "run", tmp_path / "there") as there:
        with pytest.raises(ReviewsNotWritable) as caught:
            Reviews(there / "reviews.sqlite")
        message = str(caught.value)
        assert f"cannot be created (the folder {there} cannot be written)" in message
        assert "repair" not in message
    missing = tmp_path / "none" / "reviews.sqlite"
    with pytest.raises(ReviewsNotWritable, match=f"there is no folder {tmp_path / 'none'}"):
        Reviews(missing)
