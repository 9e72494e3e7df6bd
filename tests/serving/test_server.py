"""The HTTP server answers as the run does and enforces its limits."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

import mocme
from mocme import cli
from mocme.data.reviews import Reviews
from mocme.runs.run import Run
from mocme.serving.api import create_app
from mocme.serving.batching import Batching, QueueFull
from mocme.serving.limits import Limits
from mocme.serving.run_view import RunView
from mocme.serving.server import Address, distinct_names

TOKEN = "a-long-enough-secret"
CHAD = {"head": "Chad", "relation": "borders"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "atlas"
    settings = {"training.passes": 2, "model.width": 32}
    run = mocme.train("atlas", "structure", out=out, settings=settings, device="cpu")
    run.evaluate("valid", device="cpu")
    return run.path


@pytest.fixture(scope="module")
def run_view(path: Path) -> RunView:
    return RunView("atlas", Run.open(path))


@pytest.fixture
def client(run_view: RunView, tmp_path: Path) -> Iterator[TestClient]:
    reviews = Reviews(tmp_path / "reviews.sqlite")
    with TestClient(create_app([run_view], reviews), raise_server_exceptions=False) as client:
        yield client


def assert_error(answer: Any, status: int, code: str) -> dict[str, Any]:
    """Check that a response is an error without a stack trace, and return its detail."""
    assert answer.status_code == status, answer.text
    (error,) = answer.json().values()
    assert set(error) == {"code", "message", "remedy", "near"}
    assert error["code"] == code
    assert "Traceback" not in answer.text
    return error


# -- predictions -----------------------------------------------------------------------------------


def test_answers_equal_those_of_the_predictor(client: TestClient, run_view: RunView) -> None:
    predictor = run_view.predictor

    def assert_same(path: str, body: dict[str, Any], predictions: Any) -> None:
        answer = client.post(f"/v1/{path}", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["question"] == predictions.question
        assert len(answer.json()["predictions"]) == len(predictions)
        for actual, prediction in zip(answer.json()["predictions"], predictions, strict=True):
            expected = prediction.as_dict()
            assert {k: actual[k] for k in ("head", "relation", "tail", "known")} == {
                k: expected[k] for k in ("head", "relation", "tail", "known")
            }
            assert actual["score"] == pytest.approx(expected["score"], rel=1e-5)
            if prediction.probability is None:
                assert actual["probability"] is None
            else:
                assert actual["probability"] == pytest.approx(prediction.probability, rel=1e-3)

    assert_same("tails", {**CHAD, "k": 7}, predictor.tails("Chad", "borders", 7))
    marked = {**CHAD, "known": "mark", "among": "observed"}
    assert_same("tails", marked, predictor.tails("Chad", "borders", known="mark", among="observed"))
    among = {"relation": "borders", "tail": "Chad", "among": ["Niger", "Mali"]}
    assert_same("heads", among, predictor.heads("borders", "Chad", among=["Niger", "Mali"]))
    assert_same("relations", {"head": "Chad", "tail": "Mali"}, predictor.relations("Chad", "Mali"))
    assert_same("missing", {"entity": "Chad", "k": 3}, predictor.missing("Chad", 3))
    facts = [("Chad", "borders", "Niger"), ("Chad", "borders", "Mali")]
    body = {"facts": [dict(zip(("head", "relation", "tail"), f, strict=True)) for f in facts]}
    assert_same("score", body, predictor.score_facts(facts))


def test_an_explanation_equals_that_of_the_predictor(client: TestClient, run_view: RunView) -> None:
    fact = {"head": "Chad", "relation": "borders", "tail": "Mali"}
    answer = client.post("/v1/explain", json=fact)
    assert answer.status_code == 200, answer.text
    expected = asdict(run_view.predictor.explain(*fact.values()))
    assert answer.json() == json.loads(json.dumps(expected))
    assert_error(client.post("/v1/explain", json={**fact, "tail": "Malli"}), 404, "unknown_name")


def test_an_excluded_fact_has_no_score(client: TestClient) -> None:
    fact = {"head": "Chad", "relation": "located in", "tail": "Chad"}
    (prediction,) = client.post("/v1/score", json={"facts": [fact]}).json()["predictions"]
    assert prediction["score"] is None
    assert "no answer" in prediction["note"]


def test_the_old_path_of_score_names_the_new_one(client: TestClient) -> None:
    error = assert_error(client.post("/v1/check", json={"facts": []}), 404, "not_found")
    assert "/v1/score" in error["message"]
    assert "POST /v1/score" in error["remedy"]


def test_a_batch_answers_in_order_and_isolates_errors(client: TestClient) -> None:
    questions = [
        {"ask": "tails", **CHAD, "k": 2},
        {"ask": "missing", "entity": "Nowhere"},
        {"ask": "heads", "relation": "borders", "tail": "Chad", "k": 2},
        {"ask": "tails", "head": "Nowhere", "relation": "borders"},
        {"ask": "relations", "head": "Chad", "tail": "Niger", "k": 1},
    ]
    answer = client.post("/v1/batch", json={"questions": questions})
    assert answer.status_code == 200, answer.text
    first, second, third, fourth, fifth = answer.json()["answers"]
    alone = client.post("/v1/tails", json={**CHAD, "k": 2}).json()
    assert [p["tail"] for p in first["predictions"]] == [p["tail"] for p in alone["predictions"]]
    assert second["error"]["code"] == fourth["error"]["code"] == "unknown_name"
    assert third["question"] == "(?, borders, Chad)"
    assert len(fifth["predictions"]) == 1


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("tails", {**CHAD, "k": 0}),
        ("tails", {**CHAD, "k": 1001}),
        ("tails", {**CHAD, "k": "10"}),
        ("tails", {**CHAD, "extra": 1}),
        ("tails", {"head": "Chad"}),
        ("tails", {**CHAD, "min_probability": 1.5}),
        ("tails", {**CHAD, "among": "none"}),
        ("tails", {"head": "\ud800", "relation": "borders"}),
        ("score", {"facts": []}),
        ("batch", {"questions": [{"ask": "tails", **CHAD}] * 257}),
        ("reviews", {**CHAD, "tail": "Mali", "decision": "maybe", "reviewer": "Ada"}),
        ("reviews", {**CHAD, "tail": "Mali", "decision": "accept", "reviewer": "  "}),
    ],
)
def test_an_invalid_request_gets_a_message(
    route: str, body: dict[str, Any], client: TestClient
) -> None:
    answer = client.post(
        f"/v1/{route}", content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert assert_error(answer, 422, "invalid")["message"]


def test_an_unknown_name_gets_near_matches(client: TestClient) -> None:
    error = assert_error(
        client.post("/v1/tails", json={"head": "Chadd", "relation": "borders"}), 404, "unknown_name"
    )
    assert "Chad" in error["near"]
    assert_error(client.get("/v1/entity", params={"name": "Chadd"}), 404, "unknown_name")
    assert_error(client.post("/v1/tails", json={**CHAD, "run": "other"}), 404, "not_found")
    assert_error(client.get("/v1/nothing"), 404, "not_found")
    assert_error(client.get("/v1/tails"), 405, "wrong_method")


def test_concurrent_questions_get_their_own_answers(client: TestClient, run_view: RunView) -> None:
    names = list(run_view.graph.entities)[:40]
    expected = {name: run_view.predictor.tails(name, "located in", 3) for name in names}
    wrong: list[str] = []

    def ask(part: list[str]) -> None:
        for name in part:
            body = {"head": name, "relation": "located in", "k": 3}
            answer = client.post("/v1/tails", json=body).json()
            scores = [p["score"] for p in answer["predictions"]]
            if answer["question"] != expected[name].question or scores != pytest.approx(
                [p.score for p in expected[name]], rel=1e-5
            ):
                wrong.append(name)

    threads = [threading.Thread(target=ask, args=(names[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- browsing --------------------------------------------------------------------------------------


def test_an_entity_is_described_in_full(client: TestClient, run_view: RunView) -> None:
    entity = client.get("/v1/entity", params={"name": "Chad"}).json()
    assert entity["in_training"]
    assert entity["types"] == ["country"]
    assert entity["texts"][0]["text"].startswith("Chad ;")
    assert {number["name"] for number in entity["numbers"]} >= {"area", "population"}
    assert entity["modalities"]["structure"] is True
    pairs = run_view.predictor.features.pairs
    assert {*entity["pairs"]} == {*pairs}
    assert not {*entity["pairs"]} & {*entity["modalities"]}
    chad = run_view.graph.entities.id("Chad")
    for name, modality in pairs.items():
        ends = list(zip(modality.head.tolist(), modality.tail.tolist(), strict=True))
        assert entity["pairs"][name] == sum(chad in pair for pair in ends)
    modalities = client.get("/v1/runs").json()["runs"][0]["modalities"]
    assert {modality["name"] for modality in modalities if modality["pairs"]} == {*pairs}
    (picture,) = entity["files"]
    assert picture["kind"] == "image"
    file = client.get(picture["url"])
    assert file.headers["content-type"].startswith("image/")
    assert "sandbox" in file.headers["content-security-policy"]
    assert_error(client.get(picture["url"].replace("index=0", "index=7")), 404, "not_found")


def test_pages_of_facts_are_complete(client: TestClient, run_view: RunView) -> None:
    graph = run_view.graph
    chad = graph.entities.id("Chad")
    facts = graph.facts().tolist()
    expected = {(h, r, t) for h, r, t in facts if chad in (h, t)}
    pages = [
        client.get("/v1/facts", params={"name": "Chad", "offset": n, "limit": 9}).json()
        for n in range(0, len(expected) + 9, 9)
    ]
    returned = [fact for page in pages for fact in page["facts"]]
    ids = [
        (
            graph.entities.id(fact["head"]),
            graph.relations.id(fact["relation"]),
            graph.entities.id(fact["tail"]),
        )
        for fact in returned
    ]
    assert {page["total"] for page in pages} == {len(expected)}
    assert sorted(ids) == sorted(expected)
    for fact, (h, r, t) in zip(returned, ids, strict=True):
        assert [h, r, t] in graph.splits[fact["split"]].tolist()
    filtered = client.get("/v1/facts", params={"name": "Chad", "relation": "borders"}).json()
    assert {fact["relation"] for fact in filtered["facts"]} == {"borders"}


def test_a_neighbourhood_is_closed_and_counts_omitted_neighbours(client: TestClient) -> None:
    for limit in (3, 200):
        params = {"name": "Chad", "limit": limit}
        neighbourhood = client.get("/v1/neighbourhood", params=params).json()
        names = [node["name"] for node in neighbourhood["nodes"]]
        assert names[0] == "Chad"
        assert len(set(names)) == len(names) <= limit + 1
        ends = {edge[side] for edge in neighbourhood["edges"] for side in ("head", "tail")}
        assert ends == set(names)
    assert neighbourhood["left_out"] == 0


def test_search_and_report(client: TestClient) -> None:
    entities = client.get("/v1/search", params={"q": "cha", "k": 3}).json()["entities"]
    assert entities[0]["name"] == "Chad"
    assert len(entities) == 3
    report = client.get("/v1/report").json()
    assert [e["split"] for e in report["evaluations"]] == ["valid"]
    assert len(report["training"]) == 2
    assert report["calibration"]
    info = client.get("/v1/runs").json()["runs"][0]
    assert info["name"] == "atlas"
    assert sum(r["facts"] for r in info["relations"]) == sum(info["facts"].values())


@pytest.mark.parametrize("declared_in", ["the graph", "the experiment"])
def test_texts_and_numbers_are_shown_wherever_they_are_declared(
    declared_in: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.tsv").write_text("a\tr\tb\nb\tr\tc\nc\tr\ta\n")
    (data / "words.tsv").write_text("a\tred house\nb\tred door\nc\tgreen door\n")
    (data / "numbers.tsv").write_text("a\theight\t3\nb\theight\t5\n")
    tables = """
