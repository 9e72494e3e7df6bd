"""Run the server: its address, its folders, and the application in each process."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from mocme.serving.limits import LOOPBACK, Limits
from mocme.serving.log import Logs, configure_logging, notices_in_log
from mocme.serving.worker_processes import STOP_SIGNALS, WorkerProcesses

MIN_TOKEN_LENGTH = 16


@dataclass(frozen=True)
class Address:
    """The address of a server, and who may use it.

    Attributes:
        port: 0 picks a free one.
        token: bearer token that requests must send; None for no token.
        allow_hosts: further host names that the server answers to.

    Raises:
        ValueError: the port or the token is invalid, or other machines could reach the address
            although no token is required.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    allow_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must be between 0 and 65535, not {self.port}")
        if self.token is not None and (
            len(self.token) < MIN_TOKEN_LENGTH or not self.token.isascii() or " " in self.token
        ):
            raise ValueError(
                f"a token needs at least {MIN_TOKEN_LENGTH} characters of ASCII without spaces; "
                f'create one with: python -c "import secrets; print(secrets.token_urlsafe())"'
            )
        if self.token is None and not self.loopback:
            raise ValueError(
                f"{self.host}: other machines could reach the server; give a token in the "
                f"environment variable MOCME_TOKEN or with --token-file, or serve on 127.0.0.1"
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def hosts(self) -> frozenset[str] | None:
        """Accepted host names; None accepts all, which is safe only with a token."""
        if self.loopback:
            return LOOPBACK | {self.host.lower(), *(name.lower() for name in self.allow_hosts)}
        return frozenset(name.lower() for name in self.allow_hosts) or None

    def bind(self) -> socket.socket:
        """Open a listening socket.

        Raises:
            ValueError: the port is in use, or the address does not belong to this machine.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.host, self.port))
        except OSError as error:
            listener.close()
            raise ValueError(
                f"{self.host}:{self.port}: cannot listen there ({error.strerror}); choose another "
                f"--port or --host"
            ) from error
        listener.listen(2048)
        listener.setblocking(False)
        os.set_inheritable(listener.fileno(), True)
        return listener

    def url(self, listener: socket.socket) -> str:
        """Return the URL to open in a browser."""
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
    files_from: Sequence[str | Path] = (),
    started: Callable[[str, list[str]], None] | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> None:
    """Serve runs until SIGINT or SIGTERM.

    Args:
        paths: folders of finished runs; requests that name no run use the first.
        reviews: file of decisions; ``reviews.sqlite`` in the first run's folder by default. If
            that folder cannot be written, the server takes no decisions, and a note says so.
        additions: whether entities may be added to the runs and removed.
        workers: number of processes. They are forked from a process that has loaded the runs, so
            they share the memory of all weights.
        trust_code: import the code that files of the runs and of their graphs name.
        files_from: folders besides those of the graphs from which texts, numbers and media files of
            entities may be shown.
        started: receives the URL and notes for the user once the server is ready.
        advance: receives (questions done, questions in total) if a run must be calibrated first.

    Raises:
        ValueError: a run cannot be opened, or the address cannot be used.
    """
    if workers < 1:
        raise ValueError("workers must be at least 1")
    if workers > 1 and device != "cpu":
        raise ValueError("several workers share CPU memory; use device cpu with them")
    with ExitStack() as stack:
        if workers > 1:
            import torch

            # OpenMP threads do not survive a fork.
            torch.set_num_threads(1)
            # Must be set before prometheus_client is imported.
            folder = stack.enter_context(_temporary_folder("mocme-metrics"))
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        from mocme.data.reviews import Reviews
        from mocme.runs.run import Run
        from mocme.serving.run_view import RunView
        from mocme.serving.uploads import ImageUploads

        listener = stack.enter_context(closing(address.bind()))
        upload_folder = stack.enter_context(_temporary_folder("mocme-pictures"))
        runs = [Run.open(path, trust_code) for path in paths]
        names = distinct_names([run.path for run in runs])
        run_views = [
            RunView(name, run, device, advance, files_from=files_from)
            for name, run in zip(names, runs, strict=True)
        ]
        file, reviews_notes = _reviews_file(reviews, runs[0].path)
        configure_logging(logs)
        stack.enter_context(notices_in_log())

        def work(ready: Callable[[], None]) -> None:
            uploads = ImageUploads(upload_folder, limits) if additions else None
            if uploads is not None:
                uploads.start()
            decisions = None if file is None else Reviews(file)
            _serve_process(run_views, decisions, uploads, address, limits, listener, ready)

        def announce() -> None:
            if started is not None:
                notes = [
                    f"{view.name}: {note}" for view in run_views for note in view.content.notes
                ]
                notes += reviews_notes
                started(address.url(listener), notes)

        if workers == 1:
            work(announce)
        else:
            WorkerProcesses(work, workers, limits.stop_seconds).watch(announce)


def _temporary_folder(name: str) -> AbstractContextManager[Path]:
    """A folder for the time of the server.

    It is locked until the server and all its workers have ended; the next server removes the
    folders of killed ones.
    """
    from mocme.storage.workspace import workspace

    return workspace(Path(tempfile.gettempdir()) / name)


def _reviews_file(given: str | Path | None, run: Path) -> tuple[Path | None, list[str]]:
    """Return the file of decisions, and notes for the user.

    It is None where nobody named a file and the run's folder cannot be written.

    Raises:
        ReviewError: the file cannot be used; better now than in a worker.
    """
    from mocme.data.review_schema import ReviewsNotWritable
    from mocme.data.reviews import Reviews
    from mocme.storage.regular_files import is_regular

    file = Path(given) if given is not None else run / "reviews.sqlite"
    if given is None:
        is_regular(file)  # in a run's folder no link is followed
    try:
        reviews = Reviews(file)
        reviews.check_writable()
        reviews.close()
    except ReviewsNotWritable as error:
        if given is not None:
            raise
        return None, [f"this server takes no decisions: {error}"]
    return file, []


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Name each run after its folder, with as many parent folders as needed to be unique.

    Raises:
        ValueError: a run is given twice.
    """
    resolved = [path.resolve() for path in paths]
    if len(set(resolved)) != len(resolved):
        raise ValueError("a run is given twice; give each one once")
    depth = 1
    while len({path.parts[-depth:] for path in resolved}) != len(resolved):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in resolved]


def _serve_process(
    run_views: Any,
    reviews: Any,
    uploads: Any,
    address: Address,
    limits: Limits,
    listener: socket.socket,
    ready: Callable[[], None],
) -> None:
    """Answer requests in this process until a stop signal, then finish the running ones.

    Args:
        ready: called once stop signals are handled.
    """
    import uvicorn

    from mocme.serving.api import create_app
    from mocme.serving.connections import bounded_protocol

    server: uvicorn.Server | None = None
    stop_requested = False

    def stop(*_: object) -> None:
        """Handle a signal before uvicorn does, and the one that it re-raises at its end."""
        nonlocal stop_requested
        stop_requested = True
        if server is not None:
            server.should_exit = True

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    ready()
    app = create_app(run_views, reviews, limits, address.token, address.hosts, uploads)
    config = uvicorn.Config(
        app,
        http=bounded_protocol(limits),
        ws="none",
        # Nothing uses the address of the client or the scheme.
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, int(limits.stop_seconds)),
        timeout_keep_alive=max(1, int(limits.idle_seconds)),
    )
    server = uvicorn.Server(config)
    server.should_exit = stop_requested
    server.run(sockets=[listener])
