"""Stop long work cleanly on Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupted(RuntimeError):
    """Work was stopped on request; it can be resumed."""


@contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """Set an event on Ctrl-C instead of interrupting a step; a second Ctrl-C stops at once.

    A nested `stop_signal` sets the events of both: a training may be complete before it checks its
    own, and the work around it has to stop then. Outside the main thread no signal arrives, and
    the event is never set.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    previous = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: Any) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, previous)
        if callable(previous) and getattr(previous, "sets_an_event", False):
            previous(number, frame)

    stop.sets_an_event = True  # type: ignore[attr-defined]
    signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, previous)
