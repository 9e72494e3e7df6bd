"""Scores of another program: read from a file, or computed by a Python function."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import mocme
from mocme.core.digest import file_digest
from mocme.data.graph import Graph, Queries, Vocabulary
from mocme.evaluation.ranking import NaNScoreError, rank_split
from mocme.experts.scores import FORMAT, ScoreExpert, ScoreSettings, write_scores
from mocme.mixture.sum import Sum
from mocme.mixture.weight_search import DENSE_STRENGTHS, Weight
from mocme.runs.run import Run
from mocme.storage import RunError
from mocme.storage.tensor_tree import load_tensors, save_tensors
from small_experts import CPU, EMBEDDING, ENTITIES, Added, Case, World, all_queries, sine_scores

FILE = Case("external", {"kind": "scores", "path": "external.safetensors"})
FUNCTION = Case("external", {"kind": "scores", "function": "small_experts:sine_scores"})
RELATIONS = 3


@pytest.fixture
def world(tiny_graph: Callable, tiny_folder: Callable, tmp_path: Path) -> World:
    return World.of(tiny_folder(tmp_path / "data", tiny_graph()))


def path_of(world: World) -> Path:
    return Path(world.graph.folder) / "external.safetensors"


def random_scores(count: int, entities: int = ENTITIES) -> Tensor:
    return torch.randn(count, entities, generator=torch.Generator().manual_seed(0))


# -- a file ----------------------------------------------------------------------------------------


def test_scores_of_a_file_are_those_that_were_written(world: World) -> None:
    queries = all_queries(world.graph)
    order = torch.randperm(len(queries), generator=torch.Generator().manual_seed(1))
    scores = random_scores(len(queries))
    path = path_of(world)
    assert write_scores(path, world.graph, queries[order], scores[order]) == path
    expert, record = FILE.settings.fit(world.task(FILE))
    assert torch.equal(expert.score(queries), scores)
    assert torch.equal(expert.score(queries[order]), scores[order])
    repeated = torch.tensor([3, 3, 0])
    assert torch.equal(expert.score(queries[repeated]), scores[repeated])
    assert record == {"path": str(path), "sha256": file_digest(path), "queries": len(queries)}
    assert expert.explain(0, 0, 1) == ()
    assert expert.reads == ()
    assert not FILE.settings.refittable


def test_names_may_have_another_order(world: World) -> None:
    """The file is written for a graph with the same names and other ids."""
    generator = torch.Generator().manual_seed(2)
    node, link = (torch.randperm(n, generator=generator) for n in (ENTITIES, RELATIONS))
    names = [world.graph.entities[n] for n in node.tolist()]
    relations = [world.graph.relations[n] for n in link.tolist()]
    other = Graph(Vocabulary(names), Vocabulary(relations, "relation"), {})
    queries = all_queries(other)
    scores = random_scores(len(queries))
    write_scores(path_of(world), other, queries, scores)
    expert = world.fit(FILE)
    for row in range(len(queries)):
        head, relation = int(queries.head[row]), int(queries.relation[row])
        direction, inverse = relation % RELATIONS, relation >= RELATIONS
        query = Queries(
            torch.tensor([world.graph.entities.id(names[head])]),
            torch.tensor([world.graph.relations.id(relations[direction]) + inverse * RELATIONS]),
        )
        mine = expert.score(query)[0]
        for column, name in enumerate(names):
            assert mine[world.graph.entities.id(name)] == scores[row, column]


def test_entities_that_the_graph_lacks_are_left_out(world: World) -> None:
    """Their columns are dropped, and so are queries about them."""
    names = ["stranger", *world.graph.entities, "another"]
    larger = Graph(Vocabulary(names), world.graph.relations, {})
    queries = all_queries(larger)
    scores = random_scores(len(queries), len(names))
    write_scores(path_of(world), larger, queries, scores)
    expert, record = FILE.settings.fit(world.task(FILE))
    kept = ((queries.head > 0) & (queries.head < len(names) - 1)).nonzero().flatten()
    assert record["queries"] == len(kept) == len(all_queries(world.graph))
    mine = Queries(queries.head[kept] - 1, queries.relation[kept])
    assert torch.equal(expert.score(mine), scores[kept, 1:-1])


def test_a_missing_entity_is_named(world: World) -> None:
    names = [name for name in world.graph.entities if name != "e7"]
    smaller = Graph(Vocabulary(names), world.graph.relations, {})
    queries = all_queries(smaller)
    write_scores(path_of(world), smaller, queries, random_scores(len(queries), len(names)))
    with pytest.raises(ValueError, match=r"external.safetensors: an entity .* missing: 'e7'"):
        world.fit(FILE)


def test_a_relation_that_the_graph_lacks_is_named(world: World) -> None:
    relations = Vocabulary(["r0", "r1", "r9"], "relation")
    other = Graph(world.graph.entities, relations, {})
    queries = all_queries(other)
    write_scores(path_of(world), other, queries, random_scores(len(queries)))
    with pytest.raises(ValueError, match=r"external.safetensors: .*'r9'"):
        world.fit(FILE)


@pytest.mark.parametrize("kept", [slice(0, 0), slice(0, 5), slice(1, None)])
def test_a_missing_query_is_named(kept: slice, world: World) -> None:
    queries = all_queries(world.graph)
    scores = random_scores(len(queries))
    write_scores(path_of(world), world.graph, queries[kept], scores[kept])
    expert = world.fit(FILE)
    present = torch.arange(len(queries))[kept]
    assert torch.equal(expert.score(queries[present]), scores[present])
    missing = next(n for n in range(len(queries)) if n not in present.tolist())
    head, relation = int(queries.head[missing]), int(queries.relation[missing])
    with pytest.raises(ValueError, match=f"no scores for head {head} and relation {relation}"):
        expert.score(queries)


@pytest.mark.parametrize("shape", [(72, 11), (71, 12), (12, 72), (72,)])
def test_scores_of_another_shape_are_not_written(shape: tuple[int, ...], world: World) -> None:
    queries = all_queries(world.graph)
    with pytest.raises(ValueError, match=r"needed is \(72, 12\)"):
        write_scores(path_of(world), world.graph, queries, torch.zeros(shape))
    assert not path_of(world).exists()


def test_a_query_is_written_once(world: World) -> None:
    queries = Queries(torch.tensor([3, 4, 3]), torch.tensor([1, 1, 1]))
    with pytest.raises(ValueError, match="a query occurs twice"):
        write_scores(path_of(world), world.graph, queries, random_scores(3))
    assert not path_of(world).exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_refused(value: float, world: World) -> None:
    queries = all_queries(world.graph)
    scores = random_scores(len(queries))
    write_scores(path_of(world), world.graph, queries, scores)
    scores[5, 3] = value
    with pytest.raises(ValueError, match="a score that is NaN or infinite"):
        write_scores(path_of(world), world.graph, queries, scores)
    changed_file(path_of(world), scores=scores)
    with pytest.raises(ValueError, match=r"external.safetensors: .* NaN or infinite"):
        world.fit(FILE)


def changed_file(path: Path, metadata: dict[str, str] | None = None, **tensors: Tensor) -> None:
    """Change tensors or metadata of a file of scores."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        before = dict(file.metadata())
    save_tensors(path, {**load_tensors(path, "cpu"), **tensors}, {**before, **(metadata or {})})


