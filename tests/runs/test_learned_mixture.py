"""A training with a learned mixture: stages, interruption, what it leaves, what it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import mocme
from interrupts import Stop
from learned_runs import TABLE, trees_taken
from mocme.core.interrupts import Interrupted
from mocme.mixture.learned import Learned
from mocme.runs.fit import HELD_OUT
from mocme.runs.run import Run
from small_experts import EMBEDDING, all_queries
from table_experts import random_graph


@pytest.fixture(autouse=True)
def few() -> Iterator[None]:
    with trees_taken():
        yield


@pytest.fixture(params=["train", "valid"])
def train(request: pytest.FixtureRequest) -> Callable[..., Run]:
    """Train with a mixture that is fitted on held-out training facts, or on valid."""

    def train(out: Path, **more: Any) -> Run:
        graph = random_graph(entities=16, relations=2, facts=120)
        settings = {"mixture.fitted_on": request.param}
        return mocme.train(graph, TABLE, out=out, device="cpu", settings=settings, **more)

    return train


def outcome(run: Run) -> list[Any]:
    """All that a training makes, without times."""
    names = [path.name for path in sorted((run.path / "experts").glob("*.safetensors"))]
    files = [run.folder.read_tensors(f"experts/{name}") for name in names]
    log = [{k: v for k, v in record.items() if k != "seconds"} for record in run.log()]
    mixture = run.folder.read_json("mixture.json")
    mixture.pop("seconds")
    return [names, files, run.folder.read_tensors("mixture.safetensors"), log, mixture]


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def test_experts_are_fitted_without_the_held_out_facts_and_those_chosen_again(
    tmp_path: Path,
    train: Callable[..., Run],
) -> None:
    run = train(tmp_path / "run")
    mixture = run.contents("cpu").mixture
    chosen = [expert.name for expert in mixture.experts]
    record = run.folder.read_json("mixture.json")
    assert set(record["alone"]) == {"one", "two", "rules", "prior"}
    assert set(record["weights"]) == set(chosen)
    every = ("one", "two", "rules", "prior")
    if record["fitted_on"] == "train":
        assert list(run.about["fits"]) == [*(f"{HELD_OUT}{name}" for name in every), *chosen]
        assert run.about["held_out"] == 0.3
    else:
        assert list(run.about["fits"]) == list(every)
        assert "held_out" not in run.about
    experts = run.path / "experts"
    assert sorted(path.stem for path in experts.glob("*.safetensors")) == sorted(chosen)
    assert not [path for path in run.path.rglob("*") if "held-out" in path.name and path.is_file()]
    assert run.finished
    scores = mixture.score(all_queries(run.graph()))
    assert bool(scores.isfinite().all())


def test_an_interrupted_training_resumes_to_the_bit_at_every_stage(
    tmp_path: Path, train: Callable[..., Run]
) -> None:
    watch = Stop()
    expected = outcome(train(tmp_path / "run", observer=watch))
    assert watch.steps > 8
    for after in range(1, watch.steps + 1, 3):
        out = tmp_path / str(after)
        with pytest.raises(Interrupted, match="continue with: mocme resume"):
            train(out, observer=Stop(after))
        assert not Run.open(out).finished
        assert same(outcome(mocme.resume(out, device="cpu")), expected)


def test_a_training_stopped_in_the_mixture_resumes_to_the_bit(
    tmp_path: Path, train: Callable[..., Run]
) -> None:
    expected = outcome(train(tmp_path / "run"))

    class StopInMixture(Stop):
        def stage(self, name: str) -> Callable[[int, int], None]:
            if name == "mixture":
                self.after = self.steps + 1
                self.step(None)  # type: ignore[arg-type]
            return super().stage(name)

    out = tmp_path / "stopped"
    with pytest.raises(Interrupted, match="stopped while fitting mixture"):
        train(out, observer=StopInMixture())
    resumed = mocme.resume(out, device="cpu")
    assert same(outcome(resumed), expected)


def test_a_learned_run_answers_explains_and_takes_additions(
    tmp_path: Path, train: Callable[..., Run]
) -> None:
    run = train(tmp_path / "run")
    predictor = run.predictor("cpu")
    assert isinstance(predictor.mixture, Learned)
    before = predictor.tails("e1", "r0", k=5)
    assert len(before) == 5
    predictor.explain("e1", "r0", before[0].tail)
    run.add("new", [("new", "r0", "e2"), ("e1", "r1", "new")], device="cpu")
    after = run.predictor("cpu").tails("e1", "r0", k=17)
    assert "new" in {item.tail for item in after}
    # What the mixture says of others changes by paths over the new entity only.
    assert {item.tail for item in before} <= {item.tail for item in after}
    assert run.evaluate("valid", "cpu")["mrr"] > 0


def test_probabilities_hold_for_questions_of_the_valid_split(
    tmp_path: Path, train: Callable[..., Run]
) -> None:
    run = train(tmp_path / "run")
    calibration = run.calibrate("cpu")
    assert calibration.record["split"] == "valid"
    assert isinstance(run.contents("cpu").mixture, Learned | mocme.mixture.sum.Sum)


def test_an_optional_expert_is_left_out_with_a_note(
    tmp_path: Path, train: Callable[..., Run]
) -> None:
    table = {
        "experts": [
            {"kind": "rules", "support": 1},
            {"name": "words", **EMBEDDING, "forms": ["tokens"], "optional": True},
        ]
    }
    graph = random_graph()
    run = mocme.train(graph, table, out=tmp_path / "run", device="cpu")
    assert [expert.name for expert in run.contents("cpu").mixture.experts] == ["rules"]
    assert (
        "words: left out, because there is no modality for this expert to read"
        in (run.about["notes"])
    )
    alone = {"experts": [table["experts"][1]]}
    with pytest.raises(mocme.ConfigError, match="every expert is optional"):
        mocme.train(graph, alone, out=tmp_path / "none", device="cpu")
    assert not (tmp_path / "none").exists()
