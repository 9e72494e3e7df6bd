"""The HTTP server answers as the run does."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from http_helpers import CHAD, assert_error
from starlette.testclient import TestClient

import mocme
from mocme.runs.run import Run
from mocme.serving.run_view import RunView

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
    ("route", "body", "field"),
    [
        ("tails", {**CHAD, "k": 0}, "k"),
        ("tails", {**CHAD, "k": 1001}, "k"),
        ("tails", {**CHAD, "k": "10"}, "k"),
        ("tails", {**CHAD, "extra": 1}, "extra"),
        ("tails", {"head": "Chad"}, "relation"),
        ("tails", {**CHAD, "min_probability": 1.5}, "min_probability"),
        ("tails", {**CHAD, "among": "none"}, "among"),
        ("tails", {"head": "\ud800", "relation": "borders"}, ""),
        ("score", {"facts": []}, "facts"),
        ("batch", {"questions": [{"ask": "tails", **CHAD}] * 257}, "questions"),
        ("reviews", {**CHAD, "tail": "Mali", "decision": "maybe", "reviewer": "Ada"}, "decision"),
        ("reviews", {**CHAD, "tail": "Mali", "decision": "accept", "reviewer": "  "}, "reviewer"),
    ],
)
def test_an_invalid_request_gets_a_message(
    route: str, body: dict[str, Any], field: str, client: TestClient
) -> None:
    answer = client.post(
        f"/v1/{route}", content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert assert_error(answer, 422, "invalid", field)["message"]


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
    few = {"experts.embedding.training.epochs": 1, "experts.embedding.embedding_dim": 4}
    run = mocme.train(data, str(experiment), out=tmp_path / "run", settings=few, device="cpu")
    entity = RunView("words", Run.open(run.path)).entity("a")
    assert entity["texts"] == [{"modality": "word", "text": "red house"}]
    assert entity["numbers"] == [{"modality": "size", "name": "height", "value": 3.0}]


def test_an_addition_lists_its_modalities(
    tiny_graph: Callable[..., Any], tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    data = tiny_folder(tmp_path / "data", tiny_graph(facts=50))
    few = {"experts.embedding.training.epochs": 1, "experts.embedding.embedding_dim": 4}
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
    assert_error(client.get("/v1/reviews/export?format=xlsx"), 422, "invalid", "format")


@pytest.mark.parametrize(
    ("path", "change", "field"),
    [
        ("/v1/reviews", {"decision": "perhaps"}, "decision"),
        ("/v1/reviews", {"decision": None}, "decision"),
        ("/v1/reviews", {"reviewer": " "}, "reviewer"),
        ("/v1/reviews", {"reviewer": ...}, "reviewer"),
        ("/v1/reviews", {"verdict": "accept"}, "verdict"),
        ("/v1/reviews", {"decision": "perhaps", "reviewer": ""}, ""),
        ("/v1/score", {"facts": [{**CHAD, "tail": "Mali"}, {**CHAD, "tail": 3}]}, "facts.1.tail"),
        ("/v1/score", {"facts": [CHAD]}, "facts.0.tail"),
        ("/v1/tails", {**CHAD, "k": 0}, "k"),
        ("/v1/tails", {**CHAD, "among": "some"}, "among"),
        ("/v1/batch", {"questions": [{"ask": "tails", **CHAD, "k": "1"}]}, "questions.0.k"),
        ("/v1/batch", {"questions": [{"ask": "tails", "head": "Chad"}]}, "questions.0.relation"),
        ("/v1/batch", {"questions": [{"ask": "nothing"}]}, "questions.0"),
    ],
)
def test_an_invalid_request_names_the_one_part_that_is_wrong(
    path: str, change: dict[str, Any], field: str, client: TestClient
) -> None:
    review = {**CHAD, "tail": "Mali", "decision": "reject", "reviewer": "Ada"}
    body = {**(review if path == "/v1/reviews" else {}), **change}
    body = {key: value for key, value in body.items() if value is not ...}
    assert_error(client.post(path, json=body), 422, "invalid", field)


def test_an_invalid_parameter_is_named(client: TestClient) -> None:
    assert_error(client.get("/v1/reviews?limit=0"), 422, "invalid", "limit")
    assert_error(client.delete("/v1/reviews/x"), 422, "invalid", "id")
