"""Pairs of additions: those of a graph that has had them from the start, and what they do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from test_additions import everything

import mocme
from mixtures import embedding_of, rules_of
from mocme import NewEntity, Run
from mocme.cli import main
from mocme.data.features.sources import read_features
from mocme.data.graph import Queries
from mocme.data.load import load
from mocme.data.modality import FORMAT, Pairs
from mocme.data.pairs.build import build_pairs
from mocme.inductive import store as kept
from mocme.inductive.extended_run import RunContents
from mocme.inductive.new_entity import read_entities

FIRST = ["Ada", "Bob", "Cleo", "Dan", "Eve", "Finn"]
LAST = ["Roe", "Stone", "Vane"]
PEOPLE = [f"{first} {last}" for first in FIRST for last in LAST]
SETTINGS = {
    "experts.embedding.embedding_dim": 8,
    "experts.embedding.training.epochs": 2,
    "experts.embedding.training.batch_size": 64,
    "experts.embedding.training.precision": "float32",
    "experts.rules": {"support": 2, "confidence": 0.01},
    "mixture": {"strength": {"rules": 2.0}, "sharpness": {"rules": 30.0}},
}
FILM = NewEntity("new", (), "a quiet film directed by Dan Stone", names=["Night of Ada Roe"])
MODALITIES = """
[modalities.named]
kind = "mentions"
names = ["names.tsv"]
texts = ["texts.tsv"]
separator = ";"
contexts = 3
[modalities.alike]
kind = "similar"
paths = ["texts.tsv"]
nearest = 2
[modalities.look-alike]
kind = "similar"
vectors = "look.safetensors"
nearest = 3
"""
LOOK = '[modalities.look]\nkind = "encoded"\npath = "look.safetensors"\n'


def write(folder: Path, more: str = "", without: int = 0) -> Path:
    """Films that texts say who directed; the last `without` facts are valid ones."""
    folder.mkdir()
    people = [f"p{n}" for n in range(len(PEOPLE))]
    films = [f"f{n}" for n in range(30)]
    facts = [f"{film}\tby\tp{(5 * n) % 18}\n" for n, film in enumerate(films)]
    (folder / "train.tsv").write_text("".join(facts[: len(facts) - without]))
    (folder / "valid.tsv").write_text("".join(facts[len(facts) - without :]))
    names = [f"{p}\t{name}\n" for p, name in zip(people, PEOPLE, strict=True)]
    names += [f"{film}\tFilm {n};Filmo {n}\n" for n, film in enumerate(films)]
    names += ["f9\tThe Dan Vane Story\n"]
    (folder / "names.tsv").write_text("".join(names))
    kinds = ["quiet", "loud", "long"]
    texts = [
        f"{film}\ta {kinds[n % 3]} film directed by {PEOPLE[(5 * n) % 18]}\n"
        for n, film in enumerate(films)
    ]
    texts += [f"{p}\twho saw the Night of the {kinds[n % 3]}\n" for n, p in enumerate(people)]
    (folder / "texts.tsv").write_text("".join(texts))
    (folder / "graph.toml").write_text(f'name = "films"\n{MODALITIES}{more}')
    graph = load(folder)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(graph.num_entities, 4, generator=generator)
    save_file(
        {"values": values, "rows": torch.arange(graph.num_entities)},
        folder / "look.safetensors",
        {"format": FORMAT, "entities": graph.entities.digest()},
    )
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("films") / "data", LOOK, without=4)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    run = mocme.train(data, "mocme", out=out, settings=SETTINGS, device="cpu")
    run.predictor("cpu")
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained, tmp_path / "run")
    return Run.open(tmp_path / "run")


def rows_of(pairs: Pairs, since: int, kinds: tuple[str, ...]) -> set[tuple[str, int, int]]:
    """Pairs with an entity of at least the id `since`."""
    rows = zip(pairs.kind.tolist(), pairs.head.tolist(), pairs.tail.tolist(), strict=True)
    found = {(pairs.kinds[k], h, t) for k, h, t in rows if max(h, t) >= since}
    return {row for row in found if row[0] in kinds}


def strip(run: Run, name: str) -> None:
    """Make a modality's file what it was before runs kept what pairs were made of."""
    file = f"modalities/{name}.safetensors"
    tensors, metadata = run.folder.read_tensors(file), run.folder.tensors_metadata(file)
    tensors = {key: own for key, own in tensors.items() if not key.startswith("basis/")}
    del metadata["basis"]
    run.folder.write_tensors(file, tensors, metadata)


