"""Benches: identity, resumption, refusals, comparison and pages, on a tiny graph."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from mocme import cli
from mocme.benchmark import bootstrap as comparing
from mocme.benchmark import results
from mocme.benchmark import runner as running
from mocme.benchmark.markdown import put, render
from mocme.benchmark.plan import InputDigests, _sha, identity, plan, same
from mocme.benchmark.spec import BenchmarkSpec
from mocme.benchmark.worker import RunJob, attempt
from mocme.core.device import Interrupted, peak_memory
from mocme.core.registry import ConfigError
from mocme.evaluation.ranking import Ranks
from mocme.runs.config import Experiment

TEXT = """
title = "Small"
[defaults]
graphs = ["tiny"]
seeds = [0, 1]
set = {"experts.embedding.embedding_dim" = 8, "experts.embedding.training.epochs" = 3, "experts.embedding.training.checkpoint_seconds" = 0}
[[rows]]
name = "structure only"
experiment = "structure"
[[rows]]
name = "tokens"
experiment = "default"
control = "structure only"
"""


@pytest.fixture(autouse=True)
def no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's choice of a precision takes longer than a tiny training."""
    monkeypatch.setattr("mocme.runs.train.faster_precision", lambda *_: "float32")


@pytest.fixture
def home(tmp_path: Path, tiny_graph: Callable[..., Any], tiny_folder: Callable[..., Any]) -> Path:
    """A folder with a bench and the graph that it names."""
    tiny_folder(tmp_path / "tiny", tiny_graph())
    (tmp_path / "small.toml").write_text(TEXT)
    return tmp_path


def do(
    home: Path, worker: running.Worker = running.here, **options: Any
) -> running.BenchmarkReport:
    bench = BenchmarkSpec.read(home / "small.toml")
    trials = plan(bench, home / "runs")
    return running.run(bench, trials, threads=1, worker=worker, tell=lambda _: None, **options)


def files(home: Path) -> dict[str, bytes]:
    """Every result file but what tells times."""
    folder = home / "results"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def figures(home: Path) -> dict[str, Any]:
    """Metrics of each result, without seconds."""
    found = {}
    for path in (home / "results").rglob("seed-?.json"):
        result = json.loads(path.read_text())
        splits = {s: {**f, "seconds": 0} for s, f in result["splits"].items()}
        found[str(path.parent.relative_to(home)), path.name] = (splits, result["ranks"])
    return found


def refused(text: str, path: Path) -> str:
    (path / "bad.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        plan(BenchmarkSpec.read(path / "bad.toml"), path)
    assert str(error.value).startswith(str(path / "bad.toml"))
    return str(error.value)


def call(*words: object) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


# -- bench files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title", "titel", "titel: is unknown"),
        ("seeds = [0, 1]", "seed = [0]", "defaults.seed: is unknown"),
        ('control = "structure only"', 'controls = "x"', "rows[1].controls: is unknown"),
        ('control = "structure only"', 'control = "structure"', "rows[1].control: 'structure' is"),
        ('control = "structure only"', 'control = "tokens"', "rows[1].control: is the row itself"),
        ('control = "structure only"', 'control = ["x"]', "rows[1].control: 'x' is no row"),
        ('control = "structure only"', "control = []", "rows[1].control: is empty"),
        ('control = "structure only"', "control = 3", "rows[1].control: must be a list, not 3"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "rows[0].seeds: names something twice"),
        ("seeds = [0, 1]", "seeds = [true]", "rows[0].seeds: must be a whole number"),
        ("seeds = [0, 1]", 'splits = ["train"]', "rows[0].splits: 'train'"),
        ("seeds = [0, 1]", 'version = "new"', "rows[0].version: must be repaired"),
        (
            "experts.embedding.embedding_dim",
            "seed",
            "rows[0].set: training.seed belongs into seeds",
        ),
        (
            "experts.embedding.embedding_dim",
            "experts.embedding.widht",
            "row 'structure only' on tiny: model.widht",
        ),
        ('name = "tokens"', 'name = "Structure-only"', "rows[1].name"),
        ('experiment = "default"', 'experiment = "x/{seed}"', "rows[1].experiment: {seed}"),
        ('experiment = "default"', 'experiment = "no-such"', "no such experiment"),
        ("[[rows]]", "[[row]]", "row: is unknown"),
        ('graphs = ["tiny"]', 'graphs = ["a/tiny", "tiny"]', "rows[0].graphs"),
    ],
)
def test_mistakes_name_the_file_and_the_place(home: Path, old: str, new: str, said: str) -> None:
    assert said in refused(TEXT.replace(old, new), home)


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        ("mrr = 1.5", "published[0].mrr: must lie between 0 and 1"),
        ("hits = 0.5", "published[0].hits: is unknown"),
        ("", "published[0]: holds no figure"),
        ('split = "all"\nmrr = 0.5', "published[0].split"),
    ],
)
def test_published_figures_are_checked(home: Path, figure: str, said: str) -> None:
    table = '[[published]]\nname = "A"\ngraph = "tiny"\nprotocol = "p"\nsource = "s"\n'
    assert said in refused(f"{TEXT}\n{table}{figure}", home)


