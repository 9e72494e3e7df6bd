"""The command line, run as a user would: train, evaluate, predict, and every kind of mistake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import tomli_w
from click.testing import CliRunner, Result

import mocme
from mocme import cli
from mocme.cli import demonstration
from mocme.cli.train import kept_epochs

SMALL = (
    "--set",
    "experts.embedding.training.epochs=2",
    "--set",
    "experts.embedding.embedding_dim=16",
    "--threads",
    "1",
)


def call(*words: object) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    result = call("train", "structure", "--data", "atlas", "--out", out, "--seed", 3, *SMALL)
    assert result.exit_code == 0, result.output
    assert f"run written to {out}" in result.stdout
    assert "epoch   2 of 2" in result.stderr
    assert "train.tsv" in result.stderr  # the report on every line of the input
    return out


def test_evaluate_prints_json_with_metrics_at_the_top(run: Path) -> None:
    result = call("evaluate", run, "--split", "test", "--json")
    assert result.exit_code == 0, result.output
    metrics = json.loads(result.stdout)
    assert 0 < metrics["mrr"] < 1
    assert 0 < metrics["hits@10"] < 1
    assert metrics["seed"] == 3
    assert metrics["experiment"] == "structure"
    assert metrics["optimistic"]["mrr"] >= metrics["mrr"] >= metrics["pessimistic"]["mrr"]
    parts = metrics["by"]["answer"]
    assert sum(part["count"] for part in parts.values()) == metrics["count"]


def test_every_test_evaluation_is_counted(run: Path) -> None:
    before = json.loads(call("evaluate", run, "--split", "test", "--json").stdout)
    after = call("evaluate", run, "--split", "test")
    assert f"test evaluation number {before['evaluations_of_this_split'] + 1}" in after.stdout
    assert "unseen in training" in after.stdout


def test_predict_by_head_and_by_tail(run: Path) -> None:
    table = call("predict", run, "--head", "Chad", "-r", "borders", "-k", 3)
    assert table.exit_code == 0, table.output
    assert "(Chad, borders, ?)" in table.stdout
    answers = json.loads(
        call("predict", run, "--tail", "Africa", "-r", "continent", "--json").stdout
    )["predictions"]
    assert len(answers) == 10
    assert {answer["tail"] for answer in answers} == {"Africa"}
    assert not any(answer["known"] for answer in answers)
    scores = [answer["score"] for answer in answers]
    assert scores == sorted(scores, reverse=True)


def test_known_facts_can_be_marked(run: Path) -> None:
    words = ("predict", run, "--tail", "Africa", "-r", "continent", "-k", 200, "--json")
    marked = json.loads(call(*words, "--known", "mark").stdout)["predictions"]
    assert any(item["known"] for item in marked)


def test_experiments_are_listed() -> None:
    assert "structure/mkg-y" in call("experiments").stdout
    assert "mocme" in json.loads(call("experiments", "--json").stdout)


def test_benchmarks_are_listed() -> None:
    table = call("fetch")
    assert table.exit_code == 0, table.output
    assert "defects as published" in table.stdout
    names = json.loads(call("fetch", "--list", "--json").stdout)
    assert len(names) >= 7
    assert all(name in table.stdout for name in names)


def test_own_data_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    facts = "Ada\tknows\tBob\nBob\tknows\tCleo\nCleo\tlives in\tRome\n\nbroken line\n"
    (tmp_path / "g" / "train.tsv").write_text(facts)
    out = tmp_path / "run"
    result = call("train", "default", "--data", tmp_path / "g", "--out", out, *SMALL)
    assert result.exit_code == 0, result.output
    assert "line 5" in result.stderr
    answer = call("predict", out, "--head", "Ada", "-r", "lives in")
    assert answer.exit_code == 0, answer.output
    assert "Rome" in answer.stdout


def test_resume_of_a_finished_run_changes_nothing(run: Path) -> None:
    before = (run / "experts/embedding.safetensors").read_bytes()
    result = call("resume", run)
    assert result.exit_code == 0
    assert "already finished after 2 epochs" in result.stdout
    assert (run / "experts/embedding.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "nonsense", "--out", "OUT"), "no such experiment"),
        (
            ("train", "mocme", "--out", "OUT", "--set", "experts.embedding.training.passez=1"),
            "experts.embedding.training.passez",
        ),
        (
            ("train", "mocme", "--out", "OUT", "--set", "experts.embedding.training.epochs"),
            "path=value",
        ),
        (("train", "mocme", "--out", "OUT", "--data", "nowhere"), "nowhere"),
        (("train", "mocme", "--out", "OUT", "--device", "tpu"), "device must be"),
        (("train", "mocme", "--out", "OUT", "--threads", "0"), "threads"),
        (("train", "structure", "--out", "RUN"), "RUN"),
        (("evaluate", "nowhere"), "nowhere"),
        (("predict", "RUN", "--head", "Chadd", "-r", "borders"), "did you mean 'Chad'"),
        (("predict", "RUN", "--head", "Chad", "-r", "border"), "'borders'"),
        (("predict", "RUN", "--head", "Chad", "-r", "borders", "-k", "1001"), "1000"),
    ],
)
def test_mistakes_are_explained(
    run: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    paths = {"RUN": str(run), "OUT": str(tmp_path / "out")}
    result = call(*(paths.get(word, word) for word in words))
    assert result.exit_code == 1
    assert "Error: " in result.stderr
    assert paths.get(message, message) in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_question_has_two_names_or_one_entity(run: Path) -> None:
    for words in (
        ("--head", "Chad", "--tail", "Niger", "-r", "borders"),
        ("--head", "Chad"),
        ("--about", "Chad", "-r", "borders"),
    ):
        result = call("predict", run, *words)
        assert result.exit_code == 2
        assert "give two of --head, --relation and --tail, or --about alone" in result.stderr
    result = call("predict", run, "--about", "Chad", "--among", "observed")
    assert "is for a question with a --relation" in result.stderr


def test_predict_about_an_entity_and_between_two(run: Path) -> None:
    missing = json.loads(call("predict", run, "--about", "Chad", "-k", 7, "--json").stdout)
    items = missing["predictions"]
    assert len(items) == 7
    assert all("Chad" in (i["head"], i["tail"]) for i in items)
    assert all(0 < i["probability"] <= 1 and 0 < i["applies"] <= 1 for i in items)
    words = ("predict", run, "--head", "Chad", "--tail", "Niger", "--json")
    relations = json.loads(call(*words, "--known", "mark").stdout)["predictions"]
    assert ("borders", True) in [(i["relation"], i["known"]) for i in relations]
    assert "borders" not in [i["relation"] for i in json.loads(call(*words).stdout)["predictions"]]
    assert all(i["linked"] == ["borders"] for i in relations if i["relation"] != "borders")
    none = call("predict", run, "--about", "Chad", "--min-probability", 1)
    assert none.stdout.startswith("what is missing about Chad: nothing new is left")
    table = call("predict", run, "--about", "Chad").stdout
    assert "applies" in table
    assert "probability" in table


def test_facts_of_a_file_are_scored(run: Path, tmp_path: Path) -> None:
    facts = tmp_path / "facts.tsv"
    facts.write_text("Chad\tborders\tNiger\n\nChad\tborders\tFrance\n")
    items = json.loads(call("score", run, facts, "--json").stdout)["predictions"]
    assert [(i["tail"], i["known"]) for i in items] == [("Niger", True), ("France", False)]
    facts.write_text("Chad\tborders\tNiger\n# a comment\nChad\tborders\tFrnace\n")
    result = call("score", run, facts)
    assert result.exit_code == 1
    assert "facts.tsv: line 3: " in result.stderr
    assert "did you mean 'France'" in result.stderr
    facts.write_text("Chad\tborders\n")
    assert "every line must be a fact of three names" in call("score", run, facts).stderr


def test_embeddings_are_exported(run: Path, tmp_path: Path) -> None:
    result = call("export-embeddings", run, "-o", tmp_path / "vectors")
    assert result.exit_code == 0, result.output
    files = [Path(line) for line in result.stdout.split()]
    assert {file.name for file in files} == {
        *("entities.npy", "entities.txt", "relations.npy", "relations.txt")
    }
    assert all(file.is_file() for file in files)


def test_embeddings_of_another_expert_are_exported(tmp_path: Path) -> None:
    small = {"kind": "embedding", "training": {"epochs": 1}}
    experts = [
        {**small, "name": "complex", "embedding_dim": 16},
        {**small, "name": "distmult", "embedding_dim": 8, "scorer": {"kind": "DistMult"}},
    ]
    file = tmp_path / "two.toml"
    file.write_text(tomli_w.dumps({"experts": experts}))
    trained = call("train", file, "--data", "atlas", "--out", tmp_path / "run", "--device", "cpu")
    assert trained.exit_code == 0, trained.output
    run = mocme.Run.open(tmp_path / "run")
    predictor = run.predictor("cpu")
    for words, name, width in (((), "complex", 16), (("--expert", "distmult"), "distmult", 8)):
        result = call("export-embeddings", run.path, "-o", tmp_path / name, *words)
        assert result.exit_code == 0, result.output
        entities, relations = (
            np.load(tmp_path / name / f"{file}.npy") for file in ("entities", "relations")
        )
        assert entities.shape == (predictor.graph.num_entities, width)
        np.testing.assert_array_equal(entities, predictor.embeddings(name)[0].numpy())
        np.testing.assert_array_equal(relations, predictor.embeddings(name)[1].numpy())
    refused = call("export-embeddings", run.path, "-o", tmp_path / "none", "--expert", "rules")
    assert refused.exit_code == 1
    assert "the run has no expert 'rules'; it has complex, distmult" in refused.stderr
    assert not (tmp_path / "none").exists()


def test_the_kept_epoch_of_each_expert_is_told() -> None:
    log = [
        {"expert": "one", "epoch": 1, "valid": {"mrr": 0.5}},
        {"expert": "one", "epoch": 2, "valid": {"mrr": 0.25}},
        {"expert": "two", "epoch": 1},
        {"expert": "two", "epoch": 2, "valid": {"mrr": 0.75}},
        {"expert": "two", "epoch": 3, "valid": {"mrr": 0.125}},
    ]
    first, second, rules = {"best_epoch": 1}, {"best_epoch": 2}, {"seconds": 1.0}
    assert kept_epochs({"one": first}, log) == ["kept epoch 1 (valid MRR 0.5000)"]
    assert kept_epochs({"one": {"best_epoch": 2}, "rules": rules}, log) == []
    assert kept_epochs({"one": first, "two": second, "rules": rules}, log) == [
        "kept epoch 1 of one (valid MRR 0.5000)",
        "kept epoch 2 of two (valid MRR 0.7500)",
    ]


def test_a_calibration_is_shown(run: Path) -> None:
    table = call("calibrate", run)
    assert "error of candidates at 1 % or more" in " ".join(table.stdout.split())
    record = json.loads(call("calibrate", run, "--json").stdout)
    assert record["after"]["error_of_likely"] < record["before"]["error_of_likely"]


def test_a_run_that_cannot_be_calibrated_does_not_mention_calibration(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.tsv").write_text("a\tr\tb\nb\tr\tc\nc\ts\ta\n")
    few = (
        "--set",
        "experts.embedding.training.epochs=1",
        "--set",
        "experts.embedding.embedding_dim=4",
    )
    trained = call(
        "train", "structure", "--data", tmp_path / "data", "--out", tmp_path / "run", *few
    )
    assert trained.exit_code == 0, trained.output
    answers = call("predict", tmp_path / "run", "--head", "a", "--relation", "r")
    assert answers.exit_code == 0
    assert "(a, r, ?)" in answers.stdout
    assert "calibrating" not in answers.stderr


@pytest.mark.parametrize("flag", [(), ("--seed", "7")])
def test_demo_runs_the_demonstration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: tuple[str, ...]
) -> None:
    calls: list[tuple[Path, int, str]] = []
    monkeypatch.setattr(demonstration, "run", lambda *given: calls.append(given))
    result = call("demo", "--out", tmp_path, *flag, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert calls == [(tmp_path, 7 if flag else 0, "cpu")]


# -- names and help of the commands --------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("check", "score"),
        ("mine", "complete"),
        ("vectors", "export-embeddings"),
        ("bench", "benchmark"),
        ("add", "entities add"),
        ("additions", "entities list"),
        ("remove", "entities remove"),
    ],
)
@pytest.mark.parametrize("more", [(), ("RUN",), ("--help",)])
def test_an_old_name_of_a_command_is_an_error_that_gives_the_new_one(
    old: str, new: str, more: tuple[str, ...]
) -> None:
    result = call(old, *more)
    assert result.exit_code == 2
    assert f"mocme {old} is now: mocme {new}" in result.stderr
    assert call(*new.split(), "--help").exit_code == 0


def test_an_unknown_command_is_an_error() -> None:
    result = call("minne")
    assert result.exit_code == 2
    assert "No such command 'minne'" in result.stderr


def test_commands_are_listed_in_the_order_of_use() -> None:
    section = call("--help").stdout.partition("Commands:\n")[2]
    assert re.findall(r"^  (\S+)", section, re.MULTILINE) == [
        *("train", "resume", "tune", "evaluate", "benchmark", "predict", "explain", "score"),
        *("calibrate", "complete", "export-embeddings", "serve", "entities", "import", "export"),
        *("encode", "audit", "fetch", "experiments", "demo"),
    ]


def test_every_command_and_option_has_a_description() -> None:
    context = click.Context(cli.main)

    def check(command: click.Command, path: str) -> None:
        assert command.get_short_help_str(), path
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                member = command.get_command(context, name)
                assert member is not None, name
                check(member, f"{path} {name}")
            return
        for option in command.params:
            if isinstance(option, click.Option) and option.name != "split":
                assert option.help, f"{path} {option.opts[0]}"

    check(cli.main, "mocme")


@pytest.fixture(scope="module")
def light_commands() -> list[str]:
    """The commands whose help needs no encoder."""
    return [name for name in cli.main.commands if name != "encode"]


def test_help_does_not_import_torch(light_commands: list[str]) -> None:
    """Of `mocme` and of every command but `encode`, whose help describes the encoders."""
    code = (
        "import sys\n"
        "from mocme.cli import main\n"
        "for words in eval(sys.argv[1]):\n"
        "    main([*words, '--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'scipy', 'sklearn', 'numpy', 'pandas'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)\n"
    )
    words = [[], *([name] for name in light_commands)]
    words += [["entities", name] for name in ("add", "list", "remove")]
    process = subprocess.run(
        [sys.executable, "-c", code, repr(words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("Usage: ") == len(words)


def test_a_reader_that_stops_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        command = [sys.executable, "-m", "mocme.cli", "experiments", "--json"]
        process = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert process.stderr == ""
