"""A local HTTP server for download tests, which can fail in many ways."""

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
    """A file of the server, and the failures of its responses.

    Attributes:
        ranges: whether range requests are supported.
        tag: the ETag; "content" derives it from the data, None sends none.
        date: the Last-Modified date; None sends none.
        statuses: statuses sent instead of the file, one per request, until they are used up.
        breaks: number of bytes after which the connection is cut, one per request.
        waits: delay of the response in seconds, one per request.
        length: the Content-Length, if it is not the true one.
        wrong_start: offset in bytes by which a range starts too late.
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
        """Return the ETag."""
        if self.tag == "content":
            return f'"{hashlib.md5(self.data, usedforsecurity=False).hexdigest()}"'
        return self.tag


class Server(ThreadingHTTPServer):
    """Records requests in `requests`, as (path, headers)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Served] = {}
        self.requests: list[tuple[str, Headers]] = []
        self.stopping = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"

    def put(self, path: str, data: bytes = b"", **settings: object) -> Served:
        self.files[path] = Served(data, **settings)  # type: ignore[arg-type]
        return self.files[path]

    def handle_error(self, *_: object) -> None:
        """Ignore errors: the tests cut connections on purpose."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        request_headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((path, request_headers))
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
        start, status, headers = self._range(served, request_headers)
        body = served.data[start:]
        if status == 416:
            body = b""
        if served.sends_length:
            length = len(body) if served.length is None else served.length
            headers["Content-Length"] = str(length)
        self.send_response(status)
        self._headers({**headers, **served.headers})
        self.wfile.write(body[: served.breaks.pop(0)] if served.breaks else body)

    def _range(self, served: Served, request_headers: Headers) -> tuple[int, int, Headers]:
        """Return the first byte, the status, and the headers of the response."""
        tag = served.etag()
        headers = {"ETag": tag} if tag else {}
        if served.date:
            headers["Last-Modified"] = served.date
        byte_range = request_headers.get("range")
        unchanged = request_headers.get("if-range") in (None, tag, served.date)
        if not (served.ranges and byte_range and unchanged):
            return 0, 200, headers
        start = int(byte_range.removeprefix("bytes=").removesuffix("-"))
        size = len(served.data)
        if start >= size:
            return size, 416, {**headers, "Content-Range": f"bytes */{size}"}
        start += served.wrong_start
        return start, 206, {**headers, "Content-Range": f"bytes {start}-{size - 1}/{size}"}

    def _headers(self, headers: Headers) -> None:
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def running_server() -> Iterator[Server]:
    """Run a server in a thread."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()
