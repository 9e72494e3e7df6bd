"""Experiments extend, override, are checked, and are written out in full."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from mocme.core.registry import ConfigError
from mocme.data.features.sources import Source
from mocme.data.graph import Graph
from mocme.data.modality import Modality, Tokens
from mocme.runs.config import Experiment, custom_code
from mocme.runs.experiment_files import find, merge, parse_override, read, shipped


class Own(Source):
    """A source of the user's own."""

    def __init__(self, *, level: int = 3) -> None:
        self.level = level

    def load(self, graph: Graph, folder: Path) -> tuple[Modality | Tokens, list[str]]:
        raise NotImplementedError


def toml(folder: Path, **files: str) -> Path:
    """Write files; gives the last one."""
    for name, text in files.items():
        path = folder / f"{name}.toml"
        path.write_text(text)
    return path


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_experiment_loads_and_comes_back(name: str) -> None:
    experiment = Experiment.load(name)
    assert experiment.name == name
    assert experiment.description
    text = experiment.text()
    again = Experiment.of(name, tomllib.loads(text))
    assert again == experiment
    assert again.text() == text
    assert Experiment.load(experiment.table()).table() == experiment.table()
    assert experiment.custom_code() == []
    # By its path, from wherever the file lies, it is the same experiment.
    assert Experiment.load(shipped()[name]) == experiment


def test_there_are_experiments_and_the_default_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {"default", "mocme", "structure", "tokens"} <= set(shipped())
    monkeypatch.chdir(tmp_path)
    assert find("experiments/structure/mkg-y.toml") == shipped()["structure/mkg-y"]


def test_defaults_are_written_out() -> None:
    table = Experiment.load({"experts": [{"kind": "embedding"}]}).table()
    (embedding,) = table["experts"]
    assert embedding["name"] == embedding["kind"] == "embedding"
    assert table["seed"] == 0
    assert table["mixture"]["kind"] == "Sum"
    assert table["evaluation"] == {"memory": 0.5}
    assert table["data"] == {"without": []}
    assert embedding["scorer"]["kind"] == "ComplEx"
    assert embedding["training"]["objective"]["loss"]["weighting"]["kind"]
    assert "expected" not in table
    assert "modalities" not in table


def test_a_file_extends_another(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        base='description = "base"\n[expected]\nmrr = 0.5\n[[experts]]\nkind = "embedding"\n'
        'embedding_dim = 8\nscorer = {kind = "TuckER"}\n[experts.training]\nepochs = 3\n'
        '[modalities.x]\nkind = "words"\npaths = ["a"]\nat_least = 9',
        middle='extends = "base.toml"\n[[experts]]\nkind = "embedding"\n'
        "[experts.training]\nbatch_size = 7\n"
        '[modalities.x]\nkind = "numbers"\npath = "n"',
        leaf='extends = "middle.toml"\n[[experts]]\nname = "embedding"\n'
        'scorer = {kind = "ComplEx"}\n[expected]\nmrr = 0.6',
    )
    table = read(path)
    assert "extends" not in table
    assert "description" not in table
    assert table["expected"] == {"mrr": 0.6}
    assert table["experts"]["embedding"] == {
        "kind": "embedding",
        "embedding_dim": 8,
        "scorer": {"kind": "ComplEx"},
        "training": {"epochs": 3, "batch_size": 7},
    }
    # Another kind replaces the table whole: `at_least` is no setting of numbers.
    assert table["modalities"]["x"] == {"kind": "numbers", "path": "n"}
    assert "expected" not in read(tmp_path / "middle.toml")
    experiment = Experiment.load(path)
    assert (experiment.name, experiment.description) == ("leaf", "")
    assert experiment.modalities["x"]["kind"] == "Numbers"


