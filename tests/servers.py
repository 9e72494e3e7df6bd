"""A server on this machine that serves bytes well, badly, or not at all."""

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
        statuses: sent instead of the file, one a request, until they are used up.
        breaks: after how many bytes of its answer a connection is cut, one a request.
        waits: how long an answer waits, in seconds, one a request.
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

    def named(self) -> str | None:
        if self.tag == "content":
            return f'"{hashlib.md5(self.data, usedforsecurity=False).hexdigest()}"'
        return self.tag


class Server(ThreadingHTTPServer):
    """Keeps the requests it got in `asked`, as (path, headers)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, Headers]] = []
        self.stopping = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"

    def put(self, path: str, data: bytes = b"", **how: object) -> Served:
        self.files[path] = Served(data, **how)  # type: ignore[arg-type]
        return self.files[path]

    def handle_error(self, *_: object) -> None:
        """A connection that the other side cut is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        asked = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((path, asked))
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
        begin, status, headers = self._part(served, asked)
        body = served.data[begin:]
        if status == 416:
            body = b""
        if served.sends_length:
            length = len(body) if served.length is None else served.length
            headers["Content-Length"] = str(length)
        self.send_response(status)
        self._headers({**headers, **served.headers})
        self.wfile.write(body[: served.breaks.pop(0)] if served.breaks else body)

    def _part(self, served: Served, asked: Headers) -> tuple[int, int, Headers]:
        tag = served.named()
        headers = {"ETag": tag} if tag else {}
        if served.date:
            headers["Last-Modified"] = served.date
        span = asked.get("range")
        same = asked.get("if-range") in (None, tag, served.date)
        if not (served.ranges and span and same):
            return 0, 200, headers
        begin = int(span.removeprefix("bytes=").removesuffix("-"))
        whole = len(served.data)
        if begin >= whole:
            return whole, 416, {**headers, "Content-Range": f"bytes */{whole}"}
        begin += served.wrong_start
        return begin, 206, {**headers, "Content-Range": f"bytes {begin}-{whole - 1}/{whole}"}

    def _headers(self, headers: Headers) -> None:
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs for as long as it is needed."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()
