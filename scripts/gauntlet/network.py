"""Clients that want a server to stall."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
import urllib.request
from pathlib import Path

from gauntlet.common import Result, Server, memory, served, train, trial, write_graph
from gauntlet.media import new_run

# A request that is never complete.
HALF = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "


def connect(server: Server, data: bytes = b"") -> socket.socket:
    """A connection on which something was sent."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    connection.sendall(data)
    return connection


def answered(server: Server, within: float = 10) -> bool:
    """Whether /healthz answers."""
    try:
        url = f"http://127.0.0.1:{server.port}/healthz"
        return urllib.request.urlopen(url, timeout=within).status == 200
    except OSError:
        return False


def closed(connection: socket.socket, within: float) -> float | None:
    """Seconds until the other side ends the connection; None if it does not in time."""
    started = time.monotonic()
    connection.settimeout(within)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return None
    except OSError:
        pass
    return time.monotonic() - started


@trial("Half-sent headers are given up")
def half_headers(work: Path) -> Result:
    with served(new_run(work)) as server:
        held = [connect(server, HALF) for _ in range(50)]
        alive = answered(server)
        seconds = [closed(connection, 60) for connection in held]
    ended = [s for s in seconds if s is not None]
    slowest = f"the last after {max(ended):.0f} s" if ended else ""
    figures = f"{len(ended)} of {len(held)} closed {slowest}; others answered meanwhile: {alive}"
    return Result(len(ended) == len(held) and alive, figures)


@trial("Many connections do not keep others out")
def many_connections(work: Path) -> Result:
    with served(new_run(work)) as server:
        held = []
        for _ in range(1500):
            try:
                held.append(connect(server, HALF))
            except OSError:
                break
        seconds = None
        started = time.monotonic()
        while time.monotonic() - started < 40 and seconds is None:
            if answered(server, 2):
                seconds = time.monotonic() - started
        for connection in held:
            connection.close()
    text = "never" if seconds is None else f"after {seconds:.1f} s"
    return Result(seconds is not None, f"{len(held)} half-sent connections; answered {text}")


@trial("A header without end is refused early")
def long_header(work: Path) -> Result:
    with served(new_run(work)) as server:
        before = memory(server.process.pid)
        connection = connect(server, HALF)
        sent = 0
        try:
            for _ in range(60):
                connection.sendall(b"x" * 1_000_000)
                sent += 1
        except OSError:
            pass
        grown = memory(server.process.pid) - before
        alive = answered(server)
    figures = f"{sent} of 60 MB were taken, memory grew by {grown:.0f} MiB"
    return Result(alive and grown < 16 and sent < 60, figures)


@trial("A body that is sent slowly is given up")
def slow_body(work: Path) -> Result:
    with served(new_run(work)) as server:
        head = (
            b"POST /v1/tails HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
        connection = connect(server, head)
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(1):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        seconds = closed(connection, 120)
        stop.set()
    text = "never" if seconds is None else f"after {seconds:.0f} s"
    return Result(seconds is not None, f"one byte a second: ended {text}")


@trial("Work that nobody waits for any more ends")
def heavy_batch(work: Path) -> Result:
    run = train(write_graph(work / "data", 4000), work / "run")
    questions = [{"ask": "missing", "entity": f"e{i}", "k": 100} for i in range(256)]
    with served(run, "--seconds", "0.3") as server:
        server.ask("/v1/missing", {"entity": "e1"})
        started = time.monotonic()
        status, _ = server.ask("/v1/batch", {"questions": questions}, timeout=300)
        answered_after = time.monotonic() - started
        light = time.monotonic()
        server.ask("/v1/missing", {"entity": "e2", "k": 1}, timeout=300)
        waited = time.monotonic() - light
    figures = f"answer {status} after {answered_after:.1f} s; the next question took {waited:.1f} s"
    return Result(status == 504 and waited < 3, figures)


def progressive(scans: int) -> bytes:
    """A progressive JPEG with a scan repeated many times."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.effect_noise((300, 300), 50).save(buffer, "JPEG", progressive=True, quality=60)
    data = buffer.getvalue()
    starts = [i for i in range(len(data) - 1) if data[i : i + 2] == b"\xff\xda"]
    last = data[starts[-1] : data.rindex(b"\xff\xd9")]
    return data[: data.rindex(b"\xff\xd9")] + last * (scans - len(starts)) + b"\xff\xd9"


@trial("A picture of very many scans is refused")
def scans(work: Path) -> Result:
    picture = progressive(400)
    with served(new_run(work), "--additions") as server:
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}/v1/pictures", picture, {"content-type": "image/jpeg"}
        )
        started = time.monotonic()
        try:
            status = urllib.request.urlopen(request, timeout=300).status
            message = ""
        except urllib.error.HTTPError as error:
            status, message = error.code, json.loads(error.read())["error"]["message"]
        seconds = time.monotonic() - started
    size = len(picture) / 1e6
    figures = f"{size:.1f} MB of 400 scans: {status} after {seconds:.1f} s {message}"
    return Result(status in (413, 415, 422) and seconds < 10, figures)
