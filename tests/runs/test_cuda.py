"""On an NVIDIA device everything gives what the processor gives. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import mocme
from mocme.runs.run import Run

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device is available here"
)
# Every sort of modality, and rules over pairs: the default, made small.
SMALL: dict[str, Any] = {
    "experts.embedding.embedding_dim": 32,
    "experts.embedding.training.epochs": 3,
    "experts.embedding.training.precision": "float32",
}
SCORERS = ("ComplEx", "DistMult", "TransE", "RotatE", "TuckER")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained on the device."""
    out = tmp_path_factory.mktemp("cuda") / "run"
    return mocme.train("atlas", out=out, device="cuda", settings=SMALL)


def test_a_model_trained_on_the_device_ranks_alike_on_the_processor(run: Run) -> None:
    there, here = (run.evaluate("valid", device) for device in ("cuda", "cpu"))
    assert there["mrr"] > 0.1
    assert there["mrr"] == pytest.approx(here["mrr"], abs=2e-4)
    assert there["hits@10"] == pytest.approx(here["hits@10"], abs=2e-3)


def test_answers_and_probabilities_are_those_of_the_processor(run: Run) -> None:
    there, here = mocme.open(run.path, device="cuda"), mocme.open(run.path, device="cpu")
    for head in ("Chad", "Peru", "Norway"):
        one, other = (p.tails(head, "borders", k=20) for p in (there, here))
        scores = {row.tail: row.score for row in other}
        for row in one:
            if row.tail in scores:
                assert row.score == pytest.approx(scores[row.tail], rel=1e-4, abs=1e-4)
        assert len({row.tail for row in one} & set(scores)) >= 19


def test_an_explanation_is_that_of_the_processor(run: Run) -> None:
    fact = ("Chad", "borders", "Niger")
    there, here = (mocme.open(run.path, device=d).explain(*fact) for d in ("cuda", "cpu"))
    assert there.score == pytest.approx(here.score, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("scorer", SCORERS)
def test_every_scorer_trains_on_the_device(scorer: str, tmp_path: Path) -> None:
    settings = {
        **SMALL,
        "experts.embedding.training.epochs": 1,
        "experts.embedding.scorer": {"kind": scorer},
    }
    run = mocme.train("atlas", "structure", out=tmp_path / "run", device="cuda", settings=settings)
    on_cuda, on_cpu = (run.evaluate("valid", device)["mrr"] for device in ("cuda", "cpu"))
    assert on_cuda == pytest.approx(on_cpu, abs=1e-3)


def test_the_first_steps_are_those_of_the_cpu(tmp_path: Path) -> None:
    """One epoch of an embedding alone: parameters differ by rounding only."""
    settings = {**SMALL, "experts.embedding.training.epochs": 1}
    tables = []
    for device in ("cuda", "cpu"):
        out = tmp_path / f"on-{device}"
        run = mocme.train("atlas", "structure", out=out, device=device, settings=settings)
        tables.append(run.predictor("cpu").embeddings()[0])
    assert torch.allclose(tables[0], tables[1], rtol=1e-2, atol=1e-3)
