"""Entities added to a served run: the server reloads them, and adds them over HTTP."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from http_helpers import NEW, assert_error, picture, upload
from starlette.testclient import TestClient

import mocme
from mocme.data.review_schema import ReviewError, ReviewsMoved
from mocme.inductive import store
from mocme.inductive.store import FILE
from mocme.runs.run import Run
from mocme.serving import dispatcher
from mocme.serving.api import create_app
from mocme.serving.hot_reload import HotReload
from mocme.serving.metrics import Metrics
from mocme.serving.run_view import RunView
from mocme.serving.uploads import ImageUploads
from mocme.storage import RunLocked

FEW = {"experts.embedding.training.epochs": 1, "experts.embedding.embedding_dim": 8}
FACTS = [("Ada", "r0", "e1"), ("e3", "r1", "Ada")]


@pytest.fixture(scope="module")
def trained(
    tiny_graph: Callable[..., Any],
    tiny_folder: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run with vectors, tokens, numbers and rules."""
    folder = tiny_folder(tmp_path_factory.mktemp("data"), tiny_graph(facts=50, valid=12))
    (folder / "numbers.tsv").write_text("".join(f"e{n}\tsize\t{n * n}\n" for n in range(10)))
    with (folder / "graph.toml").open("a") as file:
        file.write('[modalities.number]\nkind = "numbers"\npath = "numbers.tsv"\nbins = 3\n')
    out = tmp_path_factory.mktemp("runs") / "run"
    settings = {**FEW, "experts.rules": {"support": 1, "confidence": 0.001}}
    run = mocme.train(folder, "mocme", out=out, settings=settings, device="cpu")
    run.predictor("cpu")  # calibrates it
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.fixture
def fast_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server checks for changes a hundred times a second."""
    monkeypatch.setattr(dispatcher, "POLL_SECONDS", 0.01)


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server does not check for changes by itself during a test."""
    monkeypatch.setattr(dispatcher, "POLL_SECONDS", 3600.0)


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.01)


def replace_file(file: Path, content: bytes) -> None:
    """Replace a file atomically."""
    temporary = file.with_name("temporary")
    temporary.write_bytes(content)
    temporary.replace(file)


def entity_count(client: TestClient) -> int:
    count: int = client.get("/v1/runs").json()["runs"][0]["entities"]
    return count


def reloads(client: TestClient, result: str) -> float:
    """Return how often the server reloaded additions, or failed to."""
    start = f'mocme_renewals_total{{result="{result}"}} '
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


# -- additions made by other processes ------------------------------------------------------------


def test_a_server_reloads_changed_additions(run: Run, fast_polling: None) -> None:
    with TestClient(create_app([RunView("run", run)])) as client:
        before = client.get("/v1/runs").json()["runs"][0]
        assert before["additions"] == 0
        Run.open(run.path).add("Ada", FACTS)
        wait_until(lambda: entity_count(client) == before["entities"] + 1)
        assert client.get("/v1/runs").json()["runs"][0]["additions"] == 1
        question = {"head": "Ada", "relation": "r1", "k": 5}
        expected = Run.open(run.path).predictor("cpu").tails("Ada", "r1", 5)
        actual = client.post("/v1/tails", json=question).json()["predictions"]
        assert [(p["tail"], p["score"]) for p in actual] == [(p.tail, p.score) for p in expected]
        entity = client.get("/v1/entity", params={"name": "Ada"}).json()
        assert entity["addition"]["time"]
        assert entity["facts"] == 2
        assert client.get("/v1/entity", params={"name": "e1"}).json()["addition"] is None
        assert client.get("/v1/search?q=ada").json()["entities"][0]["name"] == "Ada"
        assert client.post("/v1/explain", json={"head": "Ada", "relation": "r1", "tail": "e2"})
        Run.open(run.path).remove("Ada")
        wait_until(lambda: entity_count(client) == before["entities"])
        answer = client.post("/v1/tails", json=question)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_name")
        assert client.get("/v1/runs").json()["runs"][0] == before
        # One more if a check fell between writing the file and its checksum.
        assert reloads(client, "done") >= 2


