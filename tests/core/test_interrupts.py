"""Ctrl-C sets an event; a second one interrupts; nested handlers all receive it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from mocme.core.interrupts import stop_signal


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    """The handler of Python; a process that a shell starts in the background ignores Ctrl-C."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_the_first_ctrl_c_sets_the_event_and_the_second_interrupts() -> None:
    previous = signal.getsignal(signal.SIGINT)
    with stop_signal() as stopped:
        assert not stopped.is_set()
        press()
        assert stopped.is_set()
        with pytest.raises(KeyboardInterrupt):
            press()
    assert signal.getsignal(signal.SIGINT) is previous


def test_a_nested_handler_sets_both_events() -> None:
    with stop_signal() as outer:
        with stop_signal() as inner:
            press()
            assert inner.is_set()
        assert outer.is_set()


def test_another_thread_has_an_event_that_is_never_set() -> None:
    states = []

    def work() -> None:
        with stop_signal() as stopped:
            states.append(stopped.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert states == [False]
