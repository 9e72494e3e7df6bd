"""End work in progress whose result is no longer wanted.

Long work takes a `Check` and calls it between its steps; the call raises `Stopped` when the work is
to end. The caller of the work holds the `Deadline` and cancels it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import final

Check = Callable[[], None]


class Stopped(Exception):
    """The deadline of a piece of work has passed, or it was cancelled.

    No TimeoutError, because that is an OSError, which work may handle as a failure of the disk.
    """


def unlimited() -> None:
    """Never stop: the `Check` of work without a deadline."""


@final
class Deadline:
    """A point in time after which work stops; may be cancelled from another thread.

    Args:
        seconds: from now.
        clock: returns the time in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = clock() + seconds

    @property
    def remaining(self) -> float:
        """Seconds until the work stops, at least 0."""
        return max(0.0, self._until - self._clock())

    @property
    def passed(self) -> bool:
        """Whether the work is to stop."""
        return self._clock() >= self._until

    def cancel(self) -> None:
        """Stop the work at its next check."""
        self._until = -math.inf

    def check(self) -> None:
        """Do nothing before the deadline.

        Raises:
            Stopped: it has passed, or the work was cancelled.
        """
        if self.passed:
            raise Stopped("stopped before the work was finished")
