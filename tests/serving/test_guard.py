"""The guard refuses requests by itself, whatever the framework behind it would do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from http_helpers import CHAD, TOKEN, assert_error
from starlette.testclient import TestClient

from mocme.serving.api import create_app
from mocme.serving.limits import LOOPBACK, Limits
from mocme.serving.metrics import Metrics
from mocme.serving.middleware import CLIENT_GONE, RequestGuard
from mocme.serving.run_view import RunView

JSON = ("content-type", "application/json")


class Guarded:
    """A guard around an application that stores the requests it gets."""

    def __init__(self, token: str | None = None, hosts: frozenset[str] | None = None) -> None:
        self.seen: list[dict[str, Any]] = []
        self.guard = RequestGuard(
            self.answer, Limits(), Metrics(), token, hosts, {"/v1/pictures": 100}
        )

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for more in (True, True, False):
            await send({"type": "http.response.body", "body": b"{}", "more_body": more})

    def request(
        self,
        method: str,
        path: str,
        *headers: tuple[str, str],
        host: str | None = "localhost:8000",
        raw_path: str | None = None,
        http_version: str = "1.1",
    ) -> tuple[int, dict[str, Any], bytes]:
        """Send a request; return status, error and body."""
        pairs = [*headers, *([("host", host)] if host is not None else [])]
        scope = {
            "type": "http",
            "method": method,
            "http_version": http_version,
            "path": path,
            "raw_path": (raw_path or path).encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in pairs],
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.guard(scope, receive, send))
        assert sent[-1].get("more_body", False) is False
        body = b"".join(message.get("body", b"") for message in sent[1:])
        error = json.loads(body)["error"] if sent[0]["status"] >= 400 and body else {}
        return sent[0]["status"], error, body


@pytest.fixture
def guarded() -> Guarded:
    return Guarded(hosts=LOOPBACK)


@pytest.mark.parametrize(
    "name",
    [
        *("host", "content-length", "content-type", "transfer-encoding", "authorization"),
        *("origin", "sec-fetch-site", "range"),
    ],
)
def test_a_header_that_is_given_twice_is_refused(name: str, guarded: Guarded) -> None:
    for values in (("localhost", "evil"), ("evil", "localhost"), ("0", "0")):
        status, error, _ = guarded.request("GET", "/", *((name, v) for v in values), host=None)
        assert (status, error["code"]) == (400, "bad_request")
        assert name in error["message"]
    assert not guarded.seen


def test_control_characters_in_headers_are_refused(guarded: Guarded) -> None:
    for value in ("a\x00b", "a\x1bb", "a\rb", "a\nb", "\x7f"):
        assert guarded.request("GET", "/", ("x", value))[0] == 400
    assert guarded.request("GET", "/", ("x", "a\tb \xe9"))[0] == 200


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/v1/a/b", "/v1/a%2Fb"),
        ("/static/../x", "/static/..%2fx"),
        ("/a\x00", "/a%00"),
        ("/a\x1b[0m", "/a%1b[0m"),
        ("/a\\b", "/a%5Cb"),
        ("/a\ufffd", "/a%ff"),
    ],
)
def test_paths_that_programs_read_differently_are_refused(
    path: str, raw: str, guarded: Guarded
) -> None:
    assert guarded.request("GET", path, raw_path=raw)[0] == 400
    assert not guarded.seen


@pytest.mark.parametrize(
    "method", ["OPTIONS", "PUT", "PATCH", "TRACE", "CONNECT", "PROPFIND", "get"]
)
def test_other_methods_are_refused(method: str, guarded: Guarded) -> None:
    status, error, _ = guarded.request(method, "/v1/tails", JSON)
    assert (status, error["code"]) == (405, "wrong_method")
    assert "POST" in error["message"]


def test_a_content_length_is_a_number(guarded: Guarded) -> None:
    for length in ("-1", "+1", "1e3", "0x1", "1, 1", "9" * 19, "\xb2"):
        assert guarded.request("POST", "/v1/tails", JSON, ("content-length", length))[0] == 400


# -- other sites -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "DELETE", "GET"])
def test_requests_of_other_sites_are_refused(method: str, guarded: Guarded) -> None:
    for headers in (
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
        [("sec-fetch-site", "nonsense")],
        [("origin", "null")],
        [("origin", "http://evil.example")],
        [("origin", "http://localhost:3000")],
        [("origin", "http://localhost")],
        [("origin", "http://127.0.0.1:8000")],
        [("origin", "http://localhost:8000.evil.example")],
        [("origin", "http://localhost:8000@evil.example")],
        [("origin", "file://localhost:8000")],
        [("origin", "http://localhost:8000"), ("sec-fetch-site", "cross-site")],
    ):
        status, error, _ = guarded.request(method, "/v1/reviews", JSON, *headers)
        assert (status, error["code"]) == (403, "other_site"), headers
    assert not guarded.seen


@pytest.mark.parametrize("method", ["POST", "DELETE", "GET"])
def test_requests_of_the_page_and_of_programs_are_served(method: str, guarded: Guarded) -> None:
    for headers in (
        [],
        [("sec-fetch-site", "none")],
        [("origin", "http://localhost:8000"), ("sec-fetch-site", "same-origin")],
        [("origin", "HTTP://LOCALHOST:8000")],
        [("origin", "https://localhost:8000")],  # a proxy may speak TLS
    ):
        assert guarded.request(method, "/v1/reviews", JSON, *headers)[0] == 200, headers


def test_the_page_may_be_opened_from_another_site(guarded: Guarded) -> None:
    assert guarded.request("GET", "/", ("sec-fetch-site", "cross-site"))[0] == 200
    assert guarded.request("POST", "/", JSON, ("sec-fetch-site", "cross-site"))[0] == 403


def test_an_allowed_host_may_be_the_origin_behind_a_proxy() -> None:
    hosts = LOOPBACK | {"kg.example"}
    for host, origin, status in (
        ("127.0.0.1:8000", "https://kg.example", 200),
        ("kg.example", "https://kg.example:443", 200),
        ("kg.example:80", "http://kg.example", 200),
        ("kg.example", "http://other.example", 403),
        ("kg.example", "http://localhost", 403),
    ):
        made = Guarded(hosts=hosts).request("POST", "/v1/x", JSON, ("origin", origin), host=host)
        assert made[0] == status, (host, origin)


@pytest.mark.parametrize(
    "kind",
    [
        *("", "text/plain", "text/plain; application/json", "multipart/form-data"),
        *("application/x-www-form-urlencoded", "application/jsonx", "image/png"),
    ],
)
def test_only_json_is_accepted(kind: str, guarded: Guarded) -> None:
    for path in ("/v1/tails", "/v1/pictures") if kind != "image/png" else ("/v1/tails",):
        for body in ((), (("content-length", "5"),), (("transfer-encoding", "chunked"),)):
            typed = [("content-type", kind)] if kind else []
            status, error, _ = guarded.request("POST", path, *typed, *body)
            assert (status, error["code"]) == (415, "wrong_type")
    status, _, _ = guarded.request("DELETE", "/v1/additions", ("content-length", "5"))
    assert status == 415
    assert not guarded.seen
    for kind in ("application/json", "Application/JSON; charset=utf-8"):
        assert guarded.request("POST", "/v1/tails", ("content-type", kind))[0] == 200
    assert guarded.request("POST", "/v1/pictures", ("content-type", "IMAGE/png"))[0] == 200
    assert guarded.request("DELETE", "/v1/additions")[0] == 200


# -- the token -------------------------------------------------------------------------------------


def test_the_scheme_of_a_token_has_no_case() -> None:
    guarded = Guarded(TOKEN)
    for scheme in ("Bearer", "bearer", "BEARER"):
        for space in (" ", "   "):
            given = ("authorization", f"{scheme}{space}{TOKEN}")
            assert guarded.request("GET", "/v1/runs", given)[0] == 200
    for given in (f"Basic {TOKEN}", TOKEN, f"Bearer{TOKEN}", "Bearer", "", f"Bearer {TOKEN}\xe9"):
        status, error, _ = guarded.request("GET", "/v1/runs", ("authorization", given))
        assert (status, error["code"]) == (401, "no_token")


def test_without_the_token_only_the_page_and_health_are_served() -> None:
    guarded = Guarded(TOKEN)
    for path in ("/", "/healthz", "/readyz", "/static/api.js"):
        assert guarded.request("GET", path)[0] == 200
    for path in ("/v1/runs", "/metrics", "/metrics/", "//v1/runs", "/V1/runs", "/v1", "/static"):
        assert guarded.request("GET", path)[0] == 401


@pytest.mark.parametrize(
    "host", ["LocalHost", "localhost.", "localhost.:80", "localhost:", "[::1]:8000", "[::1]", "::1"]
)
def test_a_host_may_be_written_in_several_ways(host: str, guarded: Guarded) -> None:
    assert guarded.request("GET", "/v1/runs", host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "evil.example:localhost", "localhost..", ""),
        *("localhost:80:80", "localhost:\xb2", "localhost,evil.example", "a@localhost"),
    ],
)
def test_other_hosts_are_refused(host: str, guarded: Guarded) -> None:
    assert guarded.request("GET", "/healthz", host=host)[0] == 421


def test_health_is_told_in_http_1_0_without_a_host(guarded: Guarded) -> None:
    for path in ("/healthz", "/readyz"):
        assert guarded.request("GET", path, host=None, http_version="1.0")[0] == 200
        assert guarded.request("GET", path, host=None)[0] == 421
        assert guarded.request("GET", path, host="evil", http_version="1.0")[0] == 421
    for path in ("/", "/v1/runs", "/metrics"):
        assert guarded.request("GET", path, host=None, http_version="1.0")[0] == 421


# -- ranges and HEAD -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("bytes=0-9", True),
        ("bytes=5-", True),
        ("bytes=-5", True),
        ("bytes=0-1,3-4", False),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(20_000)), False),
        ("bytes=", False),
        ("bytes=-", False),
        ("bytes=a-b", False),
        ("bytes=0-9" + "9" * 5_000, False),
        ("lines=0-9", False),
        ("bytes=0-9 ", False),
        ("bytes=9-0", False),
        ("bytes=9-9", True),
    ],
)
def test_only_a_single_range_reaches_the_framework(
    value: str, kept: bool, guarded: Guarded
) -> None:
    assert guarded.request("GET", "/static/api.js", ("range", value))[0] == 200
    names = [name for name, _ in guarded.seen[0]["headers"]]
    assert (b"range" in names) == kept


def test_head_answers_as_get_without_a_body(guarded: Guarded) -> None:
    status, _, body = guarded.request("HEAD", "/v1/runs")
    assert (status, body) == (200, b"")
    assert guarded.seen[0]["method"] == "GET"


def test_head_of_every_page(client: TestClient) -> None:
    paths = [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/static/api.js",
        "/v1/runs",
        "/v1/openapi.json",
    ]
    for path in [*paths, "/v1/entity?name=Chad", "/v1/reviews/export", "/v1/entity?name=Chadd"]:
        get, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
        if "content-length" in get.headers and path != "/metrics":
            assert head.headers["content-length"] == get.headers["content-length"]
    assert client.head("/v1/tails").status_code == 405


# -- clients that disconnect -----------------------------------------------------------------------


def test_a_request_ends_when_its_client_disconnects() -> None:
    ended: list[str] = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["more_body"] is False
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    metrics = Metrics()
    messages: Iterator[dict[str, Any]] = iter(
        [
            {"type": "http.request", "body": b"{}", "more_body": False},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        raise AssertionError(message)

    guard = RequestGuard(answer, Limits(), metrics, None, None)
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/x", "headers": headers}
    asyncio.run(guard(scope, receive, send))
    assert ended == ["cancelled"]
    assert f'status="{CLIENT_GONE}"'.encode() in metrics.render()


# -- JSON ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("[" * 100_000, 400, "bad_json"),
        ('{"head":' * 50_000, 400, "bad_json"),
        ('{"head": "a", "relation": "b", "k": ' + "9" * 5_000 + "}", 400, "bad_json"),
        ('{"head": "Chad", "relation": "borders", "min_probability": NaN}', 422, "invalid"),
        ('{"head": "Chad", "relation": "borders", "min_probability": Infinity}', 422, "invalid"),
        ('{"head": "Chad", "relation": "borders", "k": 1, "k": 2}', 422, "invalid"),
        ('{"head": "Chad", "relation": "borders", "\\ud800": 1}', 422, "invalid"),
        ('{"head": "\\ud83d", "relation": "borders"}', 422, "invalid"),
        ('{"head": "Chad"', 422, "invalid"),
        ("", 422, "invalid"),
        ("\ufeff{}", 422, "invalid"),
    ],
)
def test_json_has_one_meaning(body: str, status: int, code: str, client: TestClient) -> None:
    answer = client.post("/v1/tails", content=body.encode(), headers=dict([JSON]))
    assert_error(answer, status, code)


def test_json_is_utf8(client: TestClient) -> None:
    for body in (b'{"head": "\xff"}', json.dumps(CHAD).encode("utf-16")):
        answer = client.post("/v1/tails", content=body, headers=dict([JSON]))
        assert_error(answer, 400, "bad_json")
    whole = '{"head": "Chad", "relation": "borders", "among": ["\\ud83d\\ude00", "Niger"]}'
    answer = client.post("/v1/tails", content=whole, headers=dict([JSON]))
    assert_error(answer, 404, "unknown_name")


def test_many_keys_take_no_long_time(client: TestClient) -> None:
    keys = ",".join(f'"{n}":0' for n in range(60_000))
    answer = client.post("/v1/tails", content="{" + keys + ',"1":0}', headers=dict([JSON]))
    assert_error(answer, 422, "invalid")


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"among": [1] * 300_000}, "among"),
        ({"among": [""] * 200_000}, "among"),
        ({f"{number}": 0 for number in range(60_000)}, ""),
    ],
    ids=["types", "values", "keys"],
)
def test_a_request_with_many_errors_names_few(
    fields: dict[str, Any], wrong: str, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = [0]
    made = RequestValidationError.__init__

    def count(self: Any, errors: Any, **rest: Any) -> None:
        counts.append(len(errors))
        made(self, errors, **rest)

    monkeypatch.setattr(RequestValidationError, "__init__", count)
    inner = f"questions.0.{wrong}" if wrong else ""
    for path, body, field in (
        ("/v1/tails", {**CHAD, **fields}, wrong),
        ("/v1/batch", {"questions": [{"ask": "tails", **CHAD, **fields}]}, inner),
        (
            "/v1/batch",
            {"questions": [{"ask": "tails", **CHAD, "x": 1, "y": 2}] * 200},
            "questions.0",
        ),
    ):
        answer = client.post(path, content=json.dumps(body), headers=dict([JSON]))
        assert_error(answer, 422, "invalid", field)
        assert len(answer.content) < 2_000
    assert max(counts) < 10


def test_paths_are_not_redirected(run_view: RunView, tmp_path: Path) -> None:
    with TestClient(create_app([run_view]), follow_redirects=False) as client:
        for path in ("/v1/runs/", "/healthz/", "/static"):
            assert client.get(path, headers={"host": "evil.example"}).status_code == 404
