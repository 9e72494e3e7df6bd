"""Valid and invalid requests generated from the server's own schema never cause a 5xx."""

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
from mocme.serving.api import create_app
from mocme.serving.run_view import RunView
from mocme.serving.server import Address
from mocme.serving.uploads import ImageUploads

# Requests per operation and generation mode. With two schemas and two modes, the default makes more
# than 500 in total, and MOCME_FUZZ=150 more than 10,000.
MAX_EXAMPLES = int(os.environ.get("MOCME_FUZZ", "10"))
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
    """The URL of a real server, in a thread."""
    out = tmp_path_factory.mktemp("runs") / "atlas"
    small = {"experts.embedding.training.epochs": 1, "experts.embedding.embedding_dim": 8}
    run = mocme.train("atlas", "structure", out=out, settings=small, device="cpu")
    reviews = Reviews(Path(out) / "reviews.sqlite")
    uploads = ImageUploads(tmp_path_factory.mktemp("pictures"))
    app = create_app([RunView("atlas", Run.open(run.path))], reviews, uploads=uploads)
    address = Address(port=0)
    listener = address.bind()
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield address.url(listener).rstrip("/")
    server.should_exit = True
    thread.join()


def restrict_names(schema: Any) -> Any:
    """Restrict names to a few values, of which some are in the graph, so that requests succeed."""
    if isinstance(schema, list):
        return [restrict_names(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    restricted = {key: restrict_names(part) for key, part in schema.items()}
    for example, names in (("Chad", NAMES), ("Newland", NAMES), ("borders", RELATIONS)):
        if example in schema.get("examples", ()):
            restricted["enum"] = names
    if schema.get("name") in ("name", "relation") and schema.get("in") == "query":
        restricted["schema"] = {"enum": NAMES if schema["name"] == "name" else RELATIONS}
    return restricted


def test_no_request_causes_a_server_error(url: str) -> None:
    count = 0
    statuses: set[int] = set()
    with urllib.request.urlopen(f"{url}/v1/openapi.json") as answer:
        plain = json.load(answer)
    schemas = [
        schemathesis.openapi.from_dict(s) for s in (plain, restrict_names(copy.deepcopy(plain)))
    ]

    def send_requests(operation: Any, mode: Any) -> None:
        @settings(
            max_examples=MAX_EXAMPLES,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: schemathesis.Case) -> None:
            nonlocal count
            answer = case.call(base_url=url)
            count += 1
            statuses.add(answer.status_code)
            assert answer.status_code < 500, (case.as_curl_command(), answer.text)

        send()

    for schema in schemas:
        for result in schema.get_all_operations():
            for mode in schemathesis.GenerationMode:
                try:
                    send_requests(result.ok(), mode)
                except Unsatisfiable:  # this operation has no invalid requests
                    assert mode == schemathesis.GenerationMode.NEGATIVE
    print(f"{count:,} requests; statuses {sorted(statuses)}")
    assert count >= 500
    assert {200, 404, 422} <= statuses