def test_merging_leaves_its_arguments_alone() -> None:
    base = {"a": {"kind": "X", "p": 1, "q": 2}, "b": {"p": [1], "q": 2}, "c": 1}
    change = {"a": {"kind": "X", "p": 3}, "b": {"p": [2]}, "c": {"d": 1}}
    merged = merge(base, change)
    assert merged == {"a": {"kind": "X", "p": 3, "q": 2}, "b": {"p": [2], "q": 2}, "c": {"d": 1}}
    assert base["a"] == {"kind": "X", "p": 1, "q": 2}
    assert merge(base, {"a": {"kind": "Y"}})["a"] == {"kind": "Y"}
    assert merge({"a": {"p": 1}}, {"a": {"kind": "Y"}})["a"] == {"kind": "Y"}


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"a": 'extends = "a.toml"'}, "a.toml: extends itself by way of a.toml"),
        ({"b": 'extends = "a.toml"', "a": 'extends = "b.toml"'}, "extends itself by way of b.toml"),
        ({"a": 'extends = "gone.toml"'}, "a.toml: extends 'gone.toml', which is neither"),
        ({"a": "extends = 3"}, "a.toml: extends 3, which is neither"),
        ({"a": "[data\n"}, "a.toml: not valid TOML"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, files: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Experiment.load(toml(tmp_path, **files))


def test_unknown_experiments_suggest_near_ones(tmp_path: Path) -> None:
    for name in ("structur/mkg-y", "experiments/structur/mkg-y.toml"):
        with pytest.raises(ConfigError, match="did you mean structure/mkg-y"):
            find(name)
    with pytest.raises(ConfigError, match="list them with: mocme experiments"):
        find(tmp_path / "zzzzzzzz.toml")


def test_overrides_by_dotted_path() -> None:
    own = {"kind": "embedding", "training": {"epochs": 3}, "scorer": {"kind": "ComplEx"}}
    table = {"experts": [own]}
    changes = {
        "experts.embedding.training.epochs": 5,
        "experts.embedding.training.objective.n3": 1,
        "experts.embedding.scorer.kind": "TuckER",
        "data.only": ["x"],
    }
    experiment = Experiment.load(table, changes)
    embedding = experiment.experts["embedding"]
    assert embedding["training"]["epochs"] == 5
    assert embedding["training"]["objective"]["n3"] == 1.0
    assert embedding["scorer"]["kind"] == "TuckER"
    assert experiment.data["only"] == ["x"]
    # The caller's table stays as it was.
    assert table == {
        "experts": [{"kind": "embedding", "training": {"epochs": 3}, "scorer": {"kind": "ComplEx"}}]
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"experts.embedding.training.epoch": 3},
            "experts.embedding.training.epoch: unknown setting; did you mean 'epochs'?",
        ),
        ({"expert.embedding": 3}, "expert: unknown setting; did you mean 'experts'?"),
        (
            {"experts.embedding.training.epochs": "3"},
            "experts.embedding.training.epochs: must be an integer, not '3'",
        ),
        ({"experts.embedding.training.epochs": 0}, "experts.embedding.training: epochs and batch"),
        (
            {"experts.embedding.training.epochs.x": 1},
            "experts.embedding.training.epochs: must be an integer",
        ),
        (
            {"experts.embedding.training.objective.loss.weighting.kind": "X"},
            "experts.embedding.training.objective.loss.weighting.kind",
        ),
        (
            {"experts.embedding.scorer": "ComplEx"},
            "experts.embedding.scorer: must be a table with a kind",
        ),
        (
            {"experts.embedding.scorer": {"kind": "TuckER", "relation_dim": 0}},
            "experts.embedding.scorer: relation_dim must be at least 1",
        ),
        (
            {"experts.embedding.scorer": {"kind": "TuckER", "relation_dm": 2}},
            "experts.embedding.scorer.relation_dm: unknown setting; did you mean 'relation_dim'?",
        ),
        ({"experts": 3}, "experts: must be a list of tables"),
        ({"experts": [{"embedding_dim": 3}]}, r"experts\[0\]: needs a kind"),
        ({"experts": [{"kind": "embedding"}] * 2}, "experts: two are named 'embedding'"),
        ({"experts.words": {"embedding_dim": 3}}, "experts.words.kind: 'words' is none of"),
        ({"mixture.experts": ["rules"]}, "mixture.experts: there is no expert 'rules'"),
        ({"mixture.kind": "Product"}, "mixture.kind: 'Product' is none of: Gate, Ranker, Sum"),
        ({"seed": "x"}, "seed: must be an integer"),
        ({"description": 3}, "description: must be a string"),
        ({"expected": 3}, "expected: must be a table"),
        ({"evaluation.memory": 0}, "evaluation: memory must be above 0"),
        ({"data.only": "x"}, "data.only: must be a list"),
        ({"modalities.x": 3}, "modalities.x: must be a table with a kind"),
        ({"modalities.x.paths": ["a"]}, "modalities.x: must be a table with a kind"),
        ({"modalities.x": {"kind": "words"}}, "modalities.x.paths: is missing"),
        ({"modalities.x": {"kind": "words", "paths": []}}, "modalities.x: paths must be a list"),
    ],
)
def test_wrong_settings_are_named_by_their_path(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        Experiment.load({"experts": [{"kind": "embedding"}]}, changes)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model.width", "experts.embedding.embedding_dim"),
        ("model.initial", "experts.embedding.init_std"),
        ("model.experts.count", "experts.embedding.views.count"),
        ("model.scorer.kind", "experts.embedding.scorer.kind"),
        ("model.scorer.relation_width", "experts.embedding.scorer.relation_dim"),
        ("model.patterns", "experts.rules"),
        ("training.passes", "experts.embedding.training.epochs"),
        ("training.batch", "experts.embedding.training.batch_size"),
        ("training.seed", "seed"),
        ("training.optimizer.tables", "experts.embedding.training.optimizer.embedding_lr"),
        ("training.optimizer.dense", "experts.embedding.training.optimizer.dense_lr"),
        ("training.objective.n3", "experts.embedding.training.objective.n3"),
    ],
)
def test_a_setting_of_the_first_version_is_an_error_that_names_the_new_one(
    old: str, new: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{old}: is now {new} "):
        Experiment.load("structure", {old: 1})


def test_an_experiment_without_an_expert_is_refused() -> None:
    with pytest.raises(ConfigError, match="an experiment needs at least one"):
        Experiment.load({})
    with pytest.raises(ConfigError, match="an experiment needs at least one"):
        Experiment.load("structure", {"mixture.experts": []})


def test_a_path_of_a_kind_sets_every_expert_of_the_kind() -> None:
    table = {
        "experts": [
            {"name": "a", "kind": "embedding", "embedding_dim": 8},
            {"name": "b", "kind": "embedding", "embedding_dim": 8, "training": {"epochs": 5}},
            {"kind": "rules"},
        ]
    }
    both = Experiment.load(table, {"experts.embedding.training.epochs": 3})
    assert [both.experts[n]["training"]["epochs"] for n in "ab"] == [3, 3]
    assert list(both.experts) == ["a", "b", "rules"]
    one = both.changed({"experts.b.training.epochs": 4})
    assert [one.experts[n]["training"]["epochs"] for n in "ab"] == [3, 4]
    # A name is meant before a kind.
    named = {"experts": [*table["experts"], {"kind": "embedding", "embedding_dim": 8}]}
    changed = Experiment.load(named, {"experts.embedding.embedding_dim": 16})
    assert [changed.experts[n]["embedding_dim"] for n in ("a", "b", "embedding")] == [8, 8, 16]
    # What is neither adds an expert.
    assert list(Experiment.load(table, {"experts.prior": {}}).experts) == [*"ab", "rules", "prior"]
    with pytest.raises(ConfigError, match=r"experts\.a\.training\.passez"):
        Experiment.load(table, {"experts.embedding.training.passez": 3})


def test_experts_of_one_kind_have_names_of_their_own() -> None:
    small = {"kind": "embedding", "name": "small", "embedding_dim": 4}
    experiment = Experiment.load({"experts": [{"kind": "embedding"}, small]})
    assert list(experiment.components().experts) == ["embedding", "small"]
    assert experiment.components() is experiment.components()
    changed = experiment.changed({"experts.small.embedding_dim": 6, "experts.rules": {}})
    assert changed.experts["small"]["embedding_dim"] == 6
    assert changed.experts["embedding"]["embedding_dim"] == 256
    assert changed.experts["rules"]["kind"] == "rules"
    assert list(changed.changed({"mixture.experts": ["small"]}).components().experts) == ["small"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("experts.embedding.training.epochs=3", ("experts.embedding.training.epochs", 3)),
        (" a.b = 1e-3", ("a.b", 0.001)),
        ("a=[1, 2]", ("a", [1, 2])),
        ("a={kind = 'X'}", ("a", {"kind": "X"})),
        ("a=true", ("a", True)),
        ("a=Adam", ("a", "Adam")),
        ("a='3'", ("a", "3")),
        ("a=b=c", ("a", "b=c")),
        ("a=", ("a", "")),
    ],
)
def test_overrides_as_text(text: str, expected: tuple[str, Any]) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["experts.embedding.training.epochs", "=3", " = 3"])
def test_overrides_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="write it as path=value"):
        parse_override(text)


