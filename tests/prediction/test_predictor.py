"""A trained run, asked: by name, sorted, known facts hidden or marked; and its folder."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet

import mocme
from mixtures import mixture_of
from mocme.core.interrupts import Interrupted
from mocme.data.features.tokens import TrainingFacts
from mocme.data.graph import Graph, Queries, UnknownName, Vocabulary
from mocme.experts.embedding import Embedding
from mocme.experts.embedding.model import EmbeddingModel
from mocme.prediction.export import write_embeddings
from mocme.prediction.predictor import Predictor
from mocme.prediction.relation_prior import RelationPrior
from mocme.prediction.schema import WIDTH, Predictions, Question
from mocme.runs.run import Run
from mocme.storage import RunError

SETTINGS = {
    "experts.embedding.embedding_dim": 4,
    "experts.embedding.init_std": 0.5,
    "experts.embedding.training.epochs": 2,
    "experts.embedding.training.batch_size": 64,
    "experts.embedding.training.precision": "float32",
}


@pytest.fixture(scope="module")
def data(
    tiny_graph: Callable, tiny_folder: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Graph:
    return mocme.load(tiny_folder(tmp_path_factory.mktemp("data"), tiny_graph(facts=50)))


@pytest.fixture(scope="module")
def trained(data: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    return mocme.train(data, "mocme", out=out, settings=SETTINGS, device="cpu").path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    """A copy, so that a test may spoil it."""
    shutil.copytree(trained, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.fixture(scope="module")
def predictor(trained: Path) -> Predictor:
    return mocme.open(trained, device="cpu")


def known_answers(graph: Graph, head: str, relation: int) -> set[str]:
    entity = graph.entities.id(head)
    rows = graph.directed().tolist()
    return {graph.entities[t] for h, r, t in rows if (h, r) == (entity, relation)}


# -- questions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["tail", "head"])
@pytest.mark.parametrize("head", ["e0", "e1", "e5", "e11"])
def test_predictions_are_those_of_the_model_best_first(
    head: str, asked: str, predictor: Predictor
) -> None:
    graph = predictor.graph
    relation = 1 + (graph.num_relations if asked == "head" else 0)
    known = known_answers(graph, head, relation)
    ask = predictor.tails if asked == "tail" else lambda e, r, **more: predictor.heads(r, e, **more)
    marked, hidden = (ask(head, "r1", k=1000, known=known) for known in ("mark", "hide"))
    question = Queries(torch.tensor([graph.entities.id(head)]), torch.tensor([relation]))
    scores = predictor.mixture.score(question)[0].tolist()
    for found in (marked, hidden):
        assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)
        for p in found:
            assert (p.head, p.tail)[asked == "head"] == head
            assert p.relation == "r1"
            answer = p.tail if asked == "tail" else p.head
            assert p.score == scores[graph.entities.id(answer)]
            assert p.known == (answer in known)
            assert list(p.weights) == ["structure", "shape", "sound"]
            total = sum(p.weights.values())
            assert total == pytest.approx(
                0 if answer == "e11" and not any(p.weights.values()) else 1
            )
    everyone = set(graph.entities)
    reflexive = bool((graph.facts()[:, 0] == graph.facts()[:, 2]).any())
    names = {getattr(p, asked) for p in marked}
    assert names == everyone - (set() if 1 in predictor.scorer.reflexive else {head})
    assert {getattr(p, asked) for p in hidden} == names - known
    assert reflexive == bool(predictor.scorer.reflexive)


def test_k_limits_and_is_limited(predictor: Predictor) -> None:
    whole = predictor.tails("e0", "r0", k=1000)
    assert [p.tail for p in predictor.tails("e0", "r0", k=3)] == [p.tail for p in whole][:3]
    assert len(predictor.tails("e0", "r0")) == min(10, len(whole))
    for k in (0, -1, 1001):
        with pytest.raises(ValueError, match=f"k must be between 1 and 1000, not {k}"):
            predictor.tails("e0", "r0", k=k)


def test_a_score_is_the_mean_of_both_directions(predictor: Predictor) -> None:
    graph, model = predictor.graph, predictor.mixture
    for head, relation, tail in (("e0", "r0", "e3"), ("e4", "r2", "e4"), ("e11", "r1", "e0")):
        h, r, t = graph.entities.id(head), graph.relations.id(relation), graph.entities.id(tail)
        forward = model.score(Queries(torch.tensor([h]), torch.tensor([r])))[0, t].item()
        inverse = torch.tensor([r + graph.num_relations])
        back = model.score(Queries(torch.tensor([t]), inverse))[0, h].item()
        score = predictor.score(head, relation, tail)
        assert score == pytest.approx((forward + back) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda c: c.tails("e", "r0"), "entity"),
        (lambda c: c.heads("r0", "E-1"), "entity"),
        (lambda c: c.tails("e0", "r"), "relation"),
        (lambda c: c.heads("rr1", "e0"), "relation"),
        (lambda c: c.score("e0", "r0", "ee2"), "entity"),
        (lambda c: c.weights("eo"), "entity"),
    ],
)
def test_unknown_names_are_refused_by_name(
    ask: Callable[[Predictor], object], what: str, predictor: Predictor
) -> None:
    with pytest.raises(UnknownName, match=f"there is no {what} named"):
        ask(predictor)


def test_unknown_names_come_with_near_ones(predictor: Predictor) -> None:
    with pytest.raises(UnknownName, match=r"did you mean .*'e10'"):
        predictor.tails("e 10", "r0")


def test_a_question_says_what_is_wrong_with_it() -> None:
    # Annotations say some of it too, and are checked under test: ask what stands behind them.
    check = Question.__post_init__

    def refused(match: str, **settings: object) -> None:
        question = object.__new__(Question)
        whole = {"head": "a", "relation": "r", "tail": None, "k": 3, "known": "hide"}
        for name, value in {**whole, "among": "all", "min_probability": 0.0, **settings}.items():
            object.__setattr__(question, name, value)
        with pytest.raises(ValueError, match=match):
            getattr(check, "__wrapped__", check)(question)

    refused("known must be 'hide' or 'mark', not 'show'", known="show")
    refused("among must be 'all', 'observed' or a list of names, not 'some'", among="some")
    refused("two of head, relation and tail", tail="b")
    refused("two of head, relation and tail", head=None)
    refused("a question with a relation", relation=None, tail="b", among="observed")
    refused("min_probability must be between 0 and 1", min_probability=1.5)


def test_questions_asked_together_have_the_answers_they_have_alone(predictor: Predictor) -> None:
    questions = [
        Question("e0", "r0", None, 5),
        Question(None, "r1", "e3", 4, "mark"),
        Question("e1", None, "e2", 2),
        Question("e0", "r0", None, 5),
        Question("e5", "r2", None, 8, "hide", "observed"),
        Question("e11", "r2", None, 3, "mark", ["e2", "e4"]),
    ]
    together = predictor.ask(questions)
    assert [found.question for found in together] == [str(question) for question in questions]
    for question, found in zip(questions, together, strict=True):
        alone = predictor.ask([question])[0]
        whole = [(p.head, p.relation, p.tail, p.known) for p in found]
        assert [(p.head, p.relation, p.tail, p.known) for p in alone] == whole
        scores = [p.score for p in found]
        assert scores == pytest.approx([p.score for p in alone], rel=1e-5)
    assert predictor.ask([]) == []


def graph_with(rows: list[tuple[int, int, int]], split: str = "train") -> Graph:
    names = Vocabulary([f"e{n}" for n in range(5)])
    train = torch.tensor([(0, 0, 1), (1, 0, 2), (3, 1, 4)])
    splits = {"train": train}
    more = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)
    splits[split] = torch.cat([train, more]) if split == "train" else more
    return Graph(names, Vocabulary(["likes", "knows"], "relation"), splits)


@pytest.mark.parametrize("split", ["train", "valid", "test", "known"])
def test_nobody_is_an_answer_to_a_question_about_itself(split: str, tiny_graph: Callable) -> None:
    """Unless the graph holds such a fact of the relation, in whichever split."""
    for rows, expected in (([], False), ([(2, 0, 2)], True)):
        graph = graph_with(rows, split)
        tiny = type(tiny_graph())(graph, mocme.Features())
        model = EmbeddingModel(Embedding(embedding_dim=4, init_std=0.5), tiny.facts(), {})
        predictor = Predictor(mixture_of(model), graph)
        tails = {p.tail for p in predictor.tails("e3", "likes", k=5)}
        heads = {p.head for p in predictor.heads("likes", "e3", k=5)}
        assert ("e3" in tails) == ("e3" in heads) == expected
        # Of the other relation, no such fact is known.
        marked = predictor.tails("e3", "knows", k=5, known="mark")
        assert {p.tail for p in marked} == {"e0", "e1", "e2", "e4"}
        # A question may be asked still: a score is not forbidden.
        assert isinstance(predictor.score("e3", "knows", "e3"), float)


def test_no_answer_left_is_no_prediction(tiny_graph: Callable) -> None:
    graph = graph_with([(0, 0, n) for n in range(2, 5)])
    tiny = type(tiny_graph())(graph, mocme.Features())
    predictor = Predictor(
        mixture_of(EmbeddingModel(Embedding(embedding_dim=4), tiny.facts(), {})), graph
    )
    found = predictor.tails("e0", "likes")
    assert len(found) == 0
    assert repr(found).startswith("(e0, likes, ?):\nno answer is left; ask for")
    assert "no answer is left" in found._repr_html_()
    assert "<table>" not in found._repr_html_()
    assert "no fact was given" in repr(predictor.score_facts([]))


def test_predictions_are_a_sequence_that_prints_as_a_table(predictor: Predictor) -> None:
    found = predictor.tails("e0", "r0", k=12, known="mark")
    assert isinstance(found, Predictions)
    assert found[0] is next(iter(found))
    lines = repr(found).splitlines()
    assert lines[0] == "(e0, r0, ?)"
    assert len(lines) == 1 + len(found)
    assert lines[1].split()[:2] == ["1", f"{found[0].score:.3f}"]
    assert all(p.tail in line for p, line in zip(found, lines[1:], strict=True))
    assert sum("(known)" in line for line in lines) == sum(p.known for p in found) > 0
    assert repr(predictor.heads("r0", "e0", k=1)).startswith("(?, r0, e0)\n")


def test_what_is_printed_has_a_bounded_width(tiny_graph: Callable) -> None:
    tiny = tiny_graph(tokens={})
    names = Vocabulary(
        [
            f"{name} with a name\nof many words, {'long ' * n}"
            for n, name in enumerate(tiny.graph.entities)
        ]
    )
    graph = Graph(names, tiny.graph.relations, tiny.graph.splits)
    model = EmbeddingModel(
        Embedding(embedding_dim=4, init_std=0.5), tiny.facts(), tiny.features.dense
    ).eval()
    predictor = Predictor(mixture_of(model), graph)
    for found in (
        predictor.missing(names[11], k=30),
        predictor.tails(names[11], "r0", k=12, known="mark"),
        predictor.score_facts([(names[11], "r1", names[10])]),
    ):
        lines = repr(found).splitlines()
        assert len(lines) == 1 + len(found)
        assert max(map(len, lines)) <= WIDTH
        assert all(line.endswith("]") for line in lines[1:])
        assert "\n" not in found._repr_html_()
    nothing = predictor.missing(names[11], k=30)
    assert "nothing new is left" in repr(type(nothing)("what is missing", [], "fact"))


def test_an_entity_of_which_nothing_is_known_says_so(tiny_graph: Callable) -> None:
    tiny = tiny_graph(tokens={})
    model = EmbeddingModel(
        Embedding(embedding_dim=4, init_std=0.5), tiny.facts(), tiny.features.dense
    )
    predictor = Predictor(mixture_of(model), tiny.graph)
    by_name = {p.tail: p for p in predictor.tails("e0", "r0", k=12, known="mark")}
    assert by_name["e11"].note.startswith("nothing is known of this entity")
    assert by_name["e1"].note == ""
    assert "[nothing known]" in repr(predictor.tails("e0", "r0", k=12, known="mark"))
    assert predictor.weights("e11") == {"structure": 0.0, "shape": 0.0, "sound": 0.0}
    assert sum(predictor.weights("e10").values()) == pytest.approx(1)


# -- the run's folder ------------------------------------------------------------------------------


def test_a_run_opened_again_says_the_same(trained: Path, predictor: Predictor) -> None:
    again = Run.open(trained).predictor("cpu")
    first, second = (c.tails("e2", "r1", k=12) for c in (predictor, again))
    assert list(first) == list(second)


def test_every_evaluation_is_added_to_the_list(run: Run) -> None:
    assert run.evaluations() == []
    first = run.evaluate("test", device="cpu")
    run.evaluate("valid", device="cpu")
    again = Run.open(run.path).evaluate("test", device="cpu")
    assert [e["split"] for e in run.evaluations()] == ["test", "valid", "test"]
    assert [e["evaluations_of_this_split"] for e in run.evaluations()] == [1, 1, 2]
    assert again["mrr"] == first["mrr"] == run.evaluations()[0]["mrr"]
    stored = run.folder.read_json("evaluation-test.json")
    assert stored["evaluations_of_this_split"] == 2
    assert stored["protocol"]["candidates"] == "all entities"
    assert stored["by"]["direction"].keys() == {"head", "tail"}
    ranks = run.folder.read_tensors("ranks-test.safetensors")
    assert len(ranks["answer"]) == stored["count"] == 2 * len(run.graph().facts("test"))


def test_validation_does_not_filter_by_test_and_test_filters_by_everything(run: Run) -> None:
    assert run.evaluate("valid", device="cpu")["protocol"]["filter"] == ["train", "valid"]
    filtered = run.evaluate("test", device="cpu")["protocol"]["filter"]
    assert set(filtered) == {"train", "valid", "test"}


@pytest.mark.parametrize("split", ["train", "known", "tset"])
def test_a_split_that_is_not_ranked_is_refused(split: str, run: Run) -> None:
    with pytest.raises(ValueError, match=f"split is valid or test, not '{split}'"):
        run.evaluate(split, device="cpu")
    assert run.evaluations() == []


class Stop:
    """Stops a training after some steps, as Ctrl-C does."""

    def __init__(self, after: int) -> None:
        self.left = after

    def start(self, trainer: object, run: Run) -> None:
        pass

    def step(self, progress: object) -> None:
        import signal

        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)

    def record(self, record: object) -> None:
        pass

    def stage(self, name: str) -> Callable[[int, int], None]:
        return lambda done, total: None


def interrupted(data: Graph, out: Path, *after: int) -> Run:
    settings = {**SETTINGS, "experts.embedding.training.batch_size": 8}
    with pytest.raises(Interrupted):
        mocme.train(
            data, "mocme", out=out, settings=settings, device="cpu", observer=Stop(after[0])
        )
    for more in after[1:]:
        with pytest.raises(Interrupted):
            mocme.resume(out, device="cpu", observer=Stop(more))
    return Run.open(out)


def test_an_unfinished_run_says_how_to_go_on(data: Graph, tmp_path: Path) -> None:
    run = interrupted(data, tmp_path / "run", 2)
    message = f"this training has not finished; continue with: mocme resume {run.path}"
    for ask in (
        lambda: run.evaluate("test", device="cpu"),
        lambda: run.predictor("cpu"),
        lambda: mocme.open(run.path, device="cpu"),
    ):
        with pytest.raises(RunError, match=message):
            ask()
    assert run.evaluations() == []
    mocme.resume(run.path, device="cpu")
    assert mocme.open(run.path, device="cpu").tails("e0", "r0")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(data: Graph, tmp_path: Path) -> None:
    straight = interrupted(data, tmp_path / "straight", 2)
    expected = mocme.resume(straight.path, device="cpu").folder.read_tensors(
        "experts/embedding.safetensors"
    )
    run = interrupted(data, tmp_path / "run", 2, 2)
    newest = sorted((run.path / "checkpoints").iterdir())[-1]
    assert newest.name == "step-000000004"
    tensors = newest / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-9])
    with pytest.warns(UserWarning, match=r"step-000000004 is damaged .* step-000000002, is used"):
        resumed = mocme.resume(run.path, device="cpu")
    assert resumed.finished
    found = resumed.folder.read_tensors("experts/embedding.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [r["epoch"] for r in resumed.log()] == [1, 2]


def test_damaged_weights_are_never_used(run: Run) -> None:
    weights = run.path / "experts/embedding.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RunError, match=r"experts/embedding\.safetensors"):
        run.predictor("cpu")


def test_a_run_that_names_code_is_opened_only_if_trusted(run: Run, data: Graph) -> None:
    text = run.folder.read_text("config.toml")
    named = text.replace('"ComplEx"', '"theirs_that_is_not_there:Scorer"')
    assert named != text
    run.folder.write_text("config.toml", named)
    ways: list[Callable[[], Any]] = [
        lambda: Run.open(run.path),
        lambda: mocme.open(run.path, device="cpu"),
        lambda: mocme.resume(run.path, device="cpu"),
    ]
    for way in ways:
        with pytest.raises(RunError, match=r"custom code .*theirs.* trust_code=True"):
            way()
    # With trust the name is looked for, and is not there.
    with pytest.raises(mocme.ConfigError, match="theirs_that_is_not_there:Scorer"):
        Run.open(run.path, trust_code=True)


def test_the_code_of_a_part_of_ones_own_is_used(
    data: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_parts.py").write_text(
        "from mocme.experts.embedding.scorers import DistMult\n\n\n"
        "class Mine(DistMult):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    table = {
        "experts": [
            {
                "kind": "embedding",
                "embedding_dim": 5,
                "scorer": {"kind": "my_parts:Mine"},
                "training": {"epochs": 1, "precision": "float32"},
            }
        ],
        "data": {"only": []},
    }
    run = mocme.train(data, table, out=tmp_path / "run", device="cpu", trust_code=True)
    assert (
        type(Run.open(run.path, trust_code=True).predictor("cpu").embedding().model.scorer).__name__
        == "Mine"
    )
    with pytest.raises(RunError, match="my_parts:Mine"):
        Run.open(run.path)


def test_a_folder_that_is_in_use_is_not_overwritten(run: Run, data: Graph) -> None:
    with pytest.raises(RunError, match="is not empty"):
        mocme.train(data, "structure", out=run.path, device="cpu")


def test_the_graph_in_the_run_is_the_one_it_was_trained_on(run: Run, data: Graph) -> None:
    assert run.graph().digest() == data.digest()
    features = run.features(run.graph())
    assert features.digest() == run.folder.about["digest"]["features"]
    assert features.names == ["shape", "sound", "word"]


# -- other questions -------------------------------------------------------------------------------


def by_name(graph: Graph, fact: list[int]) -> tuple[str, str, str]:
    return graph.entities[fact[0]], graph.relations[fact[1]], graph.entities[fact[2]]


def both_ways(predictor: Predictor, head: str, relation: str, tail: str) -> float:
    """Mean probability of a fact, from the questions of both directions."""
    tails = predictor.tails(head, relation, k=1000, known="hide")
    heads = predictor.heads(relation, tail, k=1000, known="hide")
    there = next(p.probability for p in tails if p.tail == tail)
    back = next(p.probability for p in heads if p.head == head)
    assert there is not None
    assert back is not None
    return (there + back) / 2


def test_checked_facts_keep_their_order_and_agree_with_questions(predictor: Predictor) -> None:
    graph = predictor.graph
    known = [by_name(graph, fact) for fact in graph.facts("train").tolist()[:2]]
    new = [(p.head, p.relation, p.tail) for p in predictor.tails("e0", "r1", k=3)]
    asked = [known[0], *new, known[1], new[0]]
    found = predictor.score_facts(asked)
    assert [(p.head, p.relation, p.tail) for p in found] == asked
    assert [p.known for p in found] == [True, *[False] * len(new), True, False]
    for item in found:
        assert item.score == pytest.approx(predictor.score(item.head, item.relation, item.tail))
        if item.known:
            assert item.probability is None
        else:
            fact = (item.head, item.relation, item.tail)
            assert item.probability == pytest.approx(both_ways(predictor, *fact))
    with pytest.raises(UnknownName):
        predictor.score_facts([("e0", "r1", "e99")])
    assert len(predictor.score_facts([])) == 0


def test_relations_of_two_entities_are_checked_facts_best_first(predictor: Predictor) -> None:
    graph = predictor.graph
    everything = predictor.score_facts([("e0", r, "e1") for r in graph.relations])
    marked = predictor.relations("e0", "e1", k=1000, known="mark")
    assert {p.relation for p in marked} == set(graph.relations)
    chances = [everything.order[("e0", p.relation, "e1")] for p in marked]
    assert chances == sorted(chances, reverse=True)
    hidden = predictor.relations("e0", "e1")
    assert [p.relation for p in hidden] == [p.relation for p in marked if not p.known][:10]
    sure = predictor.relations("e0", "e1", min_probability=max(p.probability for p in hidden))
    assert len(sure) >= 1
    assert {p.relation for p in sure} <= {p.relation for p in hidden}


def test_what_is_missing_is_the_best_of_all_questions(predictor: Predictor) -> None:
    graph, applying = predictor.graph, RelationPrior(predictor.graph)
    found = predictor.missing("e1", k=1000)
    expected = {}
    for relation, name in enumerate(graph.relations):
        for inverse in (False, True):
            ask = predictor.heads(name, "e1", k=1000) if inverse else None
            items = ask or predictor.tails("e1", name, k=1000)
            chance = float(applying.of(1)[relation + inverse * graph.num_relations])
            for p in items:
                if p.probability:
                    expected[p.head, name, p.tail, inverse] = p.probability * chance
    values = [(p.probability or 0) * (p.applies or 0) for p in found]
    assert values == sorted(values, reverse=True)
    assert values == pytest.approx(sorted(expected.values(), reverse=True)[:1000])
    known = {by_name(graph, fact) for fact in graph.facts().tolist()}
    assert not any((p.head, p.relation, p.tail) in known for p in found)
    assert all("e1" in (p.head, p.tail) for p in found)
    assert len(predictor.missing("e1", k=3)) == 3
    likely = predictor.missing("e1", k=1000, min_probability=0.05)
    assert all((p.probability or 0) >= 0.05 for p in likely)


@pytest.fixture(scope="module")
def ring() -> Predictor:
    """Eight neighbours, most told both ways, some linked by a second relation; nothing learned."""
    near = [(n, 0, (n + 1) % 8) for n in range(8)]
    turned = [(t, r, h) for h, r, t in near[:6]]
    other = [(0, 1, 1), (2, 1, 1), (3, 1, 6)]
    splits = {"train": torch.tensor([*near, *turned, *other]), "valid": torch.tensor([[4, 1, 0]])}
    names = Vocabulary([f"e{n}" for n in range(10)])
    rejected = torch.tensor([[5, 0, 1]])
    relations = Vocabulary(["near", "likes"], "relation")
    graph = Graph(names, relations, splits, rejected=rejected)
    model = EmbeddingModel(
        Embedding(embedding_dim=4, init_std=0.5), TrainingFacts.of(graph, {}), {}
    ).eval()
    return Predictor(mixture_of(model), graph)


def test_a_suggestion_says_what_links_the_two_already(ring: Predictor) -> None:
    graph = ring.graph
    facts = graph.facts().tolist()
    shown = [p for e in graph.entities for p in ring.missing(e, k=1000)]
    shown += list(ring.tails("e0", "likes", known="mark")) + list(ring.relations("e3", "e6"))
    for p in shown:
        h, t = graph.entities.id(p.head), graph.entities.id(p.tail)
        own = graph.relations.id(p.relation)
        straight = {r for a, r, b in facts if (a, b) == (h, t)}
        back = {r for a, r, b in facts if (a, b) == (t, h)}
        # Of "near" the other way round is the same news.
        back -= {r for r in back if r == 0 and 0 in straight}
        straight -= {own}
        names = [graph.relations[r] for r in sorted(straight)]
        turned = {r: f"inverse of {graph.relations[r]}" for r in back} | {0: "near (turned around)"}
        names += [turned[r] for r in sorted(back)]
        assert list(p.linked) == names
        assert p.remark.startswith("already: " if names and not p.known else "")
        assert ", ".join(names) in p.remark
        assert p.as_dict()["linked"] == names
    assert any(p.linked == ("near", "inverse of likes") for p in shown)


def test_of_a_symmetric_relation_one_of_two_facts_is_missing(ring: Predictor) -> None:
    graph = ring.graph
    assert ring.existing_links.symmetric == {0}
    known = {tuple(fact) for fact in graph.facts().tolist()}
    for own, entity in enumerate(graph.entities):
        found = ring.missing(entity, k=1000)
        near = [p for p in found if p.relation == "near"]
        pairs = [frozenset((p.head, p.tail)) for p in near]
        assert len(set(pairs)) == len(pairs)
        open_ = {
            frozenset((entity, graph.entities[other]))
            for other in range(10)
            if other != own
            for fact in ((own, 0, other), (other, 0, own))
            if fact not in known and fact != (5, 0, 1)
        }
        assert set(pairs) == open_
        for p in near:
            turned = (graph.entities.id(p.tail), 0, graph.entities.id(p.head))
            assert p.symmetric == (turned not in known and turned != (5, 0, 1))
            assert ("other way round" in p.remark) == p.symmetric
        assert not any(p.symmetric for p in found if p.relation == "likes")
    # The likelier of the two.
    values = {}
    for question in (ring.tails("e0", "near", k=1000), ring.heads("near", "e0", k=1000)):
        total = torch.tensor([p.score for p in question]).double()
        for p, share in zip(question, total.softmax(0).tolist(), strict=True):
            values[p.head, p.tail] = share
    applies = RelationPrior(graph).of(0)
    for p in ring.missing("e0", k=1000):
        if p.symmetric:
            there = values[p.head, p.tail] * float(applies[0 if p.head == "e0" else 2])
            back = values[p.tail, p.head] * float(applies[2 if p.head == "e0" else 0])
            assert there >= back


def test_candidates_can_be_narrowed(predictor: Predictor) -> None:
    graph = predictor.graph
    everyone = predictor.tails("e0", "r1", k=1000, known="mark")
    tails = {graph.entities[t] for _, r, t in graph.facts().tolist() if r == 1}
    observed = predictor.tails("e0", "r1", k=1000, known="mark", among="observed")
    assert [p.tail for p in observed] == [p.tail for p in everyone if p.tail in tails]
    two = predictor.tails("e0", "r1", k=1000, known="mark", among=["e3", "e4"])
    assert [p.tail for p in two] == [p.tail for p in everyone if p.tail in ("e3", "e4")]
    # Probabilities are of all candidates, whoever is shown.
    chances = {p.tail: p.probability for p in everyone}
    assert all(p.probability == chances[p.tail] for p in (*observed, *two))
    heads = {graph.entities[h] for h, r, _ in graph.facts().tolist() if r == 1}
    back = predictor.heads("r1", "e0", k=1000, known="mark", among="observed")
    assert {p.head for p in back} <= heads
    with pytest.raises(ValueError, match="among must be 'all', 'observed' or a list"):
        predictor.tails("e0", "r1", among="some")
    with pytest.raises(UnknownName):
        predictor.tails("e0", "r1", among=["e99"])


def test_less_probable_answers_can_be_left_out(predictor: Predictor) -> None:
    everyone = predictor.tails("e0", "r1", k=1000, known="mark")
    chances = sorted(p.probability for p in everyone if p.probability is not None)
    middle = chances[len(chances) // 2]
    found = predictor.tails("e0", "r1", k=1000, known="mark", min_probability=middle)
    kept = [p for p in everyone if p.known or (p.probability or 0) >= middle]
    assert list(found) == kept
    with pytest.raises(ValueError, match=r"between 0 and 1, not 2\.0"):
        predictor.tails("e0", "r1", min_probability=2.0)


def test_probabilities_rise_with_scores_within_a_question(predictor: Predictor) -> None:
    for head in ("e0", "e3", "e7"):
        found = predictor.tails(head, "r0", k=1000)
        chances = [p.probability for p in found]
        assert chances == sorted(chances, reverse=True)


def test_how_likely_an_entity_has_a_relation_equals_counting() -> None:
    facts = [(0, 0, 1), (0, 0, 2), (1, 0, 2), (2, 1, 0), (3, 1, 0), (3, 0, 1), (4, 1, 4)]
    graph = Graph(
        Vocabulary([f"e{n}" for n in range(7)]),
        Vocabulary(["a", "b"], "relation"),
        {"train": torch.tensor(facts[:5]), "valid": torch.tensor(facts[5:])},
    )
    directed = [(h, r, t) for h, r, t in facts] + [(t, r + 2, h) for h, r, t in facts]
    answers: dict[tuple[int, int], set[int]] = {}
    for h, r, t in directed:
        answers.setdefault((h, r), set()).add(t)
    has = {r: {h for h, own in answers if own == r} for r in range(4)}
    applying = RelationPrior(graph)
    for entity in range(7):
        own = [r for r in range(4) if entity in has[r]]
        for relation in range(4):
            if relation in own:
                count = len(answers[entity, relation])
                sizes = [len(answers[h, relation]) for h in has[relation]]
                more, enough = sum(s > count for s in sizes), sum(s >= count for s in sizes)
                expected = (more + 1) / (enough + 2)
            elif own:
                expected = max((len(has[s] & has[relation]) + 1) / (len(has[s]) + 2) for s in own)
            else:
                expected = (len(has[relation]) + 1) / (5 + 2)
            assert float(applying.of(entity)[relation]) == pytest.approx(expected)
            assert float(applying.to(relation)[entity]) == pytest.approx(expected)


def test_how_likely_a_relation_is_takes_no_table_of_pairs_of_relations() -> None:
    """Such a table of 10,000 directed relations would take 800 MB."""
    ids = torch.arange(5_000)
    facts = torch.stack([ids % 300, ids, ids % 7 + 300], 1)
    graph = Graph(
        Vocabulary([f"e{n}" for n in range(307)]),
        Vocabulary([f"r{n}" for n in ids.tolist()], "relation"),
        {"train": facts},
    )
    tracemalloc.start()
    applying = RelationPrior(graph)
    of, to = applying.of(300), applying.to(5)  # e300 has 715 relations
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()
    assert float(of[5]) == float(to[300])


# -- out of the package ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_vectors_in_files_give_the_scores(
    kind: str, data: Graph, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = {**SETTINGS, "experts.embedding.scorer": {"kind": "DistMult"}}
    run = mocme.train(data, "structure", out=tmp_path / "run", settings=settings, device="cpu")
    predictor = run.predictor("cpu")
    files = write_embeddings(tmp_path / "out", predictor, kind)
    assert all(file.is_file() for file in files)
    if kind == "npy":
        found = {p.stem: np.load(p) for p in files if p.suffix == ".npy"}
        names = {p.stem: p.read_text().splitlines() for p in files if p.suffix == ".txt"}
    else:
        tables = {p.stem: parquet.read_table(p) for p in files}
        found = {k: np.array(t["vector"].to_pylist(), np.float32) for k, t in tables.items()}
        names = {k: t["name"].to_pylist() for k, t in tables.items()}
    assert names["entities"] == list(data.entities)
    entity = dict(zip(names["entities"], found["entities"], strict=True))
    relation = dict(zip(names["relations"], found["relations"], strict=True))
    forward = (entity["e0"] * relation["r1"] * entity["e3"]).sum()
    back = (entity["e3"] * relation["inverse of r1"] * entity["e0"]).sum()
    assert (forward + back) / 2 == pytest.approx(predictor.score("e0", "r1", "e3"), rel=1e-5)
    with pytest.raises(ValueError, match="exists already"):
        write_embeddings(tmp_path / "out", predictor, kind)


def test_a_notebook_shows_a_table_in_which_names_are_text(tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    names = Vocabulary(["<script>alert(1)</script>", *list(tiny.graph.entities)[1:]])
    graph = Graph(names, tiny.graph.relations, tiny.graph.splits)
    model = EmbeddingModel(Embedding(embedding_dim=4), tiny.facts(), tiny.features.dense).eval()
    found = Predictor(mixture_of(model), graph).tails("e1", "r0", k=12, known="mark")
    shown = found._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert shown.count("<tr>") == 1 + len(
        Predictor(mixture_of(model), graph).tails("e1", "r0", k=12, known="mark")
    )


@pytest.mark.parametrize("weight", [1e30, float("nan")])
def test_scores_that_overflow_are_an_error(weight: float, tiny_graph: Callable) -> None:
    tiny = tiny_graph()
    model = EmbeddingModel(Embedding(embedding_dim=4), tiny.facts(), tiny.features.dense).eval()
    with torch.no_grad():
        model.structure.fill_(weight)
        model.relation.fill_(weight)
    predictor = Predictor(mixture_of(model), tiny.graph, name="RUN")
    for ask in (
        lambda: predictor.tails("e1", "r0"),
        lambda: predictor.missing("e1"),
        lambda: predictor.relations("e1", "e2"),
        lambda: predictor.score_facts([("e1", "r0", "e2")]),
        lambda: predictor.explain("e1", "r0", "e2"),
    ):
        with pytest.raises(ValueError, match=r"^RUN: scores are NaN or infinite.*train it again"):
            ask()
