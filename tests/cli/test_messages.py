"""What a newcomer reads: one line that names the cause and a remedy that works."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import mocme
from mocme import cli
from mocme.cli.tables import calibration_note
from mocme.core.extras import remedy
from read_only import unwritable
from tiny_graphs import make_tiny, write_tiny

SETTINGS = {"experts.embedding.training.epochs": 1, "experts.embedding.embedding_dim": 4}
FACT = ("--head", "e0", "--relation", "r0", "--tail", "e1")


def call(*words: object) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def error(result: Result) -> str:
    """The one line of an error."""
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    assert result.stderr.splitlines()[-1] == lines[0], result.stderr
    return lines[0].removeprefix("Error: ")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("messages")
    data = write_tiny(folder / "data", make_tiny(valid=20))
    path = mocme.train(data, "mocme", out=folder / "run", settings=SETTINGS, device="cpu").path
    assert call("predict", path, "--head", "e0", "--relation", "r0").exit_code == 0
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


# -- missing extras ----------------------------------------------------------------------------


def test_explain_checks_for_matplotlib_before_the_work(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = run.parent / "why.svg"
    result = call("explain", run, *FACT, "--picture", out)
    assert error(result) == (
        f"{out}: plots need matplotlib, which is not installed; {remedy('pictures')}"
    )
    assert not result.stdout


@pytest.mark.parametrize(
    ("library", "name", "words"),
    [
        ("pyarrow", "tables", ("export", "atlas", "OUT.parquet")),
        ("pyarrow", "tables", ("complete", "RUN", "--out", "OUT.parquet")),
        ("zstandard", "tables", ("export", "atlas", "OUT.csv.zst")),
        ("pyoxigraph", "rdf", ("import", "FACTS.nt", "--out", "OUT")),
        ("fastapi", "serve", ("serve", "RUN")),
        ("starlette", "serve", ("serve", "RUN")),
        ("httptools", "serve", ("serve", "RUN")),
    ],
)
def test_a_command_that_lacks_a_library_gives_one_line(
    library: str, name: str, words: tuple[str, ...], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mocme.data.formats import rdf

    rdf.oxigraph.cache_clear()
    (run.parent / "FACTS.nt").write_text('<a:a> <a:b> "c\\u00e4"@de .\n')
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.chdir(run.parent)
    assert remedy(name) in error(call(*("run" if word == "RUN" else word for word in words)))
    rdf.oxigraph.cache_clear()


def test_a_library_that_no_check_names_gives_one_line_too(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mocme.runs.run import Run

    def broken(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'rich.extra'", name="rich.extra")

    monkeypatch.setattr(Run, "evaluate", broken)
    assert error(call("evaluate", run)) == f"No module named 'rich.extra'; {remedy('all')}"


# -- a finished run ----------------------------------------------------------------------------


def spoil(run: Path, count: int = 1) -> Path:
    """Put NaN into a tensor of the run's expert, with a checksum that fits."""
    file = run / "experts" / "embedding.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    tensors[name][:1, :count] = float("nan")
    save_file(tensors, file, metadata)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    Path(f"{file}.sha256").write_text(f"{digest}  {file.name}\n")
    return file


def test_resuming_a_finished_run_writes_nothing_and_says_nothing_was_written(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with unwritable(run):
        result = call("resume", run)
    assert result.exit_code == 0, result.output
    assert f"{run}: already finished after 1 epoch; nothing to do" in result.stdout
    assert "written" not in result.output
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize(
    ("count", "what"), [(1, "a number that is NaN or infinite, at"), (2, "2 numbers that are")]
)
def test_a_finished_run_with_nan_is_an_error_that_points_at_the_numbers(
    count: int, what: str, run: Path
) -> None:
    file = spoil(run, count)
    for words in (("resume", run), ("predict", run, "--head", "e0", "-r", "r0")):
        message = error(call(*words))
        assert message.startswith(f"{file}: the tensor ")
        assert what in message
        assert "graph" not in message
        assert message.endswith("restore it from a copy of the run, or create the run again")


# -- export ------------------------------------------------------------------------------------


def test_a_refused_export_of_raw_files_leaves_and_claims_nothing(tmp_path: Path) -> None:
    data = write_tiny(tmp_path / "data", make_tiny())
    (tmp_path / "texts.tsv").write_text("e1\tsome words of it\n")
    (data / "graph.toml").write_text('[modalities.x]\nkind = "words"\npaths = ["../texts.tsv"]\n')
    words = ("export", data, tmp_path / "out", "--raw")
    for _ in range(2):  # the first leaves nothing that refuses the second
        result = call(*words)
        assert "files may be copied; to copy files of a folder DIR" in error(result)
        assert "written" not in result.output
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "texts.tsv"]
    again = call(*words, "--files-from", tmp_path)
    assert again.exit_code == 0, again.output
    assert (tmp_path / "out" / "texts.tsv").exists()
    assert (tmp_path / "out" / "train.tsv").exists()


