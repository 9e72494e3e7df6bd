"""What every request passes: size, token, time, headers, a log line, metrics."""

from __future__ import annotations

import hmac
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

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
    """Wraps the application.

    Args:
        larger: by path, bytes of a request where that is not as everywhere.
        token: what /v1 and /metrics ask for as a bearer; None for no token.
        hosts: names that requests may call this server by; others are refused, so that a page of
            another site cannot reach a server on loopback by a name of its own.
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        metrics: Metrics,
        token: str | None,
        hosts: frozenset[str] | None,
        larger: Mapping[str, int] = {},
    ) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._larger = larger
        self._token = None if token is None else token.encode()
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or say why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        state = {"status": 500, "begun": False}
        request = uuid.uuid4().hex[:12]
        scope.setdefault("state", {})["request"] = request

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                state.update(status=message["status"], begun=True)
                present = {name.lower() for name, _ in message["headers"]}
                extra = {**HEADERS, "x-request-id": request}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (k.encode(), v.encode())
                        for k, v in extra.items()
                        if k.encode() not in present
                    ),
                ]
            await send(message)

        try:
            refused = self._refused(scope)
            if refused is not None:
                await answer(sending, *refused)
                return
            await self._app(scope, self._limited(receive, self._most(scope)), sending)
        except Exception:
            LOG.exception("failed", extra={"request": request})
            if not state["begun"]:
                await answer(
                    sending,
                    500,
                    "internal",
                    f"something went wrong here (request {request})",
                    "try again; if it stays, look for this request in the server's log",
                )
        finally:
            self._told(scope, int(state["status"]), time.perf_counter() - started, request)

    def _told(self, scope: Scope, status: int, seconds: float, request: str) -> None:
        route = scope.get("route")
        path = getattr(route, "path", None) or "other"
        self._metrics.seen(scope["method"], path, status, seconds)
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
                "request": request,
            },
        )

    def _most(self, scope: Scope) -> int:
        """Bytes of a request."""
        return self._larger.get(scope["path"], self._limits.body)

    def _refused(self, scope: Scope) -> tuple[Any, ...] | None:
        headers = dict(scope["headers"])
        if self._hosts is not None:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            if name.strip("[]") not in self._hosts:
                return (
                    421,
                    "wrong_host",
                    "this server is not called by that name",
                    "call it by its address, or name it with --allow-host",
                )
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._most(scope):
            few = "send less" if scope["path"] in self._larger else "ask in several requests"
            return (413, "too_large", f"the request has more than {self._most(scope):,} bytes", few)
        path = scope["path"]
        if self._token is not None and (path.startswith("/v1/") or path == "/metrics"):
            given = headers.get(b"authorization", b"")
            # Both sides as bytes of any length: compare_digest takes the same time for all.
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                return (
                    401,
                    "no_token",
                    "this server asks for a token",
                    "send the header: Authorization: Bearer TOKEN",
                )
        return None

    def _limited(self, receive: Receive, most: int) -> Receive:
        size = 0

        async def receiving() -> Message:
            nonlocal size
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > most:
                    raise TooLarge
            return message

        return receiving


class TooLarge(HTTPException):
    """A body grew beyond its limit; of another class it would be taken for wrong JSON."""

    def __init__(self) -> None:
        super().__init__(413, "the request is larger than this server takes")


class Refusal(HTTPException):
    """A request that is refused, with what to do about it.

    Args:
        after: seconds after which it may be sent again.
    """

    def __init__(
        self, status: int, code: str, message: str, remedy: str, after: int | None = None
    ) -> None:
        super().__init__(status, message, None if after is None else {"retry-after": str(after)})
        self.code, self.remedy = code, remedy


async def answer(send: Send, status: int, code: str, message: str, remedy: str) -> None:
    """Send an error as JSON."""
    body = json.dumps(failure(code, message, remedy), ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def failure(
    code: str, message: str, remedy: str = "", near: tuple[str, ...] = (), field: str = ""
) -> dict[str, Any]:
    """The body of an error; `field` is the part of the request that it is about, if it is one."""
    told = {"code": code, "message": message, "remedy": remedy, "near": list(near)}
    return {"error": told | ({"field": field} if field else {})}