def all_queries(world: RunContents, entities: int) -> Queries:
    head = torch.arange(entities).repeat_interleave(2 * world.graph.num_relations)
    return Queries(head, torch.arange(2 * world.graph.num_relations).repeat(entities))


# -- what is made ------------------------------------------------------------------------------


def test_pairs_are_those_of_a_graph_with_the_entities_from_the_start(
    run: Run, data: Path, tmp_path: Path
) -> None:
    look = torch.tensor([0.3, -1.0, 0.2, 0.5])
    entities = [
        NewEntity("new", (), FILM.text, None, {"look": look}, names=FILM.names),
        NewEntity("person", (), "who saw Film 3", names="Night;Zoe Roe"),
        NewEntity("directed", (), ["a loud film", "directed by Zoe Roe and Ada Roe"]),
    ]
    run.add_all(entities)
    world, first = run.contents("cpu"), run.graph().num_entities
    whole = tmp_path / "whole"
    shutil.copytree(data, whole)
    with (whole / "names.tsv").open("a") as file:
        file.write("new\tNight of Ada Roe\nperson\tNight;Zoe Roe\ndirected\tdirected\n")
    with (whole / "texts.tsv").open("a") as file:
        file.write(f"new\t{FILM.text}\nperson\twho saw Film 3\n")
        file.write("directed\ta loud film\ndirected\tdirected by Zoe Roe and Ada Roe\n")
    graph = world.graph
    tables = {name: dict(own) for name, own in load(data).modalities.items()}
    tables["named"]["contexts"] = 1  # of the training's contexts every pair is made
    mapped = {name: tables[name] for name in ("named", "alike")}
    reference = read_features(graph, mapped, whole).pairs
    for name, own in world.features.pairs.items():
        if name in reference:
            found = rows_of(own, first, own.kinds)
            assert found == rows_of(reference[name], first, own.kinds)
            assert {(h >= first, t >= first) for _, h, t in found} >= {(True, False), (False, True)}
            if name == "named":
                assert ("mentions", first + 2, first + 1) in found  # of each other
    alike = world.features.pairs["look-alike"]
    assert alike.basis is not None
    assert alike.basis.modality == "look"
    expected = build_pairs(alike.basis, graph.num_entities, {}, world.features.dense)
    assert rows_of(alike, first, alike.kinds) == rows_of(expected, first, alike.kinds)


def test_old_pairs_stay_to_the_bit_and_old_answers_without_a_path(run: Run) -> None:
    before = run.contents("cpu")
    number = before.graph.num_entities
    run.add("new", [("new", "by", "p3")], text=FILM.text, names=FILM.names)
    after = run.contents("cpu")
    for name, own in before.features.pairs.items():
        grown = after.features.pairs[name]
        old = torch.stack([own.kind, own.head, own.tail], 1)
        rows = torch.stack([grown.kind, grown.head, grown.tail], 1)
        assert torch.equal(rows[(rows[:, 1:] < number).all(1)], old)
        assert grown.kinds == own.kinds
    old_questions = all_queries(before, number)
    scores = [w.mixture.score(old_questions)[:, :number] for w in (before, after)]
    evidence = [rules_of(w.mixture) for w in (before, after)]
    chances = [own.chances(old_questions).toarray()[:, :number] for own in evidence if own]
    assert torch.equal(scores[0] != scores[1], torch.from_numpy(chances[0] != chances[1]))
    by_vectors = [embedding_of(w.mixture).score(old_questions)[:, :number] for w in (before, after)]
    assert torch.equal(*by_vectors)
    run.remove("new")
    run.add("xq")  # paired with nobody
    assert not any(len(rows) for rows in run.additions().pairs.values())
    assert torch.equal(run.contents("cpu").mixture.score(old_questions)[:, :number], scores[0])


