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
        picture: bytes of a picture that is sent, which is one request.
        pictures: of those that no entity was made with yet, so many are kept, the newest; and
        pictures_bytes: so many bytes of them.
        adding: seconds for adding an entity, whose content has to be encoded first.
        adds: entities that may wait to be added, and pictures to be looked at.
        stop: seconds that running requests get when the server stops.
    """

    body: int = MIB
    seconds: float = 20.0
    queue: int = 128
    slow: int = 16
    picture: int = 20_000_000
    pictures: int = 64
    pictures_bytes: int = 256 * MIB
    adding: float = 300.0
    adds: int = 8
    stop: float = 8.0

    def __post_init__(self) -> None:
        counts = (self.body, self.queue, self.slow, self.picture, self.pictures, self.adds)
        if min(*counts, self.pictures_bytes) < 1 or min(self.seconds, self.adding, self.stop) <= 0:
            raise ValueError("limits of a server are above 0")
