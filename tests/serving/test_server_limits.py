"""The HTTP server enforces its limits; its queues answer in batches."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_helpers import CHAD, TOKEN, assert_error
from starlette.testclient import TestClient

from mocme.runs.run import Run
from mocme.serving.api import create_app
from mocme.serving.batching import Batching, QueueFull
from mocme.serving.limits import Limits
from mocme.serving.run_view import RunView
from mocme.serving.server import Address, distinct_names

# -- limits ----------------------------------------------------------------------------------------


def test_every_response_has_security_headers(client: TestClient) -> None:
    for answer in (client.get("/v1/runs"), client.get("/nothing"), client.get("/")):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"]


def test_a_token_is_required(run_view: RunView) -> None:
    with TestClient(create_app([run_view], token=TOKEN)) as client:
        assert_error(client.get("/v1/runs"), 401, "no_token")
        assert_error(client.get("/metrics"), 401, "no_token")
        wrong = {"authorization": "Bearer a-long-enough-secreT"}
        assert_error(client.get("/v1/runs", headers=wrong), 401, "no_token")
        right = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/v1/runs", headers=right).status_code == 200
        assert client.get("/healthz").status_code == 200


def test_bodies_are_limited_with_and_without_a_length(run_view: RunView) -> None:
    with TestClient(create_app([run_view], limits=Limits(body_bytes=1000))) as client:
        long = {**CHAD, "among": ["x" * 100] * 50}
        assert_error(client.post("/v1/tails", json=long), 413, "too_large")

        def chunks() -> Iterator[bytes]:
            yield from [b"[" * 100] * 20

        typed = {"content-type": "application/json"}
        assert_error(client.post("/v1/tails", content=chunks(), headers=typed), 413, "too_large")
        assert client.post("/v1/tails", json=CHAD).status_code == 200


def test_other_host_names_are_refused(run_view: RunView) -> None:
    with TestClient(create_app([run_view], hosts=frozenset({"localhost", "::1"}))) as client:
        get_as = lambda host: client.get("/healthz", headers={"host": host})  # noqa: E731
        assert_error(get_as("evil.example"), 421, "wrong_host")
        for host in ("localhost", "LOCALHOST:8000", "[::1]:80"):
            assert get_as(host).status_code == 200


def test_a_server_without_reviews_names_the_option(run_view: RunView) -> None:
    with TestClient(create_app([run_view])) as client:
        error = assert_error(client.get("/v1/reviews"), 404, "not_found")
        assert "--reviews" in error["message"]


def test_a_request_selects_a_run_by_name(run_view: RunView, run_path: Path) -> None:
    second = RunView("second", Run.open(run_path))
    with TestClient(create_app([run_view, second])) as client:
        assert [r["name"] for r in client.get("/v1/runs").json()["runs"]] == ["atlas", "second"]
        answers = [
            client.post("/v1/tails", json={**CHAD, "run": name}).json() for name in ("second", None)
        ]
        assert answers[0] == answers[1]


def test_an_address_beyond_loopback_requires_a_token() -> None:
    assert Address().loopback
    assert Address("::1").loopback
    for host in ("0.0.0.0", "192.168.1.2", "::", "example.org"):
        with pytest.raises(ValueError, match="MOCME_TOKEN"):
            Address(host)
        assert not Address(host, token=TOKEN).loopback
    with pytest.raises(ValueError, match="16 characters"):
        Address(token="short")


def test_run_names_are_the_shortest_unique_path_suffixes() -> None:
    paths = [Path("/a/x/seed-0"), Path("/a/y/seed-0")]
    assert distinct_names(paths) == ["x/seed-0", "y/seed-0"]
    assert distinct_names(paths[:1]) == ["seed-0"]
    with pytest.raises(ValueError, match="twice"):
        distinct_names([paths[0], paths[0]])


# -- the queues ------------------------------------------------------------------------------------


def test_waiting_requests_are_answered_in_batches() -> None:
    started, resume = threading.Event(), threading.Event()
    batches: list[list[int]] = []

    def square(numbers: Any) -> list[Any]:
        batches.append(list(numbers))
        started.set()
        resume.wait(5)
        return [ValueError("seven") if n == 7 else n * n for n in numbers]

    queue: Batching[int, int] = Batching(square, 4, 8)
    first = queue.submit(1)
    assert started.wait(5)
    later = [queue.submit(n) for n in range(2, 10)]
    with pytest.raises(QueueFull):
        queue.submit(10)
    assert later[1].cancel()  # the request for 3
    resume.set()
    assert first.result(5) == 1
    squares = [later[n].result(5) for n in (0, 2, 3, 4, 6, 7)]
    assert squares == [4, 16, 25, 36, 64, 81]
    with pytest.raises(ValueError, match="seven"):
        later[5].result(5)
    assert batches == [[1], [2, 4, 5, 6], [7, 8, 9]]
    queue.close()
    with pytest.raises(QueueFull):
        queue.submit(1)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities on Linux only")
def test_the_worker_thread_has_a_lower_priority() -> None:
    """A health check must not wait for a processor that is busy scoring."""

    def priority(_: Any = None) -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    queue: Batching[int, int] = Batching(lambda requests: [priority() for _ in requests], 1, 1)
    assert queue.submit(0).result(5) == min(priority() + 5, 19)
    queue.close()


def test_a_full_queue_refuses_with_retry_after(run_view: RunView) -> None:
    resume = threading.Event()

    class SlowView(RunView):
        def __init__(self) -> None:
            self.__dict__.update(vars(run_view))

        def predict(self, questions: Any, check: Any) -> Any:
            resume.wait(10)
            return super().predict(questions, check)

    limits = Limits(queue=1, seconds=0.5)
    app = create_app([SlowView()], limits=limits)
    with TestClient(app, raise_server_exceptions=False) as client:
        answers: list[Any] = []
        ask = lambda: answers.append(client.post("/v1/tails", json=CHAD))  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        health = client.get("/healthz")
        for thread in threads:
            thread.join()
        resume.set()
        assert health.status_code == 200
        statuses = sorted(answer.status_code for answer in answers)
        assert set(statuses) == {503, 504}
        busy = next(answer for answer in answers if answer.status_code == 503)
        assert busy.headers["retry-after"] == "1"
        assert_error(busy, 503, "busy")
        late = next(answer for answer in answers if answer.status_code == 504)
        assert_error(late, 504, "too_slow")
