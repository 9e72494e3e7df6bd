"""Checks and records every request: size, token, host, headers, log line, metrics."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from mocme.serving.asgi import App, Receive, Scope, Send
from mocme.serving.decision_log import is_decision, log_failures
from mocme.serving.exchange import GuardedBody, GuardedResponse
from mocme.serving.limits import LOOPBACK, Limits
from mocme.serving.metrics import Metrics
from mocme.serving.refusals import METHODS, send_error

LOG = logging.getLogger("mocme.serving")
# Status in the log of a request whose client disconnected before it was answered.
CLIENT_GONE = 499
# Headers that programs in a row may read differently where they are given twice.
_SINGLE = frozenset(
    {
        *(b"host", b"content-length", b"content-type", b"transfer-encoding", b"authorization"),
        *(b"origin", b"sec-fetch-site", b"range"),
    }
)
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CONTROL_TEXT = re.compile(r"[\x00-\x1f\x7f]")
_SLASH = re.compile(rb"%2f|%5c", re.IGNORECASE)
_RANGE = re.compile(rb"bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})")
# Default ports, which an origin and the header Host may leave out.
_PORTS = {"http": ":80", "https": ":443"}
# What is answered without a token: the page, which then asks for it, and the health checks.
_HEALTH = frozenset({"/healthz", "/readyz"})
_OPEN = _HEALTH | {"/"}


class _Refused(NamedTuple):
    """Why a request is refused."""

    status: int
    code: str
    message: str
    remedy: str


class RequestGuard:
    """ASGI middleware around the application; relies on no check of the framework.

    A request whose client disconnects is cancelled.

    Args:
        token: bearer token required for everything but the page and the health checks; None for no
            token.
        hosts: accepted host names; requests to others are refused. This prevents DNS rebinding: a
            page of another site cannot reach a loopback server under its own host name.
        body_limits: by path of uploads, which are no JSON, the maximum size of a request in bytes.
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        metrics: Metrics,
        token: str | None,
        hosts: frozenset[str] | None,
        body_limits: Mapping[str, int] = {},
    ) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._body_limits = body_limits
        self._token = None if token is None else token.encode()
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, or answer with the reason for refusing it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        # Nothing else is served; a protocol closes a connection that gets no answer.

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request_id = os.urandom(6).hex()
        scope.setdefault("state", {})["request"] = request_id
        if is_decision(scope["method"], scope["path"]):
            send = log_failures(send, scope["method"], request_id)
        response = GuardedResponse(send, request_id, scope["method"] == "HEAD")
        body = GuardedBody(receive, self._max_bytes(scope), response)
        served = scope
        try:
            refused = self._check(scope)
            if refused is not None:
                await send_error(response.send, *refused)
                return
            served = _served(scope)
            await self._app(served, body.receive, response.send)
        except asyncio.CancelledError:
            if not body.gone:
                raise
        except Exception:
            await self._report_failure(response, body)
        finally:
            body.close()
            status = CLIENT_GONE if body.gone else response.status
            # The framework notes the route in the scope that it is given.
            route = getattr(served.get("route"), "path", None) or "other"
            self._record(scope, route, status, time.perf_counter() - started, request_id)

    async def _report_failure(self, response: GuardedResponse, body: GuardedBody) -> None:
        """Log an exception of the application, and answer if nothing was sent."""
        # The end of a HEAD request, whose body is not made, is no failure.
        if body.gone or response.complete:
            return
        LOG.exception("failed", extra={"request": response.request_id})
        if not response.started:
            await send_error(
                response.send,
                500,
                "internal",
                f"internal error (request {response.request_id})",
                "try again; if it persists, look for this request in the server's log",
            )

    def _record(
        self, scope: Scope, route: str, status: int, seconds: float, request_id: str
    ) -> None:
        self._metrics.count_request(scope["method"], route, status, seconds)
        LOG.info(
            "%s %s %d",
            scope["method"],
            scope["path"],
            status,
            extra={
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "ms": round(seconds * 1000, 2),
                "request": request_id,
            },
        )

    def _max_bytes(self, scope: Scope) -> int:
        return self._body_limits.get(scope["path"], self._limits.body_bytes)

    # -- checks ----------------------------------------------------------------------------------

    def _check(self, scope: Scope) -> _Refused | None:
        """Return why a request is refused; None if it is not."""
        given = scope["headers"]
        headers: dict[bytes, bytes] = dict(given)
        if len(headers) != len(given):
            names = Counter(name for name, _ in given)
            for name in _SINGLE:
                if names[name] > 1:
                    return _bad(f"the header {name.decode('latin-1')} is given twice")
        if _CONTROL.search(b"\t".join([value for _, value in given])):
            return _bad("a header contains a control character")
        return (
            self._check_host(scope, headers)
            or _check_target(scope)
            or self._check_length(scope, headers)
            or self._check_origin(scope, headers)
            or self._check_token(scope, headers)
            or self._check_type(scope, headers)
        )

    def _check_host(self, scope: Scope, headers: Mapping[bytes, bytes]) -> _Refused | None:
        if self._hosts is None:
            return None
        # HTTP/1.0 knows no host names, and load balancers check health with it; browsers do not.
        if b"host" not in headers and scope["path"] in _HEALTH and _is_http_1_0(scope):
            return None
        if _host_name(headers.get(b"host", b"").decode("latin-1")) in self._hosts:
            return None
        return _Refused(
            421,
            "wrong_host",
            "this server does not answer to that host name",
            "use the address of the server, or allow the name with --allow-host",
        )

    def _check_length(self, scope: Scope, headers: Mapping[bytes, bytes]) -> _Refused | None:
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 18:
            return _bad("the content length is not a number")
        limit = self._max_bytes(scope)
        if int(length) <= limit:
            return None
        splittable = scope["path"] not in self._body_limits
        remedy = "split it into several requests" if splittable else "send a smaller file"
        return _Refused(413, "too_large", f"the request is larger than {limit:,} bytes", remedy)

    def _check_origin(self, scope: Scope, headers: Mapping[bytes, bytes]) -> _Refused | None:
        """Refuse what a page of another site makes a browser send.

        The page itself may be opened from anywhere.
        """
        if scope["method"] in ("GET", "HEAD") and not scope["path"].startswith("/v1/"):
            return None
        site = headers.get(b"sec-fetch-site", b"none").lower()
        origin = headers.get(b"origin")
        if site in (b"same-origin", b"none") and (
            origin is None or self._same_origin(origin, headers.get(b"host", b""))
        ):
            return None
        return _Refused(
            403,
            "other_site",
            "a page of another site sent this request",
            "use the page of this server; behind a proxy that changes the header Host, allow the "
            "public name with --allow-host",
        )

    def _same_origin(self, origin: bytes, host: bytes) -> bool:
        """Whether an origin is this server, as the client names it or as its starter does."""
        scheme, _, authority = origin.decode("latin-1").lower().partition("://")
        if scheme not in _PORTS:  # also "null", which sandboxed pages send
            return False
        named = host.decode("latin-1").lower()
        if authority.removesuffix(_PORTS[scheme]) == named.removesuffix(_PORTS[scheme]):
            return True
        # Not those of this machine, at whose other ports other servers may be.
        return _host_name(authority) in (self._hosts or frozenset()) - LOOPBACK

    def _check_token(self, scope: Scope, headers: Mapping[bytes, bytes]) -> _Refused | None:
        path = scope["path"]
        if self._token is None or path in _OPEN or path.startswith("/static/"):
            return None
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        # Bytes, because compare_digest accepts strings only if they are ASCII; its time does not
        # depend on where they differ.
        if hmac.compare_digest(given.strip(b" "), self._token) and scheme.lower() == b"bearer":
            return None
        return _Refused(
            401,
            "no_token",
            "this server requires a token",
            "send the header: Authorization: Bearer TOKEN",
        )

    def _check_type(self, scope: Scope, headers: Mapping[bytes, bytes]) -> _Refused | None:
        """Refuse types that a page of another site may send without asking this server."""
        has_body = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        if scope["method"] != "POST" and not has_body:
            return None
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        name = kind.decode("latin-1") or "nothing"
        if scope["path"] not in self._body_limits:
            if kind == b"application/json":
                return None
            message = f"a request cannot have the content type {name!r}"
            remedy = "send JSON with the header: Content-Type: application/json"
        else:
            if kind.startswith(b"image/") or kind == b"application/octet-stream":
                return None
            message = f"a picture cannot have the content type {name!r}"
            remedy = (
                "send the bytes of its file with the header: Content-Type: image/png (or its type)"
            )
        return _Refused(415, "wrong_type", message, remedy)


