"""Every shipped experiment trains a step on a tiny graph that has the modalities it names."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import mocme
from mocme.data.graph import Graph, Vocabulary
from mocme.data.modality import Modality
from mocme.runs.config import Experiment
from mocme.runs.experiment_files import read, shipped
from mocme.runs.train import read_inputs

ATLAS = Path(mocme.__file__).parent / "data" / "atlas" / "graph.toml"


def named(experiment: Experiment) -> set[str]:
    """Modalities that an experiment speaks of without declaring them: those of its graph."""
    data, experts = experiment.data, experiment.experts.values()
    dropout = {name for table in experts for name in table.get("dropout", ())}
    names = {*data["without"], *(data.get("only") or ()), *dropout}
    return names - {"default", "structure", *experiment.modalities}


def declared(experiment: Experiment) -> dict[str, Mapping[str, Any]]:
    """Tables of all modalities: the experiment's own, or those of the graph it was made for."""
    if experiment.modalities:
        assert not named(experiment), "an experiment that declares modalities names others"
        return dict(experiment.modalities)
    about = tomllib.loads(ATLAS.read_text())
    made = {name: encoded(name) for name in about["encode"]}
    tables = {**about["modalities"], **made}
    others = {
        name: {"kind": "vectors", "path": f"{name}.safetensors"} for name in named(experiment)
    }
    return {**others, **tables}


def encoded(name: str) -> dict[str, Any]:
    return {"kind": "encoded", "path": f"encoded/{name}.safetensors"}