@pytest.mark.parametrize(
    "tensors",
    [
        {"scores": torch.zeros(72, 11)},
        {"scores": torch.zeros(71, 12)},
        {"head": torch.full((72,), 12)},
        {"head": torch.full((72,), -1)},
        {"relation": torch.full((72,), 6)},
        {"relation": torch.zeros(71, dtype=torch.int64)},
        {"head": torch.zeros(72)},
    ],
)
def test_a_damaged_file_is_refused(tensors: dict[str, Tensor], world: World) -> None:
    queries = all_queries(world.graph)
    write_scores(path_of(world), world.graph, queries, random_scores(len(queries)))
    changed_file(path_of(world), **tensors)
    with pytest.raises(ValueError, match=r"external.safetensors: is damaged"):
        world.fit(FILE)


def test_metadata_of_a_damaged_file_are_refused(world: World) -> None:
    queries = all_queries(world.graph)
    write_scores(path_of(world), world.graph, queries, random_scores(len(queries)))
    for text in ("[", "[" * 100_000):
        changed_file(path_of(world), {"entities": text})
        with pytest.raises(ValueError, match=r"external.safetensors: is damaged"):
            world.fit(FILE)


def test_other_files_are_refused(world: World) -> None:
    path = path_of(world)
    with pytest.raises(ValueError, match=r"external.safetensors: there is no such file"):
        world.fit(FILE)
    path.write_text("head\trelation\ttail\n")
    with pytest.raises(ValueError, match=r"external.safetensors: is not a safetensors file"):
        world.fit(FILE)
    for metadata in ({}, {"format": "mocme scores 0"}, {"format": FORMAT}):
        save_tensors(path, {"values": torch.zeros(3)}, metadata)
        with pytest.raises(ValueError, match="is not a file of scores; write it with write_scores"):
            world.fit(FILE)


