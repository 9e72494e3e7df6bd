"""Hyperparameter search: reproducible, resumable after any stop, without access to test."""

from __future__ import annotations

import json
import signal
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from safetensors import safe_open

import mocme
from mocme import cli
from mocme.core.extras import remedy
from mocme.core.interrupts import Interrupted
from mocme.core.registry import ConfigError
from mocme.runs.config import Experiment
from mocme.storage import RunError
from mocme.tuning.plan import Plan, Range
from mocme.tuning.search import tune
from mocme.tuning.table import shortened
from mocme.tuning.trials import SearchError, SearchFolder, Trial, best

pytest.importorskip("optuna")

SET = (
    '"experts.embedding.training.evaluate_every" = 1, '
    '"experts.embedding.training.batch_size" = 16, '
    '"experts.embedding.embedding_dim" = 8, '
    '"experts.embedding.training.precision" = "float32"'
)
HEAD = f"""
experiment = "structure"
graph = "g"
trials = 5
set = {{{SET}}}
"""
N3 = '"experts.embedding.training.objective.n3" = {low = 0.001, high = 1, log = true}\n'
PASSES = '"experts.embedding.training.epochs" = {low = 2, high = 4}\n'
BOTH = f"{HEAD}[ranges]\n{N3}{PASSES}"


class Killed(BaseException):
    """The process ends here."""


class Watch:
    """Counts what it sees, and acts at a step or at the end of a trial."""

    def __init__(
        self, step: tuple[int, int] | None = None, end: int | None = None, act: Any = Killed
    ) -> None:
        self.at_step, self.at_end, self.act = step, end, act
        self.steps: list[tuple[int, int]] = []
        self.trial = 0

    def inputs(self, notes: Sequence[str]) -> None:
        pass

    def begin(self, number: int, settings: Mapping[str, Any]) -> None:
        self.trial = number

    def step(self, done: int, total: int) -> None:
        self.steps.append((self.trial, done))
        assert 0 < done <= total
        if (self.trial, done) == self.at_step:
            self._do()

    def end(self, trial: Trial, best: Trial | None) -> None:
        if trial.number == self.at_end:
            self._do()

    def _do(self) -> None:
        if self.act is Killed:
            raise Killed
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def folder(tiny_graph: Callable, tiny_folder: Callable, tmp_path: Path) -> Path:
    tiny_folder(tmp_path / "g", tiny_graph(dense={}, tokens={}))
    return tmp_path


