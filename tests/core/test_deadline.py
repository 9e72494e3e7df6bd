"""Work stops at its deadline, or when it is cancelled."""

from __future__ import annotations

import threading

import pytest

from mocme.core.deadline import Deadline, Stopped, unlimited


def test_work_stops_at_its_deadline() -> None:
    now = [100.0]
    deadline = Deadline(5, lambda: now[0])
    deadline.check()
    assert (deadline.remaining, deadline.passed) == (5, False)
    now[0] = 104.9
    deadline.check()
    now[0] = 105.0
    with pytest.raises(Stopped):
        deadline.check()
    assert (deadline.remaining, deadline.passed) == (0, True)


def test_work_stops_when_it_is_cancelled_from_another_thread() -> None:
    deadline = Deadline(1e9)
    thread = threading.Thread(target=deadline.cancel)
    thread.start()
    thread.join()
    with pytest.raises(Stopped):
        deadline.check()
    unlimited()


def test_stopping_is_no_error_of_a_disk_or_of_a_value() -> None:
    """Work handles those: it would go on instead of stopping."""
    assert not issubclass(Stopped, OSError | ValueError | RuntimeError)
