"""A server over runs that change or cannot be written: nothing is lost, nothing is hidden."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from http_helpers import TOKEN, assert_error
from starlette.testclient import TestClient
from test_server_processes import children, get

import mocme
from mocme.data.reviews import Reviews
from mocme.inductive.store import FILE
from mocme.runs.run import Run
from mocme.serving.api import create_app
from mocme.serving.run_view import RunView
from mocme.serving.uploads import ImageUploads
from mocme.storage import NotKept
from read_only import mounted_read_only, unwritable

FEW = {"experts.embedding.training.epochs": 1, "experts.embedding.embedding_dim": 8}
DECISION = {"head": "e0", "relation": "r0", "tail": "e1", "decision": "accept", "reviewer": "Ada"}
NEW = {"name": "Ada", "facts": [{"head": "Ada", "relation": "r0", "tail": "e1"}]}


@pytest.fixture(scope="module")
def trained(
    tiny_graph: Callable[..., Any],
    tiny_folder: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Path]:
    """Two runs that differ in their seed, and were never asked."""
    folder = tmp_path_factory.mktemp("runs")
    data = tiny_folder(folder / "data", tiny_graph(valid=12))
    return [
        mocme.train(data, "mocme", out=folder / str(n), seed=n, settings=FEW, device="cpu").path
        for n in range(2)
    ]


@pytest.fixture
def path(trained: list[Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained[0], tmp_path / "run"))


def client_of(path: Path, upload_folder: Path, **settings: Any) -> TestClient:
    view = RunView("run", Run.open(path))
    reviews = Reviews(path.parent / "reviews.sqlite")
    app = create_app([view], reviews, uploads=ImageUploads(upload_folder), **settings)
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(logging.getLogger("mocme.serving"), "propagate", True)
    caplog.set_level(logging.WARNING, "mocme.serving")
    return caplog


def test_a_run_that_was_replaced_gets_nothing_from_its_server(
    path: Path, trained: list[Path], upload_folder: Path, log: Any
) -> None:
    with client_of(path, upload_folder) as client:
        assert client.post("/v1/additions", json=NEW).status_code == 201
        shutil.rmtree(path)
        shutil.copytree(trained[1], path)
        more = {**NEW, "name": "Eve"}
        for answer in (
            client.post("/v1/additions", json=more),
            client.delete("/v1/additions", params={"name": "Ada"}),
        ):
            assert "start the server again" in assert_error(answer, 409, "replaced")["remedy"]
        assert not (path / FILE).exists()
        question = {"head": "e0", "relation": "r0"}
        assert client.post("/v1/tails", json=question).status_code == 200
    assert "was replaced since it was opened" in log.text


def test_a_decision_is_refused_and_logged_when_its_file_is_gone(
    path: Path, upload_folder: Path, log: Any
) -> None:
    file = path.parent / "reviews.sqlite"
    with client_of(path, upload_folder) as client:
        assert client.post("/v1/reviews", json=DECISION).status_code == 201
        file.rename(path.parent / "away")
        answer = client.post("/v1/reviews", json=DECISION)
        assert "put the file back" in assert_error(answer, 503, "not_kept")["remedy"]
        assert not file.exists()
        (path.parent / "away").rename(file)
        assert client.post("/v1/reviews", json=DECISION).status_code == 201
    with sqlite3.connect(file) as database:
        assert database.execute("SELECT count(*) FROM review").fetchone() == (2,)
    (record,) = [r for r in log.records if "a decision was not stored" in r.getMessage()]
    assert record.levelno == logging.WARNING
    assert record.request == answer.headers["x-request-id"]
    assert "503 not_kept" in record.getMessage()


@pytest.mark.parametrize(
    ("method", "path_of", "body", "status"),
    [
        ("POST", "/v1/reviews", {**DECISION, "decision": "perhaps"}, 422),
        ("POST", "/v1/reviews", {**DECISION, "head": "nobody\n\x1b[31m"}, 404),
        ("DELETE", "/v1/reviews/99", None, 404),
        ("POST", "/v1/reviews", {**DECISION, "note": "x" * (2 << 20)}, 413),
    ],
)
def test_a_failed_decision_is_logged_with_its_reason(
    method: str, path_of: str, body: Any, status: int, path: Path, upload_folder: Path, log: Any
) -> None:
    with client_of(path, upload_folder) as client:
        answer = client.request(method, path_of, json=body)
    assert answer.status_code == status
    (message,) = [m for m in log.messages if "a decision was not" in m]
    assert answer.json()["error"]["code"] in message
    assert str(status) in message
    assert message.isprintable()
    assert log.records[0].request == answer.headers["x-request-id"]


def test_a_decision_without_a_token_is_logged_and_other_refusals_are_not(
    path: Path, upload_folder: Path, log: Any
) -> None:
    with client_of(path, upload_folder, token=TOKEN) as client:
        assert client.post("/v1/reviews", json=DECISION).status_code == 401
        assert client.get("/v1/reviews").status_code == 401
        assert client.post("/v1/tails", json={}).status_code == 401
        right = {"authorization": f"Bearer {TOKEN}"}
        assert client.post("/v1/reviews", json=DECISION, headers=right).status_code == 201
    assert len([m for m in log.messages if "a decision was not stored: 401" in m]) == 1
    assert len(log.messages) == 1


def test_a_run_that_cannot_be_written_is_explained(path: Path, upload_folder: Path) -> None:
    fact = {"head": "e0", "relation": "r0", "tail": "e1"}
    with pytest.warns(NotKept, match="not kept"):
        _explain_twice(path, upload_folder, fact)


def _explain_twice(path: Path, upload_folder: Path, fact: dict[str, str]) -> None:
    with unwritable(path), client_of(path, upload_folder) as client:
        for _ in range(2):
            assert client.post("/v1/explain", json=fact).status_code == 200


# -- processes -------------------------------------------------------------------------------------


def serve(path: Path, temporary: Path, *more: str) -> tuple[subprocess.Popen[str], str]:
    temporary.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mocme.cli", "serve", str(path), "--port", "0", *more]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert " on http://127.0.0.1:" in line, (line, process.communicate(timeout=15))
    return process, line.split(" on ")[1].split()[0]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs a system with /proc")
def test_killed_servers_leave_no_workers_and_no_folders_to_the_next(
    path: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    process, url = serve(path, temporary, "--workers", "2", "--logs", "none")
    workers = children(process.pid, lambda pids: len(pids) == 2)
    assert get(f"{url}healthz")[0] == 200
    process.kill()
    process.communicate(timeout=15)
    wait_until(lambda: all(map(ended, workers)))
    assert len(list(temporary.glob(".mocme-*"))) == 2
    process, url = serve(path, temporary, "--workers", "2", "--logs", "none")
    assert get(f"{url}healthz")[0] == 200
    assert len(list(temporary.glob(".mocme-*"))) == 2
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=15)
    assert process.returncode == 0
    assert list(temporary.glob("*mocme*")) == []


def test_a_read_only_run_is_served_without_decisions(path: Path, tmp_path: Path) -> None:
    with mounted_read_only(path, tmp_path / "mounted") as there:
        process, url = serve(there, tmp_path / "tmp", "--logs", "text")
        try:
            assert get(f"{url}readyz")[0] == 200
            assert b'"entities"' in get(f"{url}v1/runs")[1]
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=15)
    assert process.returncode == 0
    notes = [line for line in errors.splitlines() if line.startswith("note: ")]
    assert any("takes no decisions" in note and "--reviews FILE" in note for note in notes)
    assert any("fitted probabilities are used but not kept" in note for note in notes)


def test_a_file_of_decisions_that_was_named_must_be_writable(path: Path, tmp_path: Path) -> None:
    from mocme.data.review_schema import ReviewsNotWritable
    from mocme.serving.server import serve as run_server

    with pytest.raises(ReviewsNotWritable, match="--reviews FILE"):
        run_server([path], reviews=tmp_path / "absent" / "reviews.sqlite", logs="none")