@pytest.fixture(scope="module")
def uninterrupted(
    tiny_graph: Callable, tiny_folder: Callable, tmp_path_factory: pytest.TempPathFactory
) -> SearchFolder:
    """A search of `BOTH` on the same graph that nothing stopped."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    tiny_folder(folder / "g", tiny_graph(dense={}, tokens={}))
    return run(folder, "uninterrupted")


def plan(folder: Path, text: str = BOTH, name: str = "search.toml") -> Plan:
    (folder / name).write_text(text)
    return Plan.read(folder / name)


def run(folder: Path, out: str, text: str = BOTH, watch: Watch | None = None) -> SearchFolder:
    return tune(plan(folder, text), out=folder / out, device="cpu", watch=watch)


def results(search: SearchFolder) -> list[dict[str, Any]]:
    """All of the trials but their durations."""
    return [{k: v for k, v in asdict(t).items() if k != "seconds"} for t in search.trials()]


def test_the_same_file_gives_the_same_trials_twice(
    folder: Path, uninterrupted: SearchFolder
) -> None:
    search = run(folder, "out")
    assert results(search) == results(uninterrupted)
    assert [trial.number for trial in search.trials()] == [1, 2, 3, 4, 5]
    assert all(trial.state == "complete" and 0 < trial.mrr <= 1 for trial in search.trials())
    assert len({str(trial.settings) for trial in search.trials()}) > 1
    assert not list((folder / "out" / "runs").iterdir())
    other = run(folder, "other", BOTH.replace("trials = 5", "trials = 1\nseed = 1"))
    assert results(other) != results(uninterrupted)[:1]


@pytest.mark.parametrize("step", [(1, 1), (3, 2), (5, 5), None])
def test_a_killed_search_resumes_to_the_same_trials(
    folder: Path, uninterrupted: SearchFolder, step: tuple[int, int] | None
) -> None:
    with pytest.raises(Killed):
        run(folder, "broken", watch=Watch(step, end=2 if step is None else None))
    assert results(run(folder, "broken")) == results(uninterrupted)
    best_files = [
        (path / "best.toml").read_bytes() for path in (uninterrupted.path, folder / "broken")
    ]
    assert best_files[0] == best_files[1]


def test_a_killed_training_resumes_from_its_checkpoint(
    folder: Path, uninterrupted: SearchFolder
) -> None:
    text = BOTH.replace(SET, SET + ', "experts.embedding.training.checkpoint_seconds" = 0.0')
    with pytest.raises(Killed):
        run(folder, "broken", text, Watch((3, 5)))
    watch = Watch()
    assert results(run(folder, "broken", text, watch)) == results(uninterrupted)
    assert watch.steps[0] == (3, 4)  # an epoch has three steps


def test_a_recorded_trial_is_not_counted_twice(folder: Path, uninterrupted: SearchFolder) -> None:
    with pytest.raises(Killed):
        run(folder, "broken", watch=Watch((2, 3)))
    # Killed while the first files of a run were written, or after its trial was recorded.
    runs = folder / "broken" / "runs"
    (runs / "trial-0001-seed-0").mkdir()
    (runs / "trial-0003-seed-0").mkdir()
    (runs / "trial-0003-seed-0" / "run.json").write_text("{")
    with (folder / "broken" / "trials.jsonl").open("a") as log:
        log.write('{"number": 2, "sta')
    with pytest.warns(UserWarning, match="torn"):
        search = run(folder, "broken")
    assert results(search) == results(uninterrupted)
    assert not list(runs.iterdir())


@pytest.mark.parametrize("watch", [Watch((3, 2), act="int"), Watch(end=2, act="int")])
def test_ctrl_c_says_how_to_resume(folder: Path, uninterrupted: SearchFolder, watch: Watch) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"trial 3 of 5; resume with: mocme tune .*broken"):
        run(folder, "broken", watch=watch)
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(SearchFolder(folder / "broken").trials()) == 2
    assert (folder / "broken" / "best.toml").exists()
    assert results(run(folder, "broken")) == results(uninterrupted)


def test_ctrl_c_while_a_training_validates_for_the_last_time_is_not_lost(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mocme.experts.embedding.trainer import Trainer

    keep_best = Trainer._keep_best

    def press(self: Trainer, mrr: float) -> None:
        keep_best(self, mrr)
        if self.progress.done:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "_keep_best", press)
    with pytest.raises(Interrupted, match="trial 2 of 5"):
        run(folder, "out")


def test_unpromising_trainings_are_pruned_and_recorded(folder: Path) -> None:
    text = f"""{HEAD}
[ranges]
"experts.embedding.training.optimizer.embedding_lr" = {{choices = [1e-9, 0.1, 0.2, 0.3]}}
{N3}
[pruning]
after = 2
warmup = 2
""".replace("trials = 5", "trials = 12").replace(
        SET, SET + ', "experts.embedding.training.epochs" = 4'
    )
    complete = run(folder, "complete", text)
    pruned = [trial for trial in complete.trials() if trial.state == "pruned"]
    assert pruned
    for trial in pruned:
        assert trial.mrr is None
        assert "median" in trial.reason
        assert 2 <= len(trial.curve) < 4
    with pytest.raises(Killed):
        run(folder, "broken", text, Watch((pruned[0].number, 3)))
    assert results(run(folder, "broken", text)) == results(complete)
    assert f"{len(pruned)} pruned" in (folder / "complete" / "best.toml").read_text()


def test_a_failed_trial_has_a_reason_and_the_search_continues(folder: Path) -> None:
    text = f"""{HEAD}