def test_the_order_of_additions_and_removals_does_not_matter(run: Run) -> None:
    before = everything(run)
    other = NewEntity("other", (), "a loud film directed by Dan Stone", names="Night of Ada")
    third = NewEntity("third", (), "a quiet film directed by Night")
    run.add_all([FILM, third])
    expected = run.additions()
    run.remove("new", "third")
    assert everything(run) == before
    run.add_all([FILM, other])
    run.add_all([third])
    assert run.additions()[0].pairs != expected[0].pairs
    run.remove("other")
    found = run.additions()
    assert [item.pairs for item in found] == [item.pairs for item in expected]
    assert all(torch.equal(found.pairs[name], rows) for name, rows in expected.pairs.items())
    run.remove("new", "third")
    assert everything(run) == before


def test_notes_tell_how_many_pairs_of_which_kind(run: Run) -> None:
    made = run.add_all([FILM])[0]
    rows = run.additions().pairs["named"]
    kinds = run.features(run.graph()).pairs["named"].kinds
    own = made.pairs["named"]
    assert sum(own.values()) == len(rows)
    assert own["mentions, after directed by"] == 1
    assert own["named within"] == 1  # Ada Roe, in the film's name
    assert set(own) <= set(kinds)
    (note,) = [note for note in made.notes if note.startswith("named: ")]
    assert f"{len(rows)} pairs" in note
    assert "1 mentions, after directed by" in note
    assert "look-alike: no vector is given (look), so it is similar to no entity" in made.notes
    assert "look-alike: 0 pairs" in made.notes
    assert Run.open(run.path).additions()[0].notes == made.notes
    bare = run.add("bare")
    assert "named: no names are given, so 'bare' is used" in bare.notes
    assert "alike: no text is given, so no pairs start at it" in bare.notes


# -- what they do ------------------------------------------------------------------------------


def call(*words: str) -> str:
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_mention_is_the_reason_for_an_answer(run: Run) -> None:
    """From the command to the explanation: the text names a director, and nothing else does."""
    path, before = str(run.path), everything(run)
    words = ["--text", str(FILM.text), "--name", "Night of Ada Roe"]
    assert "1 mentions, after directed by" in call("entities", "add", path, "new", *words)
    found = json.loads(call("predict", path, "--head", "new", "-r", "by", "--json", "-k", "1"))
    assert found["predictions"][0]["tail"] == f"p{PEOPLE.index('Dan Stone')}"
    director = found["predictions"][0]["tail"]
    why = run.predictor("cpu").explain("new", "by", director)
    assert "named: mentions, after directed by" in {
        relation for pattern in why.rules for relation in pattern.relations
    }
    args = ["--head", "new", "-r", "by", "--tail", director]
    assert "mentions, after directed by" in call("explain", path, *args)
    (listed,) = json.loads(call("entities", "list", path, "--json"))
    assert listed["names"] == ["Night of Ada Roe"]
    assert listed["pairs"]["named"]["mentions, after directed by"] == 1
    call("entities", "remove", path, "new")
    assert {k: v for k, v in everything(run).items() if k in before} == before
    assert not run.additions()


def test_names_and_texts_of_pairs_come_from_a_file_too(run: Run, tmp_path: Path) -> None:
    alike = {"alike": ["a quiet film", "by Dan Stone"]}
    line = {"name": "new", "text": FILM.text, "names": list(FILM.names), "content": alike}
    (tmp_path / "new.jsonl").write_text(json.dumps(line))
    call("entities", "add", str(run.path), "--from", str(tmp_path / "new.jsonl"))
    (found,) = run.additions()
    assert found.names == tuple(FILM.names)
    assert found.texts == {"named": (FILM.text,), "alike": tuple(alike["alike"])}
    run.remove("new")
    made = run.add("new", text=FILM.text, names=FILM.names, content=alike)
    assert made.pairs == found.pairs
    (tmp_path / "new.jsonl").write_text('{"name": "new", "names": {"en": "New"}}')
    with pytest.raises(ValueError, match=r"new.jsonl: line 1: names = .*a list of strings"):
        read_entities(tmp_path / "new.jsonl")


