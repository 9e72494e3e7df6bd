"""A server bounds what a client may send before and besides a request, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from mocme.serving.connection_table import ConnectionTable, counted_address
from mocme.serving.connections import BoundedProtocol, bounded_protocol
from mocme.serving.limits import Limits

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: localhost\r\n"
# Long enough that no test waits for it.
LONG = 60.0


class Server:
    """A server of a small application that returns what it received."""

    def __init__(self, **settings: Any) -> None:
        times = dict.fromkeys(("header_seconds", "body_seconds", "idle_seconds"), LONG)
        self.limits = Limits(**{**times, **settings})
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.requests: list[dict[str, Any]] = []
        self.disconnected = threading.Event()
        self.release = threading.Event()
        protocol = bounded_protocol(self.limits)
        self.table = protocol.table
        config = uvicorn.Config(
            self.answer,
            http=protocol,
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            timeout_keep_alive=int(self.limits.idle_seconds),
        )
        self.server = uvicorn.Server(config)

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests.append(scope)
        if scope["path"] == "/wait":
            while not self.release.is_set():
                await asyncio.sleep(0.01)
        body, more = b"", scope["path"] != "/early"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnected.set()
                return
            body += message["body"]
            more = message["more_body"]
        if scope["path"] == "/parts":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for number in range(300):
                part = {"type": "http.response.body", "body": b"x" * (1 << 16)}
                await send({**part, "more_body": number < 299})
            self.disconnected.set()
            return
        size = 1 << 26 if scope["path"] == "/large" else 0
        told = json.dumps({"body": len(body), "path": scope["path"]}).encode() + b" " * size
        start = {"type": "http.response.start", "status": 200}
        await send({**start, "headers": [(b"content-length", b"%d" % len(told))]})
        await send({"type": "http.response.body", "body": told})

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.listener.getsockname(), timeout=20)
        self.clients.append(client)
        return client

    @property
    def clients(self) -> list[socket.socket]:
        return self.__dict__.setdefault("_clients", [])


@contextmanager
def serving(**settings: Any) -> Iterator[Server]:
    running = Server(**settings)
    thread = threading.Thread(target=running.server.run, kwargs={"sockets": [running.listener]})
    thread.start()
    try:
        yield running
    finally:
        running.release.set()
        for client in running.clients:
            client.close()
        running.server.should_exit = True
        thread.join(20)
        running.listener.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(header_bytes=2_000, headers=20) as running:
        yield running


def read_all(client: socket.socket) -> bytes:
    """Return what arrives until the server closes the connection."""
    parts = []
    while part := _receive(client):
        parts.append(part)
    return b"".join(parts)


def _receive(client: socket.socket) -> bytes:
    try:
        return client.recv(1 << 16)
    except ConnectionError:  # the server closed it before it read everything
        return b""


def read_one(client: socket.socket) -> tuple[int, dict[str, Any]]:
    """Return status and JSON of one response."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = _receive(client)
        assert part, data
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = (int(n.split(b":")[1]) for n in head.split(b"\r\n") if b"content-length" in n)
    while len(body) < length:
        body += _receive(client)
    return int(head.split()[1]), json.loads(body)


def assert_refused(client: socket.socket, status: int, code: str) -> dict[str, Any]:
    """Check that the server answers with an error and then closes the connection."""
    answer, body = read_one(client)
    assert answer == status, body
    assert set(body["error"]) == {"code", "message", "remedy", "near"}
    assert body["error"]["code"] == code
    assert read_all(client) == b""
    return body["error"]


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(2_000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("waited in vain")


def send_until_closed(client: socket.socket, part: bytes, most: int = 2_000) -> int:
    """Send a part again and again; return how many were sent before the connection broke."""
    for count in range(most):
        try:
            client.sendall(part)
        except OSError:
            return count
    return most


# -- headers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nx: " + b"a" * 2_500,
        b"GET / HTTP/1.1\r\n" + b"a" * 2_500,
        b"GET /" + b"a" * 2_500,
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 2_500 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(25)) + b"\r\n",
    ],
    ids=["value", "name", "target", "complete", "number"],
)
def test_headers_are_bounded(server: Server, request_bytes: bytes) -> None:
    client = server.connect()
    client.sendall(request_bytes)
    assert_refused(client, 431, "too_large")


def test_a_header_that_never_ends_is_cut_off(server: Server) -> None:
    """However it is cut into pieces, and whatever came before on the connection."""
    for before in (b"", GET):
        client = server.connect()
        client.sendall(before)
        if before:
            assert read_one(client)[0] == 200
        client.sendall(b"GET / HTTP/1.1\r\nx: ")
        assert send_until_closed(client, b"a" * 10_000) < 2_000