[ranges]
"experts.embedding.embedding_dim" = {{choices = [7, 8, 10]}}
"experts.embedding.training.optimizer.embedding_lr" = {{choices = [0.1, 1e38]}}
""".replace(', "experts.embedding.embedding_dim" = 8', "").replace("trials = 5", "trials = 12")
    trials = run(folder, "out", text).trials()
    reasons = [trial.reason for trial in trials if trial.state == "failed"]
    assert any("embedding_dim" in reason for reason in reasons)
    assert any("the loss is NaN or infinite" in reason for reason in reasons)
    assert {trial.state for trial in trials} == {"complete", "failed"}
    assert len(trials) == 12
    assert "failed" in (folder / "out" / "best.toml").read_text()


def test_equal_settings_are_not_trained_again(folder: Path) -> None:
    text = f'{HEAD}[ranges]\n"experts.embedding.training.epochs" = {{choices = [2, 3]}}\n'
    watch = Watch()
    trials = run(folder, "out", text, watch).trials()
    assert len({number for number, _ in watch.steps}) == 2
    copies = [trial for trial in trials if trial.same_as]
    assert len(copies) == 3
    for trial in copies:
        assert trial.mrr == trials[trial.same_as - 1].mrr
        assert trials[trial.same_as - 1].same_as is None


def test_a_search_has_no_access_to_the_test_split(
    folder: Path, uninterrupted: SearchFolder
) -> None:
    test = folder / "g" / "test.tsv"
    valid = (folder / "g" / "valid.tsv").read_text()
    test.write_text(valid)
    assert (
        results(run(folder, "out", BOTH.replace("trials = 5", "trials = 2")))
        == (results(uninterrupted)[:2])
    )
    test.unlink()
    # The folder does not depend on it either: the search began with another test split.
    assert results(run(folder, "out")) == results(uninterrupted)
    test.write_text(valid)
    with pytest.raises(Killed):
        run(folder, "killed", watch=Watch((2, 1)))
    (run_folder,) = (folder / "killed" / "runs").iterdir()
    with safe_open(run_folder / "graph.safetensors", "pt") as file:
        assert sorted(file.keys()) == ["train", "valid"]
    for key in ("split", "test"):
        with pytest.raises(ConfigError, match="unknown setting"):
            plan(folder, f'{key} = "test"\n{BOTH}')


def test_the_best_trial_is_an_experiment_that_trains_to_the_same(folder: Path) -> None:
    search = run(folder, "out", BOTH.replace("trials = 5", "trials = 5\nseeds = [3, 4]"))
    chosen = best(search.trials())
    assert chosen is not None
    path = folder / "out" / "best.toml"
    text = path.read_text()
    assert "best of 5 trials (5 complete)" in text
    assert "test split" in text
    assert f"Validation MRR {chosen.mrr:.4f}" in text
    assert "experts.embedding.training.objective.n3: 0.001 to 1.0, logarithmic" in text
    for seed in (3, 4):
        out = folder / f"again-{seed}"
        again = mocme.train(folder / "g", path, out=out, device="cpu", seed=seed)
        mrr = again.evaluate("valid", device="cpu")["mrr"]
        assert mrr == pytest.approx(chosen.curves[str(seed)][-1][1], abs=1e-12)
    mean = sum(curve[-1][1] for curve in chosen.curves.values()) / 2
    assert chosen.mrr == pytest.approx(mean)
    assert Experiment.load(path).seed == 3


def test_the_best_trial_extends_a_file_of_the_user(folder: Path) -> None:
    (folder / "mine.toml").write_text(
        'extends = "structure"\n[[experts]]\nkind = "embedding"\nscorer = {kind="DistMult"}'
    )
    text = BOTH.replace('"structure"', '"mine.toml"')
    run(folder, "deep/out", text)
    loaded = Experiment.load(folder / "deep" / "out" / "best.toml")
    assert loaded.experts["embedding"]["scorer"]["kind"] == "DistMult"
    assert tomllib.loads((folder / "deep/out/best.toml").read_text())["extends"] == (
        "../../mine.toml"
    )


def test_the_mrr_is_that_of_the_model_that_patience_keeps(folder: Path) -> None:
    text = BOTH.replace(
        SET,
        SET + ', "experts.embedding.training.patience" = 1, '
        '"experts.embedding.training.optimizer.embedding_lr" = 0.5',
    )
    for trial in run(folder, "out", text).trials():
        assert trial.mrr == max(mrr for _, mrr in trial.curve)


def test_a_training_without_validations_is_validated_at_the_end(
    folder: Path, uninterrupted: SearchFolder
) -> None:
    text = BOTH.replace('"experts.embedding.training.evaluate_every" = 1, ', "")
    trials = run(folder, "out", text).trials()
    assert [trial.mrr for trial in trials] == [trial.mrr for trial in uninterrupted.trials()]
    assert all(len(trial.curve) == 1 for trial in trials)
    assert (
        Experiment.load(folder / "out" / "best.toml").experts["embedding"]["training"][
            "evaluate_every"
        ]
        == 0
    )


def test_choices_may_be_tables_and_lists(folder: Path) -> None:
    text = f"""{HEAD}