def test_an_override_is_one_value() -> None:
    path, value = parse_override("a=1\nb = 2")
    assert (path, value) == ("a", "1\nb = 2")


def test_modalities_are_chosen_by_name() -> None:
    tables = {"x": 1, "y": 2, "z": 3}

    def chosen(**data: Any) -> list[str]:
        return list(
            Experiment.load(
                "structure",
                {"data.only": None} | {f"data.{key}": value for key, value in data.items()},
            )
            .components()
            .data.choose(tables)
        )

    assert chosen() == ["x", "y", "z"]
    assert chosen(without=["y"]) == ["x", "z"]
    assert chosen(only=[]) == []
    assert chosen(only=["z", "x"], without=["x"]) == ["z"]
    for data in ({"only": ["w"]}, {"without": ["w"]}):
        with pytest.raises(ConfigError, match="'w' is not declared; declared: x, y, z"):
            chosen(**data)


def test_code_of_the_users_own_is_found_without_importing_it() -> None:
    kind = f"{__name__}:Own"
    table = {"modalities": {"x": {"kind": kind}}, "experts": [{"kind": "rules"}]}
    with pytest.raises(ConfigError, match=r"modalities.x.kind: .*:Own' is code.* --trust-code"):
        Experiment.load(table)
    experiment = Experiment.load(table, trust_code=True)
    assert experiment.modalities["x"] == {"kind": kind, "level": 3}
    assert experiment.custom_code() == custom_code(table) == [kind]
    embedding = {"kind": "embedding", "scorer": {"kind": "absent_module:Scorer"}}
    absent = {"experts": [embedding, {"kind": "scores", "function": "b:b"}]}
    assert custom_code(absent) == ["absent_module:Scorer", "b:b"]
    with pytest.raises(
        ConfigError, match=r"experts.embedding.scorer.kind: 'absent_module:Scorer' cannot be"
    ):
        Experiment.load({"experts": [embedding]}, trust_code=True)


@pytest.mark.parametrize("base", ["mocme", "mocme.toml", "structure/mkg-y"])
def test_a_file_anywhere_extends_a_shipped_experiment(tmp_path: Path, base: str) -> None:
    path = toml(
        tmp_path,
        own=f'extends = "{base}"\n[[experts]]\nkind = "embedding"\ntraining = {{epochs = 7}}\n',
    )
    named = Experiment.load(base.removesuffix(".toml"))
    own = Experiment.load(path)
    training = own.experts["embedding"]["training"]
    assert training["epochs"] == 7
    changed = {**named.experts["embedding"]["training"], "epochs": 7}
    assert own.experts["embedding"] == {**named.experts["embedding"], "training": changed}
