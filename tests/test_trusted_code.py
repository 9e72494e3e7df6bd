"""Code that a file names is imported only where the caller trusts it: every place, every entry."""

from __future__ import annotations

import ast
import copy
import json
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from click.testing import CliRunner

import mocme
from mocme import cli
from mocme.audit.audit import audit
from mocme.benchmark import runner, worker
from mocme.benchmark.plan import matches
from mocme.benchmark.plan import plan as plan_benchmark
from mocme.benchmark.spec import BenchmarkSpec
from mocme.data.load import load
from mocme.encoders.encode import encode
from mocme.encoders.export_raw import export_raw
from mocme.inductive.store import FILE as ADDITIONS
from mocme.runs.config import Experiment
from mocme.runs.run import Run
from mocme.storage import RunFolder
from mocme.tuning.plan import Plan
from mocme.tuning.search import tune

MODULE = "code_of_another_author"
KIND = f"{MODULE}:Anything"
REFUSED = rf"{KIND}.*(trust_code=True|--trust-code)"
FEW = {
    "experts.embedding.embedding_dim": 4,
    "experts.embedding.training.epochs": 1,
    "experts.embedding.training.precision": "float32",
}
EXPERIMENT = {
    "data": {"only": ["shape"]},
    "experts": [
        {
            "kind": "embedding",
            "embedding_dim": 4,
            "training": {"epochs": 1, "precision": "float32"},
        }
    ],
}