def test_rows_override_defaults_and_placeholders_are_filled(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("""
[defaults]
graphs = ["MKG-Y", "atlas"]
features = "encoded/{graph}"
version = "as-published"
set = {"experts.embedding.embedding_dim" = 32, "experts.embedding.training.epochs" = 2}
[[rows]]
name = "s"
experiment = "structure/{graph}"
graphs = ["MKG-Y"]
set = {"experts.embedding.embedding_dim" = 64}
[[rows]]
name = "t"
experiment = "{graph}/mocme"
graphs = ["atlas"]
""")
    first, second = plan(BenchmarkSpec.read(tmp_path / "a.toml"), tmp_path / "runs")
    assert first.experiment.name == "structure/mkg-y"
    assert first.experiment.model["width"] == 64
    assert first.experiment.training["passes"] == 2
    assert first.features == tmp_path / "encoded/MKG-Y"
    assert (first.version, second.version) == ("as-published", None)
    assert second.experiment.name == "atlas/mocme"


def test_shipped_bench_files_can_be_planned() -> None:
    folder = Path(__file__).parents[2] / "benchmarks" / "accuracy"
    found = sorted(set(folder.glob("*.toml")) - set(folder.glob("tune-*.toml")))
    assert found
    for path in found:
        assert plan(BenchmarkSpec.read(path), Path("runs"))


# -- identity --------------------------------------------------------------------------------------


def leaves(table: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        here = f"{path}{key}"
        found |= leaves(value, f"{here}.") if isinstance(value, Mapping) else {here: value}
    return found


def test_every_number_of_a_configuration_is_part_of_the_identity() -> None:
    stopping = {
        "experts.embedding.training.evaluate_every": 2,
        "experts.embedding.training.patience": 3,
    }
    base, inputs = Experiment.load("mocme", stopping), InputDigests("g", "f")
    digests = {identity(base, inputs)["digest"]}
    numbers = {
        key: value
        for key, value in leaves(base.table()).items()
        if type(value) in (int, float) and not key.startswith("expected")
    }
    assert len(numbers) > 10
    changed = 0
    for key, value in numbers.items():
        try:
            other = base.changed({key: value * 2 or 1})
        except ConfigError:
            other = base.changed({key: type(value)(value / 2) or 0.5})
        digests.add(identity(other, inputs)["digest"])
        changed += 1
    assert len(digests) == changed + 1


def test_graph_features_and_seed_are_part_of_the_identity_and_words_are_not() -> None:
    base = Experiment.load("structure")
    digest = identity(base, InputDigests("g", "f"))["digest"]
    assert identity(base.changed({"description": "x"}), InputDigests("g", "f"))["digest"] == digest
    others = {
        identity(base, InputDigests("g2", "f"))["digest"],
        identity(base, InputDigests("g", "f2"))["digest"],
        identity(base.changed({"seed": 5}), InputDigests("g", "f"))["digest"],
    }
    assert len({digest, *others}) == 4


# -- running ---------------------------------------------------------------------------------------


def test_a_bench_runs_once_and_its_results_say_what_was_run(home: Path) -> None:
    report = do(home)
    assert (report.done, report.skipped, report.failures) == (4, 0, {})
    before = files(home)
    assert len(before) == 8  # a result and its ranks for each run, and no look at test
    again = do(home)
    assert (again.done, again.skipped) == (0, 4)
    assert files(home) == before
    assert not list((home / "runs").rglob("experts/embedding.safetensors"))
    result = json.loads((home / "results/tokens/tiny/seed-1.json").read_text())
    assert result["config"]["model"]["width"] == 8
    assert result["config"]["training"]["seed"] == result["seed"] == 1
    assert [record["epoch"] for record in result["training"]["passes"]] == [1, 2, 3]
    assert set(result["splits"]) == {"valid"}
    assert result["splits"]["valid"]["by"]["direction"]
    assert result["peak_bytes"] is None  # not known of a process that does other things


def test_kept_ranks_give_the_metrics_again(home: Path) -> None:
    do(home)
    for path in (home / "results").rglob("seed-?.json"):
        result = json.loads(path.read_text())
        place = results.ResultFiles(path.parent, path.stem)
        twice = results.read_ranks(place.ranks, result, "valid")
        assert twice.dtype == np.int32
        assert np.mean(2 / twice) == pytest.approx(result["splits"]["valid"]["mrr"], abs=1e-12)


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
def test_a_run_that_was_stopped_goes_on_to_the_same_figures(home: Path, steps: int) -> None:
    stop = Stop(steps)
    with pytest.raises(Interrupted, match="stopped at run"):
        do(home, lambda job: attempt(job, stop))
    kept = files(home)
    do(home)
    assert kept.items() <= files(home).items()
    whole = figures(home)
    assert len(whole) == 4
    (home / "results").rename(home / "stopped")
    do(home)
    assert figures(home) == whole


def test_a_bench_killed_between_and_within_runs_goes_on(home: Path) -> None:
    text = TEXT.replace(
        '"experts.embedding.training.epochs" = 3', '"experts.embedding.training.epochs" = 60'
    )
    (home / "small.toml").write_text(text)
    words = ["benchmark", home / "small.toml", "--threads", "1", "--runs", home / "runs"]
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
    first = home / "results/structure-only/tiny/seed-0.json"
    before = first.read_bytes()
    assert json.loads(before)["peak_bytes"]["ranked"] > 1 << 20
    report = do(home)
    assert report.done + report.skipped == 4
    assert report.skipped >= 1
    assert first.read_bytes() == before


def test_a_finished_training_is_only_ranked(home: Path) -> None:
    do(home, keep=True)
    models = {
        p: p.stat().st_mtime_ns for p in (home / "runs").rglob("experts/embedding.safetensors")
    }
    assert len(models) == 4
    whole = figures(home)
    (home / "results/tokens/tiny/seed-0.json").unlink()
    stop = Stop(0)
    report = do(home, lambda job: attempt(job, stop), keep=True)
    assert (report.done, report.skipped) == (1, 3)
    assert figures(home) == whole
    assert {p: p.stat().st_mtime_ns for p in models} == models


def test_a_result_of_another_configuration_is_refused_before_anything_is_trained(
    home: Path,
) -> None:
    do(home)
    before = files(home)
    (home / "small.toml").write_text(TEXT.replace("[0, 1]", "[1, 2]").replace(" 8,", " 16,"))
    with pytest.raises(results.ResultError, match=r"seed-1\.json: holds .*model.width is 16"):
        do(home)
    assert files(home) == before
    dry = call("benchmark", home / "small.toml", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "seed 1: in conflict" in dry.stdout
    assert "seed 2: to train" in dry.stdout


def test_a_result_from_before_a_setting_existed_counts_as_made_with_its_default(
    home: Path,
) -> None:
    do(home)
    trial = plan(BenchmarkSpec.read(home / "small.toml"), home / "runs")[0]
    path = trial.place.result
    result = json.loads(path.read_text())
    inputs = InputDigests(result["identity"]["graph"], result["identity"]["features"])
    del result["config"]["model"]["initial"]
    older = {**result, "identity": {**result["identity"], "settings": _sha(result["config"])}}
    older["identity"]["digest"] = _sha(
        {k: v for k, v in older["identity"].items() if k != "digest"}
    )
    path.write_text(json.dumps(older))
    made = files(home)
    assert [item.state for item in running.survey([trial])] == ["done"]
    do(home)
    assert files(home) == made
    other = identity(trial.experiment.changed({"experts.embedding.init_std": 0.02}), inputs)
    assert same(identity(trial.experiment, inputs), older)
    assert not same(other, older)
    # A configuration that was changed by hand is not what its digest says.
    older["config"]["model"]["width"] = 10
    assert not same(identity(trial.experiment, inputs), older)


def test_a_precision_that_the_machine_chose_counts_as_asked_for(home: Path) -> None:
    do(home)
    text = TEXT.replace(
        '"experts.embedding.embedding_dim"',
        '"experts.embedding.training.precision" = "PRECISION", "experts.embedding.embedding_dim"',
    )
    for precision, code in (("float32", 0), ("bfloat16", 1)):
        (home / "small.toml").write_text(text.replace("PRECISION", precision))
        result = call("benchmark", home / "small.toml", "--render", page_of(home))
        assert result.exit_code == code, result.output
    assert "experts.embedding.training.precision is bfloat16, there" in result.stderr


def test_a_training_of_another_configuration_is_refused(home: Path) -> None:
    stop = Stop(3)
    with pytest.raises(Interrupted):
        do(home, lambda job: attempt(job, stop))
    (home / "small.toml").write_text(TEXT.replace(" 8,", " 16,"))
    with pytest.raises(results.ResultError, match=r"--runs"):
        do(home)


def test_another_graph_under_the_same_name_is_refused(home: Path) -> None:
    do(home)
    train = home / "tiny/train.tsv"
    train.write_text("".join(train.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(results.ResultError, match="the graph is another one"):
        do(home)


def test_a_run_that_fails_is_recorded_and_the_others_go_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "in_own_process", running.here)
    text = TEXT.replace('graphs = ["tiny"]', 'graphs = ["absent", "tiny"]')
    (home / "small.toml").write_text(text)
    words = ("benchmark", home / "small.toml", "--runs", home / "runs", "--threads", 1)
    result = call(*words)
    assert result.exit_code == 1, result.output
    assert "8 runs: 4 done now, 0 there already, 4 failed" in result.stdout
    assert "failed: tokens on absent, seed 1" in result.stderr
    failure = home / "results/tokens/absent/seed-1.failure.json"
    assert "absent" in json.loads(failure.read_text())["message"]
    (home / "tiny").rename(home / "absent")
    text = TEXT.replace('graphs = ["tiny"]', 'graphs = ["absent"]')
    (home / "small.toml").write_text(text)
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert not failure.exists()


def test_a_training_that_diverges_is_a_failure(home: Path) -> None:
    text = TEXT.replace(
        '"experts.embedding.embedding_dim" = 8',
        '"experts.embedding.training.optimizer.embedding_lr" = 1e38',
    )
    (home / "small.toml").write_text(text)
    failures = do(home).failures
    assert len(failures) == 4
    assert all(re.match("Diverged|NotANumber", why) for why in failures.values())


def test_rows_can_be_chosen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "in_own_process", running.here)
    words = ("benchmark", home / "small.toml", "--runs", home / "runs", "--threads", 1, "--only")
    assert "2 runs: 2 done now" in call(*words, "tokens").stdout
    assert not (home / "results/structure-only").exists()
    wrong = call(*words, "token")
    assert wrong.exit_code == 1
    assert "no row is called 'token'; rows: structure only, tokens" in wrong.stderr


# -- looks at test ---------------------------------------------------------------------------------


def test_looks_at_test_are_counted_and_never_forgotten(home: Path) -> None:
    do(home)
    assert results.looks(home / "results") == {}
    (home / "small.toml").write_text(TEXT.replace("[defaults]", '[defaults]\nsplits = ["test"]'))
    before = figures(home)
    assert do(home).done == 4
    looks = results.looks(home / "results")
    assert looks == {("structure only", "tiny"): 2, ("tokens", "tiny"): 2}
    # What was ranked before is still there, and the same.
    for key, (splits, _) in figures(home).items():
        assert set(splits) == {"valid", "test"}
        assert splits["valid"] == before[key][0]["valid"]
    do(home)
    assert results.looks(home / "results") == looks
    (home / "results/tokens/tiny/seed-0.json").unlink()
    do(home)
    assert results.looks(home / "results")["tokens", "tiny"] == 3


def test_a_torn_line_swallows_no_look(tmp_path: Path) -> None:
    results.record_look(tmp_path, {"row": "a", "graph": "g"})
    with (tmp_path / results.LOOKS).open("a") as file:
        file.write('{"row": "b"')
    results.record_look(tmp_path, {"row": "c", "graph": "g"})
    with pytest.raises(results.ResultError, match="line 2"):
        results.looks(tmp_path)


# -- comparing -------------------------------------------------------------------------------------


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=40), st.integers(0, 9))
def test_resampled_means_are_those_of_a_plain_loop(values: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    expected = []
    for _ in range(60):
        drawn = [int(generator.integers(0, len(values), dtype=np.int32)) for _ in values]
        expected.append(sum(values[place] for place in drawn) / len(values))
    found = comparing.resampled_means(np.array(values, float), 60, seed)
    assert found.tolist() == expected


def test_resampling_does_not_depend_on_how_much_is_drawn_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.arange(101.0)
    whole = comparing.resampled_means(values, 500, 3)
    monkeypatch.setattr(comparing, "CHUNK", 1000)
    assert np.array_equal(comparing.resampled_means(values, 500, 3), whole)


def test_a_difference_averages_over_seeds_first() -> None:
    first, second = np.array([[2, 4], [4, 4], [2, 8]]), np.array([[4, 20]])
    found = comparing.difference(first, second, 1000)
    each = [(1 + 0.5 + 1) / 3 - 0.5, (0.5 + 0.5 + 0.25) / 3 - 0.1]
    assert found.mean == pytest.approx(sum(each) / 2, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((min(each), max(each)), abs=1e-12)
    same = comparing.difference(first, first)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    turned = comparing.difference(second, first, 1000)
    assert (turned.mean, turned.low, turned.high) == pytest.approx(
        (-found.mean, -found.high, -found.low), abs=1e-12
    )


def test_questions_have_one_order_and_a_digest(tiny_graph: Callable[..., Any]) -> None:
    graph = tiny_graph().graph
    generator = torch.Generator().manual_seed(0)
    asked = torch.cartesian_prod(torch.arange(4), torch.arange(3), torch.arange(4))
    above, ties = (torch.randint(0, 9, (len(asked),), generator=generator) for _ in range(2))
    everyone = torch.full_like(above, 12)
    columns = (*asked.unbind(1), above, ties, everyone)
    twice, digest = results.canonical(Ranks(*columns), graph)
    assert twice.tolist() == (2 * Ranks(*columns).realistic).long().tolist()
    mixed = torch.randperm(len(asked), generator=generator)
    again, same = results.canonical(Ranks(*(column[mixed] for column in columns)), graph)
    assert torch.equal(again, twice)
    assert same == digest
    fewer = results.canonical(Ranks(*(column[1:] for column in columns)), graph)[1]
    elsewhere = results.canonical(Ranks(*columns), tiny_graph(entities=13).graph)[1]
    assert len({digest, fewer, elsewhere}) == 3


# -- pages -----------------------------------------------------------------------------------------


def page_of(home: Path) -> Path:
    page = home / "page.md"
    page.write_text("# Before\n\n<!-- bench: small -->\n<!-- end of bench: small -->\n\nafter\n")
    return page


def test_a_page_is_rendered_from_results_again_and_again(home: Path) -> None:
    do(home)
    page = page_of(home)
    words = ("benchmark", home / "small.toml", "--render", page)
    assert call(*words, "--check").exit_code == 1
    assert call(*words).exit_code == 0
    text = page.read_text()
    assert call(*words, "--check").exit_code == 0
    assert "was up to date" in call(*words).stdout
    assert page.read_text() == text
    assert text.startswith("# Before\n")
    assert text.endswith("\n\nafter\n")
    values = [
        json.loads((home / f"results/tokens/tiny/seed-{seed}.json").read_text())["splits"]["valid"]
        for seed in (0, 1)
    ]
    mean = sum(value["mrr"] for value in values) / 2
    deviation = abs(values[0]["mrr"] - values[1]["mrr"]) / 2**0.5
    assert f"| tokens | tiny | 0, 1 | {mean:.4f} ± {deviation:.4f} |" in text
    assert "| tokens | structure only | tiny | 2 and 2 |" in text
    assert "From 4 of 4 runs of [small.toml](small.toml)" in text
    page.write_text(text.replace("± ", "± 9"))
    assert call(*words, "--check").exit_code == 1


def test_a_page_tells_what_is_missing_and_marks_what_was_not_measured(home: Path) -> None:
    figure = '[[published]]\nname = "A | B"\ngraph = "tiny"\nmrr = 0.25\nprotocol = "unknown"\n'
    (home / "small.toml").write_text(f'{TEXT}\n{figure}source = "somewhere"\nsplit = "valid"\n')
    bench = BenchmarkSpec.read(home / "small.toml")
    trials = plan(bench, home / "runs")
    empty = render(bench, trials, home / "page.md")
    assert "nothing measured yet" in empty
    assert "Test:" not in empty  # no row asks for it
    results.write_json(trials[3].place.failure, {"kind": "Diverged", "message": "at step 3"})
    running.run(bench, trials[:3], worker=running.here, threads=1, tell=lambda _: None)
    text = render(bench, trials, home / "page.md")
    assert "| tokens | tiny | 0 (of 2) |" in text
    assert "- tokens on tiny, seed 1: not measured, Diverged: at step 3" in text
    assert "| A \\| B † 1 | tiny | - | 0.25 |" in text
    assert "† 1: A | B on tiny, not measured here; unknown; somewhere" in text


def test_results_that_cannot_be_compared_are_refused(home: Path) -> None:
    do(home)
    bench = BenchmarkSpec.read(home / "small.toml")
    trials = plan(bench, home / "runs")
    path = trials[0].place.result
    result = json.loads(path.read_text())
    other = {**result, "ranks": {**result["ranks"], "questions": {"valid": "0"}}}
    path.write_text(json.dumps(other))
    with pytest.raises(results.ResultError, match="its seeds rank different valid questions"):
        render(bench, trials, home / "page.md")
    trials[1].place.result.write_text(
        json.dumps({**json.loads(trials[1].place.result.read_text()), "ranks": other["ranks"]})
    )
    with pytest.raises(results.ResultError, match="structure only and tokens on tiny rank diff"):
        render(bench, trials, home / "page.md")
    path.write_text("{")
    with pytest.raises(results.ResultError, match=r"seed-0\.json is damaged"):
        render(bench, trials, home / "page.md")


def test_altered_ranks_are_refused(home: Path) -> None:
    do(home)
    bench = BenchmarkSpec.read(home / "small.toml")
    trials = plan(bench, home / "runs")
    with trials[0].place.ranks.open("ab") as file:
        file.write(b"x")
    with pytest.raises(results.ResultError, match="is missing or was changed"):
        render(bench, trials, home / "page.md")


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for text in ("", "<!-- end of bench: a -->\n<!-- bench: a -->\n", "<!-- bench: a -->\n" * 2):
        page.write_text(text)
        with pytest.raises(results.ResultError, match="needs these two lines"):
            put(page, "a", "table")


def test_rendering_shows_no_results_of_another_configuration(home: Path) -> None:
    do(home)
    (home / "small.toml").write_text(TEXT.replace(" 8,", " 16,"))
    result = call("benchmark", home / "small.toml", "--render", page_of(home))
    assert result.exit_code == 1
    assert "experts.embedding.embedding_dim is 16, there 8" in result.stderr


# -- the machine -----------------------------------------------------------------------------------


def test_peak_memory_grows_with_what_is_held() -> None:
    before = peak_memory()
    held = np.ones(before // 8 + (32 << 20) // 8)
    assert peak_memory() >= before + (16 << 20)
    assert held.sum() > 0


def test_a_job_is_json(home: Path) -> None:
    jobs: list[RunJob] = []

    def note(job: RunJob) -> dict[str, Any]:
        jobs.append(job)
        return {"failed": {"kind": "Not", "message": "tried"}}

    do(home, note)
    job = jobs[0]
    again = RunJob(**json.loads(json.dumps(vars(job))))
    assert again.parsed() == job.parsed()
    assert tomllib.loads(job.config)["training"]["seed"] == 0


def test_a_row_may_have_several_controls(home: Path) -> None:
    third = '[[rows]]\nname = "third"\nexperiment = "structure"\n'
    third += (
        'set = {"experts.embedding.training.epochs" = 1}\ncontrol = ["tokens", "structure only"]\n'
    )
    (home / "small.toml").write_text(TEXT + third)
    do(home)
    bench = BenchmarkSpec.read(home / "small.toml")
    text = render(bench, plan(bench, home / "runs"), home / "page.md")
    rows = [line.split(" | ") for line in text.splitlines() if "difference" not in line]
    pairs = [(row[0].strip("| "), row[1]) for row in rows if len(row) == 6 and " to " in row[-1]]
    assert pairs == [("tokens", "structure only"), ("third", "tokens"), ("third", "structure only")]