def test_an_unknown_name_triggers_a_reload(run: Run, no_polling: None) -> None:
    """As when another process of the server has added the entity."""
    with TestClient(create_app([RunView("run", run)])) as client:
        for number, (path, body) in enumerate(
            (
                ("tails", {"head": "new0", "relation": "r1"}),
                ("heads", {"relation": "r1", "tail": "new1"}),
                ("missing", {"entity": "new2"}),
                ("score", {"facts": [{"head": "new3", "relation": "r1", "tail": "e2"}]}),
                ("explain", {"head": "new4", "relation": "r1", "tail": "e2"}),
                ("batch", {"questions": [{"ask": "missing", "entity": "new5"}]}),
            )
        ):
            Run.open(run.path).add(f"new{number}", [(f"new{number}", "r0", "e1")])
            answer = client.post(f"/v1/{path}", json=body)
            assert answer.status_code == 200, answer.text
            assert "error" not in answer.text
        assert client.get("/v1/runs").json()["runs"][0]["additions"] == number + 1
        Run.open(run.path).add("last")
        for path in ("entity", "facts", "neighbourhood"):
            assert client.get(f"/v1/{path}", params={"name": "last"}).status_code == 200
        assert client.get("/v1/entity", params={"name": "never"}).status_code == 404


def test_a_damaged_file_keeps_the_previous_view(
    run: Run, fast_polling: None, caplog: pytest.LogCaptureFixture
) -> None:
    run.add("Ada", FACTS)
    file = run.path / FILE
    intact = file.read_bytes()
    logging.getLogger("mocme.serving").propagate = True
    with TestClient(create_app([RunView("run", run)])) as client:
        replace_file(file, intact[:-1])
        wait_until(lambda: reloads(client, "failed") == 1)
        assert client.get("/v1/entity", params={"name": "Ada"}).status_code == 200
        time.sleep(0.1)  # logged once, not at every check
        assert reloads(client, "failed") == 1
        (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
        message = "additions.safetensors or its .sha256 was cut short or altered"
        assert message in record.getMessage()
        assert not record.exc_info
        replace_file(file, intact)
        wait_until(lambda: reloads(client, "done") == 1)
        Run.open(run.path).remove("Ada")
        wait_until(lambda: client.get("/v1/entity", params={"name": "Ada"}).status_code == 404)


def test_a_reload_reads_only_additions(run: Run) -> None:
    first = RunView("run", run)
    hot_run = HotReload(first, Metrics())
    assert hot_run.reload() is first
    run.add("Ada", FACTS)
    for name in ("experts/embedding.safetensors", "graph.safetensors", "calibration.safetensors"):
        (run.path / name).unlink()
    second = hot_run.reload()
    assert second.loaded is first.loaded
    assert second.content is first.content
    assert second.graph.num_entities == first.graph.num_entities + 1
    # The first view is unchanged, to the bit, for requests that still use it.
    assert "Ada" not in first.graph.entities
    count = first.graph.num_entities
    vectors = [view.predictor.embedding().model.frozen().vectors for view in (first, second)]
    assert torch.equal(vectors[0][:count], vectors[1][:count])


# -- adding over HTTP ------------------------------------------------------------------------------


@pytest.fixture
def client(run: Run, upload_folder: Path) -> Iterator[TestClient]:
    app = create_app([RunView("run", run)], uploads=ImageUploads(upload_folder))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def test_an_entity_is_added_listed_and_removed(client: TestClient, run: Run) -> None:
    files = {path.name for path in run.path.iterdir()}
    assert client.get("/v1/runs").json()["adds"]
    content = {
        "word": {"tokens": ["word1", "word2"]},
        "shape": {"vector": [1, 0.5, 0, 0, 2]},
        "number": {"numbers": {"size": 16}},
    }
    created = client.post("/v1/additions", json={**NEW, "content": content})
    assert created.status_code == 201, created.text
    (addition,) = Run.open(run.path).additions()
    expected = json.loads(json.dumps(addition.as_dict()))
    expected["facts"] = NEW["facts"]
    assert created.json() == expected
    entity = client.get("/v1/entity", params={"name": "Ada"}).json()
    assert entity["addition"] == {key: expected[key] for key in ("time", "given", "notes")}
    predictions = Run.open(run.path).predictor("cpu").tails("Ada", "r1", 3)
    question = {"head": "Ada", "relation": "r1", "k": 3}
    answers = client.post("/v1/tails", json=question).json()["predictions"]
    assert [answer["tail"] for answer in answers] == [item.tail for item in predictions]
    # A name may contain anything but control characters.
    broken = {**NEW, "name": "a\nb", "facts": []}
    assert_error(client.post("/v1/additions", json=broken), 422, "invalid", "name")
    odd = "a/b?c=d&e#f%2F \u2028\u202e.."
    second = {"name": odd, "facts": [{"head": odd, "relation": "r0", "tail": "Ada"}], "text": None}
    assert client.post("/v1/additions", json=second).status_code == 201
    listed = client.get("/v1/additions", params={"limit": 1, "offset": 1}).json()
    assert (listed["total"], [added["name"] for added in listed["additions"]]) == (2, [odd])
    error = assert_error(client.delete("/v1/additions", params={"name": "Ada"}), 422, "invalid")
    assert "remove both together" in error["message"]
    removed = client.delete("/v1/additions", params={"name": ["Ada", odd]})
    assert removed.status_code == 204
    assert_error(client.delete("/v1/additions", params={"name": "Ada"}), 404, "not_found")
    assert_error(client.get("/v1/entity", params={"name": odd}), 404, "unknown_name")
    assert {path.name for path in run.path.iterdir()} - files <= {"lock"}


@pytest.mark.parametrize(
    ("body", "status", "field", "message"),
    [
        ({"name": "e1"}, 422, "name", "is an entity of the graph"),
        ({"name": " "}, 422, "name", "name is empty"),
        ({"facts": [{"head": "Ada", "relation": "r9", "tail": "e1"}]}, 404, "facts.0", "'r9'"),
        (
            {"facts": [*NEW["facts"], {"head": "Ada", "relation": "r0", "tail": "e99"}]},
            404,
            "facts.2",
            "did you mean",
        ),
        (
            {"facts": [{"head": "e1", "relation": "r0", "tail": "e2"}]},
            422,
            "facts.0",
            "does not contain it",
        ),
        ({"content": {"taste": {"texts": ["sweet"]}}}, 422, "content.taste", "no modality 'taste'"),
        ({"content": {"shape": {"vector": [1.0]}}}, 422, "content.shape", "width 5"),
        ({"content": {"shape": {"pictures": ["0" * 64]}}}, 422, "content.shape", "not made of"),
        ({"content": {"shape": {"texts": ["/etc/passwd"]}}}, 422, "content.shape", "width 5"),
        ({"numbers": {"weight": 1.0}}, 422, "numbers", "no modality of the run has the attribute"),
    ],
)
def test_an_invalid_addition_names_the_field(
    body: dict[str, Any], status: int, field: str, message: str, client: TestClient, run: Run
) -> None:
    answer = client.post("/v1/additions", json={"name": "Ada", **body})
    code = "unknown_name" if status == 404 else "invalid"
    assert message in assert_error(answer, status, code, field)["message"]
    assert not run.additions()


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"content": {"shape": {"texts": ["a"], "tokens": ["b"]}}}, "content.shape"),
        ({"content": {"shape": {}}}, "content.shape"),
        ({"content": {"shape": {"texts": None}}}, "content.shape"),
        (
            {"content": {"shape": {"pictures": ["../../etc/passwd"]}}},
            "content.shape.pictures.0",
        ),
        ({"content": {"shape": "/etc/passwd"}}, "content.shape"),
        ({"content": {"shape": {"path": "/etc/passwd"}}}, "content.shape.path"),
        ({"numbers": {"size": float("inf")}}, "numbers.size"),
        ({"numbers": {"size": "16"}}, "numbers.size"),
        ({"name": "half of a pair \ud800"}, ""),
        ({"home": "/etc"}, "home"),
    ],
)
def test_malformed_bodies_are_refused(
    fields: dict[str, Any], wrong: str, client: TestClient
) -> None:
    body = json.dumps({"name": "Ada", **fields}).replace("Infinity", "1e999")
    answer = client.post(
        "/v1/additions", content=body, headers={"content-type": "application/json"}
    )
    assert_error(answer, 422, "invalid", wrong)


