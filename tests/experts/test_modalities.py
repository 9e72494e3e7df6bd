"""Which modalities an expert reads: the settings `modalities` and `forms`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import mocme
from mocme.core.registry import ConfigError, build
from mocme.data.modality import Features
from mocme.experts.base import DenseExpert, ExpertSettings
from mocme.inductive.new_entity import NewEntity
from mocme.runs.config import Experiment
from mocme.runs.run import Run
from mocme.runs.train import read_inputs
from mocme.storage import RunError, RunFolder
from small_experts import EMBEDDING, Case, World, all_queries, signal


@pytest.fixture(scope="module")
def world(
    tiny_graph: Callable, tiny_folder: Callable, tmp_path_factory: pytest.TempPathFactory
) -> World:
    """Vectors shape and sound, tokens word and tag, pairs near."""
    tiny = tiny_graph(tokens={"word": 6, "tag": 4})
    return World.of(tiny_folder(tmp_path_factory.mktemp("data"), tiny))


def part(world: World, **table: Any) -> list[str]:
    settings = build(ExpertSettings, table, "experts.one")
    return settings.features_of(world.features, "one").names


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ({"kind": "embedding"}, ["shape", "sound", "word", "tag"]),
        ({"kind": "embedding", "modalities": []}, []),
        ({"kind": "embedding", "modalities": ["tag", "shape"]}, ["shape", "tag"]),
        ({"kind": "embedding", "forms": ["tokens"]}, ["word", "tag"]),
        ({"kind": "embedding", "forms": ["dense"], "modalities": ["sound"]}, ["sound"]),
        ({"kind": "rules"}, ["near"]),
        ({"kind": "rules", "modalities": []}, []),
        ({"kind": "prior"}, []),
        ({"kind": "neighbours", "modalities": ["word"]}, ["word"]),
    ],
)
def test_settings_choose_modalities_in_the_order_of_the_graph(
    world: World, table: dict[str, Any], names: list[str]
) -> None:
    assert part(world, **table) == names


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"kind": "embedding", "modalities": ["smell"]},
            r"experts.one.modalities: there is no modality 'smell'; this training reads shape, "
            r"sound, word, tag, near",
        ),
        (
            {"kind": "embedding", "modalities": ["near"]},
            r"experts.one.modalities: 'near' has the form 'pairs', which this expert does not "
            r"read; it can read shape, sound, word, tag",
        ),
        (
            {"kind": "embedding", "modalities": ["word"], "forms": ["dense"]},
            r"'word' has the form 'tokens', .* it can read shape, sound",
        ),
        (
            {"kind": "rules", "forms": ["dense"]},
            r"experts.one.forms: rules cannot read 'dense'; it reads pairs",
        ),
        (
            {"kind": "prior", "modalities": ["word"]},
            r"experts.one.modalities: 'word' .* it can read none of the modalities",
        ),
    ],
)
def test_what_an_expert_cannot_read_is_refused(
    world: World, table: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        part(world, **table)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"forms\[0\]: 'sparse' is none of dense, tokens, pairs"):
        build(ExpertSettings, {"kind": "embedding", "forms": ["sparse"]}, "experts.one")


@pytest.mark.parametrize("table", [EMBEDDING, {"kind": "rules", "support": 1}])
def test_without_modalities_an_expert_is_that_of_a_graph_without_any(
    world: World, table: dict[str, Any]
) -> None:
    links = Case("one", {**table, "modalities": []})
    bare = Case("one", table, modalities=False)
    expert = world.fit(links)
    assert expert.reads == ("structure",)
    queries = all_queries(world.graph)
    assert torch.equal(signal(expert, queries), signal(world.fit(bare), queries))
    assert not torch.equal(signal(expert, queries), signal(world.fit(Case("one", table)), queries))


def test_rules_without_modalities_mine_over_links_only(world: World) -> None:
    rules = world.fit(Case("one", {"kind": "rules", "support": 1, "modalities": []})).model
    assert not any("near" in name for name in rules.relations.names)
    steps = [*rules.bodies.first.tolist(), *rules.bodies.second.tolist()]
    assert 0 <= max(steps) < 2 * world.graph.num_relations
    content = world.fit(Case("one", {"kind": "rules", "support": 1})).model
    assert any("near" in content.relations.names[step] for step in content.bodies.first.tolist())


def test_dropout_of_a_modality_that_is_not_read_is_an_error(world: World) -> None:
    table = {**EMBEDDING, "dropout": {"default": 0.2, "sound": 0.1}}
    world.fit(Case("one", table))
    with pytest.raises(ValueError, match=r"dropout.sound: .*does not read its vectors; it reads"):
        world.fit(Case("one", {**table, "modalities": ["shape"]}))


# -- in a run --------------------------------------------------------------------------------------


def several(**words: Any) -> dict[str, Any]:
    """Two embeddings and rules, each with its own modalities."""
    return {
        "experts": [
            {**EMBEDDING, "name": "links", "modalities": []},
            {**EMBEDDING, "name": "tags", "modalities": ["tag"], **words},
            {**EMBEDDING, "name": "vectors", "forms": ["dense"]},
            {"name": "paths", "kind": "rules", "support": 1, "modalities": []},
        ]
    }


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "several"
    return mocme.train(world.graph, several(), out=out, device="cpu")


def test_a_run_keeps_what_each_expert_reads(run: Run) -> None:
    contents = Run.open(run.path).contents("cpu")
    assert {expert.name: expert.reads for expert in contents.mixture.experts} == {
        "links": ("structure",),
        "tags": ("structure", "tag"),
        "vectors": ("structure", "shape", "sound"),
        "paths": ("structure",),
    }
    assert run.experiment.experts["links"]["modalities"] == []
    assert "modalities" not in run.experiment.experts["vectors"]


def test_a_run_notes_modalities_that_no_expert_reads(run: Run) -> None:
    (note,) = [note for note in run.about["notes"] if "no expert reads it" in note]
    assert note == (
        "word: no expert reads it, because the settings modalities and forms of links, tags, "
        "vectors leave it out"
    )


def test_a_modality_that_an_expert_names_must_exist(world: World, tmp_path: Path) -> None:
    out = tmp_path / "run"
    message = r"experts.tags.modalities: there is no modality 'smell'; .* shape, sound, word, tag"
    with pytest.raises(ConfigError, match=message):
        mocme.train(world.graph, several(modalities=["smell"]), out=out, device="cpu")
    assert not out.exists()
    with pytest.raises(ConfigError, match=r"there is no modality 'tag'"):
        mocme.train(world.graph, {**several(), "data": {"without": ["tag"]}}, out=out, device="cpu")


def test_notes_on_pairs_without_rules_and_with_rules_over_links(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mocme.runs.train.read_features", lambda *_, **__: world.features)

    def notes(*experts: dict[str, Any]) -> list[str]:
        inputs = read_inputs(world.graph, Experiment.load({"experts": list(experts)}))
        return [note for note in inputs.notes if note.startswith("near")]

    rules = {"kind": "rules", "support": 1}
    assert notes(EMBEDDING, rules) == []
    (note,) = notes(EMBEDDING)
    assert note.startswith("near: only rules read pairs of entities, and this experiment has no")
    (note,) = notes(EMBEDDING, {**rules, "modalities": []})
    assert note.startswith("near: no expert reads it, because the settings modalities and forms of")
    assert notes(EMBEDDING, {**rules, "name": "a", "modalities": []}, {**rules, "name": "b"}) == []


def test_a_configuration_that_names_another_modality_is_refused(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    text = (copy / "config.toml").read_text()
    assert text.count('"tag",\n') == 1
    RunFolder.open(copy).write_text("config.toml", text.replace('"tag",\n', '"smell",\n'))
    with pytest.raises(RunError, match=r"config.toml: experts.tags.modalities: .*'smell'"):
        Run.open(copy).contents("cpu")


def test_an_added_entity_gets_rows_where_something_of_it_is_read(run: Run) -> None:
    """A token alone is nothing to an embedding that does not read tokens."""
    contents = run.contents("cpu")
    tokens = contents.features.tokens["tag"].vocabulary[:2]
    new = [
        NewEntity("tagged", content={"tag": "\n".join(tokens)}),
        NewEntity("linked", facts=[("linked", "r0", "e1")]),
    ]
    tagged, linked = run.add_all(new, device="cpu")
    try:
        assert set(tagged.rows) == {"tags"}
        assert set(linked.rows) == {"links", "tags", "vectors"}
        extended = run.contents("cpu")
        queries = all_queries(extended.graph)
        for before, after in zip(contents.mixture.experts, extended.mixture.experts, strict=True):
            assert before.reads == after.reads
            if isinstance(after, DenseExpert):
                assert bool(signal(after, queries).isfinite().all())
    finally:
        run.remove("tagged", "linked")


def test_supporting_tokens_are_named_where_embeddings_read_different_ones(run: Run) -> None:
    """The embedding of tags numbers them from its own first vocabulary."""
    predictor = run.predictor("cpu")
    tag = run.features(run.graph()).tokens["tag"]
    held = {
        (f"e{entity}", tag.vocabulary[token])
        for entity, token in zip(tag.entity.tolist(), tag.token.tolist(), strict=True)
    }
    found = [
        support
        for head, relation, tail in run.graph().facts("valid").tolist()
        for support in predictor.explain(f"e{head}", f"r{relation}", f"e{tail}").supports
        if support.kind == "token"
    ]
    assert found
    assert all(support.relation == "tag" for support in found)
    assert {(support.head, support.tail) for support in found} <= held


def test_features_keep_their_order_and_notes(world: World) -> None:
    features = replace(world.features, notes=("a note",))
    only = features.only(["tag", "near", "shape"])
    assert only.names == ["shape", "tag", "near"]
    assert only.notes == ("a note",)
    assert Features().only(["shape"]).names == []


def test_reasons_name_their_expert_where_several_have_rules(world: World, tmp_path: Path) -> None:
    rules = {"kind": "rules", "support": 1}
    experts = [
        {**EMBEDDING, "modalities": []},
        {**rules, "name": "paths", "modalities": []},
        {**rules, "name": "more", "confidence": 0.001},
        {"kind": "neighbours"},
        {"kind": "prior"},
    ]
    run = mocme.train(world.graph, {"experts": experts}, out=tmp_path / "run", device="cpu")
    predictor = run.predictor("cpu")
    seen: set[str] = set()
    for head, relation, tail in world.graph.facts("train").tolist():
        explanation = predictor.explain(f"e{head}", f"r{relation}", f"e{tail}")
        seen |= {rule.name.partition(": ")[0] for rule in explanation.rules}
    assert seen == {"paths", "more", "neighbours", "prior"}