def test_headers_within_the_bounds_are_served_one_by_one(server: Server) -> None:
    client = server.connect()
    for _ in range(3):
        for piece in (GET[:9], GET[9:20], GET[20:]):
            client.sendall(piece)
        assert read_one(client) == (200, {"body": 0, "path": "/"})
    client.sendall(GET * 3)
    data = b""
    while data.count(b'"path"') < 3:
        data += client.recv(1 << 16)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", GET + b"GET / HT"], ids=["no", "half", "next"])
def test_headers_must_come_in_time(sent: bytes) -> None:
    with serving(header_seconds=0.2) as server:
        client = server.connect()
        client.sendall(sent)
        answer = read_all(client)
        assert answer.count(b" 200 OK") == sent.count(GET)
        assert answer.count(b" 408 ") == (1 if sent else 0)


def test_bytes_one_by_one_do_not_extend_the_time() -> None:
    with serving(header_seconds=0.3) as server:
        client = server.connect()
        client.settimeout(0.02)
        sent = 0
        while True:
            try:
                client.sendall(b"\r\n" if sent < 3 else b"GET /"[sent - 3 : sent - 2] or b"a")
                sent += 1
                if not client.recv(1 << 16):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert not server.requests


def test_an_idle_connection_is_closed() -> None:
    with serving(idle_seconds=1) as server:
        client = server.connect()
        client.sendall(GET)
        assert read_one(client)[0] == 200
        assert read_all(client) == b""


# -- bodies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [b"/", b"/early"])
def test_a_body_must_come_in_time(path: bytes) -> None:
    """Also one that the application does not read, because it has answered before."""
    with serving(body_seconds=0.2, body_rate=1 << 40) as server:
        client = server.connect()
        client.sendall(b"POST " + path + b" HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab")
        if path == b"/":
            assert_refused(client, 408, "too_slow")
            assert server.disconnected.wait(20)
        else:
            assert read_one(client)[0] == 200
            assert read_all(client) == b""


def test_a_large_body_gets_time_by_its_size() -> None:
    with serving(body_seconds=0.05, body_rate=1_000) as server:
        client = server.connect()
        client.sendall(POST + b"content-length: 20001\r\n\r\n" + b"a" * 20_000)
        waited = threading.Event()
        assert not waited.wait(0.3)  # six times `body_seconds`
        client.sendall(b"a")
        assert read_one(client) == (200, {"body": 20_001, "path": "/"})


def test_trailer_fields_do_not_become_headers(server: Server) -> None:
    client = server.connect()
    before = len(server.requests)
    client.sendall(
        POST + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nauthorization: x\r\n\r\n"
    )
    client.sendall(GET)
    assert_refused(client, 400, "bad_request")
    headers = [name for scope in server.requests[before:] for name, _ in scope["headers"]]
    assert b"authorization" not in headers


@pytest.mark.parametrize("part", [b"1;" + b"a" * 5_000, b"0\r\nx: " + b"a" * 5_000])
def test_chunks_without_content_are_bounded(server: Server, part: bytes) -> None:
    client = server.connect()
    client.sendall(POST + b"transfer-encoding: chunked\r\n\r\n")
    client.sendall(part)
    assert_refused(client, 400, "bad_request")


def test_small_chunks_are_served(server: Server) -> None:
    client = server.connect()
    chunks = b"1\r\na\r\n" * 3_000 + b"0\r\n\r\n"
    client.sendall(POST + b"transfer-encoding: chunked\r\n\r\n" + chunks)
    assert read_one(client) == (200, {"body": 3_000, "path": "/"})


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET http://other/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET ftp://localhost/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"CONNECT other:80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        POST + b"connection: upgrade\r\nupgrade: x\r\ncontent-length: 1\r\n\r\na",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\n folded: b\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_ambiguous_requests_are_refused(server: Server, request_bytes: bytes) -> None:
    client = server.connect()
    before = len(server.requests)
    client.sendall(request_bytes)
    assert_refused(client, 400, "bad_request")
    assert len(server.requests) == before


