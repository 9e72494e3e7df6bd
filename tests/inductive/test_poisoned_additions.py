"""Content far outside the training's: brought into its range, told, and never the end of a run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import mocme
from mixtures import embedding_of
from mocme import NewEntity, Run
from mocme.data.features.numeric import scale_columns
from mocme.data.graph import Queries
from mocme.data.modality import Modality, Tokens
from mocme.inductive import store
from mocme.inductive.new_entity import read_entities
from mocme.inductive.ranges import SLACK, VectorRange, tokens_in_range, vector_in_range
from mocme.inductive.usable import AdditionLeftOut

SETTINGS = {
    "experts.embedding.embedding_dim": 8,
    "experts.embedding.init_std": 0.3,
    "experts.embedding.training.epochs": 6,
    "experts.embedding.training.batch_size": 64,
    "experts.embedding.training.precision": "float32",
}
SIZES = torch.arange(20, dtype=torch.float64) ** 2


@pytest.fixture(scope="module")
def trained(
    tiny_graph: Callable, tiny_folder: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run over vectors in float32 and in float16, numbers, and tokens."""
    tiny = tiny_graph(entities=40, facts=160, valid=30)
    folder = tiny_folder(tmp_path_factory.mktemp("data"), tiny)
    half = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).half()
    bound = {"entities": mocme.load(folder).entities.digest()}
    save_file({"values": half, "rows": torch.arange(20)}, folder / "half.safetensors", bound)
    lines = [f"e{n}\tsize\t{size}\n" for n, size in enumerate(SIZES.tolist())]
    (folder / "numbers.tsv").write_text("".join(lines))
    with (folder / "graph.toml").open("a") as file:
        file.write('[modalities.number]\nkind = "numbers"\npath = "numbers.tsv"\nbins = 3\n')
        file.write('[modalities.half]\nkind = "vectors"\npath = "half.safetensors"\n')
    out = tmp_path_factory.mktemp("runs") / "run"
    run = mocme.train(folder, "mocme", out=out, settings=SETTINGS, device="cpu")
    run.predictor("cpu")  # calibrates it
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained, tmp_path / "run")
    return Run.open(tmp_path / "run")


HOSTILE: dict[str, dict[str, Any]] = {
    "a vector of 1e38": {"content": {"shape": [1e38] * 5}},
    "70,000 in one place of float16": {"content": {"half": [0.0, 70_000.0, 0.0, 0.0]}},
    "a vector ten times as long": {"content": {"shape": [40.0, -40.0, 40.0, 40.0, -40.0]}},
    "a number of 1e308": {"numbers": {"size": 1e308}},
    "a number of -1e308": {"numbers": {"size": -1e308}},
    "scaled numbers of 1e30": {"content": {"number": [1e30] * 5}},
}


def firsts(run: Run) -> tuple[int, list[int]]:
    """How often the last entity is first of all questions, and how often each other one is."""
    world = run.contents("cpu")
    count, relations = world.graph.num_entities, 2 * world.graph.num_relations
    head = torch.arange(count - 1).repeat_interleave(relations)
    scores = world.mixture.score(Queries(head, torch.arange(relations).repeat(count - 1)))
    assert bool(scores.isfinite().all())
    best = torch.bincount(scores.argmax(1), minlength=count).tolist()
    return best[-1], best[:-1]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_newcomer_is_not_the_answer_of_all_questions(name: str, run: Run) -> None:
    (made,) = run.add_all([NewEntity("Eve", **HOSTILE[name])], "cpu")
    assert any("of the training" in note for note in made.notes)
    eve, others = firsts(Run.open(run.path))
    assert eve <= max(others)
    predictor = mocme.open(run.path, device="cpu")
    assert len(predictor.tails("Eve", "r0", k=3)) == 3
    vectors = embedding_of(predictor.mixture).frozen().vectors
    number = predictor.graph.num_entities
    lengths = vectors[:number].norm(dim=1)
    assert float(lengths[-1]) <= float(lengths[:-1].max()) * (1 + 1e-6)


