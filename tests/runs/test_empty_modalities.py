"""A modality of which nothing can be made is left out with a note, and the training goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

import mocme
from mocme.audit.audit import audit
from mocme.cli import main
from mocme.data.ingest.importer import import_recipe
from mocme.data.ingest.recipe import Recipe
from mocme.data.modality import EmptyModality
from mocme.encoders.encode import EncodingError, encode
from mocme.runs.config import Experiment
from mocme.runs.train import read_inputs

SMALL = {
    "experts.embedding.embedding_dim": 4,
    "experts.embedding.training.epochs": 1,
    "experts.embedding.training.precision": "float32",
}
FACTS = "".join(f"e{n}\tr\te{(n * 3 + 1) % 8}\n" for n in range(8))


def graph_with(folder: Path, table: Mapping[str, Any], kind: str = "modalities") -> Path:
    """A graph that declares one modality, `x`."""
    (folder / "train.tsv").write_text(FACTS)
    (folder / "valid.tsv").write_text("e0\tr\te2\n")
    settings = "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
    (folder / "graph.toml").write_text(f"[{kind}.x]\n{settings}")
    return folder


def no_word(folder: Path) -> dict[str, Any]:
    (folder / "t.tsv").write_text("e0\tone\ne1\ttwo\ne2\tthree\n")
    return {"kind": "words", "paths": ["t.tsv"]}


def strangers(folder: Path) -> dict[str, Any]:
    (folder / "t.tsv").write_text("a\tone\nb\tone\nc\tone\n")
    return {"kind": "words", "paths": ["t.tsv"]}


def empty_texts(folder: Path) -> dict[str, Any]:
    (folder / "t.tsv").write_text("")
    return {"kind": "words", "paths": ["t.tsv"]}


def bad_numbers(folder: Path) -> dict[str, Any]:
    (folder / "t.tsv").write_text("e0\tpopulation\t1,234\n")
    return {"kind": "numbers", "path": "t.tsv"}


def no_numbers(folder: Path) -> dict[str, Any]:
    (folder / "t.tsv").write_text("")
    return {"kind": "bins", "path": "t.tsv"}


def nan_vectors(folder: Path) -> dict[str, Any]:
    save_file({"e1": torch.full((3,), torch.nan)}, folder / "v.safetensors")
    return {"kind": "vectors", "path": "v.safetensors"}


def vectors_of_strangers(folder: Path) -> dict[str, Any]:
    np.save(folder / "v.npy", np.zeros((1, 2)))
    (folder / "names.txt").write_text("stranger\n")
    return {"kind": "vectors", "path": "v.npy", "entities": "names.txt"}


def no_mention(folder: Path) -> dict[str, Any]:
    (folder / "t.tsv").write_text("e0\tone\ne1\ttwo\n")
    return {"kind": "mentions", "names": ["t.tsv"]}


def nothing_similar(folder: Path) -> dict[str, Any]:
    (folder / "t.tsv").write_text("e0\tone\ne1\ttwo\n")
    return {"kind": "similar", "paths": ["t.tsv"]}


EMPTY = [
    *(no_word, strangers, empty_texts, bad_numbers, no_numbers, nan_vectors),
    *(vectors_of_strangers, no_mention, nothing_similar),
]


@pytest.mark.parametrize("make", EMPTY)
def test_it_is_left_out_with_a_note(make: Callable, tmp_path: Path) -> None:
    table = make(tmp_path)
    graph = mocme.load(graph_with(tmp_path, table))
    features = read_inputs(graph, Experiment.load("default"))
    assert features.names == []
    (note,) = [note for note in features.notes if note.startswith("x: is left out")]
    assert "nothing can be made of it" in note
    assert str(tmp_path) in note
    assert note in audit(graph, ranked=False).notes
    # What an experiment asks for itself is not left out.
    for asked in ({"data.only": ["x"]}, {"modalities.x": table}):
        with pytest.raises(EmptyModality, match="x: the experiment asks for it"):
            read_inputs(graph, Experiment.load("default", asked))


@pytest.mark.parametrize(
    "table",
    [
        {"kind": "words", "paths": ["t.tsv"]},
        {"kind": "numeric", "paths": ["t.tsv"], "attributes": ["2"]},
        {"kind": "bins", "paths": ["t.tsv"], "attributes": ["2"]},
    ],
)
def test_what_could_not_be_encoded_is_left_out_too(table: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("e0\tone\ne1\ttwo\ne2\tthree\n")
    folder = graph_with(tmp_path, table, "encode")
    with pytest.raises(ValueError, match="make it with: mocme encode all"):
        read_inputs(mocme.load(folder), Experiment.load("default"))
    with pytest.raises(EncodingError, match=r"t.tsv: ") as caught:
        encode(folder)
    graph = mocme.load(folder)
    features = read_inputs(graph, Experiment.load("default"))
    (note,) = [note for note in features.notes if note.startswith("x: is left out")]
    assert str(caught.value).splitlines()[0] in note
    assert note in audit(graph, ranked=False).notes
    # A report of someone else does not count.
    (report,) = folder.rglob("x.json")
    written = report.read_bytes()
    report.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="make it with: mocme encode all"):
        read_inputs(graph, Experiment.load("default"))
    report.write_bytes(written)
    # With other settings, it is to be encoded again.
    (folder / "graph.toml").write_text((folder / "graph.toml").read_text() + "delimiter = ';'\n")
    with pytest.raises(ValueError, match="make it with: mocme encode all"):
        read_inputs(mocme.load(folder), Experiment.load("default"))


RDF = "http://www.w3.org/2000/01/rdf-schema#label"


@pytest.mark.parametrize("entities", [2, 40])
def test_training_takes_what_an_import_wrote(entities: int, tmp_path: Path) -> None:
    """Labels of which no word repeats: all that follows a training works without them."""
    lines = []
    for n in range(entities):
        lines.append(f"<http://e/{n}> <http://e/p> <http://e/{(n + 1) % entities}> .\n")
        lines.append(f'<http://e/{n}> <{RDF}> "SKU{n:05}" .\n')
    source = tmp_path / "labels.nt"
    source.write_text("".join(lines))
    import_recipe(Recipe.of_facts(str(source)), tmp_path / "graph")
    run = mocme.train(tmp_path / "graph", out=tmp_path / "run", settings=SMALL, device="cpu")
    (note,) = [note for note in run.folder.about["notes"] if "is left out" in note]
    assert "no word occurs in 3 entities or more" in note
    assert run.folder.about["modalities"] == []
    predictor = mocme.open(run.path, device="cpu")
    assert len(predictor.tails("http://e/0", "http://e/p", 1, "mark")) == 1
    assert str(predictor.explain("http://e/0", "http://e/p", "http://e/1"))
    added = run.add("new", [("new", "http://e/p", "http://e/0")], device="cpu")
    assert added.name in mocme.open(run.path, device="cpu").graph.entities


def test_a_recipe_of_three_texts_trains(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("head,relation,tail\na,r,b\nb,r,c\nc,r,a\na,r,c\n")
    (tmp_path / "t.csv").write_text("id,text\na,one\nb,two\nc,three\n")
    text = '[[facts]]\npath = "f.csv"\n[[texts]]\nname = "x"\npath = "t.csv"\nentity = "id"\n'
    (tmp_path / "r.toml").write_text(f'{text}column = "text"\n[split]\nvalid = 0.25\n')
    import_recipe(tmp_path / "r.toml", tmp_path / "graph")
    words = ["train", "--data", tmp_path / "graph", "--out", tmp_path / "run", "--device", "cpu"]
    sets = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(main, [str(word) for word in (*words, *sets)])
    assert result.exit_code == 0, result.output
    assert result.output.replace("\n", " ").count("x: is left out") == 1
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path / "run"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
