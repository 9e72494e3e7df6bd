"""The command line, run as a user would: train, evaluate, predict, and every kind of mistake."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mocme import cli

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
    assert "pass   2 of 2" in result.stderr
    assert "train.tsv" in result.stderr  # what became of every line of the input
    return out


def test_evaluate_prints_json_with_metrics_at_the_top(run: Path) -> None:
    result = call("evaluate", run, "--split", "test", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert 0 < found["mrr"] < 1
    assert 0 < found["hits@10"] < 1
    assert found["seed"] == 3
    assert found["experiment"] == "structure"
    assert found["optimistic"]["mrr"] >= found["mrr"] >= found["pessimistic"]["mrr"]
    parts = found["by"]["answer"]
    assert sum(part["count"] for part in parts.values()) == found["count"]


def test_every_test_evaluation_is_counted(run: Path) -> None:
    before = json.loads(call("evaluate", run, "--split", "test", "--json").stdout)
    after = call("evaluate", run, "--split", "test")
    assert f"test evaluation number {before['evaluations_of_this_split'] + 1}" in after.stdout
    assert "unseen in training" in after.stdout


def test_predict_by_head_and_by_tail(run: Path) -> None:
    table = call("predict", run, "--head", "Chad", "-r", "borders", "-k", 3)
    assert table.exit_code == 0, table.output
    assert "(Chad, borders, ?)" in table.stdout
    found = json.loads(call("predict", run, "--tail", "Africa", "-r", "continent", "--json").stdout)
    assert len(found["predictions"]) == 10
    assert {item["tail"] for item in found["predictions"]} == {"Africa"}
    assert not any(item["known"] for item in found["predictions"])
    scores = [item["score"] for item in found["predictions"]]
    assert scores == sorted(scores, reverse=True)


def test_known_facts_can_be_marked(run: Path) -> None:
    words = ("predict", run, "--tail", "Africa", "-r", "continent", "-k", 200, "--json")
    marked = json.loads(call(*words, "--known", "mark").stdout)["predictions"]
    assert any(item["known"] for item in marked)


def test_experiments_are_listed() -> None:
    assert "structure/mkg-y" in call("experiments").stdout
    assert "mocme" in json.loads(call("experiments", "--json").stdout)


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
    assert call("resume", run).exit_code == 0
    assert (run / "experts/embedding.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
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
    run: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    places = {"RUN": str(run), "OUT": str(tmp_path / "out")}
    result = call(*(places.get(word, word) for word in words))
    assert result.exit_code == 1
    assert "Error: " in result.stderr
    assert places.get(said, said) in result.stderr
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


def test_the_other_questions(run: Path) -> None:
    found = json.loads(call("predict", run, "--about", "Chad", "-k", 7, "--json").stdout)
    assert len(found["predictions"]) == 7
    assert all("Chad" in (i["head"], i["tail"]) for i in found["predictions"])
    assert all(0 < i["probability"] <= 1 and 0 < i["applies"] <= 1 for i in found["predictions"])
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


def test_facts_of_a_file_are_checked(run: Path, tmp_path: Path) -> None:
    facts = tmp_path / "facts.tsv"
    facts.write_text("Chad\tborders\tNiger\n\nChad\tborders\tFrance\n")
    found = json.loads(call("check", run, facts, "--json").stdout)["predictions"]
    assert [(i["tail"], i["known"]) for i in found] == [("Niger", True), ("France", False)]
    facts.write_text("Chad\tborders\tNiger\n# a comment\nChad\tborders\tFrnace\n")
    said = call("check", run, facts)
    assert said.exit_code == 1
    assert "facts.tsv: line 3: " in said.stderr
    assert "did you mean 'France'" in said.stderr
    facts.write_text("Chad\tborders\n")
    assert "every line must be a fact of three names" in call("check", run, facts).stderr


def test_a_calibration_is_shown(run: Path) -> None:
    shown = call("calibrate", run)
    assert "error of candidates at 1 % or more" in " ".join(shown.stdout.split())
    record = json.loads(call("calibrate", run, "--json").stdout)
    assert record["after"]["error_of_likely"] < record["before"]["error_of_likely"]


def test_a_run_that_cannot_be_calibrated_tells_of_no_calibrating(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.tsv").write_text("a\tr\tb\nb\tr\tc\nc\ts\ta\n")
    few = (
        "--set",
        "experts.embedding.training.epochs=1",
        "--set",
        "experts.embedding.embedding_dim=4",
    )
    made = call("train", "structure", "--data", tmp_path / "data", "--out", tmp_path / "run", *few)
    assert made.exit_code == 0, made.output
    asked = call("predict", tmp_path / "run", "--head", "a", "--relation", "r")
    assert asked.exit_code == 0
    assert "(a, r, ?)" in asked.stdout
    assert "calibrating" not in asked.stderr