[ranges]
"experts.embedding.scorer" = {{choices = [{{kind = "ComplEx"}}, {{kind = "DistMult"}}]}}
"data.without" = {{choices = [[]]}}
"experts.embedding.training.epochs" = {{low = 1, high = 3, step = 2}}
"""
    search = run(folder, "out", text)
    kinds = {trial.settings["experts.embedding.scorer"]["kind"] for trial in search.trials()}
    assert kinds <= {"ComplEx", "DistMult"}
    assert {trial.settings["experts.embedding.training.epochs"] for trial in search.trials()} <= {
        1,
        3,
    }
    assert (
        Experiment.load(search.path / "best.toml").experts["embedding"]["scorer"]["kind"] in kinds
    )


def test_trials_are_counted_over_resumptions(folder: Path, uninterrupted: SearchFolder) -> None:
    two = run(folder, "out", BOTH.replace("trials = 5", "trials = 2"))
    assert len(two.trials()) == 2
    assert results(run(folder, "out")) == results(uninterrupted)
    assert len(run(folder, "out", BOTH.replace("trials = 5", "trials = 2")).trials()) == 5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "high = 1,",
            "high = 2,",
            r"ranges.experts.embedding.training.objective.n3.high \(1.0, now 2.0\)",
        ),
        ("trials = 5", "trials = 5\nseed = 2", "seed"),
        (
            '"experts.embedding.embedding_dim" = 8',
            '"experts.embedding.embedding_dim" = 10',
            "experiment.experts.embedding.embedding_dim",
        ),
        ("trials = 5", "trials = 5\nseeds = [1]", "seeds"),
    ],
)
def test_a_folder_of_another_search_is_refused(
    uninterrupted: SearchFolder, old: str, new: str, message: str
) -> None:
    with pytest.raises(SearchError, match=f"uninterrupted: .*{message}.*another --out"):
        run(uninterrupted.path.parent, "uninterrupted", BOTH.replace(old, new))


def test_a_folder_of_another_graph_is_refused(folder: Path) -> None:
    one = BOTH.replace("trials = 5", "trials = 1")
    run(folder, "out", one)
    facts = folder / "g" / "train.tsv"
    facts.write_text("".join(facts.read_text().splitlines(True)[1:]))
    with pytest.raises(SearchError, match=r"digest\.graph"):
        run(folder, "out", one)


def test_a_folder_in_use_is_refused(folder: Path) -> None:
    with pytest.raises(SearchError, match="not empty"):
        run(folder, "g")
    search = run(folder, "out", BOTH.replace("trials = 5", "trials = 1"))
    with search.lock(), pytest.raises(RunError, match="another process"):
        run(folder, "out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("= 3", "not valid TOML"),
        (BOTH.replace("trials", "trialls"), "trialls: unknown setting; did you mean 'trials'"),
        (BOTH.replace("trials = 5", "trials = 0"), "trials must be at least 1"),
        (BOTH.replace("trials = 5", 'trials = "5"'), "trials: must be an integer"),
        (BOTH.replace('experiment = "structure"', ""), "experiment: is missing"),
        (BOTH.replace('"structure"', '"strucure"'), "did you mean structure"),
        (HEAD + "[ranges]", "ranges is empty"),
        (
            BOTH.replace("n3", "n33"),
            "experts.embedding.training.objective.n33: unknown setting; did you mean 'n3'",
        ),
        (
            BOTH.replace("experts.embedding.embedding_dim", "experts.embedding.widht"),
            "set: experts.embedding.widht: unknown setting",
        ),
        (
            f"{HEAD}[ranges]\n{PASSES}".replace(
                '"experts.embedding.training.epochs" =', "experts.embedding.training.epochs ="
            ),
            'put the path in quotes: "experts.embedding"',
        ),
        (BOTH.replace("low = 2", "low = 4"), r"epochs: low \(4\) must be below high \(4\)"),
        (
            BOTH.replace("low = 2", "low = 2.5"),
            "experts.embedding.training.epochs: must be an integer, not 2.5",
        ),
        (BOTH.replace("low = 2", "low = 0"), "ranges: experts.embedding.training: epochs"),
        (BOTH.replace("high = 4", "high = 4, step = 3"), "steps of 3 lead from 2 to 2, not"),
        (BOTH.replace("high = 4", "hihg = 4"), "did you mean 'high'"),
        (BOTH.replace("high = 4", "choices = [4]"), "either choices or low and high"),
        (BOTH.replace("low = 0.001", "low = 0"), "log needs low above 0"),
        (BOTH.replace("log = true", "log = true, step = 0.1"), "log and step exclude"),
        (BOTH.replace("high = 1,", "high = inf,"), "must be finite"),
        (BOTH.replace("low = 2, high = 4", "choices = []"), "choices is empty"),
        (BOTH.replace("low = 2, high = 4", "choices = [2, 2]"), "choices has a value twice"),
        (BOTH.replace("low = 2, high = 4", "choices = [2, true]"), "must be an integer"),
        (BOTH.replace("low = 2, high = 4", ""), "needs low and high, or choices"),
        (
            BOTH.replace("experts.embedding.training.epochs", "seed"),
            "a search over seeds selects noise",
        ),
        (
            BOTH.replace("experts.embedding.training.epochs", "experts.embedding.embedding_dim"),
            "set.experts.embedding.embedding_dim: is in ranges as well",
        ),
        (
            BOTH.replace(
                "experts.embedding.training.epochs", "experts.embedding.training.objective"
            ),
            "contains experts.embedding.training.objective.n3, which is set",
        ),
        (
            BOTH.replace("experts.embedding.training.epochs", "expected.mrr"),
            "has no effect on a training",
        ),
        (BOTH.replace("trials = 5", 'trials = 5\nfeatures = "f"'), "no such folder: "),
        (BOTH.replace("trials = 5", "seeds = [1, 1]"), "seeds has a value twice"),
        (BOTH.replace("trials = 5", 'version = "new"'), "none of repaired, as-published"),
        (f"{BOTH}[pruning]\nwarm = 1", "pruning.warm: unknown setting"),
        (f"{BOTH}[pruning]\nafter = 0", "pruning: warmup must be at least 0 and after"),
        (
            f"{BOTH.replace(SET, SET.replace('every_', 'every_').split(', ', 1)[1])}[pruning]",
            "pruning: needs validation during training",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_key(
    folder: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"search.toml: .*{message}"):
        plan(folder, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOTH.replace('"g"', '"gg"'), "search.toml: graph: gg"),
        (BOTH.replace(SET, SET + ', "data.only" = ["text"]'), "search.toml: .*'text' is not decl"),
    ],
)
def test_wrong_inputs_are_refused_before_the_first_training(
    folder: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(folder, "out", text)
    assert not (folder / "out").exists()


def test_a_graph_without_valid_is_refused(folder: Path) -> None:
    (folder / "g" / "valid.tsv").unlink()
    with pytest.raises(ConfigError, match=r"search.toml: graph: .* its valid split"):
        run(folder, "out")


def test_intervals_take_the_type_of_their_setting(folder: Path) -> None:
    search = plan(folder, BOTH.replace("low = 0.001, high = 1, log = true", "low = 0, high = 1"))
    assert not search.ranges["experts.embedding.training.objective.n3"].is_integer
    assert search.ranges["experts.embedding.training.epochs"].is_integer
    assert str(Range(low=8, high=24, step=4)) == "8 to 24 by 4"


def test_short_names_of_settings_are_unambiguous() -> None:
    assert shortened(["experts.embedding.embedding_dim", "experts.embedding.training.epochs"]) == {
        "experts.embedding.embedding_dim": "embedding_dim",
        "experts.embedding.training.epochs": "epochs",
    }
    assert shortened(["a.x.count", "a.y.count"]) == {
        "a.x.count": "x.count",
        "a.y.count": "y.count",
    }


# -- the command -------------------------------------------------------------------------------


def call(*words: object) -> Any:
    return CliRunner().invoke(cli.main, ["tune", *[str(word) for word in words]])


def test_the_command_searches_and_shows(folder: Path) -> None:
    file, out = plan(folder).file, folder / "out"
    done = call(file, "--out", out, "--device", "cpu", "--threads", 1)
    assert done.exit_code == 0, done.output
    assert "trial   5 of 5  valid MRR" in done.stderr
    assert "5 of 5 trials" in done.stdout
    assert "importance of settings" in done.stdout
    assert f"next: mocme train {out}/best.toml --data {folder / 'g'}" in done.stdout
    before = (out / "trials.jsonl").read_bytes()
    shown = call(file, "--out", out, "--show")
    assert shown.exit_code == 0, shown.output
    assert "5 of 5 trials" in shown.stdout
    assert (out / "trials.jsonl").read_bytes() == before
    trials = json.loads(call(file, "--out", out, "--show", "--json").stdout)
    assert [trial["number"] for trial in trials] == [1, 2, 3, 4, 5]


def test_importance_of_settings(folder: Path) -> None:
    from mocme.tuning.study import Study
    from mocme.tuning.table import importance_lines

    settings = {
        "experts.embedding.training.objective.n3": 0.01,
        "experts.embedding.training.epochs": 2,
    }
    trials = [
        Trial(
            number,
            "complete",
            settings | {"experts.embedding.training.objective.n3": 0.05 * number},
            mrr=0.9 if number > 16 else 0.1,
        )
        for number in range(1, 21)
    ]
    shares = Study(plan(folder), trials).importance()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["experts.embedding.training.objective.n3"] > 0.9
    assert "experts.embedding.training.objective.n3" in importance_lines(shares)[0]
    equal = [replace(trial, mrr=0.5) for trial in trials]
    assert Study(plan(folder), equal).importance() == {}
    assert Study(plan(folder), trials[:9]).importance() == {}


def test_the_plot(folder: Path, uninterrupted: SearchFolder) -> None:
    pytest.importorskip("matplotlib")
    from mocme.tuning.plots import draw

    search = plan(
        folder, f'{BOTH}"experts.embedding.scorer.kind" = {{choices = ["ComplEx", "DistMult"]}}\n'
    )
    trials = [
        replace(trial, settings={**trial.settings, "experts.embedding.scorer.kind": "DistMult"})
        for trial in uninterrupted.trials()
    ]
    pruned = Trial(6, "pruned", trials[0].settings, curves={"0": [(1, 0.1)]})
    failed = Trial(7, "failed", trials[0].settings)
    path = draw(folder, search, [*trials, pruned, failed])
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert draw(folder, search, []).exists()
    assert draw(folder, search, [failed]).exists()


def test_missing_files_and_libraries_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = plan(folder).file
    for words, message in [
        ((file, "--out", folder / "none", "--show"), "there is no search"),
        ((folder / "none.toml",), "no such file"),
    ]:
        result = call(*words)
        assert result.exit_code == 1
        assert message in result.stderr
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = call(file, "--out", folder / "out")
    assert result.exit_code == 1
    assert remedy("tune") in result.stderr
    assert not (folder / "out").exists()


def test_shipped_searches_can_be_read() -> None:
    files = sorted((Path(__file__).parents[2] / "benchmarks" / "accuracy").glob("tune-*.toml"))
    assert files
    for file in files:
        assert Plan.read(file).pruning is not None


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"curves": 5}, "curves"),
        ({"curves": {"0": [[1]]}}, "curves.0"),
        ({"curves": {"0": [["x", 1]]}}, "curves"),
        ({"mrr": "x"}, "mrr"),
        ({"mrr": None}, "mrr"),
        ({"mrr": float("inf")}, "mrr"),
        ({"state": "other"}, "state"),
        ({"settings": {}}, "settings"),
        ({"number": "one"}, "number"),
        ({"metrics": {"mrr": "x"}}, "metrics"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_forged_trial_is_an_error_with_its_line_and_key(
    change: dict[str, Any], key: str, tmp_path: Path
) -> None:
    search = SearchFolder.begin(tmp_path / "out", {"ranges": {"a.b": {"low": 1, "high": 2}}})
    good = Trial(1, "complete", {"a.b": 1}, 0.5, {"mrr": 0.5}, {"0": [(1, 0.5)]}, 1.0)
    search.add(good)
    (stored,) = search.trials()
    assert asdict(stored) == asdict(good)
    search.files.append("trials.jsonl", {**asdict(good), **change})
    with pytest.raises(RunError, match=rf"trials\.jsonl: line 2: .*{key}.*; "):
        search.trials()