def test_unicode_names_survive(world: World) -> None:
    names = ["é", "日本", 'a "quoted" one', *list(world.graph.entities)[3:]]
    graph = replace(world.graph, entities=Vocabulary(names))
    queries = all_queries(graph)
    scores = random_scores(len(queries))
    write_scores(path_of(world), graph, queries, scores)
    assert torch.equal(world.fit(FILE, graph=graph).score(queries), scores)


# -- a function ------------------------------------------------------------------------------------


def module(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module that can be imported; returns its name."""
    monkeypatch.syspath_prepend(str(folder))
    path = folder.joinpath(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    for package in path.relative_to(folder).parents[:-1]:
        (folder / package / "__init__.py").touch()
    path.write_text(text)
    for part in (name, name.split(".")[0]):
        monkeypatch.delitem(sys.modules, part, raising=False)
    return name


def test_a_function_of_a_package_scores(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "import torch\n"
        "def score(heads, relations):\n"
        "    ids = torch.arange(12, dtype=torch.float64, requires_grad=True)\n"
        "    return heads[:, None] * 100 + relations[:, None] * 1000 + ids\n"
    )
    name = module(tmp_path, "scoring_package.inner", text, monkeypatch)
    settings = ScoreSettings(function=f"{name}:score")
    expert, record = settings.fit(world.task(FUNCTION))
    assert record == {"function": "scoring_package.inner:score"}
    scores = expert.score(all_queries(world.graph))
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    queries = Queries(torch.tensor([2, 11]), torch.tensor([5, 0]))
    assert expert.score(queries)[:, 7].tolist() == [5207.0, 1107.0]
    # A function is not stored: it is imported again.
    again = settings.unpacked(expert.packed(), world.task(FUNCTION))
    assert torch.equal(again.score(queries), expert.score(queries))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nowhere.to_be_found:score", "cannot be imported: No module named 'nowhere'"),
        ("small_experts:nothing", "cannot be imported: .*has no attribute 'nothing'"),
        ("small_experts:ENTITIES", "is not a function"),
    ],
)
def test_a_function_that_cannot_be_imported_is_named(
    function: str, message: str, world: World
) -> None:
    with pytest.raises(ValueError, match=f"function '{function}' {message}"):
        ScoreSettings(function=function).fit(world.task(FUNCTION))


@pytest.mark.parametrize(
    "function",
    [lambda h, r: torch.zeros(len(h), 11), lambda h, r: torch.zeros(12), lambda h, r: h.float()],
)
def test_a_function_that_returns_another_shape_is_refused(function: Callable, world: World) -> None:
    expert = ScoreExpert("external", function, ENTITIES)
    with pytest.raises(
        ValueError, match=r"external: scores have the shape .* needed is \(72, 12\)"
    ):
        expert.score(all_queries(world.graph))


def test_a_function_that_returns_nan_cannot_be_ranked(world: World) -> None:
    def score(heads: Tensor, relations: Tensor) -> Tensor:
        return sine_scores(heads, relations).masked_fill(heads[:, None] == 3, float("nan"))

    expert = ScoreExpert("external", score, ENTITIES)
    graph = replace(world.graph, splits={**world.graph.splits, "valid": torch.tensor([[3, 0, 1]])})
    with pytest.raises(NaNScoreError, match="scores are NaN, first for head 3"):
        rank_split(Sum([expert], ENTITIES, {"external": Weight(1.0)}), graph, "valid", 0.5)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "experts.scores: scores need either a path or a function"),
        ({"path": "a", "function": "b:c"}, "scores need either a path or a function"),
        ({"function": "small_experts.sine_scores"}, "function must be package.module:name"),
        ({"file": "a"}, "experts.scores.file: unknown setting"),
    ],
)
def test_wrong_settings_are_refused(table: dict[str, str], message: str) -> None:
    with pytest.raises(mocme.ConfigError, match=message):
        mocme.Experiment.load({"experts": [{"kind": "scores", **table}]}, trust_code=True)


def test_a_function_is_code_that_needs_trust(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is listed without being imported, and a run with it opens only if it is trusted."""
    text = "from small_experts import sine_scores as score\n"
    name = module(tmp_path, "trusted_scores", text, monkeypatch)
    table = {"experts": [{"kind": "scores", "function": f"{name}:score"}]}
    with pytest.raises(mocme.ConfigError, match=r"experts.scores.function: .* --trust-code"):
        mocme.Experiment.load(table)
    experiment = mocme.Experiment.load(table, trust_code=True)
    assert experiment.custom_code() == ["trusted_scores:score"]
    assert name not in sys.modules
    run = mocme.train(world.graph, experiment, out=tmp_path / "run", device="cpu")
    monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        RunError,
        match=r"\(experts\[0\]\.function = 'trusted_scores:score'\), and nothing of it was run",
    ):
        Run.open(run.path)
    assert name not in sys.modules
    opened = Run.open(run.path, trust_code=True)
    queries = all_queries(world.graph)
    mixture = opened.contents("cpu").mixture
    assert torch.equal(mixture.score(queries), sine_scores(queries.head, queries.relation))


