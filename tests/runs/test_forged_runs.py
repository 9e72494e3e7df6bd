"""A run's folder that comes from elsewhere: refused with the file's name, or answers as before."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import forgeries
import mocme
from mocme import Run
from mocme.data.graph import Graph, Queries
from mocme.data.modality import FORMAT, Features
from mocme.inductive.usable import AdditionLeftOut
from mocme.prediction.predictor import Predictor
from mocme.runs.inputs import LoadedRun

SETTINGS = {
    "experts.embedding.embedding_dim": 4,
    "experts.embedding.training.epochs": 2,
    "experts.embedding.training.batch_size": 64,
    "experts.embedding.training.precision": "float32",
    "experts.rules": {"support": 1, "confidence": 0.001},
    "mixture": {"strength": {"rules": 2.0}, "sharpness": {"rules": 30.0}},
}
MORE = """
[modalities.named]
kind = "mentions"
names = ["names.tsv"]
texts = ["texts.tsv"]
contexts = 3
[modalities.alike]
kind = "similar"
vectors = "look.safetensors"
nearest = 2
[modalities.look]
kind = "encoded"
path = "look.safetensors"
[modalities.number]
kind = "numbers"
path = "numbers.tsv"
bins = 2
"""


@pytest.fixture(scope="module")
def original(
    tiny_graph: Callable, tiny_folder: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run with vectors, tokens, pairs, rules, an addition, and all that is computed later."""
    folder = tiny_folder(tmp_path_factory.mktemp("data"), tiny_graph(facts=50, valid=12))
    names = [f"e{n}" for n in range(12)]
    (folder / "names.tsv").write_text("".join(f"{n}\tname of {n}\n" for n in names))
    texts = [f"{n}\tit knows the name of e{(int(n[1:]) * 5 + 1) % 12}\n" for n in names]
    (folder / "texts.tsv").write_text("".join(texts))
    (folder / "numbers.tsv").write_text("".join(f"{n}\tsize\t{n[1:]}\n" for n in names))
    with (folder / "graph.toml").open("a") as file:
        file.write(MORE)
    values = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    entities = hashlib.sha256("".join(f"{n}\n" for n in names).encode()).hexdigest()
    save_file(
        {"values": values, "rows": torch.arange(12)},
        folder / "look.safetensors",
        {"format": FORMAT, "entities": entities},
    )
    out = tmp_path_factory.mktemp("runs") / "run"
    run = mocme.train(folder, "mocme", out=out, settings=SETTINGS, device="cpu")
    run.evaluate("valid", "cpu")
    run.add("Ada", [("Ada", "r0", "e1")], content={"shape": [1.0] * 5, "word": {"word1"}})
    run.predictor("cpu").explain("e1", "r0", "e2")
    return out


@dataclass(frozen=True)
class Forged:
    """A run whose files are forged one at a time, and what it answers as it is."""

    path: Path
    run: Run
    loaded: LoadedRun
    predictor: Predictor
    graph: Graph
    features: Features

    def answers(self) -> list[Any]:
        """Answers of the run, opened anew."""
        return list(Run.open(self.path).predictor("cpu").tails("e1", "r0", k=5))

    def opened(self) -> list[Any]:
        """What the answers take from run.json."""
        run = Run.open(self.path)
        keys = ("modalities", "experts", "seed", "finished")  # the others are shown only
        return [*(run.about[key] for key in keys), run.graph().digest()]

    def scores(self, run: Run | None = None) -> list[Any]:
        """Scores of the experts and their mixture, read anew."""
        mixture = (run or self.run).mixture(self.graph, self.features, torch.device("cpu"))
        queries = Queries(torch.tensor([1, 3]), torch.tensor([0, 4]))
        return mixture.score(queries).tolist()

    def probabilities(self) -> list[Any]:
        """Probabilities, read anew."""
        calibration = self.run.calibration(self.graph, self.run.folder.model)
        if calibration is None:  # of another model: it is fitted anew
            raise ValueError("calibration.safetensors is of another model")
        shares = torch.tensor([-20.0, -1.0])
        return [calibration.probability(shares, r).tolist() for r in range(6)]

    def with_additions(self) -> list[Any]:
        """Answers with additions, which are read anew."""
        try:
            predictor = self.loaded.predictor(self.run.additions())
        except AdditionLeftOut as notice:  # a warning, which is an error under test
            raise ValueError(f"additions.safetensors: {notice}") from notice
        return list(predictor.tails("e1", "r0", k=5))

    def read_features(self) -> list[Any]:
        """The modalities, read anew."""
        features = self.run.features(self.graph)
        dense = {n: (m.rows.tolist(), m.values.tolist()) for n, m in features.dense.items()}
        return [dense, {n: m.digest() for n, m in {**features.tokens, **features.pairs}.items()}]

    def refusals(
        self,
        name: str,
        cases: Iterator[tuple[str, Any]],
        write: Callable[[Any], None],
        ask: Callable[[], Any],
        named: str = "",
    ) -> dict[str, str]:
        """The refusals of forgeries of one file, which has its content again afterwards."""
        before = (self.path / name).read_bytes()
        try:
            return forgeries.refusals(cases, write, ask, ask(), named or Path(name).name)
        finally:
            (self.path / name).write_bytes(before)
            if not name.endswith("jsonl"):
                forgeries.seal(self.path / name)

    def text_writer(self, name: str) -> Callable[[str], None]:
        """Stores the text of a file with its checksum."""

        def write(text: str) -> None:
            (self.path / name).write_text(text)
            forgeries.seal(self.path / name)

        return write


