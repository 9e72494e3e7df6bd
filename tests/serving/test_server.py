"""The HTTP server: its answers are those of the run, its limits hold, and nothing breaks it."""

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
from mocme.serving.api import application
from mocme.serving.batching import Batching, QueueFull
from mocme.serving.limits import Limits
from mocme.serving.run_view import RunView
from mocme.serving.server import Address, distinct_names

TOKEN = "a-long-enough-secret"
CHAD = {"head": "Chad", "relation": "borders"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "atlas"
    settings = {"experts.embedding.training.epochs": 2, "experts.embedding.embedding_dim": 32}
    run = mocme.train("atlas", "structure", out=out, settings=settings, device="cpu")
    run.evaluate("valid", device="cpu")
    return run.path


@pytest.fixture(scope="module")
def served(path: Path) -> RunView:
    return RunView("atlas", Run.open(path))


@pytest.fixture
def client(served: RunView, tmp_path: Path) -> Iterator[TestClient]:
    reviews = Reviews(tmp_path / "reviews.sqlite")
    with TestClient(application([served], reviews), raise_server_exceptions=False) as client:
        yield client


def refused(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    (error,) = answer.json().values()
    assert set(error) == {"code", "message", "remedy", "near"}
    assert error["code"] == code
    assert "Traceback" not in answer.text
    return error


# -- questions -------------------------------------------------------------------------------------


def test_answers_are_those_of_the_run(client: TestClient, served: RunView) -> None:
    predictor = served.predictor

    def same(path: str, body: dict[str, Any], found: Any) -> None:
        answer = client.post(f"/v1/{path}", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["question"] == found.question
        assert len(answer.json()["predictions"]) == len(found)
        for given, item in zip(answer.json()["predictions"], found, strict=True):
            wanted = item.as_dict()
            assert {k: given[k] for k in ("head", "relation", "tail", "known")} == {
                k: wanted[k] for k in ("head", "relation", "tail", "known")
            }
            assert given["score"] == pytest.approx(wanted["score"], rel=1e-5)
            if item.probability is None:
                assert given["probability"] is None
            else:
                assert given["probability"] == pytest.approx(item.probability, rel=1e-3)

    same("tails", {**CHAD, "k": 7}, predictor.tails("Chad", "borders", 7))
    marked = {**CHAD, "known": "mark", "among": "observed"}
    same("tails", marked, predictor.tails("Chad", "borders", known="mark", among="observed"))
    some = {"relation": "borders", "tail": "Chad", "among": ["Niger", "Mali"]}
    same("heads", some, predictor.heads("borders", "Chad", among=["Niger", "Mali"]))
    same("relations", {"head": "Chad", "tail": "Mali"}, predictor.relations("Chad", "Mali"))
    same("missing", {"entity": "Chad", "k": 3}, predictor.missing("Chad", 3))
    facts = [("Chad", "borders", "Niger"), ("Chad", "borders", "Mali")]
    body = {"facts": [dict(zip(("head", "relation", "tail"), f, strict=True)) for f in facts]}
    same("check", body, predictor.score_facts(facts))


def test_an_explanation_is_that_of_the_run(client: TestClient, served: RunView) -> None:
    fact = {"head": "Chad", "relation": "borders", "tail": "Mali"}
    answer = client.post("/v1/explain", json=fact)
    assert answer.status_code == 200, answer.text
    wanted = asdict(served.predictor.explain(*fact.values()))
    assert answer.json() == json.loads(json.dumps(wanted))
    refused(client.post("/v1/explain", json={**fact, "tail": "Malli"}), 404, "unknown_name")


def test_what_can_be_no_answer_has_no_score(client: TestClient) -> None:
    fact = {"head": "Chad", "relation": "located in", "tail": "Chad"}
    (shown,) = client.post("/v1/check", json={"facts": [fact]}).json()["predictions"]
    assert shown["score"] is None
    assert "no answer" in shown["note"]


def test_a_batch_answers_in_order_and_one_error_spoils_nothing(client: TestClient) -> None:
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
    ("asked", "body"),
    [
        ("tails", {**CHAD, "k": 0}),
        ("tails", {**CHAD, "k": 1001}),
        ("tails", {**CHAD, "k": "10"}),
        ("tails", {**CHAD, "extra": 1}),
        ("tails", {"head": "Chad"}),
        ("tails", {**CHAD, "min_probability": 1.5}),
        ("tails", {**CHAD, "among": "none"}),
        ("tails", {"head": "\ud800", "relation": "borders"}),
        ("check", {"facts": []}),
        ("batch", {"questions": [{"ask": "tails", **CHAD}] * 257}),
        ("reviews", {**CHAD, "tail": "Mali", "decision": "maybe", "reviewer": "Ada"}),
        ("reviews", {**CHAD, "tail": "Mali", "decision": "accept", "reviewer": "  "}),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(
    asked: str, body: dict[str, Any], client: TestClient
) -> None:
    answer = client.post(
        f"/v1/{asked}", content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert refused(answer, 422, "invalid")["message"]


def test_unknown_names_come_with_near_ones(client: TestClient) -> None:
    error = refused(
        client.post("/v1/tails", json={"head": "Chadd", "relation": "borders"}), 404, "unknown_name"
    )
    assert "Chad" in error["near"]
    refused(client.get("/v1/entity", params={"name": "Chadd"}), 404, "unknown_name")
    refused(client.post("/v1/tails", json={**CHAD, "run": "other"}), 404, "not_found")
    refused(client.get("/v1/nothing"), 404, "not_found")
    refused(client.get("/v1/tails"), 405, "wrong_method")


def test_questions_from_many_threads_are_answered_each_its_own(
    client: TestClient, served: RunView
) -> None:
    names = list(served.graph.entities)[:40]
    wanted = {name: served.predictor.tails(name, "located in", 3) for name in names}
    wrong: list[str] = []

    def ask(some: list[str]) -> None:
        for name in some:
            body = {"head": name, "relation": "located in", "k": 3}
            answer = client.post("/v1/tails", json=body).json()
            scores = [p["score"] for p in answer["predictions"]]
            if answer["question"] != wanted[name].question or scores != pytest.approx(
                [p.score for p in wanted[name]], rel=1e-5
            ):
                wrong.append(name)

    threads = [threading.Thread(target=ask, args=(names[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- looking about ---------------------------------------------------------------------------------


def test_an_entity_shows_what_is_known_of_it(client: TestClient, served: RunView) -> None:
    found = client.get("/v1/entity", params={"name": "Chad"}).json()
    assert found["in_training"]
    assert found["types"] == ["country"]
    assert found["texts"][0]["text"].startswith("Chad ;")
    assert {n["name"] for n in found["numbers"]} >= {"area", "population"}
    assert found["modalities"]["structure"] is True
    pairs = served.predictor.features.pairs
    assert {*found["pairs"]} == {*pairs}
    assert not {*found["pairs"]} & {*found["modalities"]}
    chad = served.graph.entities.id("Chad")
    for name, own in pairs.items():
        ends = list(zip(own.head.tolist(), own.tail.tolist(), strict=True))
        assert found["pairs"][name] == sum(chad in both for both in ends)
    told = client.get("/v1/runs").json()["runs"][0]["modalities"]
    assert {one["name"] for one in told if one["pairs"]} == {*pairs}
    (picture,) = found["files"]
    assert picture["kind"] == "image"
    file = client.get(picture["url"])
    assert file.headers["content-type"].startswith("image/")
    assert "sandbox" in file.headers["content-security-policy"]
    refused(client.get(picture["url"].replace("index=0", "index=7")), 404, "not_found")


def test_facts_are_all_there_by_page(client: TestClient, served: RunView) -> None:
    graph = served.graph
    chad = graph.entities.id("Chad")
    facts = graph.facts().tolist()
    wanted = {(h, r, t) for h, r, t in facts if chad in (h, t)}
    pages = [
        client.get("/v1/facts", params={"name": "Chad", "offset": n, "limit": 9}).json()
        for n in range(0, len(wanted) + 9, 9)
    ]
    shown = [f for page in pages for f in page["facts"]]
    ids = [
        (
            graph.entities.id(f["head"]),
            graph.relations.id(f["relation"]),
            graph.entities.id(f["tail"]),
        )
        for f in shown
    ]
    assert {page["total"] for page in pages} == {len(wanted)}
    assert sorted(ids) == sorted(wanted)
    for fact, (h, r, t) in zip(shown, ids, strict=True):
        assert [h, r, t] in graph.splits[fact["split"]].tolist()
    one = client.get("/v1/facts", params={"name": "Chad", "relation": "borders"}).json()
    assert {f["relation"] for f in one["facts"]} == {"borders"}


def test_a_neighbourhood_is_closed_and_counts_what_it_leaves_out(client: TestClient) -> None:
    for limit in (3, 200):
        found = client.get("/v1/neighbourhood", params={"name": "Chad", "limit": limit}).json()
        names = [node["name"] for node in found["nodes"]]
        assert names[0] == "Chad"
        assert len(set(names)) == len(names) <= limit + 1
        assert {e[side] for e in found["edges"] for side in ("head", "tail")} == set(names)
    assert found["left_out"] == 0


def test_search_and_report(client: TestClient) -> None:
    found = client.get("/v1/search", params={"q": "cha", "k": 3}).json()["entities"]
    assert found[0]["name"] == "Chad"
    assert len(found) == 3
    report = client.get("/v1/report").json()
    assert [e["split"] for e in report["evaluations"]] == ["valid"]
    assert len(report["training"]) == 2
    assert report["calibration"]
    about = client.get("/v1/runs").json()["runs"][0]
    assert about["name"] == "atlas"
    assert sum(r["facts"] for r in about["relations"]) == sum(about["facts"].values())


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
    where = data / "graph.toml" if declared_in == "the graph" else experiment
    with where.open("a") as file:
        file.write(tables)
    few = {"experts.embedding.training.epochs": 1, "experts.embedding.embedding_dim": 4}
    run = mocme.train(data, str(experiment), out=tmp_path / "run", settings=few, device="cpu")
    shown = RunView("words", Run.open(run.path)).entity("a")
    assert shown["texts"] == [{"modality": "word", "text": "red house"}]
    assert shown["numbers"] == [{"modality": "size", "name": "height", "value": 3.0}]


def test_an_addition_is_shown_with_the_modalities_it_has(
    tiny_graph: Callable[..., Any], tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    data = tiny_folder(tmp_path / "data", tiny_graph(facts=50))
    few = {"experts.embedding.training.epochs": 1, "experts.embedding.embedding_dim": 4}
    run = mocme.train(data, "mocme", out=tmp_path / "run", settings=few, device="cpu")
    run.add("new", [("new", "r0", "e1")], content={"shape": [0.1, 0.2, 0.3, 0.4, 0.5]})
    served = RunView("tiny", Run.open(run.path))
    shown = served.entity("new")
    assert shown["modalities"] == {"structure": True, "shape": True, "sound": False, "word": False}
    assert (shown["facts"], shown["in_training"]) == (1, True)


# -- decisions -------------------------------------------------------------------------------------


def test_decisions_come_back_and_go_out(client: TestClient, served: RunView) -> None:
    body = {**CHAD, "tail": "Mali", "decision": "accept", "reviewer": "Ada"}
    made = client.post("/v1/reviews", json=body)
    assert made.status_code == 201
    (shown,) = served.predictor.score_facts([("Chad", "borders", "Mali")])
    assert made.json()["probability"] == pytest.approx(shown.probability, rel=1e-3)
    assert client.get("/v1/reviews").json()["counts"] == {"accept": 1, "reject": 0, "skip": 0}
    other = client.post("/v1/reviews", json={**body, "decision": "reject", "note": "=x"}).json()
    assert client.get("/v1/reviews", params={"decision": "reject"}).json()["total"] == 1
    for format in ("tsv", "csv", "jsonl"):
        file = client.get("/v1/reviews/export", params={"format": format})
        named = re.compile(rf'attachment; filename="atlas-decisions-\d{{4}}-\d\d-\d\d\.{format}"')
        assert named.fullmatch(file.headers["content-disposition"])
        assert file.text.count("Mali") == 2
    rows = list(csv.DictReader(io.StringIO(client.get("/v1/reviews/export?format=csv").text)))
    assert [row["note"] for row in rows] == ["", "'=x"]
    assert client.delete(f"/v1/reviews/{other['id']}").status_code == 204
    refused(client.delete(f"/v1/reviews/{other['id']}"), 404, "not_found")
    assert client.get("/v1/reviews", params={"name": "Mali"}).json()["total"] == 1
    refused(client.post("/v1/reviews", json={**body, "tail": "Malli"}), 404, "unknown_name")
    refused(client.get("/v1/reviews/export?format=xlsx"), 422, "invalid")


# -- limits ----------------------------------------------------------------------------------------


def test_every_answer_has_the_headers_that_keep_a_page_safe(client: TestClient) -> None:
    for answer in (client.get("/v1/runs"), client.get("/nothing"), client.get("/")):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"]


def test_a_token_is_asked_for(served: RunView) -> None:
    with TestClient(application([served], token=TOKEN)) as client:
        refused(client.get("/v1/runs"), 401, "no_token")
        refused(client.get("/metrics"), 401, "no_token")
        wrong = {"authorization": "Bearer a-long-enough-secreT"}
        refused(client.get("/v1/runs", headers=wrong), 401, "no_token")
        right = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/v1/runs", headers=right).status_code == 200
        assert client.get("/healthz").status_code == 200


def test_bodies_are_limited_however_they_come(served: RunView) -> None:
    with TestClient(application([served], limits=Limits(body=1000))) as client:
        long = {**CHAD, "among": ["x" * 100] * 50}
        refused(client.post("/v1/tails", json=long), 413, "too_large")

        def pieces() -> Iterator[bytes]:
            yield from [b"[" * 100] * 20

        refused(client.post("/v1/tails", content=pieces()), 413, "too_large")
        assert client.post("/v1/tails", json=CHAD).status_code == 200


def test_other_names_of_the_server_are_refused(served: RunView) -> None:
    with TestClient(application([served], hosts=frozenset({"localhost", "::1"}))) as client:
        ask = lambda host: client.get("/healthz", headers={"host": host})  # noqa: E731
        refused(ask("evil.example"), 421, "wrong_host")
        for host in ("localhost", "LOCALHOST:8000", "[::1]:80"):
            assert ask(host).status_code == 200


def test_without_reviews_there_is_nothing_to_decide(served: RunView) -> None:
    with TestClient(application([served])) as client:
        error = refused(client.get("/v1/reviews"), 404, "not_found")
        assert "--reviews" in error["message"]


def test_two_runs_are_asked_by_name(served: RunView, path: Path) -> None:
    second = RunView("second", Run.open(path))
    with TestClient(application([served, second])) as client:
        assert [r["name"] for r in client.get("/v1/runs").json()["runs"]] == ["atlas", "second"]
        answers = [
            client.post("/v1/tails", json={**CHAD, "run": n}).json() for n in ("second", None)
        ]
        assert answers[0] == answers[1]


def test_the_least_reach_needs_a_token() -> None:
    assert Address().loopback
    assert Address("::1").loopback
    for host in ("0.0.0.0", "192.168.1.2", "::", "example.org"):
        with pytest.raises(ValueError, match="MOCME_TOKEN"):
            Address(host)
        assert not Address(host, token=TOKEN).loopback
    with pytest.raises(ValueError, match="16 characters"):
        Address(token="short")


def test_runs_are_called_by_as_much_of_their_path_as_tells_them_apart() -> None:
    paths = [Path("/a/x/seed-0"), Path("/a/y/seed-0")]
    assert distinct_names(paths) == ["x/seed-0", "y/seed-0"]
    assert distinct_names(paths[:1]) == ["seed-0"]
    with pytest.raises(ValueError, match="twice"):
        distinct_names([paths[0], paths[0]])


# -- the lanes -------------------------------------------------------------------------------------


def test_questions_that_gather_are_answered_together() -> None:
    begun, go = threading.Event(), threading.Event()
    blocks: list[list[int]] = []

    def answer(asked: Any) -> list[Any]:
        blocks.append(list(asked))
        begun.set()
        go.wait(5)
        return [ValueError("seven") if n == 7 else n * n for n in asked]

    lane: Batching[int, int] = Batching(answer, 4, 8)
    first = lane.ask(1)
    assert begun.wait(5)
    later = [lane.ask(n) for n in range(2, 10)]
    with pytest.raises(QueueFull):
        lane.ask(10)
    assert later[1].cancel()  # nobody waits for 3 any more
    go.set()
    assert first.result(5) == 1
    found = [later[n].result(5) for n in (0, 2, 3, 4, 6, 7)]
    assert found == [4, 16, 25, 36, 64, 81]
    with pytest.raises(ValueError, match="seven"):
        later[5].result(5)
    assert blocks == [[1], [2, 4, 5, 6], [7, 8, 9]]
    lane.close()
    with pytest.raises(QueueFull):
        lane.ask(1)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities on Linux only")
def test_what_computes_lets_those_pass_that_answer() -> None:
    """A look at health must not wait for the processor that scores hold."""

    def priority(_: Any = None) -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    lane: Batching[int, int] = Batching(lambda asked: [priority() for _ in asked], 1, 1)
    assert lane.ask(0).result(5) == min(priority() + 5, 19)
    lane.close()


def test_more_than_may_wait_is_refused_with_when_to_come_back(served: RunView) -> None:
    go = threading.Event()

    class Slow(RunView):
        def __init__(self) -> None:
            self.__dict__.update(vars(served))

        def ask(self, questions: Any) -> Any:
            go.wait(10)
            return super().ask(questions)

    limits = Limits(queue=1, seconds=0.5)
    with TestClient(application([Slow()], limits=limits), raise_server_exceptions=False) as client:
        answers: list[Any] = []
        ask = lambda: answers.append(client.post("/v1/tails", json=CHAD))  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        health = client.get("/healthz")
        for thread in threads:
            thread.join()
        go.set()
        assert health.status_code == 200
        statuses = sorted(answer.status_code for answer in answers)
        assert set(statuses) == {503, 504}
        busy = next(answer for answer in answers if answer.status_code == 503)
        assert busy.headers["retry-after"] == "1"
        refused(busy, 503, "busy")
        late = next(answer for answer in answers if answer.status_code == 504)
        refused(late, 504, "too_slow")


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
def test_it_serves_until_told_to_stop(workers: str, path: Path, tmp_path: Path) -> None:
    reviews = ["--reviews", str(tmp_path / "reviews.sqlite")]
    process, url = start(path, "--workers", workers, "--logs", "json", *reviews)
    try:
        assert get(f"{url}readyz") == (200, b'{"status":"ready"}')
        for _ in range(4):
            body = json.dumps(CHAD).encode()
            kind = {"content-type": "application/json"}
            request = urllib.request.Request(f"{url}v1/tails", data=body, headers=kind)
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert len(json.load(answer)["predictions"]) == 10
        assert b'route="/v1/tails",status="200"} 4.0' in get(f"{url}metrics")[1]
    finally:
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, errors = process.communicate(timeout=15)
    assert time.monotonic() - began < 10
    assert process.returncode == 0
    lines = [json.loads(line) for line in errors.splitlines()]
    asked = [line for line in lines if line.get("path") == "/v1/tails"]
    assert len(asked) == 4
    assert all(line["status"] == 200 and line["ms"] > 0 for line in asked)
    with pytest.raises(urllib.error.URLError):
        get(f"{url}healthz")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_told_to_stop_at_once_it_stops_at_once(workers: str, path: Path, tmp_path: Path) -> None:
    reviews = ["--reviews", str(tmp_path / "reviews.sqlite")]
    process, _ = start(path, "--workers", workers, "--logs", "none", *reviews)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    process.communicate(timeout=15)
    assert time.monotonic() - began < 5
    assert process.returncode == 0


def children(parent: int, until: Callable[[list[int]], bool]) -> list[int]:
    """The processes that a process has started, as soon as they are as they should be."""
    deadline = time.monotonic() + 20
    found: list[int] = []
    while time.monotonic() < deadline:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] != "Z":
                found.append(int(stat.parent.name))
        if until(found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"the processes are {found}")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs a system with /proc")
def test_a_process_that_dies_is_replaced(path: Path, tmp_path: Path) -> None:
    reviews = ["--reviews", str(tmp_path / "reviews.sqlite")]
    process, url = start(path, "--workers", "2", "--logs", "text", *reviews)
    try:
        before = children(process.pid, lambda found: len(found) == 2)
        os.kill(before[0], signal.SIGKILL)
        after = children(process.pid, lambda found: len(found) == 2 and before[0] not in found)
        assert before[1] in after
        assert get(f"{url}healthz")[0] == 200
    finally:
        process.terminate()
        process.communicate(timeout=15)


def test_what_cannot_be_served_is_told(path: Path) -> None:
    for words, why in (
        ([path, "--host", "0.0.0.0"], "MOCME_TOKEN"),
        ([path / "absent", "--port", 0], "there is no run"),
        ([path, "--port", 0, "--workers", 0], "workers must be at least 1"),
    ):
        done = CliRunner().invoke(cli.main, ["serve", *map(str, words)])
        assert done.exit_code == 1
        assert why in done.output
