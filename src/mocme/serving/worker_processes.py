"""Worker processes of a server: started, replaced when they die, stopped by a signal."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import NoReturn

# The server gives up after this many worker failures within so many seconds.
MAX_FAILURES, FAILURE_SECONDS = 5, 30.0
LOG = logging.getLogger("mocme.serving")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class WorkerProcesses:
    """Forked worker processes; one that dies is replaced."""

    def __init__(
        self, work: Callable[[Callable[[], None]], None], count: int, stop_seconds: float
    ) -> None:
        self._work, self._count, self._stop_seconds = work, count, stop_seconds
        self._alive: set[int] = set()
        self._failures: list[float] = []
        self._stopping = False
        # Only this process keeps the writing end: at its end, whatever ends it, the workers read
        # the end of the pipe.
        self._reading, self._writing = os.pipe()

    def watch(self, ready: Callable[[], None]) -> None:
        """Start the workers and replace failed ones, until a stop signal.

        Args:
            ready: called once stop signals are handled.

        Raises:
            RuntimeError: workers fail repeatedly.
        """
        for number in STOP_SIGNALS:
            signal.signal(number, self._stop)
        ready()
        try:
            self._watch()
        finally:
            os.close(self._reading)
            os.close(self._writing)

    def _watch(self) -> None:
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
            LOG.error("worker process %d ended (%d); starting another", pid, status)
            now = time.monotonic()
            recent = [t for t in self._failures if now - t < FAILURE_SECONDS]
            self._failures = [*recent, now]
            if len(self._failures) >= MAX_FAILURES:
                self._stop()
                raise RuntimeError("worker processes fail repeatedly; see the log")
            self._start()

    def _start(self) -> None:
        # Blocked until the worker has handlers of its own: the inherited ones would stop the
        # other workers.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        if not self._stopping:
            pid = os.fork()
            if not pid:
                self._run_worker()
            self._alive.add(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _run_worker(self) -> NoReturn:
        """Work in the forked process, then exit without running the parent's cleanup."""
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            os.close(self._writing)
            threading.Thread(target=self._stop_with_parent, daemon=True).start()
            self._work(lambda: None)
            code = 0
        except BaseException:
            LOG.exception("a worker process failed")
        finally:
            logging.shutdown()
            os._exit(code)

    def _stop_with_parent(self) -> None:
        """Wait for the end of the parent, then stop this worker as a stop signal does."""
        os.read(self._reading, 1)
        LOG.error("the server process has ended; this worker stops")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self._stop_seconds + 1)
        os._exit(1)

    def _stop(self, *_: object) -> None:
        """Send all workers SIGTERM, and SIGKILL to those still alive after a while."""
        first = not self._stopping
        self._stopping = True
        for pid in self._alive:
            os.kill(pid, signal.SIGTERM if first else signal.SIGKILL)
        if first:
            signal.signal(signal.SIGALRM, self._stop)
            signal.setitimer(signal.ITIMER_REAL, self._stop_seconds + 1)