def _bad(message: str) -> _Refused:
    return _Refused(400, "bad_request", message, "send a correct request")


def _check_target(scope: Scope) -> _Refused | None:
    """Refuse methods that nothing answers, and paths that programs read differently."""
    if scope["method"] not in METHODS:
        return _Refused(
            405, "wrong_method", f"this server answers to {', '.join(METHODS)}", "use one of them"
        )
    path, raw = scope["path"], scope.get("raw_path") or b""
    if "\\" in path or "\ufffd" in path or _CONTROL_TEXT.search(path) or _SLASH.search(raw):
        return _bad("the path contains a control character, a backslash or an encoded slash")
    return None


def _host_name(authority: str) -> str:
    """Return the host of HOST or HOST:PORT, in lower case and without brackets."""
    host, colon, port = authority.lower().rpartition(":")
    # An empty port is the default one, and a last dot makes a name absolute.
    has_port = colon and (not port or (port.isascii() and port.isdigit())) and host[-1:] != ":"
    return (host if has_port else authority.lower()).strip("[]").removesuffix(".")


def _is_http_1_0(scope: Scope) -> bool:
    return bool(scope.get("http_version") == "1.0")


def _served(scope: Scope) -> Scope:
    """Return the request as the application sees it.

    HEAD becomes GET. A range that is not a single one is left out, as RFC 9110 allows: the answer
    is the whole file.
    """
    headers = scope["headers"]
    wanted = dict(headers).get(b"range")
    if wanted is not None and not _is_one_range(wanted):
        scope["headers"] = [(name, value) for name, value in headers if name != b"range"]
    if scope["method"] != "HEAD":
        return scope
    # A copy: the protocol must still see HEAD.
    return {**scope, "method": "GET"}


def _is_one_range(value: bytes) -> bool:
    if not _RANGE.fullmatch(value):
        return False
    first, _, last = value.removeprefix(b"bytes=").partition(b"-")
    return not (first and last) or int(first) <= int(last)