def test_an_absolute_target_of_the_same_host_is_served(server: Server) -> None:
    client = server.connect()
    client.sendall(b"GET http://localhost/x HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert read_one(client) == (200, {"body": 0, "path": "/x"})
    client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
    assert read_one(client)[0] == 200
    assert read_all(client) == b""


# -- connections -----------------------------------------------------------------------------------


def test_a_new_connection_replaces_the_longest_waiting_one() -> None:
    with serving(connections=3) as server:
        clients = [server.connect() for _ in range(3)]
        clients[0].sendall(GET)
        assert read_one(clients[0])[0] == 200  # now it waits for less time than the second
        clients[1].sendall(b"GET / HT")
        newest = server.connect()
        newest.sendall(GET)
        assert read_one(newest)[0] == 200
        assert read_all(clients[1]) == b""
        clients[0].sendall(GET)
        assert read_one(clients[0])[0] == 200
        assert len(server.table) == 3


def test_connections_that_are_being_answered_stay() -> None:
    with serving(connections=2) as server:
        clients = [server.connect() for _ in range(2)]
        for client in clients:
            client.sendall(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n")
        wait_until(lambda: len(server.requests) == 2)
        assert_refused(server.connect(), 503, "busy")
        server.release.set()
        assert [read_one(client)[0] for client in clients] == [200, 200]
        newest = server.connect()
        newest.sendall(GET)
        assert read_one(newest)[0] == 200


@pytest.mark.parametrize(
    "sent",
    [POST + b"content-length: 9\r\n\r\n{", b"GET /parts HTTP/1.1\r\nhost: a\r\n\r\n" + GET * 3],
)
def test_a_new_connection_replaces_one_that_keeps_its_answer_waiting(sent: bytes) -> None:
    with serving(connections=2) as server:
        answering, slow = server.connect(), server.connect()
        answering.sendall(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n")
        slow.sendall(sent)
        wait_until(lambda: len(server.requests) == 2)
        wait_until(lambda: bool(server.table._receiving or server.table._stalled))
        newest = server.connect()
        newest.sendall(GET)
        assert read_one(newest)[0] == 200
        read_all(slow)
        server.release.set()
        assert read_one(answering)[0] == 200


def test_a_client_that_leaves_with_requests_waiting_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving() as server:
        client = server.connect()
        client.sendall(b"GET /parts HTTP/1.1\r\nhost: a\r\n\r\n" + GET * 5)
        wait_until(lambda: bool(server.table._stalled))
        client.close()
        assert server.disconnected.wait(20)
        wait_until(lambda: not len(server.table))
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_client_that_does_not_read_is_cut_off() -> None:
    with serving(write_seconds=0.2) as server:
        client = server.connect()
        client.sendall(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        wait_until(lambda: bool(server.requests) and not len(server.table))
        assert len(read_all(client)) < 1 << 26


# -- more than a client needs ----------------------------------------------------------------------


def test_requests_that_wait_on_one_connection_are_bounded() -> None:
    with serving(pipelined=3) as server:
        client = server.connect()
        client.sendall(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n" + GET * 3)
        wait_until(lambda: len(server.requests) == 1)
        server.release.set()
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 4:
            answers += _receive(client)
        server.release.clear()
        client = server.connect()
        client.sendall(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n" + GET * 1_000)
        assert read_all(client) == b""
        server.release.set()
        wait_until(lambda: len(server.table) == 1)
        assert len(server.requests) == 5


@pytest.mark.parametrize("chunked", [False, True])
def test_the_body_of_an_answered_request_is_not_read_to_its_end(chunked: bool) -> None:
    with serving(unread_bytes=1 << 20) as server:
        client = server.connect()
        length = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % (1 << 50)
        client.sendall(POST.replace(b"/", b"/early", 1) + length + b"\r\n\r\n")
        assert read_one(client)[0] == 200
        content = b"x" * (1 << 16)
        part = b"%x\r\n%s\r\n" % (len(content), content) if chunked else content
        assert send_until_closed(client, part) < 2_000
        small = server.connect()
        small.sendall(POST.replace(b"/", b"/early", 1) + b"content-length: 100000\r\n\r\n")
        assert read_one(small)[0] == 200
        small.sendall(b"x" * 100_000 + GET)
        assert read_one(small)[0] == 200


class _Connection:
    def __init__(self) -> None:
        self.transport = self
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
def connection() -> Callable[[], BoundedProtocol]:
    return lambda: _Connection()  # type: ignore[return-value]


def test_one_address_has_few_connections(connection: Callable[[], BoundedProtocol]) -> None:
    table = ConnectionTable(Limits(connections=4, connections_of_address=2))
    mine = [connection() for _ in range(3)]
    assert [table.admit(one, "10.0.0.1") is None for one in mine] == [True, True, False]
    table.remove(mine[0])
    table.remove(mine[0])
    assert table.admit(mine[2], "10.0.0.1") is None
    # This machine, where a proxy may be, is exempt.
    assert all(table.admit(connection(), None) is None for _ in range(5))
    assert len(table) == 4


@pytest.mark.parametrize(
    ("peer", "counted"),
    [
        (("127.0.0.1", 1), None),
        (("::1", 1, 0, 0), None),
        (("::ffff:127.0.0.1", 1, 0, 0), None),
        ("", None),
        (None, None),
        (("10.0.0.1", 1), "10.0.0.1"),
        (("::ffff:10.0.0.1", 1, 0, 0), "10.0.0.1"),
        (("fe80::1%eth0", 1, 0, 0), str(0xFE80 << 48)),
    ],
)
def test_addresses_of_this_machine_are_exempt(peer: Any, counted: str | None) -> None:
    assert counted_address(peer) == counted