def test_a_text_of_an_old_entity_names_a_new_one(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    with (folder / "texts.tsv").open("a") as file:
        file.write("f29\talso directed by Zoe Lake\n")
    run = mocme.train(folder, "mocme", out=tmp_path / "run", settings=SETTINGS, device="cpu")
    run.add("person", names="Zoe Lake")
    predictor = run.predictor("cpu")
    patterns = predictor.explain("f29", "by", "person").rules
    assert any("named: mentions, after directed by" in one.relations for one in patterns)


def test_vectors_of_no_modality_are_the_pairs_own(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    run = mocme.train(folder, "mocme", out=tmp_path / "run", settings=SETTINGS, device="cpu")
    basis = run.features(run.graph()).pairs["look-alike"].basis
    assert basis is not None
    assert basis.vectors is not None
    made = run.add("twin", content={"look-alike": basis.vectors.values[4]})
    assert made.pairs["look-alike"]["similar"] >= 3
    number = run.graph().num_entities
    assert [0, number, 4] in run.additions().pairs["look-alike"].tolist()
    with pytest.raises(ValueError, match="width 4"):
        run.add("other", content={"look-alike": [1.0, 2.0]})


# -- what is not made --------------------------------------------------------------------------


def test_runs_of_before_say_that_pairs_are_not_made(run: Run) -> None:
    for name in ("named", "alike", "look-alike"):
        strip(run, name)
    made = run.add("new", [("new", "by", "p3")])
    for name in ("named", "alike", "look-alike"):
        note = "pairs of a new entity are not computed, so rules over them do not apply to it"
        assert f"{name}: {note}" in made.notes
    assert not run.additions().pairs
    run.remove("new")
    with pytest.raises(ValueError, match="named has pairs of entities, which this run does not"):
        run.add("new", content={"named": "a text"})
    with pytest.raises(ValueError, match="names are given, but no pairs of the run"):
        run.add("new", names="New")
    with pytest.raises(ValueError, match="no modality of the run is computed from texts"):
        run.add("new", text="a text")


def test_a_control_has_no_pairs_of_new_entities(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    settings = (folder / "graph.toml").read_text()
    (folder / "graph.toml").write_text(
        settings.replace('kind = "mentions"', 'kind = "mentions"\nreplace = "shuffled"')
    )
    run = mocme.train(folder, "mocme", out=tmp_path / "run", settings=SETTINGS, device="cpu")
    made = run.add("new", text="a quiet film")
    assert any(note.startswith("named (shuffled, seed 0): pairs of a new") for note in made.notes)
    assert set(made.pairs) == {"alike", "look-alike"}


def test_without_patterns_there_are_no_pairs(data: Path, tmp_path: Path) -> None:
    settings = {k: v for k, v in SETTINGS.items() if k not in ("experts.rules", "mixture")}
    run = mocme.train(data, "mocme", out=tmp_path / "run", settings=settings, device="cpu")
    made = run.add("new")
    assert not made.pairs
    assert not any("pairs" in note for note in made.notes)


def test_additions_of_another_format_are_refused(run: Run) -> None:
    run.add("new", [("new", "by", "p3")])
    tensors = run.folder.read_tensors(kept.FILE)
    metadata = run.folder.tensors_metadata(kept.FILE)
    run.folder.write_tensors(kept.FILE, tensors, {**metadata, "format": "mocme additions 1"})
    with pytest.raises(ValueError, match=r"additions.safetensors: has another format"):
        run.additions()
    run.folder.write_tensors(kept.FILE, tensors, metadata)
    assert run.additions().names == ["new"]
    run.remove("new")


@pytest.mark.parametrize(
    ("entity", "message"),
    [
        (NewEntity("x", names=" "), "one of its names is empty"),
        (
            NewEntity("x", content={"look-alike": [0.0] * 4}),
            "computed from look; give content for that",
        ),
        (NewEntity("x", content={"alike": " "}), "'x', alike: the text is empty"),
        (NewEntity("x", content={"alike": {"a": 1.0}}), "'x', alike: give a text, or a list"),
    ],
)
def test_what_does_not_fit_is_refused(entity: NewEntity, message: str, run: Run) -> None:
    before = everything(run)
    with pytest.raises(ValueError, match=message):
        run.add_all([entity])
    assert everything(run) == before
