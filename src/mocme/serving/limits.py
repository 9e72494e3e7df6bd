"""Resource limits of one request, and of all requests together."""

from __future__ import annotations

from dataclasses import dataclass, fields

MIB = 1 << 20
# Maximum number of questions in a batch request, and of facts in a score request.
BATCH = 256
# Host names of this machine.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        body_bytes: maximum size of a request.
        seconds: time limit of a request, after which the answer is 504.
        queue: maximum number of waiting requests; more get 503 with Retry-After.
        slow_queue: maximum number of waiting requests that need more than one pass of scores
            (explanations, missing facts of an entity). They have a queue of their own, so that
            fast requests do not wait behind them.
        picture_bytes: maximum size of an uploaded picture, which is one request.
        stored_pictures: maximum number of uploaded pictures that are kept; beyond it, the least
            recently used ones are deleted.
        stored_bytes: maximum total size of the uploaded pictures.
        addition_seconds: time limit for adding an entity, which includes encoding its content.
        addition_queue: maximum number of waiting additions and uploaded pictures.
        stop_seconds: time that running requests get when the server stops.
        picture_seconds: time limit for decoding an uploaded picture, in its own process.
        picture_memory: maximum memory of that process, in bytes of address space.
        connections: maximum number of open connections of a process. Beyond it, one that waits for
            its client is closed, as `ConnectionTable.admit` says; if none does, the new one gets
            503.
        connections_of_address: maximum number of open connections of one client address.
            Addresses of this machine are exempt: a proxy's connections all come from one.
        header_bytes: maximum size of the request line and the headers; also of what a chunked
            body may hold besides its content.
        headers: maximum number of headers.
        header_seconds: time limit for sending the headers, from the connection or the first byte.
        body_seconds: time limit for sending the body, plus the time that `body_rate` gives.
        body_rate: bytes per second that a client must send after `body_seconds`.
        pipelined: maximum number of requests that wait on one connection for the answers to those
            before them; the connection is closed at the next one. uvicorn keeps each in memory,
            and reads more of them after each answer.
        unread_bytes: maximum size of a body that is received after its answer was sent, for
            instance because the request was refused; the connection is closed beyond it.
        idle_seconds: time that a connection may be idle between two requests.
        write_seconds: time limit for a client that reads nothing of its response.
    """

    body_bytes: int = MIB
    seconds: float = 20.0
    queue: int = 128
    slow_queue: int = 16
    picture_bytes: int = 20_000_000
    stored_pictures: int = 64
    stored_bytes: int = 256 * MIB
    addition_seconds: float = 300.0
    addition_queue: int = 8
    stop_seconds: float = 8.0
    picture_seconds: float = 10.0
    picture_memory: int = 2 << 30
    connections: int = 512
    connections_of_address: int = 64
    header_bytes: int = 32 << 10
    headers: int = 100
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    body_rate: int = 256 << 10
    pipelined: int = 16
    unread_bytes: int = 32 * MIB
    idle_seconds: float = 30.0
    write_seconds: float = 30.0

    def __post_init__(self) -> None:
        if min(getattr(self, each.name) for each in fields(self)) <= 0:
            raise ValueError("the limits of a server must be positive")