[modalities.word]
kind = "words"
paths = ["words.tsv"]
at_least = 1
at_most = 1.0
[modalities.size]
kind = "numbers"
path = "numbers.tsv"
"""
    experiment = tmp_path / "words.toml"
    experiment.write_text('extends = "structure"\n[data]\nonly = ["word", "size"]\n')
    path = data / "graph.toml" if declared_in == "the graph" else experiment
    with path.open("a") as file:
        file.write(tables)
    few = {"training.passes": 1, "model.width": 4}
    run = mocme.train(data, str(experiment), out=tmp_path / "run", settings=few, device="cpu")
    entity = RunView("words", Run.open(run.path)).entity("a")
    assert entity["texts"] == [{"modality": "word", "text": "red house"}]
    assert entity["numbers"] == [{"modality": "size", "name": "height", "value": 3.0}]


def test_an_addition_lists_its_modalities(
    tiny_graph: Callable[..., Any], tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    data = tiny_folder(tmp_path / "data", tiny_graph(facts=50))
    few = {"training.passes": 1, "model.width": 4}
    run = mocme.train(data, "mocme", out=tmp_path / "run", settings=few, device="cpu")
    run.add("new", [("new", "r0", "e1")], content={"shape": [0.1, 0.2, 0.3, 0.4, 0.5]})
    run_view = RunView("tiny", Run.open(run.path))
    entity = run_view.entity("new")
    assert entity["modalities"] == {"structure": True, "shape": True, "sound": False, "word": False}
    assert (entity["facts"], entity["in_training"]) == (1, True)


# -- decisions -------------------------------------------------------------------------------------


def test_decisions_are_stored_listed_exported_and_removed(
    client: TestClient, run_view: RunView
) -> None:
    body = {**CHAD, "tail": "Mali", "decision": "accept", "reviewer": "Ada"}
    created = client.post("/v1/reviews", json=body)
    assert created.status_code == 201
    (prediction,) = run_view.predictor.score_facts([("Chad", "borders", "Mali")])
    assert created.json()["probability"] == pytest.approx(prediction.probability, rel=1e-3)
    assert client.get("/v1/reviews").json()["counts"] == {"accept": 1, "reject": 0, "skip": 0}
    other = client.post("/v1/reviews", json={**body, "decision": "reject", "note": "=x"}).json()
    assert client.get("/v1/reviews", params={"decision": "reject"}).json()["total"] == 1
    for format in ("tsv", "csv", "jsonl"):
        file = client.get("/v1/reviews/export", params={"format": format})
        disposition = re.compile(
            rf'attachment; filename="atlas-decisions-\d{{4}}-\d\d-\d\d\.{format}"'
        )
        assert disposition.fullmatch(file.headers["content-disposition"])
        assert file.text.count("Mali") == 2
    rows = list(csv.DictReader(io.StringIO(client.get("/v1/reviews/export?format=csv").text)))
    assert [row["note"] for row in rows] == ["", "'=x"]
    assert client.delete(f"/v1/reviews/{other['id']}").status_code == 204
    assert_error(client.delete(f"/v1/reviews/{other['id']}"), 404, "not_found")
    assert client.get("/v1/reviews", params={"name": "Mali"}).json()["total"] == 1
    assert_error(client.post("/v1/reviews", json={**body, "tail": "Malli"}), 404, "unknown_name")
    assert_error(client.get("/v1/reviews/export?format=xlsx"), 422, "invalid")


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

        assert_error(client.post("/v1/tails", content=chunks()), 413, "too_large")
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


def test_a_request_selects_a_run_by_name(run_view: RunView, path: Path) -> None:
    second = RunView("second", Run.open(path))
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

        def predict(self, questions: Any) -> Any:
            resume.wait(10)
            return super().predict(questions)

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


# -- the process -----------------------------------------------------------------------------------


def start(path: Path, *more: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "mocme.cli", "serve", str(path), "--port", "0", *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert " on http://127.0.0.1:" in line, line
    return process, line.split(" on ")[1].split()[0]


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.status, answer.read()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_server_runs_until_a_stop_signal(workers: str, path: Path, tmp_path: Path) -> None:
    reviews = ["--reviews", str(tmp_path / "reviews.sqlite")]
    process, url = start(path, "--workers", workers, "--logs", "json", *reviews)
    try:
        assert get(f"{url}readyz") == (200, b'{"status":"ready"}')
        for _ in range(4):
            body = json.dumps(CHAD).encode()
            headers = {"content-type": "application/json"}
            request = urllib.request.Request(f"{url}v1/tails", data=body, headers=headers)
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert len(json.load(answer)["predictions"]) == 10
        assert b'route="/v1/tails",status="200"} 4.0' in get(f"{url}metrics")[1]
    finally:
        process.send_signal(signal.SIGTERM)
        stopped = time.monotonic()
        _, errors = process.communicate(timeout=15)
    assert time.monotonic() - stopped < 10
    assert process.returncode == 0
    lines = [json.loads(line) for line in errors.splitlines()]
    requests = [line for line in lines if line.get("path") == "/v1/tails"]
    assert len(requests) == 4
    assert all(line["status"] == 200 and line["ms"] > 0 for line in requests)
    with pytest.raises(urllib.error.URLError):
        get(f"{url}healthz")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_during_startup_stops_at_once(workers: str, path: Path, tmp_path: Path) -> None:
    reviews = ["--reviews", str(tmp_path / "reviews.sqlite")]
    process, _ = start(path, "--workers", workers, "--logs", "none", *reviews)
    process.send_signal(signal.SIGTERM)
    stopped = time.monotonic()
    process.communicate(timeout=15)
    assert time.monotonic() - stopped < 5
    assert process.returncode == 0


def children(parent: int, until: Callable[[list[int]], bool]) -> list[int]:
    """Return the child processes of a process once they satisfy a condition."""
    deadline = time.monotonic() + 20
    pids: list[int] = []
    while time.monotonic() < deadline:
        pids = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] != "Z":
                pids.append(int(stat.parent.name))
        if until(pids):
            return pids
        time.sleep(0.05)
    raise AssertionError(f"the processes are {pids}")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs a system with /proc")
def test_a_worker_that_dies_is_replaced(path: Path, tmp_path: Path) -> None:
    reviews = ["--reviews", str(tmp_path / "reviews.sqlite")]
    process, url = start(path, "--workers", "2", "--logs", "text", *reviews)
    try:
        before = children(process.pid, lambda pids: len(pids) == 2)
        os.kill(before[0], signal.SIGKILL)
        after = children(process.pid, lambda pids: len(pids) == 2 and before[0] not in pids)
        assert before[1] in after
        assert get(f"{url}healthz")[0] == 200
    finally:
        process.terminate()
        process.communicate(timeout=15)


def test_a_server_that_cannot_start_says_why(path: Path) -> None:
    for arguments, reason in (
        ([path, "--host", "0.0.0.0"], "MOCME_TOKEN"),
        ([path / "absent", "--port", 0], "there is no run"),
        ([path, "--port", 0, "--workers", 0], "workers must be at least 1"),
    ):
        result = CliRunner().invoke(cli.main, ["serve", *map(str, arguments)])
        assert result.exit_code == 1
        assert reason in result.output