def test_a_note_says_what_was_given_and_what_was_used(run: Run) -> None:
    made = run.add("Eve", numbers={"size": 1e308}, device="cpu")
    assert any(
        "size = 1e+308 is outside the range of the training, 0 to 361; 361 was used" in note
        for note in made.notes
    )
    assert torch.equal(made.vectors["number"], scale_columns(SIZES, 3)[19].float())


def test_honest_content_stays_as_it_is(run: Run) -> None:
    shape = run.features(run.graph()).dense["shape"].values
    given = (shape[0] + shape[1]) / 2
    facts = [("Ada", "r0", "e1"), ("e3", "r1", "Ada")]
    made = run.add("Ada", facts, numbers={"size": 100.0}, content={"shape": given}, device="cpu")
    assert torch.equal(made.vectors["shape"], given)
    assert torch.equal(made.vectors["number"], scale_columns(SIZES, 3)[10].float())
    assert not any("of the training" in note for note in made.notes)


def test_equal_facts_count_once(run: Run) -> None:
    fact = ("Eve", "r0", "e1")
    many = run.add("Eve", [fact] * 1_000, device="cpu")
    run.remove("Eve")
    single = run.add("Eve", [fact], device="cpu")
    assert many.facts == single.facts == (fact,)
    assert torch.equal(many.rows["embedding"], single.rows["embedding"])


def test_vectors_within_the_range_are_the_same_object() -> None:
    values = torch.randn(50, 6, generator=torch.Generator().manual_seed(1)) + 3
    modality = Modality(values, torch.arange(50), 50)
    known = VectorRange.of(modality)
    for row in values:
        assert vector_in_range(modality, row)[0] is row
    for factor in (10.0, 1e10, 1e30):
        clipped, notes = vector_in_range(modality, values[0] * factor)
        assert known.distance(clipped) == pytest.approx(SLACK, rel=1e-5)
        assert len(notes) == 1


@pytest.mark.parametrize("values", [torch.ones(3, 2), torch.ones(1, 2), torch.zeros(2, 2)])
def test_a_range_of_equal_vectors_takes_others(values: torch.Tensor) -> None:
    modality = Modality(values, torch.arange(len(values)), 3)
    near = values[0] + 0.5
    assert vector_in_range(modality, near)[0] is near
    assert VectorRange.of(modality).distance(vector_in_range(modality, near * 1e9)[0]) < 3


def test_what_fits_float32_also_fits_float16() -> None:
    values = torch.full((3, 2), 65_504.0).half()
    values[0] = 0
    modality = Modality(values, torch.arange(3), 3)
    clipped, notes = vector_in_range(modality, torch.tensor([70_000.0, 70_000.0]))
    assert bool(clipped.half().isfinite().all())
    assert notes


def test_more_tokens_than_any_entity_of_the_training_has() -> None:
    entity, token = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 0, 2])
    tokens = Tokens(("a", "b", "c"), entity, token, 3)
    assert tokens_in_range(tokens, ["a", "b"]) == (["a", "b"], [])
    assert tokens_in_range(tokens, ["a", "b", "c"]) == (["b", "c"], ["a"])


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e400", "true", "NaN"])
def test_numbers_that_float64_does_not_hold_are_refused(number: str, tmp_path: Path) -> None:
    path = tmp_path / "new.jsonl"
    path.write_text(f'{{"name": "Eve", "numbers": {{"size": {number}}}}}\n')
    if number in ("1e400", "NaN"):
        return  # read, and refused by the run
    with pytest.raises(ValueError, match="line 1: size"):
        read_entities(path)


