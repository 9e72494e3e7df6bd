"""Entities that are added to a run while it is served: the server sees them, and can make them."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

import mocme
from mocme.additions.kept import FILE
from mocme.opening import Run
from mocme.serving import hub
from mocme.serving.api import application
from mocme.serving.live import Live
from mocme.serving.metrics import Metrics
from mocme.serving.served import Served

FEW = {"training.passes": 1, "model.width": 8}
FACTS = [("Ada", "r0", "e1"), ("e3", "r1", "Ada")]


@pytest.fixture(scope="module")
def trained(
    tiny_graph: Callable[..., Any],
    tiny_folder: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Vectors, tokens and numbers, with patterns."""
    folder = tiny_folder(tmp_path_factory.mktemp("data"), tiny_graph(facts=50, valid=12))
    (folder / "numbers.tsv").write_text("".join(f"e{n}\tsize\t{n * n}\n" for n in range(10)))
    with (folder / "graph.toml").open("a") as file:
        file.write('[modalities.number]\nkind = "numbers"\npath = "numbers.tsv"\nbins = 3\n')
    out = tmp_path_factory.mktemp("runs") / "run"
    settings = {**FEW, "model.patterns": {"support": 1, "confidence": 0.001}}
    run = mocme.train(folder, "mocme", out=out, settings=settings, device="cpu")
    run.completer("cpu")  # calibrates it
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server looks a hundred times a second."""
    monkeypatch.setattr(hub, "LOOK", 0.01)


@pytest.fixture
def rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server does not look by itself while a test runs."""
    monkeypatch.setattr(hub, "LOOK", 3600.0)


def until(told: Callable[[], Any], seconds: float = 30) -> None:
    """Wait until a call gives something."""
    end = time.monotonic() + seconds
    while not told():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.01)


def put(file: Path, content: bytes) -> None:
    """Replace a file at once: nobody sees a half of it."""
    fresh = file.with_name("fresh")
    fresh.write_bytes(content)
    fresh.replace(file)


def served_entities(client: TestClient) -> int:
    count: int = client.get("/v1/runs").json()["runs"][0]["entities"]
    return count


# -- what is added elsewhere is seen ---------------------------------------------------------------


def test_a_server_answers_with_what_was_added_since(run: Run, often: None) -> None:
    with TestClient(application([Served("run", run)])) as client:
        before = client.get("/v1/runs").json()["runs"][0]
        assert before["additions"] == 0
        Run.open(run.path).add("Ada", FACTS)
        until(lambda: served_entities(client) == before["entities"] + 1)
        assert client.get("/v1/runs").json()["runs"][0]["additions"] == 1
        asked = {"head": "Ada", "relation": "r1", "k": 5}
        wanted = Run.open(run.path).completer("cpu").tails("Ada", "r1", 5)
        given = client.post("/v1/tails", json=asked).json()["predictions"]
        assert [(g["tail"], g["score"]) for g in given] == [(w.tail, w.score) for w in wanted]
        shown = client.get("/v1/entity", params={"name": "Ada"}).json()
        assert shown["addition"]["time"]
        assert shown["facts"] == 2
        assert client.get("/v1/entity", params={"name": "e1"}).json()["addition"] is None
        assert client.get("/v1/search?q=ada").json()["entities"][0]["name"] == "Ada"
        assert client.post("/v1/explain", json={"head": "Ada", "relation": "r1", "tail": "e2"})
        Run.open(run.path).remove("Ada")
        until(lambda: served_entities(client) == before["entities"])
        gone = client.post("/v1/tails", json=asked)
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "unknown_name")
        assert client.get("/v1/runs").json()["runs"][0] == before
        assert 'mocme_renewals_total{result="done"} 2.0' in client.get("/metrics").text


def test_one_who_asks_for_what_was_just_added_need_not_wait(run: Run, rarely: None) -> None:
    """As where another process of the server has added it."""
    with TestClient(application([Served("run", run)])) as client:
        for number, (path, body) in enumerate(
            (
                ("tails", {"head": "new0", "relation": "r1"}),
                ("heads", {"relation": "r1", "tail": "new1"}),
                ("missing", {"entity": "new2"}),
                ("check", {"facts": [{"head": "new3", "relation": "r1", "tail": "e2"}]}),
                ("explain", {"head": "new4", "relation": "r1", "tail": "e2"}),
                ("batch", {"questions": [{"ask": "missing", "entity": "new5"}]}),
            )
        ):
            Run.open(run.path).add(f"new{number}", [(f"new{number}", "r0", "e1")])
            answer = client.post(f"/v1/{path}", json=body)
            assert answer.status_code == 200, answer.text
            assert "error" not in answer.text
        Run.open(run.path).add("last")
        for path in ("entity", "facts", "neighbourhood"):
            assert client.get(f"/v1/{path}", params={"name": "last"}).status_code == 200
        assert client.get("/v1/entity", params={"name": "never"}).status_code == 404


def test_a_damaged_file_leaves_what_is_served(
    run: Run, often: None, caplog: pytest.LogCaptureFixture
) -> None:
    run.add("Ada", FACTS)
    file = run.path / FILE
    whole = file.read_bytes()
    logging.getLogger("mocme.serving").propagate = True
    with TestClient(application([Served("run", run)])) as client:
        put(file, whole[:-1])
        failures = 'mocme_renewals_total{result="failed"} 1.0'
        until(lambda: failures in client.get("/metrics").text)
        assert client.get("/v1/entity", params={"name": "Ada"}).status_code == 200
        time.sleep(0.1)  # told once, not at every look
        assert failures in client.get("/metrics").text
        (told,) = [r for r in caplog.records if r.levelname == "ERROR"]
        assert "additions.safetensors or its .sha256 was cut short or altered" in told.getMessage()
        assert not told.exc_info
        put(file, whole)
        until(lambda: 'result="done"} 1.0' in client.get("/metrics").text)
        Run.open(run.path).remove("Ada")
        until(lambda: client.get("/v1/entity", params={"name": "Ada"}).status_code == 404)


def test_what_additions_do_not_change_is_not_read_again(run: Run) -> None:
    first = Served("run", run)
    live = Live(first, Metrics())
    assert live.renew() is first
    run.add("Ada", FACTS)
    for gone in ("model.safetensors", "graph.safetensors", "calibration.safetensors"):
        (run.path / gone).unlink()
    second = live.renew()
    assert second.loaded is first.loaded
    assert second.content is first.content
    assert second.graph.num_entities == first.graph.num_entities + 1
    # The old one answers on, to the bit, for whoever has begun to ask it.
    assert "Ada" not in first.graph.entities
    old = first.graph.num_entities
    vectors = [one.completer.model.frozen().vectors for one in (first, second)]
    assert torch.equal(vectors[0][:old], vectors[1][:old])
