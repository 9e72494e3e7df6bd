"""Benchmark files: defaults, placeholders, and errors that name the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_benchmark import TEXT

from mocme.benchmark.plan import plan
from mocme.benchmark.spec import BenchmarkSpec
from mocme.core.registry import ConfigError

ACCURACY = Path(__file__).parents[2] / "benchmarks" / "accuracy"


def error_of(text: str, folder: Path) -> str:
    (folder / "bad.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        plan(BenchmarkSpec.read(folder / "bad.toml"), folder)
    assert str(error.value).startswith(str(folder / "bad.toml"))
    return str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title", "titel", "titel: is unknown"),
        ("seeds = [0, 1]", "seed = [0]", "defaults.seed: is unknown"),
        ('control = "structure only"', 'controls = "x"', "rows[1].controls: is unknown"),
        ('control = "structure only"', 'control = "structure"', "rows[1].control: 'structure' is"),
        ('control = "structure only"', 'control = "tokens"', "rows[1].control: is the row itself"),
        ('control = "structure only"', 'control = ["x"]', "rows[1].control: 'x' is not a row"),
        ('control = "structure only"', "control = []", "rows[1].control: is empty"),
        ('control = "structure only"', "control = 3", "rows[1].control: must be a list, not 3"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "rows[0].seeds: has a value twice"),
        ("seeds = [0, 1]", "seeds = [true]", "rows[0].seeds: must be an integer"),
        ("seeds = [0, 1]", 'splits = ["train"]', "rows[0].splits: 'train'"),
        ("seeds = [0, 1]", 'version = "new"', "rows[0].version: must be repaired"),
        (
            "experts.embedding.embedding_dim",
            "seed",
            "rows[0].set: seed is not allowed; use seeds",
        ),
        (
            "experts.embedding.embedding_dim",
            "experts.embedding.widht",
            "row 'structure only' on tiny: experts.embedding.widht",
        ),
        ('name = "tokens"', 'name = "Structure-only"', "rows[1].name"),
        ('experiment = "vectors"', 'experiment = "x/{seed}"', "rows[1].experiment: {seed}"),
        ('experiment = "vectors"', 'experiment = "no-such"', "no such experiment"),
        ("[[rows]]", "[[row]]", "row: is unknown"),
        ('graphs = ["tiny"]', 'graphs = ["a/tiny", "tiny"]', "rows[0].graphs"),
    ],
)
def test_errors_name_the_file_and_the_key(home: Path, old: str, new: str, message: str) -> None:
    assert message in error_of(TEXT.replace(old, new), home)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("mrr = 1.5", "published[0].mrr: must be between 0 and 1"),
        ("hits = 0.5", "published[0].hits: is unknown"),
        ("", "published[0]: has no metric"),
        ('split = "all"\nmrr = 0.5', "published[0].split"),
    ],
)
def test_published_results_are_checked(home: Path, metric: str, message: str) -> None:
    table = '[[published]]\nname = "A"\ngraph = "tiny"\nprotocol = "p"\nsource = "s"\n'
    assert message in error_of(f"{TEXT}\n{table}{metric}", home)


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
    spec = BenchmarkSpec.read(tmp_path / "a.toml")
    assert spec.results == tmp_path / "results" / "a.zip"
    first, second = plan(spec, tmp_path / "runs")
    assert first.experiment.name == "structure/mkg-y"
    assert first.experiment.experts["embedding"]["embedding_dim"] == 64
    assert first.experiment.experts["embedding"]["training"]["epochs"] == 2
    assert first.features == tmp_path / "encoded/MKG-Y"
    assert (first.version, second.version) == ("as-published", None)
    assert second.experiment.name == "atlas/mocme"


def test_shipped_benchmarks_can_be_planned() -> None:
    paths = sorted(set(ACCURACY.glob("*.toml")) - set(ACCURACY.glob("tune-*.toml")))
    assert paths
    for path in paths:
        assert plan(BenchmarkSpec.read(path), Path("runs"))


def test_shipped_results_belong_to_planned_runs() -> None:
    specs = [BenchmarkSpec.read(p) for p in ACCURACY.glob("*.toml") if p.stem[:5] != "tune-"]
    stems = {spec.results: {r.files.stem for r in plan(spec, Path())} for spec in specs}
    archives = sorted((ACCURACY / "results").glob("*.zip"))
    assert archives
    assert set(archives) <= stems.keys()
    for spec in specs:
        for run in plan(spec, Path()):
            if (result := run.files.read_result()) is not None:
                assert (result["row"], result["graph"]) == (run.row.name, run.graph)
                assert result["seed"] == run.seed
