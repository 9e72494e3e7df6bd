"""What one request, and all of them together, may cost."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
BATCH = 256


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        body: bytes of a request.
        seconds: time for one request; then it is given up with 504.
        queue: requests that may wait for an answer; more get 503 and Retry-After.
        slow: of these, requests that need more than a look at the scores (explanations, what is
            missing about an entity), which wait apart so that others pass them.
        stop: seconds that running requests get when the server stops.
    """

    body: int = MIB
    seconds: float = 20.0
    queue: int = 128
    slow: int = 16
    stop: float = 8.0

    def __post_init__(self) -> None:
        if min(self.body, self.queue, self.slow) < 1 or min(self.seconds, self.stop) <= 0:
            raise ValueError("limits of a server are above 0")
