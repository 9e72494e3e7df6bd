"""Requests made from the server's own schema, right and wrong: no answer is a failure of it."""

from __future__ import annotations

import copy
import json
import os
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

import mocme
from mocme.data.reviews import Reviews
from mocme.runs.run import Run
from mocme.serving.api import application
from mocme.serving.run_view import RunView
from mocme.serving.server import Address
from mocme.serving.uploads import ImageUploads

# Requests of an operation, of one kind: with two schemas and two kinds more than 500 in all. With
# MOCME_FUZZ=150 there are more than 10,000.
EACH = int(os.environ.get("MOCME_FUZZ", "10"))
NAMES = [
    "Chad",
    "Niger",
    "Africa",
    "No such place",
    "Newland",
    "<script>alert(1)</script>",
    "\u202eabc",
    "🏳️‍🌈",
]
RELATIONS = ["borders", "located in", "currency", "no such relation"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server, in a thread."""
    out = tmp_path_factory.mktemp("runs") / "atlas"
    few = {"experts.embedding.training.epochs": 1, "experts.embedding.embedding_dim": 8}
    run = mocme.train("atlas", "structure", out=out, settings=few, device="cpu")
    reviews = Reviews(Path(out) / "reviews.sqlite")
    pictures = ImageUploads(tmp_path_factory.mktemp("pictures"))
    app = application([RunView("atlas", Run.open(run.path))], reviews, pictures=pictures)
    address = Address(port=0)
    listener = address.bind()
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield address.url(listener).rstrip("/")
    server.should_exit = True
    thread.join()


def with_names(schema: Any) -> Any:
    """The same schema, whose names are few: some are in the graph."""
    if isinstance(schema, list):
        return [with_names(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: with_names(part) for key, part in schema.items()}
    for example, names in (("Chad", NAMES), ("Newland", NAMES), ("borders", RELATIONS)):
        if example in schema.get("examples", ()):
            found["enum"] = names
    if schema.get("name") in ("name", "relation") and schema.get("in") == "query":
        found["schema"] = {"enum": NAMES if schema["name"] == "name" else RELATIONS}
    return found


def test_no_request_breaks_it(url: str) -> None:
    asked = 0
    statuses: set[int] = set()
    with urllib.request.urlopen(f"{url}/v1/openapi.json") as answer:
        plain = json.load(answer)
    schemas = [schemathesis.openapi.from_dict(s) for s in (plain, with_names(copy.deepcopy(plain)))]

    def ask(operation: Any, mode: Any) -> None:
        @settings(
            max_examples=EACH,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def cases(case: schemathesis.Case) -> None:
            nonlocal asked
            answer = case.call(base_url=url)
            asked += 1
            statuses.add(answer.status_code)
            assert answer.status_code < 500, (case.as_curl_command(), answer.text)

        cases()

    for schema in schemas:
        for found in schema.get_all_operations():
            for mode in schemathesis.GenerationMode:
                try:
                    ask(found.ok(), mode)
                except Unsatisfiable:  # nothing about this operation can be wrong
                    assert mode == schemathesis.GenerationMode.NEGATIVE
    print(f"{asked:,} requests; statuses {sorted(statuses)}")
    assert asked >= 500
    assert {200, 404, 422} <= statuses