def test_a_file_of_scores_needs_no_trust(world: World, tmp_path: Path) -> None:
    """The run holds the scores: the file may be removed."""
    queries = all_queries(world.graph)
    scores = random_scores(len(queries))
    write_scores(path_of(world), world.graph, queries, scores)
    experiment = mocme.Experiment.load(FILE.experiment())
    assert experiment.custom_code() == []
    run = mocme.train(world.graph, experiment, out=tmp_path / "run", device="cpu")
    path_of(world).unlink()
    mixture = Run.open(run.path).contents("cpu").mixture
    assert torch.equal(mixture.score(queries), scores)
    assert json.loads((run.path / "run.json").read_text())["fits"]["external"]["queries"] == 72


# -- added entities --------------------------------------------------------------------------------


def test_an_added_entity_gets_the_mean_score(world: World) -> None:
    expert = world.fit(FUNCTION)
    extended = expert.extended(Added().extension(world, expert))
    queries = all_queries(world.graph)
    scores = extended.score(queries)
    mean = sine_scores(queries.head, queries.relation).mean(1, keepdim=True)
    torch.testing.assert_close(scores[:, ENTITIES:], mean.expand(-1, Added().count))
    new = Queries(torch.tensor([ENTITIES, 0, ENTITIES + 2]), torch.tensor([0, 1, 5]))
    of_new = extended.score(new)
    assert not bool(of_new[[0, 2]].any())
    assert torch.equal(of_new[1], extended.score(Queries(new.head[1:2], new.relation[1:2]))[0])
    twice = extended.extended(Added().extension(world, expert))
    assert torch.equal(twice.score(queries), scores)