def test_a_server_without_additions_refuses_changes(run: Run) -> None:
    with TestClient(create_app([RunView("run", run)])) as client:
        assert client.get("/v1/runs").json()["adds"] is False
        for answer in (
            client.post("/v1/additions", json=NEW),
            client.delete("/v1/additions", params={"name": "Ada"}),
            upload(client, picture()),
            upload(client, b"0" * 3_000_000),
        ):
            assert "--additions" in assert_error(answer, 403, "not_allowed")["remedy"]
        assert client.get("/v1/additions").json() == {"total": 0, "additions": []}
    assert not run.additions()


def test_additions_require_the_token(run: Run, upload_folder: Path) -> None:
    token = "a-long-enough-secret"
    app = create_app([RunView("run", run)], token=token, uploads=ImageUploads(upload_folder))
    with TestClient(app) as client:
        assert_error(client.post("/v1/additions", json=NEW), 401, "no_token")
        assert_error(upload(client, picture()), 401, "no_token")
        right = {"authorization": f"Bearer {token}"}
        assert client.post("/v1/additions", json=NEW, headers=right).status_code == 201


def test_a_locked_run_asks_to_retry_later(client: TestClient, run: Run) -> None:
    with run.folder.lock():
        for answer in (
            client.post("/v1/additions", json=NEW),
            client.delete("/v1/additions", params={"name": "Ada"}),
        ):
            assert_error(answer, 503, "busy")
            assert int(answer.headers["retry-after"]) > 0
    assert client.post("/v1/additions", json=NEW).status_code == 201