@pytest.fixture(scope="module")
def forged(original: Path) -> Forged:
    run = Run.open(original)
    graph = run.graph()
    loaded = run.loaded("cpu")
    predictor = loaded.predictor(run.additions())
    return Forged(original, run, loaded, predictor, graph, run.features(graph))


def accepted(results: dict[str, str]) -> set[str]:
    return {what for what, result in results.items() if result == "accepted"}


# -- JSON and TOML -----------------------------------------------------------------------------


def test_a_forged_run_json_is_refused_or_harmless(forged: Forged) -> None:
    value = json.loads((forged.path / "run.json").read_text())
    # Files and hardware are shown only.
    value["digest"]["inputs"] = {"train.tsv": "00"}
    value["notes"], value["environment"] = ["a note"], {"torch": "2"}
    cases = forgeries.json_texts(value, forgeries.FEW)
    write = forged.text_writer("run.json")
    results = forged.refusals("run.json", cases, write, forged.opened)
    assert "without ('digest',)" not in accepted(results)
    assert "unknown key" not in accepted(results)


def test_forged_names_are_refused(forged: Forged) -> None:
    value = json.loads((forged.path / "names.json").read_text())
    cases = forgeries.json_texts(value)
    write = forged.text_writer("names.json")
    results = forged.refusals("names.json", cases, write, lambda: forged.run.graph().digest())
    assert accepted(results) == set()


def test_a_forged_configuration_is_refused_or_harmless(forged: Forged) -> None:
    table = tomllib.loads((forged.path / "config.toml").read_text())
    cases = forgeries.toml_texts(table)
    # Tensors that do not fit the configuration are named with it or themselves.
    write = forged.text_writer("config.toml")
    ask = lambda: forged.scores(Run.open(forged.path))  # noqa: E731
    results = forged.refusals("config.toml", cases, write, ask, str(forged.path))
    # Words, and weights that the mixture was fitted with and stores itself.
    harmless = {"without ('description',)"} | {
        f"without ('mixture', '{name}', 'rules')" for name in ("strength", "sharpness")
    }
    assert {what for what in accepted(results) if what.startswith("without")} <= harmless


def test_a_forged_faithfulness_is_refused_or_a_measurement(forged: Forged) -> None:
    name = "faithfulness.json"
    value = json.loads((forged.path / name).read_text())
    context = forged.predictor.explainer.context
    assert context is not None
    expected = set(value)

    def ask() -> set[str]:
        return {*context.faithfulness().packed()} & expected

    cases = forgeries.json_texts(value)
    results = forged.refusals(name, cases, forged.text_writer(name), ask)
    # A correlation may be unknown, a modality not measured; that of another model is measured anew.
    allowed = (
        "('model',)",
        "is null",
        "is -1",
        "without ('apart', ",
        "('apart',) is {}",
        "is 100000000000",
    )
    assert all(any(part in what for part in allowed) for what in accepted(results))


def test_a_forged_evaluation_is_refused_or_harmless(forged: Forged) -> None:
    name = "evaluation-valid.json"
    value = json.loads((forged.path / name).read_text())
    value["by"] = {"relation": {"r0": value["by"]["relation"]["r0"]}}
    cases = forgeries.json_texts(value, forgeries.FEW)

    def ask() -> bool:
        result = forged.run.evaluation("valid")  # None if it is of another model
        return result is None or (isinstance(result, dict) and result["split"] == "valid")

    results = forged.refusals(name, cases, forged.text_writer(name), ask)
    assert "('mrr',) is -1" not in accepted(results)


@pytest.mark.parametrize("name", ["training.jsonl", "evaluations.jsonl"])
def test_a_forged_log_is_refused_or_harmless(forged: Forged, name: str) -> None:
    line = (forged.path / name).read_text().splitlines()[0]
    record = {k: v for k, v in json.loads(line).items() if k not in ("_crc32", "protocol")}
    cases = (
        (w, text) for w, text in forgeries.json_texts(record, forgeries.FEW) if text.endswith("}")
    )

    def write(text: str) -> None:
        (forged.path / name).write_bytes(forgeries.log_text([text]))

    def ask() -> bool:
        epochs = [r["epoch"] for r in forged.run.log() if "epoch" in r]
        splits = [e["split"] for e in forged.run.evaluations()]
        return all(type(n) is int for n in epochs) and set(splits) == {"valid"}

    forged.refusals(name, cases, write, ask)


# -- tensors -----------------------------------------------------------------------------------

TENSORS: dict[str, Callable[[Forged], Any]] = {
    "graph": lambda forged: forged.run.graph().digest(),
    "mixture": Forged.scores,
    "experts/embedding": Forged.scores,
    "experts/rules": Forged.scores,
    "calibration": Forged.probabilities,
    "additions": Forged.with_additions,
    **{
        f"modalities/{name}": Forged.read_features
        for name in ("look", "word", "named", "alike", "number")
    },
}


@pytest.mark.parametrize("name", TENSORS)
def test_forged_tensors_are_refused_or_harmless(forged: Forged, name: str) -> None:
    file = f"{name}.safetensors"
    packed = forgeries.read_packed(forged.path / file)
    results = forged.refusals(
        file,
        forgeries.packed_changes(packed),
        lambda new: forgeries.write_packed(forged.path / file, new),
        lambda: TENSORS[name](forged),
    )
    assert not {w for w in accepted(results) if "nan" in w or "inf" in w or "without '" in w}
    assert "unknown tensor" not in accepted(results)


def test_the_run_answers_as_before_after_all_forgeries(forged: Forged) -> None:
    """The fixture is shared, so a forgery that stays would show here."""
    assert forged.answers() == list(forged.predictor.tails("e1", "r0", k=5))