def write_modality(folder: Path, table: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Files that a table of any kind can read, for two thirds of the entities."""
    chosen = names[: len(names) * 2 // 3]
    generator = torch.Generator().manual_seed(len(str(table)))
    kind = str(table["kind"]).lower()
    if kind == "mentions":
        write_mentions(folder, table, chosen)
        return
    if "vectors" in table:  # another modality's, which is written for it
        return
    paths = [folder / name for name in table.get("paths", [table.get("path")])]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "vectors" and path.suffix == ".safetensors":
            save_file({name: torch.randn(5, generator=generator) for name in chosen}, path)
        elif kind == "encoded":
            values = torch.randn(len(chosen), 5, generator=generator)
            modality = Modality(values, torch.arange(len(chosen)), len(names))
            tensors, metadata = modality.packed()
            save_file(tensors, path, {**metadata, "entities": Vocabulary(names).digest()})
        elif kind == "vectors":
            import numpy as np

            np.save(path, torch.randn(len(chosen), 5, generator=generator).numpy())
            (folder / table["entities"]).write_text("".join(f"{name}\n" for name in chosen))
        elif kind == "numbers" or kind == "bins":
            rows = [f"{name}\tsize\t{place / 3}\n" for place, name in enumerate(chosen)]
            path.write_text("".join(rows))
        elif kind in ("words", "similar"):
            columns = max(table.get("columns", (2,)))
            rows = [
                "\t".join([name, *[f"word{place // 4} of"] * (columns - 1)]) + "\n"
                for place, name in enumerate(chosen)
            ]
            path.write_text("".join(rows))
        else:
            raise AssertionError(f"modalities of kind {kind!r} need files here")


def write_mentions(folder: Path, table: Mapping[str, Any], chosen: tuple[str, ...]) -> None:
    """Names, every fourth within the next, and texts of which each is the next entity's name."""
    called = [f"name{place} of word{place // 4}" for place in range(len(chosen))]
    called[1::4] = [f"{name} again" for name in called[: len(called[1::4]) * 4 : 4]]
    own, name_columns = list(table.get("columns", (2,))), table.get("name_columns", (2,))
    texts = dict(zip(table.get("texts", ()), own * 10, strict=False))
    for file in {*table["names"], *texts}:
        columns = range(2, 1 + max(*name_columns, *own))
        rows = []
        for place, name in enumerate(chosen):
            following = called[(place + 1) % len(called)]
            cells = [following if texts.get(file) == c else called[place] for c in columns]
            rows.append("\t".join([name, *cells]) + "\n")
        (folder / file).write_text("".join(rows))


def last(table: Mapping[str, Any]) -> bool:
    """Whether others could read this table's files too, but not the other way about."""
    return str(table["kind"]).lower() == "mentions"


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_experiment_trains_a_step(
    name: str, tiny_graph: Callable, tiny_folder: Callable, tmp_path: Path
) -> None:
    experts = Experiment.load(name).experts
    embeddings = [expert for expert, table in experts.items() if table["kind"] == "embedding"]
    step = {"epochs": 1, "batch_size": 10_000, "precision": "float32"}
    small: dict[str, object] = {}
    for expert in embeddings:
        small[f"experts.{expert}.embedding_dim"] = 8
        small |= {f"experts.{expert}.training.{key}": value for key, value in step.items()}
    experiment = Experiment.load(name, small)
    tables = declared(experiment)
    tiny = tiny_graph(entities=30, dense={}, tokens={})
    folder = tiny_folder(tmp_path / "data", tiny)
    for table in sorted(tables.values(), key=last):
        write_modality(folder, table, tiny.graph.entities.names)
    loaded = mocme.load(folder)
    graph = Graph(loaded.entities, loaded.relations, loaded.splits, name, str(folder), tables)
    run = mocme.train(graph, experiment, out=tmp_path / "run", device="cpu")
    assert run.finished
    # With a learned mixture, experts are fitted without the held-out facts too.
    features, experts = run.features(graph), experiment.components().experts
    taken = {name: expert for name, expert in experts.items() if expert.takes_part(features)}
    fitted = sum(expert.kind_name() == "embedding" for expert in taken.values())
    assert len(run.log()) == fitted * (2 if run.about.get("held_out") else 1) >= 1
    for record in run.log():
        assert record["step"] == 1
        assert 0 < record["loss"] < 100
    # The run says what it used, and another one can be made of it.
    again = Experiment.load(tomllib.loads((run.path / "config.toml").read_text()))
    assert again.table() == {**experiment.table()}
    expected = [m for m in tables if m not in experiment.data["without"]]
    if (only := experiment.data.get("only")) is not None:
        expected = [m for m in expected if m in only]
    assert sorted(run.folder.about["modalities"]) == sorted(expected)
    result = run.evaluate("test", device="cpu")
    assert 0 < result["mrr"] <= 1
    mixture = run.mixture(graph, features, torch.device("cpu"))
    # So few facts are held out that all serve; an expert without a modality for it is left out.
    assert [expert.name for expert in mixture.experts] == list(taken)
    assert all("structure" in expert.reads for expert in mixture.experts)


@pytest.mark.parametrize(("name", "path"), shipped().items())
def test_a_shipped_experiment_says_what_it_is(name: str, path: Path) -> None:
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    assert len(table["description"]) > 20
    assert read(path)["description"] == table["description"]


def test_descriptions_are_distinct() -> None:
    said = [read(path)["description"] for path in shipped().values()]
    assert len(said) == len(set(said))


def test_there_are_experiments() -> None:
    assert {"default", "mocme", "structure"} <= set(shipped())


def test_a_modality_that_an_experiment_declares_and_leaves_out_is_noted(
    tiny_graph: Callable, tiny_folder: Callable, tmp_path: Path
) -> None:
    tiny = tiny_graph(dense={}, tokens={})
    folder = tiny_folder(tmp_path / "data", tiny)
    table = {"kind": "Words", "paths": ["t.tsv"], "at_least": 1, "at_most": 1.0}
    (folder / "t.tsv").write_text("".join(f"{e}\tword\n" for e in tiny.graph.entities.names))
    graph = mocme.load(folder)
    small = {"experts": [{"kind": "embedding"}], "modalities": {"said": table}}
    told = "said: the experiment declares it, and its [data] leaves it out"
    for data, noted in (({"only": []}, True), ({"without": ["said"]}, False), ({}, False)):
        found = read_inputs(graph, Experiment.load({**small, "data": data}))
        assert (told in found.notes) == noted
