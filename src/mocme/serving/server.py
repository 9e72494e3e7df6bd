"""Serve: sockets, processes, signals and logs."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, NoReturn

from mocme.serving.limits import Limits

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
SHORTEST_TOKEN = 16
# A process that dies so often in so many seconds is not started again.
DEATHS, WITHIN = 5, 30.0
Logs = Literal["text", "json", "none"]
LOG = logging.getLogger("mocme.serving")
STOPS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Address:
    """Where and to whom is served.

    Raises:
        ValueError: others than this machine could reach it and no token is asked for; or the token
            is too short to be secret.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    allow_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"a port lies between 0 and 65535, not {self.port}")
        if self.token is not None and (
            len(self.token) < SHORTEST_TOKEN or not self.token.isascii() or " " in self.token
        ):
            raise ValueError(
                f"a token has {SHORTEST_TOKEN} characters of ASCII or more, without spaces; make "
                f'one with: python -c "import secrets; print(secrets.token_urlsafe())"'
            )
        if self.token is None and not self.loopback:
            raise ValueError(
                f"{self.host}: others than this machine could reach it; give a token in the "
                f"environment variable MOCME_TOKEN or with --token-file, or serve on 127.0.0.1"
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def hosts(self) -> frozenset[str] | None:
        """Names it may be called by; None for any, which a token guards."""
        if self.loopback:
            return LOOPBACK | {self.host.lower(), *(name.lower() for name in self.allow_hosts)}
        return frozenset(name.lower() for name in self.allow_hosts) or None

    def bind(self) -> socket.socket:
        """A socket that listens.

        Raises:
            ValueError: the port is taken, or the address is not this machine's.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.host, self.port))
        except OSError as error:
            listener.close()
            raise ValueError(
                f"{self.host}:{self.port}: cannot serve there ({error.strerror}); choose another "
                f"--port or --host"
            ) from error
        listener.listen(2048)
        listener.setblocking(False)
        os.set_inheritable(listener.fileno(), True)
        return listener

    def url(self, listener: socket.socket) -> str:
        """What to open in a browser."""
        port = listener.getsockname()[1]
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port}/"


def serve(
    paths: Sequence[str | Path],
    address: Address = Address(),
    limits: Limits = Limits(),
    *,
    reviews: str | Path | None = None,
    additions: bool = False,
    workers: int = 1,
    device: str = "cpu",
    logs: Logs = "text",
    trust_code: bool = False,
    started: Callable[[str, list[str]], None] | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> None:
    """Serve runs until told to stop (SIGINT, SIGTERM).

    Args:
        paths: folders of finished runs; the first is asked where a request names none.
        reviews: the file of decisions; ``reviews.sqlite`` in the first run's folder by default.
        additions: whether entities may be added to the runs and taken back.
        workers: processes. They share the memory of all weights, for they are copies of one
            process that has loaded them.
        started: is told the address and notes for the reader.
        advance: is told (questions done, questions in all) where a run is calibrated first.

    Raises:
        ValueError: a run cannot be opened, or the address cannot be served on.
    """
    if workers < 1:
        raise ValueError("workers must be at least 1")
    if workers > 1 and device != "cpu":
        raise ValueError("several workers share the memory of a processor; leave device at cpu")
    if workers > 1:
        import torch

        # Forking after OpenMP has started threads leaves the copies without them.
        torch.set_num_threads(1)
        folder = tempfile.mkdtemp(prefix="mocme-metrics-")
        # Has to be there before the library is imported.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    from mocme.data.reviews import Reviews
    from mocme.runs.run import Run
    from mocme.serving.run_view import RunView
    from mocme.serving.uploads import ImageUploads

    listener = address.bind()
    room = tempfile.TemporaryDirectory(prefix="mocme-pictures-")
    try:
        runs = [Run.open(path, trust_code) for path in paths]
        names = distinct_names([run.path for run in runs])
        served = [RunView(n, r, device, advance) for n, r in zip(names, runs, strict=True)]
        file = Path(reviews) if reviews is not None else runs[0].path / "reviews.sqlite"
        Reviews(file).close()
        log_as(logs)

        def work(ready: Callable[[], None]) -> None:
            pictures = ImageUploads(Path(room.name), limits) if additions else None
            _work(served, Reviews(file), pictures, address, limits, listener, ready)

        def tell() -> None:
            if started is not None:
                notes = [f"{one.name}: {note}" for one in served for note in one.content.notes]
                started(address.url(listener), notes)

        if workers == 1:
            work(tell)
        else:
            _Processes(work, workers, limits.stop).watch(tell)
    finally:
        listener.close()
        room.cleanup()


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, with as many folders above it as tell them apart."""
    whole = [path.resolve() for path in paths]
    if len(set(whole)) != len(whole):
        raise ValueError("a run is named twice; name each once")
    depth = 1
    while len({path.parts[-depth:] for path in whole}) != len(whole):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in whole]


