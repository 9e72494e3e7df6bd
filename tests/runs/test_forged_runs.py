"""A run's folder that comes from elsewhere: refused with the file's name, or answers as before."""

from __future__ import annotations

import hashlib
import json
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import forgeries
import mocme
from mocme import Run
from mocme.data.modality import FORMAT

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


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "run"))


def answers(path: Path) -> list[Any]:
    """What a run says to a question."""
    predictor = Run.open(path).predictor("cpu")
    return list(predictor.tails("e1", "r0", k=5))


def explained(path: Path) -> Any:
    return repr(Run.open(path).predictor("cpu").explain("e1", "r0", "e2"))


def refused_or_same(
    path: Path,
    name: str,
    cases: Iterator[tuple[str, Any]],
    write: Callable[[Any], None],
    ask: Callable[[Path], Any] = answers,
) -> dict[str, str]:
    """The refusals of forgeries of one file, which has its content again afterwards."""
    before = (path / name).read_bytes()
    expected = ask(path)
    result = forgeries.refusals(cases, write, lambda: ask(path), expected, Path(name).name)
    (path / name).write_bytes(before)
    if not name.endswith("jsonl"):
        forgeries.seal(path / name)
    assert ask(path) == expected
    return result


def write_text(file: Path) -> Callable[[str], None]:
    def write(text: str) -> None:
        file.write_text(text)
        forgeries.seal(file)

    return write


@pytest.mark.parametrize("name", ["run.json", "names.json", "faithfulness.json"])
def test_a_forged_json_file_is_refused_or_harmless(path: Path, name: str) -> None:
    value = json.loads((path / name).read_text())
    ask = explained if name == "faithfulness.json" else answers
    cases = forgeries.json_texts(value)
    results = refused_or_same(path, name, cases, write_text(path / name), ask)
    print(name, [w for w, r in results.items() if r == "accepted"])


def test_a_forged_evaluation_is_refused_or_harmless(path: Path) -> None:
    name = "evaluation-valid.json"
    value = json.loads((path / name).read_text())
    value["by"] = {"relation": {"r0": value["by"]["relation"]["r0"]}}

    def ask(path: Path) -> str:
        assert isinstance(Run.open(path).evaluation("valid"), dict)
        return ""

    cases = forgeries.json_texts(value)
    results = refused_or_same(path, name, cases, write_text(path / name), ask)
    print(name, [w for w, r in results.items() if r == "accepted"])


def test_a_forged_configuration_is_refused_or_harmless(path: Path) -> None:
    table = tomllib.loads((path / "config.toml").read_text())
    cases = forgeries.toml_texts(table)
    results = refused_or_same(path, "config.toml", cases, write_text(path / "config.toml"))
    print([w for w, r in results.items() if r == "accepted"])


@pytest.mark.parametrize("name", ["training.jsonl", "evaluations.jsonl"])
def test_a_forged_log_is_refused_or_harmless(path: Path, name: str) -> None:
    lines = (path / name).read_text().splitlines()
    record = {k: v for k, v in json.loads(lines[0]).items() if k != "_crc32"}
    cases = ((w, text) for w, text in forgeries.json_texts(record) if text.endswith("}"))

    def write(text: str) -> None:
        (path / name).write_bytes(forgeries.log_text([text]))

    def ask(path: Path) -> str:
        run = Run.open(path)
        assert all(isinstance(r["epoch"], int) for r in run.log() if "epoch" in r)
        assert all(e["split"] == "valid" for e in run.evaluations())
        return ""

    results = refused_or_same(path, name, cases, write, ask)
    print(name, [w for w, r in results.items() if r == "accepted"])


TENSORS = [
    *("graph", "mixture", "calibration", "additions"),
    *("experts/embedding", "experts/rules"),
    *(f"modalities/{name}" for name in ("look", "word", "named", "alike", "number")),
]


@pytest.mark.parametrize("name", [f"{name}.safetensors" for name in TENSORS])
def test_forged_tensors_are_refused_or_harmless(path: Path, name: str) -> None:
    packed = forgeries.read_packed(path / name)
    cases = forgeries.packed_changes(packed)
    results = refused_or_same(
        path, name, cases, lambda new: forgeries.write_packed(path / name, new)
    )
    print(name, len(results), [w for w, r in results.items() if r == "accepted"])