# -- audit -------------------------------------------------------------------------------------


def test_an_audit_names_what_is_declared_but_not_encoded_yet(tmp_path: Path) -> None:
    data = write_tiny(tmp_path / "data", make_tiny(dense={}, tokens={}))
    (data / "t.tsv").write_text("e1\tsome words of it\n")
    (data / "graph.toml").write_text('[encode.later]\nkind = "text"\npaths = ["t.tsv"]\n')
    result = call("audit", data, "--no-floors")
    assert result.exit_code == 0, result.output
    assert "later" in result.stdout
    assert f"not encoded yet: later; run: mocme encode all {data}" in result.stdout


# -- folders that cannot be written ------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize(
    "words",
    [
        ("train", "structure", "--data", "DATA", "--out", "OUT/new"),
        ("export", "DATA", "OUT/new"),
        ("export", "DATA", "OUT/new.csv"),
        ("export", "DATA", "OUT/new", "--raw"),
        ("export-embeddings", "RUN", "--out", "OUT/new"),
        ("complete", "RUN", "--out", "OUT/new.tsv"),
        ("import", "DATA/train.tsv", "--out", "OUT/new"),
        ("audit", "DATA", "--no-floors", "--page", "OUT/new.html"),
        ("audit", "DATA", "--no-floors", "--repair", "OUT/new"),
        ("explain", "RUN", *FACT, "--picture", "OUT/new.svg"),
        ("encode", "all", "DATA", "--out", "OUT/new"),
        ("entities", "add", "RUN", "x", "--fact", "x\tr0\te1"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_path_that_cannot_be_written_is_named_with_a_remedy(
    words: tuple[str, ...], number: int, run: Path
) -> None:
    data, out = run.parent / "data", run.parent / "out"
    write_tiny(data, make_tiny(valid=20))
    (data / "t.tsv").write_text("e1\tsome words of it\n")
    table = '[encode.later]\nkind = "words"\npaths = ["t.tsv"]\n'
    if words[0] == "encode":
        with (data / "graph.toml").open("a") as file:
            file.write(table)
    out.mkdir()
    paths = {"DATA": data, "OUT": out, "RUN": run}
    filled = [re.sub("DATA|OUT|RUN", lambda match: str(paths[match[0]]), word) for word in words]
    written = run if words[0] == "entities" else out
    with unwritable(written, number):
        message = error(call(*filled))
    assert str(written) in message
    assert os.strerror(number) in message
    assert "Errno" not in message
    assert ".tmp" not in message
    assert re.search(r"; (give|check|free|change|name|to) ", message), message


# -- names and folders -------------------------------------------------------------------------


def test_an_unknown_relation_lists_the_near_ones_or_all_if_they_are_few(run: Path) -> None:
    message = error(call("predict", run, "--head", "e0", "-r", "speaks"))
    assert (
        message
        == "there is no relation named 'speaks' in the graph; its relations: 'r0', 'r1', 'r2'"
    )
    assert "did you mean 'r0'" in error(call("predict", run, "--head", "e0", "-r", "r 0"))


@pytest.mark.parametrize("words", [("export", "RUN", "x.csv"), ("audit", "RUN")])
def test_a_run_given_as_a_graph_is_called_a_run(words: tuple[str, ...], run: Path) -> None:
    message = error(call(*(run if word == "RUN" else word for word in words)))
    assert message.startswith(f"{run}: is a run, not a graph; ")
    assert f"mocme complete {run} --out FILE" in message
    assert not Path("x.csv").exists()


def test_a_graph_given_as_a_run_is_called_a_graph(tmp_path: Path) -> None:
    data = write_tiny(tmp_path / "data", make_tiny())
    message = error(call("predict", data, "--head", "e0", "-r", "r0"))
    assert f"; train on these data first: mocme train --data {data} --out RUN" in message


# -- figures and what they mean ----------------------------------------------------------------


def test_captions_say_what_scores_and_probabilities_are(run: Path) -> None:
    flat = " ".join(call("predict", run, "--head", "e0", "-r", "r0").stdout.split())
    assert "higher, because unknown facts count as false" in flat
    assert "probabilities of different questions can be compared, scores cannot" in flat
    assert "both directions" not in flat
    (run.parent / "facts.tsv").write_text("e0\tr0\te1\n")
    flat = " ".join(call("score", run, run.parent / "facts.tsv").stdout.split())
    assert "score and probability are means of both directions" in flat


def test_explain_says_that_its_score_is_a_mean_and_shows_drops_only(run: Path) -> None:
    output = call("explain", run, *FACT).stdout
    assert "(mean of both directions)" in output
    assert "score drop without it" in output
    assert "change without it" not in output


@pytest.mark.parametrize(
    ("before", "after", "counts", "note"),
    [
        (0.2, 0.1, (5, 5), ""),
        (0.1, 0.2, (5, 5), "worse than the uncalibrated softmax (error 0.2000 against 0.1000)"),
        (0.1, 0.0, (5, 0), "no candidate has a calibrated probability of 1 % or more"),
        (0.0, 0.1, (0, 5), "no candidate has a softmax of 1 % or more"),
    ],
)
def test_a_calibration_that_is_worse_than_the_softmax_says_so(
    before: float, after: float, counts: tuple[int, int], note: str
) -> None:
    parts = [
        {
            "error_of_likely": error,
            "bins": [{"from": 0.0, "to": 0.01, "count": 9}, {"from": 0.01, "to": 1, "count": n}],
        }
        for error, n in zip((before, after), counts, strict=True)
    ]
    record = {"answers": 12, "before": parts[0], "after": parts[1]}
    assert note in calibration_note(record)
    assert bool(calibration_note(record)) == bool(note)
    if "worse" in note:
        assert "12 answers of the valid split had to predict the other half, and that is few" in (
            calibration_note(record)
        )


# -- counts ------------------------------------------------------------------------------------


def test_an_import_counts_in_the_singular_and_calls_files_files(tmp_path: Path) -> None:
    (tmp_path / "f.tsv").write_text("a\tr\tb\nb\tr\tc\nx\n")
    (tmp_path / "pictures.csv").write_text("name,file\na,missing.png\nb,there.png\n")
    (tmp_path / "there.png").write_bytes(b"any")
    (tmp_path / "recipe.toml").write_text(
        '[[facts]]\npath = "f.tsv"\n'
        '[[files]]\nname = "image"\npath = "pictures.csv"\nentity = "name"\ncolumn = "file"\n'
    )
    result = call("import", tmp_path / "recipe.toml", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "1 reject\n" in result.stdout
    assert "3 entities, 1 relation; facts: train 2; 0 repeated ones dropped" in result.stdout
    assert "image: 1 file; 0 empty cells" in result.stdout
    assert "line 2: file is 'missing.png': there is no such file; correct the path" in result.stdout
    assert not re.search(r"\b1 (rejects|rows|lines|values|files|relations)\b", result.stdout)


@pytest.mark.filterwarnings("default::mocme.storage.NotKept")
def test_an_evaluation_that_is_not_recorded_has_no_number(run: Path) -> None:
    for _ in range(2):
        with unwritable(run):
            text, parsed = call("evaluate", run), call("evaluate", run, "--json")
        assert "valid evaluation that is not recorded" in " ".join(text.stdout.split())
        assert "evaluation number" not in text.output
        assert json.loads(parsed.stdout)["recorded"] is False
        assert "evaluations_of_this_split" not in parsed.stdout
    assert "valid evaluation number 1 of this run" in " ".join(call("evaluate", run).stdout.split())
    parsed = json.loads(call("evaluate", run, "--json").stdout)
    assert (parsed["recorded"], parsed["evaluations_of_this_split"]) == (True, 2)
