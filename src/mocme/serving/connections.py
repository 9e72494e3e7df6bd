"""Bounds on connections: their number, the size of headers, and the time a client may take.

uvicorn bounds neither the headers of a request nor the time in which a client sends it; the
subclass of its protocol here does, before the application sees anything of the request.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from enum import Enum
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from mocme.serving.connection_table import ConnectionRefusal as _Refusal
from mocme.serving.connection_table import ConnectionTable, counted_address
from mocme.serving.exchange import HEADERS
from mocme.serving.limits import Limits
from mocme.serving.refusals import error_body

LOG = logging.getLogger("mocme.serving")
# What a chunked body may hold besides content, per byte of it: a chunk of one byte has 6.
CHUNK_OVERHEAD = 8
_BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})


class _Phase(Enum):
    """What a connection receives next."""

    NOTHING = "a request"
    HEADERS = "the rest of the headers"
    BODY = "the rest of the body"


class _Refused(Exception):
    """Ends the parsing of a request."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the bounds of `Limits`; made by `bounded_protocol`.

    A request that exceeds one is answered with 400, 408 or 431, and its connection is closed.
    """

    table: ConnectionTable

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._limits = self.table.limits
        self._phase = _Phase.NOTHING
        self._refusal: _Refusal | None = None
        # Bytes received since the phase began, bytes of headers and body that were parsed.
        self._received = self._parsed = self._body = 0
        self._chunk, self._fresh = 0, True
        # What uvicorn keeps of requests whose answers are not complete.
        self._unanswered: deque[Any] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timed: _Phase | None = None
        self._began = 0.0
        self._write_timer: asyncio.TimerHandle | None = None

    # -- connections -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit a connection or refuse it."""
        super().connection_made(transport)
        refusal = self.table.admit(self, counted_address(transport.get_extra_info("peername")))
        if refusal is None:
            self._arm(_Phase.HEADERS, self._limits.header_seconds)
        else:
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything of the connection."""
        self.table.remove(self)
        self._disarm()
        self._stop_write_timer()
        # uvicorn tells only the last of several that their client is gone.
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        while self._unanswered and self._unanswered[0].response_complete:
            self._unanswered.popleft()
        super().on_response_complete()
        self._place()
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._start_write_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, also one whose client does not read."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    @property
    def _busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _place(self) -> None:
        """Tell the table what the connection waits for."""
        if not self._busy:
            self.table.waits(self)
        elif self._phase is _Phase.BODY:
            self.table.receives(self)
        elif self.flow.write_paused:
            self.table.stalls(self)
        else:
            self.table.works(self)

    # -- what is received ------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, within the bounds of size; start or end the timers."""
        if self.transport.is_closing():
            return
        self._chunk = len(data)
        self._fresh = self._phase is _Phase.NOTHING
        self._received += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._busy:
            self._place()
        if self._phase is _Phase.HEADERS and self._received > self._limits.header_bytes:
            self._refuse(self._too_large())
        elif self._phase is _Phase.BODY and self._received - self._body > (
            self._limits.header_bytes + CHUNK_OVERHEAD * self._body
        ):
            self._refuse(_Refusal(400, "bad_request", "chunks of the body are not content", ""))
        elif self._phase is _Phase.BODY:
            self._arm(_Phase.BODY, self._limits.body_seconds)
        elif self._phase is _Phase.HEADERS or not self._busy:
            # Not again: bytes that come one by one must not extend the time.
            self._arm(_Phase.HEADERS, self._limits.header_seconds)
        else:
            self._disarm()

    def on_message_begin(self) -> None:
        """Begin to count the bytes of a request."""
        super().on_message_begin()
        self._phase = _Phase.HEADERS
        self._parsed = 0
        # What else the chunk holds belongs to the message before.
        self._received = self._chunk if self._fresh else 0

    def on_url(self, url: bytes) -> None:
        """Count a part of the request target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header; refuse trailer fields, which uvicorn appends to the headers."""
        if self._phase is not _Phase.HEADERS:
            self._reject(
                _Refusal(400, "bad_request", "a body has trailer fields", "send them as headers")
            )
        self._parsed += len(name) + len(value) + 4
        limits = self._limits
        if self._parsed > limits.header_bytes or len(self.headers) >= limits.headers:
            self._reject(self._too_large())
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the target, then start to answer."""
        upgrade = self.parser.should_upgrade()
        if upgrade and {name for name, _ in self.headers} & _BODY_HEADERS:
            # The parser would take the body for a request of its own.
            self._reject(_Refusal(400, "bad_request", "an upgrade cannot have a body", ""))
        if not self.url.startswith(b"/") and self.url != b"*":
            self._check_absolute()
        if len(self.pipeline) >= self._limits.pipelined:
            self._reject(_Refusal(503, "busy", "too many requests wait on one connection", ""))
        self._phase = _Phase.BODY
        self._received, self._body = max(0, self._received - self._parsed), 0
        super().on_headers_complete()
        self._unanswered.append(self.cycle)
        if upgrade and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Count a part of the body; one that was answered already is not read to any end."""
        self._body += len(body)
        if self.cycle.response_complete and self._body > self._limits.unread_bytes:
            self._reject(_Refusal(413, "too_large", "the body of an answered request is large", ""))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._phase, self._fresh = _Phase.NOTHING, False
        super().on_message_complete()

    def _check_absolute(self) -> None:
        """Accept the target http://HOST/... of a request only if HOST is its header Host."""
        try:
            url = httptools.parse_url(self.url)
        except httptools.HttpParserInvalidURLError:
            url = None
        hosts = [value.lower() for name, value in self.headers if name == b"host"]
        authority = self.url.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0].lower()
        if url is None or url.schema not in (b"http", b"https") or hosts != [authority]:
            self._reject(
                _Refusal(
                    400,
                    "bad_request",
                    "the request target is not a path, and names another host than the header Host",
                    "send the path as the target of the request",
                )
            )
        if url is not None and url.path is None:
            self.url = b"/"

    def _count(self, size: int) -> None:
        self._parsed += size
        if self._parsed > self._limits.header_bytes:
            self._reject(self._too_large())

    def _too_large(self) -> _Refusal:
        return _Refusal(
            431,
            "too_large",
            f"the headers of a request have more than {self._limits.header_bytes:,} bytes, or are "
            f"more than {self._limits.headers}",
            "send fewer and shorter headers",
        )

    # -- refusals --------------------------------------------------------------------------------

    def _reject(self, refusal: _Refusal) -> None:
        """Refuse a request from within the parser, which then calls `send_400_response`."""
        self._refusal = refusal
        raise _Refused

    def send_400_response(self, msg: str) -> None:
        """Answer a request that was rejected or cannot be parsed."""
        self._refuse(
            self._refusal or _Refusal(400, "bad_request", "this is not HTTP/1.1", "send HTTP/1.1")
        )

    def _refuse(self, refusal: _Refusal) -> None:
        """Answer, unless an answer was begun, and close the connection."""
        self._disarm()
        if self._silenced() if self._phase is _Phase.BODY else not self._busy:
            self.transport.write(self._answer(refusal))
        LOG.info("refused: %s", refusal.message, extra={"status": refusal.status})
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._start_write_timer()

    def _silenced(self) -> bool:
        """Keep the application from answering a request whose body is received.

        False if it has begun to, or still answers an earlier request.
        """
        cycle = self.cycle
        if cycle.response_started or self.pipeline:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return True

    def _answer(self, refusal: _Refusal) -> bytes:
        status, code, message, remedy = refusal
        body = json.dumps(error_body(code, message, remedy)).encode()
        headers = {**HEADERS, "content-type": "application/json", "connection": "close"}
        if status == 503:
            headers["retry-after"] = "1"
        lines = [STATUS_LINE[status]]
        lines += [b"%s: %s\r\n" % (n, v) for n, v in self.server_state.default_headers]
        lines += [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
        return b"".join([*lines, b"content-length: %d\r\n\r\n" % len(body), body])

    # -- times -----------------------------------------------------------------------------------

    def _arm(self, phase: _Phase, seconds: float) -> None:
        """Start the timer of a phase, unless it runs."""
        if self._timed is phase:
            return
        self._disarm()
        self._timed, self._began = phase, self.loop.time()
        self._timer = self.loop.call_later(seconds, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timed = None

    def _expire(self) -> None:
        """End a connection whose client takes too long."""
        if self.transport.is_closing():
            return
        if self._timed is _Phase.BODY:
            # In which a client of the least rate would have sent this much.
            until = self._began + self._limits.body_seconds + self._body / self._limits.body_rate
            if self.loop.time() < until:
                self._timer = self.loop.call_at(until, self._expire)
                return
        if self._phase is _Phase.NOTHING:
            self.transport.close()
            return
        part = self._phase.value
        self._refuse(
            _Refusal(408, "too_slow", f"{part} of the request did not arrive in time", "send it")
        )

    def pause_writing(self) -> None:
        """Limit the time in which a client reads nothing."""
        super().pause_writing()
        self._place()
        self._start_write_timer()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._stop_write_timer()
        super().resume_writing()
        self._place()

    def _start_write_timer(self) -> None:
        self._stop_write_timer()
        self._write_timer = self.loop.call_later(self._limits.write_seconds, self.transport.abort)

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def bounded_protocol(limits: Limits) -> type[BoundedProtocol]:
    """Return the protocol of a process, for `uvicorn.Config(http=...)`."""
    protocol = type("Bounded", (BoundedProtocol,), {"table": ConnectionTable(limits)})
    return cast(type[BoundedProtocol], protocol)