@pytest.mark.parametrize("number", [float("inf"), float("nan"), -float("inf")])
def test_a_run_refuses_numbers_that_are_not_finite(number: float, run: Run) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        run.add("Eve", numbers={"size": number}, device="cpu")
    with pytest.raises(ValueError, match=r"NaN or infinity|cannot be read as a vector"):
        run.add("Eve", content={"shape": [number] * 5}, device="cpu")


# -- stored additions that cannot be used ------------------------------------------------------


def spoil(item: store.Addition, how: str) -> store.Addition:
    if how == "vector":
        return replace(item, vectors={"half": torch.tensor([0.0, 70_000.0, 0.0, 0.0])})
    if how == "width":
        return replace(item, vectors={"shape": torch.zeros(3)})
    if how == "row":
        rows = {"embedding": torch.full((8,), torch.nan)}
        return replace(item, rows=rows, fit={"loss": 0.5})
    if how == "modality":
        return replace(item, vectors={"taste": torch.zeros(3)})
    if how == "token":
        return replace(item, tokens={"word": ("unheard of",)})
    if how == "relation":
        return replace(item, facts=(("Eve", "r99", "e1"),))
    return replace(item, facts=(("Eve", "r0", "nobody"),))


@pytest.mark.parametrize(
    "how", ["vector", "width", "row", "modality", "token", "relation", "entity"]
)
def test_one_bad_addition_is_left_out_and_the_rest_is_used(how: str, run: Run) -> None:
    facts = [("Ada", "r0", "e1")]
    run.add("Ada", facts, content={"shape": np.ones(5)}, device="cpu")
    expected = Run.open(run.path).contents("cpu")
    eve = spoil(store.Addition("Eve"), how)
    friend = store.Addition("Friend", (("Friend", "r0", "Eve"),))
    store.write(run.folder, store.Additions([eve, *run.additions(), friend]), run.folder.model)
    run = Run.open(run.path)
    with pytest.warns(AdditionLeftOut) as caught:
        predictor = run.predictor("cpu")
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 2
    assert "'Eve' is left out, because" in messages[0]
    assert f"mocme entities remove {run.path} 'Eve'" in messages[0]
    assert "'Friend' is left out, because its facts name 'Eve'" in messages[1]
    queries = Queries(torch.tensor([0, 40]), torch.tensor([0, 0]))
    assert list(predictor.graph.entities) == list(expected.graph.entities)
    assert torch.equal(predictor.mixture.score(queries), expected.mixture.score(queries))
    # Nothing is lost: it stays in the file until it is removed.
    with pytest.raises(ValueError, match=r"'Eve' cannot be used.*remove it first"):
        run.add("Bob", device="cpu")
    assert run.additions().names == ["Eve", "Ada", "Friend"]
    run.remove("Friend")
    run.remove("Eve")
    assert run.add("Bob", device="cpu").name == "Bob"
    assert list(run.predictor("cpu").graph.entities)[-2:] == ["Ada", "Bob"]


@pytest.mark.parametrize("tokens", ['"abc"', "[1, null]", '{"a": 1}', "3"])
def test_tokens_of_a_file_are_a_list_of_strings(tokens: str, tmp_path: Path) -> None:
    path = tmp_path / "new.jsonl"
    path.write_text(f'{{"name": "new", "content": {{"words": {{"tokens": {tokens}}}}}}}\n')
    with pytest.raises(ValueError, match="line 1: tokens must be a list of strings"):
        read_entities(path)


def test_a_vector_of_a_file_is_a_regular_file_that_has_what_it_declares(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    with (tmp_path / "huge.npy").open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        np.lib.format.write_array_header_1_0(file, header)
    for name, problem in (("pipe", "is a pipe"), ("huge", "more than it has")):
        path = tmp_path / "new.jsonl"
        path.write_text(f'{{"name": "x", "content": {{"half": {{"vector": "{name}.npy"}}}}}}\n')
        with pytest.raises(ValueError, match=rf"line 1: .*{problem}"):
            read_entities(path)