# -- a model of another library --------------------------------------------------------------------

MODEL = SimpleNamespace()


def pykeen_scores(heads: Tensor, relations: Tensor) -> Tensor:
    """Scores of `MODEL.model`: tails of (h, r), and heads of (r, t) for an inverse relation."""
    model, count = MODEL.model, MODEL.num_relations
    inverse = relations >= count
    scores = torch.empty(len(heads), model.num_entities)
    with torch.no_grad():
        tails = torch.stack([heads, relations], 1)[~inverse]
        scores[~inverse] = model.score_t(tails)
        before = torch.stack([relations - count, heads], 1)[inverse]
        scores[inverse] = model.score_h(before)
    return scores


@pytest.mark.filterwarnings("ignore")
def test_a_pykeen_model_in_a_mixture(world: World, tmp_path: Path) -> None:
    pytest.importorskip("pykeen", reason="needs pip install pykeen")
    from pykeen.models import DistMult
    from pykeen.training import SLCWATrainingLoop
    from pykeen.triples import TriplesFactory

    graph = world.graph
    triples = TriplesFactory(
        graph.facts("train"),
        {name: number for number, name in enumerate(graph.entities)},
        {name: number for number, name in enumerate(graph.relations)},
        num_entities=graph.num_entities,
        num_relations=graph.num_relations,
    )
    with torch.random.fork_rng():  # PyKEEN seeds the global generator
        model = DistMult(triples_factory=triples, embedding_dim=8, random_seed=0)
        loop = SLCWATrainingLoop(model=model, triples_factory=triples)
        losses = loop.train(triples, num_epochs=3, batch_size=16, use_tqdm=False)
    assert len(losses) == 3
    MODEL.model, MODEL.num_relations = model.eval(), graph.num_relations
    table = {"kind": "scores", "function": f"{__name__}:pykeen_scores"}
    external = world.fit(Case("pykeen", table))
    queries = all_queries(graph)
    # Each score is that of the triple by the model's own function.
    facts = graph.facts("train")[:5]
    with torch.no_grad():
        expected = model.score_hrt(facts).flatten()
    forward = external.score(Queries(facts[:, 0], facts[:, 1]))
    torch.testing.assert_close(forward.gather(1, facts[:, 2:])[:, 0], expected)
    back = external.score(Queries(facts[:, 2], facts[:, 1] + graph.num_relations))
    torch.testing.assert_close(back.gather(1, facts[:, :1])[:, 0], expected)

    embedding = world.fit(Case("embedding", EMBEDDING))
    weights = {"embedding": Weight(1.0), "pykeen": Weight(0.5)}
    mixture = Sum([embedding, external], ENTITIES, weights)
    with torch.no_grad():
        parts = embedding.score(queries), external.score(queries)
        assert torch.equal(mixture.score(queries), parts[0] + 0.5 * parts[1])

    experiment = {"experts": [EMBEDDING, {"name": "pykeen", **table}]}
    run = mocme.train(graph, experiment, out=tmp_path / "run", device="cpu")
    record = run.folder.read_json("mixture.json")["experts"]["pykeen"]
    assert record["chosen_by"] == "valid"
    assert [strength for strength, _ in record["tried"]] == list(DENSE_STRENGTHS)
    best = max(mrr for _, mrr in record["tried"])
    assert run.evaluate("valid", device="cpu")["mrr"] == pytest.approx(best, abs=1e-9)
    strength = run.folder.read_json("mixture.json")["weights"]["pykeen"]["strength"]
    trained = Run.open(run.path, trust_code=True).contents(str(CPU)).mixture
    with torch.no_grad():
        total = trained.expert("embedding").score(queries) + strength * parts[1]
        torch.testing.assert_close(trained.score(queries), total)
