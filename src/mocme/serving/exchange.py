"""One exchange of a request and its response: what is received and sent, watched and bounded."""

from __future__ import annotations

import asyncio

from mocme.serving.asgi import Message, Receive, Send
from mocme.serving.refusals import TooLarge

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
# A request that takes longer is cancelled when its client disconnects.
WATCH_SECONDS = 0.1
_ENCODED_HEADERS = tuple((name.encode(), value.encode()) for name, value in HEADERS.items())
_OWN_NAMES = frozenset(name for name, _ in _ENCODED_HEADERS)


class GuardedResponse:
    """Sends a response with further headers; of HEAD, without its body.

    Attributes:
        status: of the response; 500 before it is started.
        complete: whether all of it was handed to the protocol.
    """

    def __init__(self, send: Send, request_id: str, head: bool) -> None:
        self._send, self.request_id, self._head = send, request_id, head
        self.status, self.started, self.complete = 500, False, False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.started = message["status"], True
            present = {name.lower() for name, _ in message["headers"]}
            extra = _ENCODED_HEADERS
            if not present.isdisjoint(_OWN_NAMES):
                extra = tuple(pair for pair in extra if pair[0] not in present)
            request_id = (b"x-request-id", self.request_id.encode())
            message["headers"] = [*message["headers"], request_id, *extra]
            await self._send(message)
            return
        more = bool(message.get("more_body"))
        self.complete = self._head or not more
        if self._head:
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)
        if self._head and more:
            raise BodyNotWanted


class BodyNotWanted(Exception):
    """Ends the making of a body that is not sent."""


class GuardedBody:
    """Receives a request: limits the size of a body, and notices a client that disconnects.

    Then it cancels the task in which it was created. Requests that are answered at once, nearly
    all, are not watched.

    Attributes:
        gone: whether the client disconnected before the response was complete.
    """

    def __init__(self, receive: Receive, max_bytes: int, response: GuardedResponse) -> None:
        self._receive, self._max_bytes, self._response = receive, max_bytes, response
        self._request = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._size, self.gone = 0, False

    async def receive(self) -> Message:
        """Receive a part of the body.

        Raises:
            TooLarge: the body is larger than the limit.
        """
        if self._timer is not None:
            await asyncio.shield(self._watch())
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] != "http.request":
            self.gone = not self._response.complete
            return message
        self._size += len(message.get("body", b""))
        if self._size > self._max_bytes:
            raise TooLarge
        if not message.get("more_body", False):
            self._timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._watch)
        return message

    def _watch(self) -> asyncio.Task[None]:
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._wait())
        return self._watcher

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._response.complete and self._request is not None:
            self.gone = True
            self._request.cancel()

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
