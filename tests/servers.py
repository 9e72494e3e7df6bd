"""A local HTTP server that can misbehave in the ways that downloads must handle."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Headers = dict[str, str]


@dataclass
class Served:
    """A file of the server, and how it misbehaves.

    Attributes:
        statuses: sent instead of the file, one per request, until they are used up.
        breaks: bytes of the response after which the connection is closed, one per request.
        waits: seconds before a response, one per request.
    """

    data: bytes = b""
    ranges: bool = True
    tag: str | None = "content"
    date: str | None = None
    statuses: list[int] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    length: int | None = None
    sends_length: bool = True
    wrong_start: int = 0
    headers: Headers = field(default_factory=dict)

    def etag(self) -> str | None:
        if self.tag == "content":
            return f'"{hashlib.md5(self.data, usedforsecurity=False).hexdigest()}"'
        return self.tag


class Server(ThreadingHTTPServer):
    """Records its requests in `requests`, as (path, headers)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Served] = {}
        self.requests: list[tuple[str, Headers]] = []
        self.stopping = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"

    def put(self, path: str, data: bytes = b"", **how: object) -> Served:
        self.files[path] = Served(data, **how)  # type: ignore[arg-type]
        return self.files[path]

    def handle_error(self, *_: object) -> None:
        """Ignore closed connections, which are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        request = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((path, request))
        served = self.server.files.get(path)
        if served is None:
            self.send_error(404)
            return
        if served.waits:
            self.server.stopping.wait(served.waits.pop(0))
        if served.statuses:
            status = served.statuses.pop(0)
            self.send_response(status)
            self._headers({**served.headers, "Content-Length": "0"})
            return
        offset, status, headers = self._range(served, request)
        body = served.data[offset:]
        if status == 416:
            body = b""
        if served.sends_length:
            length = len(body) if served.length is None else served.length
            headers["Content-Length"] = str(length)
        self.send_response(status)
        self._headers({**headers, **served.headers})
        self.wfile.write(body[: served.breaks.pop(0)] if served.breaks else body)

    def _range(self, served: Served, request: Headers) -> tuple[int, int, Headers]:
        """Offset, status and headers of the response to a request."""
        tag = served.etag()
        headers = {"ETag": tag} if tag else {}
        if served.date:
            headers["Last-Modified"] = served.date
        span = request.get("range")
        is_unchanged = request.get("if-range") in (None, tag, served.date)
        if not (served.ranges and span and is_unchanged):
            return 0, 200, headers
        offset = int(span.removeprefix("bytes=").removesuffix("-"))
        total = len(served.data)
        if offset >= total:
            return total, 416, {**headers, "Content-Range": f"bytes */{total}"}
        offset += served.wrong_start
        return offset, 206, {**headers, "Content-Range": f"bytes {offset}-{total - 1}/{total}"}

    def _headers(self, headers: Headers) -> None:
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs until the end of the block."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()