class Traps:
    """A module on the path that leaves a mark when it is imported."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "was-imported"
        (folder / f"{MODULE}.py").write_text(f"open({str(self.mark)!r}, 'w').close()\n")

    def sprung(self) -> bool:
        """Whether the module was imported since the last call."""
        imported = self.mark.exists() or MODULE in sys.modules
        self.mark.unlink(missing_ok=True)
        sys.modules.pop(MODULE, None)
        return imported


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traps]:
    (tmp_path / "path").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "path")
    traps = Traps(tmp_path / "path")
    yield traps
    traps.sprung()


@pytest.fixture
def data(tmp_path: Path, tiny_graph: Callable[..., Any], tiny_folder: Callable[..., Path]) -> Path:
    folder: Path = tiny_folder(tmp_path / "data", tiny_graph())
    (folder / "names.tsv").write_text("".join(f"e{n}\tname {n}\n" for n in range(12)))
    return folder


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_graph: Callable[..., Any],
    tiny_folder: Callable[..., Path],
) -> Path:
    """A folder with a graph and a finished run of all experts that has an addition."""
    folder = tmp_path_factory.mktemp("trained")
    tiny_folder(folder / "data", tiny_graph())
    run = mocme.train(folder / "data", "mocme", out=folder / "run", settings=FEW, device="cpu")
    run.add("new", [("new", "r0", "e1")], device="cpu")
    return folder


@pytest.fixture
def run_folder(trained: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(trained / "data", tmp_path / "data")
    shutil.copytree(trained / "run", tmp_path / "run")
    folder = RunFolder.open(tmp_path / "run")
    folder.update_about(data=str(tmp_path / "data"))
    return folder


def tables_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every table in a table."""
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            yield from tables_of(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from tables_of(inner, (*path, index))


def with_kind(table: Any, path: tuple[Any, ...], key: str = "kind") -> Any:
    """A copy of a table in which the table at a path names the code."""
    forged = copy.deepcopy(table)
    inner = forged
    for step in path:
        inner = inner[step]
    inner[key] = KIND
    return forged


def call(*words: object) -> str:
    result = CliRunner().invoke(cli.main, [str(word) for word in words])
    assert result.exit_code, f"{words} did not fail:\n{result.output}"
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


# -- a run -----------------------------------------------------------------------------------------


def run_entries(path: Path) -> list[Callable[[], Any]]:
    from mocme.serving.run_view import RunView

    facts = path.parent / "facts.tsv"
    facts.write_text("e1\tr0\te2\n")
    return [
        lambda: Run.open(path),
        lambda: mocme.open(path, device="cpu"),
        lambda: mocme.resume(path, device="cpu"),
        lambda: RunView("run", Run.open(path)),
        lambda: call("predict", path, "--about", "e1"),
        lambda: call("score", path, facts),
        lambda: call("explain", path, "--head", "e1", "--relation", "r0", "--tail", "e2"),
        lambda: call("complete", path, "--out", path.parent / "complete.tsv"),
        lambda: call("calibrate", path),
        lambda: call("evaluate", path),
        lambda: call("export-embeddings", path, "--out", path.parent / "vectors"),
        lambda: call("resume", path),
        lambda: call("entities", "add", path, "other", "--fact", "other\tr0\te1"),
        lambda: call("entities", "list", path),
        lambda: call("entities", "remove", path, "new"),
        lambda: call("serve", path, "--port", "0"),
    ]


def refused(entry: Callable[[], Any]) -> None:
    """The entry fails with the error that names the code and the remedy."""
    try:
        output = entry()
    except ValueError as error:
        output = str(error)
    flat = " ".join(str(output).split())
    assert KIND in flat, flat
    assert "trust_code=True" in flat or "--trust-code" in flat, flat


def test_every_entry_refuses_a_run_whose_configuration_names_code(
    run_folder: RunFolder, traps: Traps
) -> None:
    table = tomllib.loads(run_folder.read_text("config.toml"))
    scorer = ("experts", 0, "scorer")
    run_folder.write_text("config.toml", tomli_w.dumps(with_kind(table, scorer)))
    for entry in run_entries(run_folder.path):
        refused(entry)
        assert not traps.sprung()
    with pytest.raises(mocme.ConfigError, match=f"{KIND}' cannot be imported"):
        Run.open(run_folder.path, trust_code=True)
    assert traps.sprung()


def test_every_table_of_a_configuration_refuses_code(run_folder: RunFolder, traps: Traps) -> None:
    """Each table of the file, a component or not, and each expert as a function."""
    table = tomllib.loads(run_folder.read_text("config.toml"))
    table["modalities"] = {"shape": {"kind": "Vectors", "path": "shape.safetensors"}}
    places = [(path, "kind") for path in tables_of(table)]
    assert len(places) > 20
    places += [(("experts", n), "function") for n in range(len(table["experts"]))]
    for path, key in places:
        forged = with_kind(table, path, key)
        run_folder.write_text("config.toml", tomli_w.dumps(forged))
        with pytest.raises(ValueError, match=KIND):
            Run.open(run_folder.path)
        # The same without the check of the whole configuration that opening a run begins with.
        with pytest.raises(mocme.ConfigError):
            Experiment.of("forged", forged)
        assert not traps.sprung(), path
    scores = {"experts": [{"kind": "scores", "function": KIND}]}
    with pytest.raises(mocme.ConfigError, match=REFUSED):
        Experiment.of("forged", scores)
    assert not traps.sprung()
    Experiment.of("forged", scores, trust_code=True)
    assert not traps.sprung()  # it is imported when it is fitted


def test_metadata_of_a_run_imports_nothing(run_folder: RunFolder, traps: Traps) -> None:
    from mocme.serving.run_view import RunView

    files = [*(run_folder.path / "modalities").glob("*.safetensors"), run_folder.path / ADDITIONS]
    assert len(files) == 4
    settings = json.dumps({"kind": KIND, "paths": ["names.tsv"]})
    for file in files:
        name = file.relative_to(run_folder.path).as_posix()
        tensors, metadata = run_folder.read_tensors(name), run_folder.tensors_metadata(name)
        for key in ("kind", "settings", "encoder"):
            metadata[key] = settings if key == "settings" else KIND
        run_folder.write_tensors(name, tensors, metadata)
    view = RunView("run", Run.open(run_folder.path))
    assert any(KIND in note and "--trust-code" in note for note in view.content.notes)
    view.entity("e1")
    run = Run.open(run_folder.path)
    run.add("another", [("another", "r0", "e2")], device="cpu")
    with pytest.raises(ValueError, match="shape"):
        run.add("third", [("third", "r0", "e2")], content={"shape": "a text"}, device="cpu")
    assert not traps.sprung()
    RunView("run", Run.open(run_folder.path, trust_code=True))
    assert traps.sprung()


@pytest.mark.parametrize("section", ["modalities", "encode"])
def test_a_server_does_not_import_what_the_graph_of_a_run_names(
    section: str, run_folder: RunFolder, traps: Traps
) -> None:
    from mocme.serving.api import create_app
    from mocme.serving.run_view import RunView

    graph_toml = Path(str(run_folder.about["data"]), "graph.toml")
    graph_toml.write_text(
        graph_toml.read_text() + f'[{section}.other]\nkind = "{KIND}"\npaths = ["word.tsv"]\n'
    )
    view = RunView("run", Run.open(run_folder.path))
    create_app([view])
    assert any(f"{section}.other.kind: '{KIND}'" in note for note in view.content.notes)
    assert not traps.sprung()
    RunView("run", Run.open(run_folder.path, trust_code=True))
    assert traps.sprung()


# -- a graph and a recipe --------------------------------------------------------------------------


def forged_graph(data: Path, section: str) -> Path:
    with (data / "graph.toml").open("a") as file:
        file.write(f'[{section}.other]\nkind = "{KIND}"\npaths = ["names.tsv"]\n')
        if section == "modalities":
            file.write('[encode.codes]\nkind = "codes"\nof = "other"\n')
    return data


def graph_entries(data: Path, section: str, **trust: Any) -> list[Callable[[], Any]]:
    graph, out = load(data), data.parent
    encodes = [lambda: encode(data, device="cpu", **trust)]
    if section == "encode":
        return [*encodes, lambda: export_raw(graph, _folder(out / "raw"), **trust)]
    training = {**EXPERIMENT, "data": {"only": ["other"]}}
    (out / "tune.toml").write_text(TUNE)
    (out / "other.toml").write_text(tomli_w.dumps(training))
    plan = Plan.read(out / "tune.toml", **trust)
    return [
        *encodes,
        lambda: mocme.train(data, training, out=out / "r", device="cpu", **trust),
        lambda: audit(data, ranked=False, **trust),
        lambda: tune(plan, out=out / "t", device="cpu"),
        lambda: runner.survey(benchmark(out, **trust))[0].why,
    ]


TUNE = 'experiment = "other.toml"\ngraph = "data"\ntrials = 1\n[ranges]\n"seed" = {choices = [1]}\n'
TUNE = TUNE.replace('"seed"', '"experts.embedding.embedding_dim"').replace("[1]", "[4]")


def _folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def benchmark(home: Path, **trust: Any) -> list[Any]:
    (home / "b.toml").write_text(
        '[[rows]]\nname = "row"\nexperiment = "other.toml"\ngraphs = ["data"]\n'
    )
    return plan_benchmark(BenchmarkSpec.read(home / "b.toml"), home / "runs", **trust)


@pytest.mark.parametrize("section", ["modalities", "encode"])
def test_a_graph_that_names_code_is_refused(section: str, data: Path, traps: Traps) -> None:
    for entry in graph_entries(forged_graph(data, section), section):
        refused(entry)
        assert not traps.sprung()
    for entry in graph_entries(data, section, trust_code=True):
        try:
            message = str(entry())
        except ValueError as error:
            message = str(error)
        assert "cannot be imported" in message
        assert traps.sprung()


@pytest.mark.parametrize("section", ["modalities", "encode"])
def test_commands_refuse_a_graph_that_names_code(section: str, data: Path, traps: Traps) -> None:
    out, graph = data.parent, forged_graph(data, section)
    commands: list[tuple[object, ...]] = [("encode", "all", graph, "--out", out / "e")]
    if section == "encode":
        commands.append(("export", graph, out / "raw", "--raw"))
    else:
        other = out / "other.toml"
        other.write_text(tomli_w.dumps({**EXPERIMENT, "data": {"only": ["other"]}}))
        (out / "tune.toml").write_text(TUNE)
        commands += [
            ("train", other, "--data", graph, "--out", out / "run"),
            ("audit", graph, "--no-floors"),
            ("tune", out / "tune.toml", "--out", out / "t"),
        ]
    for command in commands:
        refused(lambda command=command: call(*command))
        assert not traps.sprung()
        assert "cannot be imported" in call(*command, "--trust-code")
        assert traps.sprung()


def test_importing_a_recipe_that_names_code_is_refused(data: Path, traps: Traps) -> None:
    recipe = data / "recipe.toml"
    recipe.write_text(
        f'[[facts]]\npath = "train.tsv"\n[encode.other]\nkind = "{KIND}"\npaths = ["names.tsv"]\n'
    )
    out = data.parent / "graph"
    refused(lambda: call("import", recipe, "--out", out))
    assert not traps.sprung()
    assert not out.exists()
    assert "cannot be imported" in call("import", recipe, "--out", out, "--trust-code")
    assert traps.sprung()


# -- experiments, searches and benchmarks ----------------------------------------------------------


def experiment_entries(out: Path, forged: Path, **trust: Any) -> list[Callable[[], Any]]:
    small = 'experiment = "small.toml"\ngraph = "data"\ntrials = 1\n'
    choice = '[ranges]\n"experts.embedding.embedding_dim" = {choices = [4]}\n'
    chosen = f'"experts.embedding.scorer" = {{choices = [{{kind = "{KIND}"}}]}}\n'
    (out / "small.toml").write_text(tomli_w.dumps(EXPERIMENT))
    (out / "plan.toml").write_text(small.replace("small", forged.stem) + choice)
    (out / "set.toml").write_text(
        f'{small}[set]\n"experts.embedding.scorer.kind" = "{KIND}"\n{choice}'
    )
    (out / "ranges.toml").write_text(f"{small}[ranges]\n{chosen}")
    row = '[[rows]]\nname = "row"\nexperiment = "other.toml"\ngraphs = ["data"]\n'
    change = f'[rows.set]\n"experts.embedding.scorer.kind" = "{KIND}"\n'
    (out / "b1.toml").write_text(row.replace("other", forged.stem))
    (out / "b2.toml").write_text(row.replace("other", "small") + change)
    spec = BenchmarkSpec.read
    return [
        lambda: mocme.train(out / "data", forged, out=out / "run", device="cpu", **trust),
        lambda: Experiment.load(forged, **trust),
        lambda: Experiment.load(EXPERIMENT, {"experts.embedding.scorer.kind": KIND}, **trust),
        lambda: Plan.read(out / "plan.toml", **trust),
        lambda: Plan.read(out / "set.toml", **trust),
        lambda: Plan.read(out / "ranges.toml", **trust),
        lambda: plan_benchmark(spec(out / "b1.toml"), out / "runs", **trust),
        lambda: plan_benchmark(spec(out / "b2.toml"), out / "runs", **trust),
    ]


def test_an_experiment_that_names_code_is_refused(data: Path, traps: Traps) -> None:
    out, forged = data.parent, data.parent / "forged.toml"
    table = with_kind(
        {**EXPERIMENT, "experts": [{**EXPERIMENT["experts"][0], "scorer": {}}]},
        ("experts", 0, "scorer"),
    )
    forged.write_text(tomli_w.dumps(table))
    for entry in experiment_entries(out, forged):
        refused(entry)
        assert not traps.sprung()
    for entry in experiment_entries(out, forged, trust_code=True):
        with pytest.raises(mocme.ConfigError, match="cannot be imported"):
            entry()
        assert traps.sprung()
    commands: list[tuple[object, ...]] = [
        ("train", forged, "--data", data, "--out", out / "run"),
        ("train", "structure", "--data", data, "--out", out / "run",
         "--set", f"experts.embedding.scorer.kind={KIND}"),
        ("tune", out / "plan.toml", "--out", out / "t"),
        ("benchmark", out / "b1.toml", "--dry-run"),
    ]  # fmt: skip
    for command in commands:
        refused(lambda command=command: call(*command))
        assert not traps.sprung()
        assert "cannot be imported" in call(*command, "--trust-code")
        assert traps.sprung()


def test_a_job_and_a_stored_result_of_a_benchmark_import_nothing(data: Path, traps: Traps) -> None:
    table = with_kind(
        {**EXPERIMENT, "experts": [{**EXPERIMENT["experts"][0], "scorer": {}}]},
        ("experts", 0, "scorer"),
    )
    home = data.parent
    (home / "other.toml").write_text(tomli_w.dumps(EXPERIMENT))
    (planned,) = benchmark(home)
    status = runner.RunStatus(planned, "new")
    job = runner._job(BenchmarkSpec.read(home / "b.toml"), status, "cpu", 1, False)
    assert json.loads(json.dumps(asdict(job), default=str))["trust_code"] is False
    forged = worker.RunJob(**{**vars(job), "config": tomli_w.dumps(table)})
    answer = worker.attempt(forged)
    assert KIND in answer["failed"]["message"]
    assert "--trust-code" in answer["failed"]["message"]
    stored = {"identity": {"digest": "", "settings": worker_digest(table)}, "config": table}
    assert not matches({"digest": "other"}, stored)
    assert not traps.sprung()
    trusted = worker.RunJob(**{**vars(forged), "trust_code": True})
    assert "cannot be imported" in worker.attempt(trusted)["failed"]["message"]
    assert traps.sprung()
    assert not matches({"digest": "other"}, stored, trust_code=True)
    assert traps.sprung()
    (planned,) = benchmark(home, trust_code=True)
    status = runner.RunStatus(planned, "new")
    assert runner._job(BenchmarkSpec.read(home / "b.toml"), status, "cpu", 1, False).trust_code


def worker_digest(table: Any) -> str:
    from mocme.benchmark.plan import json_digest

    return json_digest(table)


# -- the source ------------------------------------------------------------------------------------

LOADERS = {
    "pickle",
    "cPickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "runpy",
    "imp",
}
BUILT_IN = {"exec", "eval", "compile", "__import__"}
CALLS = {"import_module", "import_name", "find_spec", "run_path", "run_module"}


def constant(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant)


def dynamic_calls(tree: ast.AST) -> Iterator[str]:
    """Calls that run code which is not written in the file, and imports of what does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from (name for name in names if name.partition(".")[0] in LOADERS)
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = getattr(function, "id", getattr(function, "attr", ""))
        owner = getattr(getattr(function, "value", None), "id", "")
        if name in BUILT_IN and not isinstance(function, ast.Name):
            continue  # a method of that name, such as `model.eval()`
        if name in CALLS | BUILT_IN and not constant(node.args[0] if node.args else None):
            yield name
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if name == "load" and owner in ("torch", "np", "numpy"):
            safe = keywords.get("weights_only" if owner == "torch" else "allow_pickle")
            if not (constant(safe) and safe.value is (owner == "torch")):
                yield f"{owner}.load"
        if "trust_remote_code" in keywords and keywords["trust_remote_code"].value is not False:
            yield "trust_remote_code"


def test_only_the_registry_imports_what_is_not_written_in_the_source() -> None:
    source = Path(mocme.__file__).parent
    found = {
        (path.relative_to(source).as_posix(), name)
        for path in source.rglob("*.py")
        for name in dynamic_calls(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == {
        # Its own table of lazily imported names.
        ("__init__.py", "import_module"),
        # Own packages, and what `import_name` imports if it is trusted.
        ("core/registry.py", "import_module"),
        ("core/registry.py", "import_name"),
        # Through the registry, with the flag of the task.
        ("experts/scores.py", "import_name"),
        # Names of libraries from a tuple in the source.
        ("cli/serve.py", "find_spec"),
    }


def forged_kind(folder: RunFolder, kind: str) -> None:
    table = tomllib.loads(folder.read_text("config.toml"))
    table["experts"][0]["kind"] = kind
    folder.write_text("config.toml", tomli_w.dumps(table))


def test_the_refusal_of_a_run_names_file_and_key_and_what_the_flag_does(
    run_folder: RunFolder, traps: Traps
) -> None:
    forged_kind(run_folder, KIND)
    with pytest.raises(mocme.RunError) as caught:
        Run.open(run_folder.path)
    assert str(caught.value) == (
        f"{run_folder.path / 'config.toml'}: this run uses custom code (experts[0].kind = "
        f"'{KIND}'), and nothing of it was run; opening it with trust_code=True (--trust-code) "
        f"runs that module with your rights, so do it only if you trust its author, and leave the "
        f"run alone otherwise"
    )
    assert not traps.sprung()


@pytest.mark.parametrize(
    ("kind", "reason", "remedy"),
    [
        ("there_is_none:X", "cannot be imported: No module named 'there_is_none'", "PYTHONPATH"),
        ("json:Nothing", "cannot be imported: module 'json' has no", "correct the name"),
        ("json:JSONDecoder", "is not an ExpertSettings class", "correct the name"),
    ],
)
def test_trusted_code_that_cannot_be_used_is_named_with_its_file_and_a_remedy(
    kind: str, reason: str, remedy: str, run_folder: RunFolder
) -> None:
    forged_kind(run_folder, kind)
    with pytest.raises(mocme.ConfigError) as caught:
        Run.open(run_folder.path, trust_code=True)
    message = str(caught.value)
    assert message.startswith(f"{run_folder.path / 'config.toml'}: ")
    assert f"kind: '{kind}' {reason}" in message
    assert message.endswith(remedy)
    assert "copy of the run" not in message