@pytest.mark.parametrize(
    ("number", "status", "code"), [(errno.ENOSPC, 507, "no_room"), (errno.EROFS, 503, "not_kept")]
)
def test_a_disk_error_is_reported_without_paths(
    number: int, status: int, code: str, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number), "/secret/path")

    monkeypatch.setattr(store, "write", fail)
    answer = client.post("/v1/additions", json=NEW)
    assert "nothing was changed" in assert_error(answer, status, code)["remedy"]
    assert "/secret/path" not in answer.text
    assert_error(client.get("/v1/entity", params={"name": "Ada"}), 404, "unknown_name")


def test_a_full_disk_during_encoding_is_reported(
    picture_client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_disk(*_: Any) -> None:
        database = sqlite3.connect(":memory:")
        database.execute("pragma max_page_count = 2")
        database.execute("create table items (item)")
        database.execute("insert into items values (zeroblob(100000))")

    id = upload(picture_client, picture()).json()["id"]
    monkeypatch.setattr("mocme.encoders.kinds.image.ImageEncoder.encode", fill_disk)
    body = {"name": "Ada", "content": {"image": {"pictures": [id]}}}
    assert_error(picture_client.post("/v1/additions", json=body), 507, "no_room")


def test_no_answer_tells_where_the_run_is(
    client: TestClient, run: Run, upload_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages of the library name files; of those, clients get the last parts."""
    told = client.delete("/v1/additions", params={"name": "nobody"})
    error = assert_error(told, 404, "not_found")
    assert error["message"] == "run: there is no addition 'nobody'; there are none"
    places = [run.path, upload_folder / "x", run.path / FILE, Path(run.graph().folder)]
    for made in (ValueError, LookupError, store.NoAddition, ReviewError, RunLocked, ReviewsMoved):
        message = "; ".join(f"{place}: cannot be used" for place in places)

        def fail(*_: Any, message: str = message, made: Any = made, **__: Any) -> None:
            raise made(message)

        monkeypatch.setattr(HotReload, "remove", fail)
        monkeypatch.setattr(RunView, "entity", fail)
        for answer in (
            client.delete("/v1/additions", params={"name": "nobody"}),
            client.get("/v1/entity", params={"name": "e1"}),
        ):
            assert answer.status_code in (404, 422, 503)
            assert "run: cannot be used" in answer.text
            assert str(run.path.parent) not in answer.text
            assert str(upload_folder) not in answer.text


def test_a_slow_addition_does_not_delay_questions(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:

    started, resume = threading.Event(), threading.Event()
    add = HotReload.add

    def slow_add(self: HotReload, entity: Any, check: Any) -> Any:
        started.set()
        assert resume.wait(30)
        return add(self, entity, check)

    monkeypatch.setattr(HotReload, "add", slow_add)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(client.post("/v1/additions", json=NEW)))
    thread.start()
    assert started.wait(30)
    assert client.post("/v1/tails", json={"head": "e1", "relation": "r0"}).status_code == 200
    assert client.post("/v1/missing", json={"entity": "e1"}).status_code == 200
    assert not answers
    resume.set()
    thread.join(30)
    assert answers[0].status_code == 201


# -- two processes ---------------------------------------------------------------------------------


def test_all_worker_processes_see_an_addition(run: Run, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mocme.cli", "serve", str(run.path), "--port", "0"]
    command += ["--workers", "2", "--additions", "--logs", "json"]
    # Not a pipe: once full, it would block the server.
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().split(" on ")[1].split()[0]

        def status_of(method: str, path: str, body: Any = None) -> int:
            """Each request has its own connection, so that any worker may answer."""
            data = None if body is None else json.dumps(body).encode()
            headers = {"content-type": "application/json"}
            request = urllib.request.Request(url + path, data, headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    status: int = answer.status
                    return status
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        assert status_of("POST", "v1/additions", NEW) == 201
        # Immediately, in either worker.
        assert {status_of("GET", "v1/entity?name=Ada") for _ in range(30)} == {200}
        assert status_of("DELETE", "v1/additions?name=Ada") == 204
        wait_until(lambda: {status_of("GET", "v1/entity?name=Ada") for _ in range(30)} == {404})
    finally:
        process.terminate()
        process.communicate(timeout=20)
        log.close()
    lines = map(json.loads, (tmp_path / "log").read_text().splitlines())
    reloaded = [line for line in lines if " serves " in line["message"]]
    assert {"run: serves 1", "run: serves 0"} == {
        line["message"].partition(" additions")[0] for line in reloaded
    }
    assert process.returncode == 0