def _work(
    served: Any,
    reviews: Any,
    pictures: Any,
    address: Address,
    limits: Limits,
    listener: socket.socket,
    ready: Callable[[], None],
) -> None:
    """One process: answer until a signal comes, then finish what runs.

    Args:
        ready: called as soon as no signal is lost any more.
    """
    import uvicorn

    from mocme.serving.api import application

    server: uvicorn.Server | None = None
    early = False

    def stop(*_: object) -> None:
        """A signal before the server takes them itself, or the one that it raises once more."""
        nonlocal early
        early = True
        if server is not None:
            server.should_exit = True

    for name in STOPS:
        signal.signal(name, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    ready()
    app = application(served, reviews, limits, address.token, address.hosts, pictures)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, int(limits.stop)),
        timeout_keep_alive=30,
    )
    server = uvicorn.Server(config)
    server.should_exit = early
    server.run(sockets=[listener])


class _Processes:
    """Copies of this process that work, watched: one that dies is started again."""

    def __init__(
        self, work: Callable[[Callable[[], None]], None], count: int, patience: float
    ) -> None:
        self._work, self._count, self._patience = work, count, patience
        self._alive: set[int] = set()
        self._deaths: list[float] = []
        self._stopping = False

    def watch(self, ready: Callable[[], None]) -> None:
        """Run until told to stop.

        Args:
            ready: called as soon as no signal is lost any more.

        Raises:
            RuntimeError: the processes die again and again.
        """
        for name in STOPS:
            signal.signal(name, self._stop)
        ready()
        for _ in range(self._count):
            self._start()
        while self._alive:
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                break
            self._alive.discard(pid)
            if self._stopping:
                continue
            LOG.error("process %d ended (%d); starting another", pid, status)
            now = time.monotonic()
            self._deaths = [t for t in self._deaths if now - t < WITHIN] + [now]
            if len(self._deaths) >= DEATHS:
                self._stop()
                raise RuntimeError("the processes end again and again; see the log")
            self._start()

    def _start(self) -> None:
        # Held until the copy has handlers of its own: those of this process would stop its fellows.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        if not self._stopping:
            pid = os.fork()
            if not pid:
                self._copy()
            self._alive.add(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def _copy(self) -> NoReturn:
        """The life of a copy."""
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            self._work(lambda: None)
            code = 0
        except BaseException:
            LOG.exception("a process failed")
        finally:
            logging.shutdown()
            os._exit(code)

    def _stop(self, *_: object) -> None:
        """Tell all to stop; who has not after a while is ended."""
        first = not self._stopping
        self._stopping = True
        for pid in self._alive:
            os.kill(pid, signal.SIGTERM if first else signal.SIGKILL)
        if first:
            signal.signal(signal.SIGALRM, self._stop)
            signal.setitimer(signal.ITIMER_REAL, self._patience + 1)


# -- logs ------------------------------------------------------------------------------------------

_FIELDS = ("request", "method", "path", "status", "ms")


class _Lines(logging.Formatter):
    """A JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": time, "level": record.levelname.lower()}
        line["message"] = record.getMessage()
        line |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


def log_as(how: Logs) -> None:
    """Where the server's log goes: to standard error as text or JSON lines, or nowhere."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if how == "none":
        handler = logging.NullHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    handler.setFormatter(_Lines() if how == "json" else plain)
    for name in ("mocme.serving", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        # Of its own words only what is out of order: a line a request is ours.
        logger.setLevel(logging.INFO if name == "mocme.serving" else logging.WARNING)
