"""Running a benchmark: identity, resumption, refusals, failures and the test log."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_benchmark import (
    COMMAND,
    TEXT,
    archive_of,
    call,
    figures,
    files_of,
    members,
    page_of,
    planned,
    remove_members,
    replace_member,
    results,
    run_benchmark,
)

from mocme.benchmark import runner
from mocme.benchmark.archive import ResultError
from mocme.benchmark.plan import InputDigests, identity, json_digest, matches
from mocme.benchmark.results import count_test_evaluations
from mocme.benchmark.worker import RunJob, attempt
from mocme.core.device import peak_memory
from mocme.core.interrupts import Interrupted


def test_a_benchmark_runs_once_and_its_results_say_what_was_run(home: Path) -> None:
    report = run_benchmark(home)
    assert (report.done, report.skipped, report.failures) == (4, 0, {})
    before = archive_of(home).path.read_bytes()
    assert len(members(home)) == 8  # a result and its ranks for each run, and no test evaluation
    again = run_benchmark(home)
    assert (again.done, again.skipped) == (0, 4)
    assert archive_of(home).path.read_bytes() == before
    assert not list((home / "runs").rglob("experts/embedding.safetensors"))
    result = results(home)["tokens/tiny/seed-1"]
    assert result["config"]["experts"][0]["embedding_dim"] == 8
    assert result["config"]["seed"] == result["seed"] == 1
    assert [record["epoch"] for record in result["training"]["epochs"]] == [1, 2, 3]
    assert set(result["splits"]) == {"valid"}
    assert result["splits"]["valid"]["by"]["direction"]
    assert result["peak_bytes"] is None  # unknown in a process that does other things


def test_stored_ranks_give_the_metrics_again(home: Path) -> None:
    run_benchmark(home)
    for stem, result in results(home).items():
        double_ranks = files_of(home, stem).read_ranks(result, "valid")
        assert double_ranks.dtype == np.int32
        assert np.mean(2 / double_ranks) == pytest.approx(
            result["splits"]["valid"]["mrr"], abs=1e-12
        )


class Stop:
    """Stops a training at a step as the death of its process does: nothing is saved."""

    def __init__(self, step: int) -> None:
        self.left = step

    def start(self, trainer: Any, run: Any) -> None:
        pass

    def record(self, record: Any) -> None:
        pass

    def stage(self, name: str) -> Callable[[int, int], None]:
        return lambda done, total: None

    def step(self, progress: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("steps", [0, 2, 7])
def test_a_stopped_run_resumes_to_the_same_figures(home: Path, steps: int) -> None:
    stop = Stop(steps)
    with pytest.raises(Interrupted, match="stopped at run"):
        run_benchmark(home, lambda job: attempt(job, stop))
    kept = members(home)
    run_benchmark(home)
    assert kept.items() <= members(home).items()
    resumed = figures(home)
    assert len(resumed) == 4
    (home / "results").rename(home / "stopped")
    run_benchmark(home)
    assert figures(home) == resumed


def test_a_benchmark_killed_between_and_within_runs_resumes(home: Path) -> None:
    text = TEXT.replace(
        '"experts.embedding.training.epochs" = 3', '"experts.embedding.training.epochs" = 60'
    )
    (home / "small.toml").write_text(text)
    words = [COMMAND, home / "small.toml", "--threads", "1", "--runs", home / "runs"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mocme.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[2/4]"):
            process.kill()
            break
    process.communicate()  # ends when the training has ended too, which shares this output
    first = "structure-only/tiny/seed-0"
    before = members(home)
    assert results(home)[first]["peak_bytes"]["ranked"] > 1 << 20
    report = run_benchmark(home)
    assert report.done + report.skipped == 4
    assert report.skipped >= 1
    assert before.items() <= members(home).items()


def test_a_finished_training_is_only_ranked(home: Path) -> None:
    run_benchmark(home, keep=True)
    models = {
        p: p.stat().st_mtime_ns for p in (home / "runs").rglob("experts/embedding.safetensors")
    }
    assert len(models) == 4
    complete = figures(home)
    remove_members(home, "tokens/tiny/seed-0.json")
    stop = Stop(0)
    report = run_benchmark(home, lambda job: attempt(job, stop), keep=True)
    assert (report.done, report.skipped) == (1, 3)
    assert figures(home) == complete
    assert {p: p.stat().st_mtime_ns for p in models} == models


def test_a_result_that_was_deleted_is_made_again_and_no_other(home: Path) -> None:
    run_benchmark(home)
    before, complete = members(home), figures(home)
    stem = "tokens/tiny/seed-0"
    remove_members(home, f"{stem}.json", f"{stem}.ranks.safetensors")
    report = run_benchmark(home)
    assert (report.done, report.skipped) == (1, 3)
    assert figures(home) == complete
    others = {name: content for name, content in before.items() if name != f"{stem}.json"}
    assert others.items() <= members(home).items()


def test_a_result_of_another_configuration_is_refused_before_anything_is_trained(
    home: Path,
) -> None:
    run_benchmark(home)
    before = archive_of(home).path.read_bytes()
    (home / "small.toml").write_text(TEXT.replace("[0, 1]", "[1, 2]").replace(" 8\n", " 16\n"))
    with pytest.raises(
        ResultError,
        match=r"seed-1\.json is the result of .*experts.embedding.embedding_dim is 16, .*zip -d",
    ):
        run_benchmark(home)
    assert archive_of(home).path.read_bytes() == before
    dry = call(home / "small.toml", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "seed 1: conflict" in dry.stdout
    assert "seed 2: to train" in dry.stdout


def test_a_result_from_before_a_setting_existed_counts_as_made_with_its_default(
    home: Path,
) -> None:
    run_benchmark(home)
    run = planned(home)[0]
    result = results(home)[run.files.stem]
    inputs = InputDigests(result["identity"]["graph"], result["identity"]["features"])
    del result["config"]["experts"][0]["init_std"]
    older = {
        **result,
        "identity": {**result["identity"], "settings": json_digest(result["config"])},
    }
    older["identity"]["digest"] = json_digest(
        {k: v for k, v in older["identity"].items() if k != "digest"}
    )
    replace_member(home, run.files.result_name, older)
    before = members(home)
    assert [status.state for status in runner.survey([run])] == ["done"]
    run_benchmark(home)
    assert members(home) == before
    other = identity(run.experiment.changed({"experts.embedding.init_std": 0.02}), inputs)
    assert matches(identity(run.experiment, inputs), older)
    assert not matches(other, older)
    # A configuration that was changed by hand does not have the digest that is stored.
    older["config"]["experts"][0]["embedding_dim"] = 10
    assert not matches(identity(run.experiment, inputs), older)


def test_a_precision_that_the_machine_chose_counts_as_asked_for(home: Path) -> None:
    run_benchmark(home)
    text = TEXT.replace(
        '"experts.embedding.embedding_dim"',
        '"experts.embedding.training.precision" = "PRECISION"\n"experts.embedding.embedding_dim"',
    )
    for precision, code in (("float32", 0), ("bfloat16", 1)):
        (home / "small.toml").write_text(text.replace("PRECISION", precision))
        result = call(home / "small.toml", "--render", page_of(home))
        assert result.exit_code == code, result.output
    assert "experts.embedding.training.precision is bfloat16, stored" in result.stderr


def test_a_training_of_another_configuration_is_refused(home: Path) -> None:
    stop = Stop(3)
    with pytest.raises(Interrupted):
        run_benchmark(home, lambda job: attempt(job, stop))
    (home / "small.toml").write_text(TEXT.replace(" 8\n", " 16\n"))
    with pytest.raises(ResultError, match=r"--runs"):
        run_benchmark(home)


def test_another_graph_under_the_same_name_is_refused(home: Path) -> None:
    run_benchmark(home)
    train = home / "tiny/train.tsv"
    train.write_text("".join(train.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(ResultError, match="the graph is different"):
        run_benchmark(home)


def test_a_failed_run_is_recorded_and_the_others_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "in_own_process", runner.in_this_process)
    text = TEXT.replace('graphs = ["tiny"]', 'graphs = ["absent", "tiny"]')
    (home / "small.toml").write_text(text)
    words = (home / "small.toml", "--runs", home / "runs", "--threads", 1)
    result = call(*words)
    assert result.exit_code == 1, result.output
    assert re.search(r"8 runs: 4 done now, 0 .*, 4 failed", result.stdout)
    assert "failed: tokens on absent, seed 1" in result.stderr
    failure = files_of(home, "tokens/absent/seed-1").read_failure()
    assert failure is not None
    assert "absent" in failure["message"]
    (home / "tiny").rename(home / "absent")
    text = TEXT.replace('graphs = ["tiny"]', 'graphs = ["absent"]')
    (home / "small.toml").write_text(text)
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert files_of(home, "tokens/absent/seed-1").read_failure() is None


def test_a_training_that_diverges_is_a_failure(home: Path) -> None:
    text = TEXT.replace(
        '"experts.embedding.embedding_dim" = 8',
        '"experts.embedding.training.optimizer.embedding_lr" = 1e38',
    )
    (home / "small.toml").write_text(text)
    failures = run_benchmark(home).failures
    assert len(failures) == 4
    assert all(re.match("Diverged|NaNScoreError", why) for why in failures.values())


def test_rows_can_be_chosen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "in_own_process", runner.in_this_process)
    words = (home / "small.toml", "--runs", home / "runs", "--threads", 1, "--only")
    assert "2 runs: 2 done now" in call(*words, "tokens").stdout
    assert set(results(home)) == {"tokens/tiny/seed-0", "tokens/tiny/seed-1"}
    wrong = call(*words, "token")
    assert wrong.exit_code == 1
    assert "no row is called 'token'; rows: structure only, tokens" in wrong.stderr


def test_test_evaluations_are_counted_and_never_forgotten(home: Path) -> None:
    run_benchmark(home)
    assert count_test_evaluations(archive_of(home)) == {}
    (home / "small.toml").write_text(TEXT.replace("[defaults]", '[defaults]\nsplits = ["test"]'))
    before = figures(home)
    assert run_benchmark(home).done == 4
    counts = count_test_evaluations(archive_of(home))
    assert counts == {("structure only", "tiny"): 2, ("tokens", "tiny"): 2}
    # What was ranked before is still there, and the same.
    for key, (splits, _) in figures(home).items():
        assert set(splits) == {"valid", "test"}
        assert splits["valid"] == before[key][0]["valid"]
    run_benchmark(home)
    assert count_test_evaluations(archive_of(home)) == counts
    remove_members(home, "tokens/tiny/seed-0.json")
    run_benchmark(home)
    assert count_test_evaluations(archive_of(home))["tokens", "tiny"] == 3


def test_a_test_evaluation_is_logged_before_the_ranking(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "small.toml").write_text(TEXT.replace("[defaults]", '[defaults]\nsplits = ["test"]'))

    def fail(*arguments: object) -> None:
        raise ValueError("no ranking today")

    monkeypatch.setattr("mocme.runs.run.Run.evaluate", fail)
    assert len(run_benchmark(home).failures) == 4
    assert count_test_evaluations(archive_of(home)).total() == 4


def test_peak_memory_grows_with_what_is_held() -> None:
    before = peak_memory()
    array = np.ones(before // 8 + (32 << 20) // 8)
    assert peak_memory() >= before + (16 << 20)
    assert array.sum() > 0


def test_a_job_survives_json(home: Path) -> None:
    jobs: list[RunJob] = []

    def note(job: RunJob) -> dict[str, Any]:
        jobs.append(job)
        return {"failed": {"kind": "Not", "message": "tried"}}

    run_benchmark(home, note)
    job = jobs[0]
    again = RunJob(**json.loads(json.dumps(vars(job))))
    assert again.parsed() == job.parsed()
    assert tomllib.loads(job.config)["seed"] == 0
