"""Resource limits of one request, and of all requests together."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
# Maximum number of questions in a batch request, and of facts in a score request.
BATCH = 256


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

    def __post_init__(self) -> None:
        sizes = (self.body_bytes, self.picture_bytes, self.stored_bytes)
        counts = (self.queue, self.slow_queue, self.stored_pictures, self.addition_queue)
        times = (self.seconds, self.addition_seconds, self.stop_seconds)
        if min(*sizes, *counts) < 1 or min(times) <= 0:
            raise ValueError("the limits of a server must be positive")
