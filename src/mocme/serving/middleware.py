"""Checks and records every request: size, token, host, headers, log line, metrics."""

from __future__ import annotations

import hmac
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from mocme.serving.decision_log import is_decision, log_failures
from mocme.serving.limits import Limits
from mocme.serving.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOG = logging.getLogger("mocme.serving")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; font-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class RequestGuard:
    """ASGI middleware around the application.

    Args:
        token: bearer token required for /v1 and /metrics; None for no token.
        hosts: accepted host names; requests to others are refused. This prevents DNS rebinding: a
            page of another site cannot reach a loopback server under its own host name.
        body_limits: by path, the maximum size of a request in bytes where it differs from
            `limits.body_bytes`.
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
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        state = {"status": 500, "started": False}
        request_id = uuid.uuid4().hex[:12]
        scope.setdefault("state", {})["request"] = request_id

        if is_decision(scope["method"], scope["path"]):
            send = log_failures(send, scope["method"], request_id)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                state.update(status=message["status"], started=True)
                present = {name.lower() for name, _ in message["headers"]}
                extra = {**HEADERS, "x-request-id": request_id}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.encode(), value.encode())
                        for name, value in extra.items()
                        if name.encode() not in present
                    ),
                ]
            await send(message)

        try:
            refusal = self._check(scope)
            if refusal is not None:
                await send_error(send_with_headers, *refusal)
                return
            limited = self._limit_body(receive, self._max_bytes(scope))
            await self._app(scope, limited, send_with_headers)
        except Exception:
            LOG.exception("failed", extra={"request": request_id})
            if not state["started"]:
                await send_error(
                    send_with_headers,
                    500,
                    "internal",
                    f"internal error (request {request_id})",
                    "try again; if it persists, look for this request in the server's log",
                )
        finally:
            self._record(scope, int(state["status"]), time.perf_counter() - started, request_id)

    def _record(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = scope.get("route")
        path = getattr(route, "path", None) or "other"
        self._metrics.count_request(scope["method"], path, status, seconds)
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

    def _check(self, scope: Scope) -> tuple[Any, ...] | None:
        """Return (status, code, message, remedy) of a refused request."""
        headers = dict(scope["headers"])
        if self._hosts is not None:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            if name.strip("[]") not in self._hosts:
                return (
                    421,
                    "wrong_host",
                    "this server does not answer to that host name",
                    "use the address of the server, or allow the name with --allow-host",
                )
        length = headers.get(b"content-length", b"0")
        limit = self._max_bytes(scope)
        if length.isdigit() and int(length) > limit:
            splittable = scope["path"] not in self._body_limits
            remedy = "split it into several requests" if splittable else "send a smaller file"
            return (413, "too_large", f"the request is larger than {limit:,} bytes", remedy)
        path = scope["path"]
        if self._token is not None and (path.startswith("/v1/") or path == "/metrics"):
            given = headers.get(b"authorization", b"")
            # Bytes, because compare_digest accepts strings only if they are ASCII; its time does
            # not depend on where they differ.
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                return (
                    401,
                    "no_token",
                    "this server requires a token",
                    "send the header: Authorization: Bearer TOKEN",
                )
        return None

    def _limit_body(self, receive: Receive, max_bytes: int) -> Receive:
        """Wrap `receive` so that a body without a content-length is limited, too."""
        size = 0

        async def receive_limited() -> Message:
            nonlocal size
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > max_bytes:
                    raise TooLarge
            return message

        return receive_limited


class TooLarge(HTTPException):
    """A body exceeded its limit while it was received.

    It is an HTTPException because FastAPI reports any other error at this point as invalid JSON.
    """

    def __init__(self) -> None:
        super().__init__(413, "the request is larger than this server accepts")


class Refusal(HTTPException):
    """A refused request, with a remedy.

    Args:
        retry_after: seconds after which it may be sent again.
    """

    def __init__(
        self, status: int, code: str, message: str, remedy: str, retry_after: int | None = None
    ) -> None:
        headers = None if retry_after is None else {"retry-after": str(retry_after)}
        super().__init__(status, message, headers)
        self.code, self.remedy = code, remedy


async def send_error(send: Send, status: int, code: str, message: str, remedy: str) -> None:
    """Send an error as JSON."""
    body = json.dumps(error_body(code, message, remedy), ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_body(
    code: str, message: str, remedy: str = "", near: tuple[str, ...] = (), field: str = ""
) -> dict[str, Any]:
    """Return the JSON body of an error; `field` names the part of the request at fault."""
    detail = {"code": code, "message": message, "remedy": remedy, "near": list(near)}
    return {"error": detail | ({"field": field} if field else {})}
