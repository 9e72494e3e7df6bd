"""The served runs and their decisions, and the lanes in which questions wait."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from starlette.exceptions import HTTPException

from mocme.data.graph import UnknownName
from mocme.data.reviews import Reviews
from mocme.prediction.schema import Question
from mocme.serving.batching import Batching, QueueFull
from mocme.serving.hot_reload import HotReload
from mocme.serving.limits import Limits
from mocme.serving.metrics import Metrics
from mocme.serving.middleware import Refusal
from mocme.serving.run_view import RunView
from mocme.serving.uploads import ImageUploads

LOG = logging.getLogger("mocme.serving")
# Questions that are answered together, at most.
TOGETHER = 16
# Seconds between two looks at whether additions have changed.
LOOK = 1.0
T = TypeVar("T")


class Dispatcher:
    """The served runs, their decisions, and the lanes in which questions wait.

    A thread of its own looks, once in `LOOK` seconds, whether additions of a run have changed.
    """

    def __init__(
        self,
        served: Sequence[RunView],
        reviews: Reviews | None,
        limits: Limits,
        metrics: Metrics,
        pictures: ImageUploads | None = None,
    ) -> None:
        self.runs = {one.name: HotReload(one, metrics) for one in served}
        self._first = served[0].name
        self.reviews, self.limits, self.metrics = reviews, limits, metrics
        self._pictures = pictures
        self.fast = Batching(scored, TOGETHER, limits.queue)
        self.slow: Batching[Callable[[], Any], Any] = lane(limits.slow)
        # What was added is taken up here, for all who wait for it at once.
        self.renewing: Batching[Callable[[], Any], Any] = lane(limits.queue)
        # Encoding takes long, and no question waits behind it.
        self._adding: Batching[Callable[[], Any], Any] = lane(limits.adds)
        self._stop = threading.Event()
        self._watching = threading.Thread(target=self._watch, name="watching", daemon=True)
        self._watching.start()
        metrics.watch("scores", lambda: len(self.fast))
        metrics.watch("slow", lambda: len(self.slow))
        metrics.watch("adding", lambda: len(self._adding))

    @property
    def stopping(self) -> bool:
        """Whether nothing new is taken."""
        return self._stop.is_set()

    def live(self, name: str | None) -> HotReload:
        """A served run by its name.

        Raises:
            HTTPException: 404, there is none.
        """
        if name is None:
            return self.runs[self._first]
        if name not in self.runs:
            known = ", ".join(self.runs)
            raise HTTPException(404, f"no run named {name!r} is served; there is {known}")
        return self.runs[name]

    async def ask(self, run: str | None, question: Question) -> Any:
        """The answer to a question that needs one look at the scores."""
        served = self.live(run).now
        given = [name for name in (question.head, question.tail) if name is not None]
        names = served.graph.entities
        if any(name not in names for name in given) or (
            question.relation is not None and question.relation not in served.graph.relations
        ):
            # Looking for near names takes time, which others should not wait for.
            await self.slowly(run, lambda served: served.known(given, question.relation))
            served = self.live(run).now
        return await self._wait(self.fast.ask, (served, question))

    async def slowly(self, run: str | None, call: Callable[[RunView], T]) -> T:
        """What a call gives of a run that takes longer."""
        return await self._known(run, lambda now: self._wait(self.slow.ask, partial(call, now)))

    async def look(self, run: str | None, call: Callable[[RunView], T]) -> T:
        """What a call gives of a run that waits behind nobody's question."""
        return await self._known(run, lambda now: asyncio.to_thread(call, now))

    async def together(self, call: Callable[[], T]) -> T:
        """What a call gives, about several runs perhaps, that takes longer."""
        found: T = await self._wait(self.slow.ask, call)
        return found

    async def _known(self, run: str | None, ask: Callable[[RunView], Awaitable[T]]) -> T:
        """The same once more where a name is not known that was added meanwhile."""
        live = self.live(run)
        served = live.now
        try:
            return await ask(served)
        except UnknownName:
            newer = await self.newest(live)
            if newer is served:
                raise
            return await ask(newer)

    async def newest(self, live: HotReload) -> RunView:
        """A run with what is added to it at this moment."""
        if not live.stale:
            return live.now
        found: RunView = await self._wait(self.renewing.ask, live.renew)
        return found

    def _watch(self) -> None:
        while not self._stop.wait(LOOK):
            for live in self.runs.values():
                with suppress(QueueFull, OSError):
                    if live.stale:
                        self.renewing.ask(live.renew).result()

    async def _wait(
        self, ask: Callable[[Any], Any], question: Any, seconds: float | None = None
    ) -> Any:
        future = asyncio.wrap_future(ask(question))
        return await asyncio.wait_for(future, seconds or self.limits.seconds)

    @property
    def adds(self) -> bool:
        """Whether entities are added to the served runs."""
        return self._pictures is not None

    @property
    def pictures(self) -> ImageUploads:
        """Pictures that were sent, for entities to come.

        Raises:
            Refusal: 403, this server adds no entities.
        """
        if self._pictures is None:
            raise Refusal(
                403,
                "not_allowed",
                "this server does not change what is added to its runs",
                "start it with: mocme serve RUN --additions",
            )
        return self._pictures

    async def adding(self, call: Callable[[], T]) -> T:
        """What a call gives that adds or takes back, or prepares it; one at a time.

        Raises:
            Refusal: 504, it took too long; 507, the disk is full; 503, it refuses otherwise.
        """
        try:
            found: T = await self._wait(self._adding.ask, call, self.limits.adding)
            return found
        except TimeoutError:
            raise Refusal(
                504,
                "too_slow",
                f"not done within {self.limits.adding:g} s, but it may still come to be",
                "see whether it did before sending it again: GET /v1/additions",
            ) from None
        except OSError as error:
            raise unkept(error) from error

    def kept(self) -> Reviews:
        """The decisions.

        Raises:
            HTTPException: 404, none are kept.
        """
        if self.reviews is None:
            raise HTTPException(404, "this server keeps no decisions; start it with --reviews FILE")
        return self.reviews

    def close(self) -> None:
        """Answer what waits, and end all lanes."""
        self._stop.set()
        for one in (self.fast, self.slow, self._adding, self.renewing):
            one.close()
        self._watching.join(timeout=5)


def unkept(error: OSError) -> Refusal:
    """What a disk refused, as an answer."""
    LOG.error("cannot be kept: %s", error)
    why = error.strerror or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "nothing was changed; make room on the server's disk, then send it again"
        return Refusal(507, "no_room", f"the server's disk has no room for it ({why})", remedy)
    remedy = "nothing was changed; let the server write to its disk, then send it again"
    return Refusal(503, "not_kept", f"the server's disk refuses it ({why})", remedy)


def lane(waiting: int) -> Batching[Callable[[], Any], Any]:
    """A lane of calls, one after the other, of which so many may wait."""
    return Batching(lambda calls: [called(call) for call in calls], 1, waiting)


def called(call: Callable[[], Any]) -> Any:
    """What a call gives, or its error."""
    try:
        return call()
    except Exception as error:
        return error


def scored(asked: Sequence[tuple[RunView, Question]]) -> Sequence[Any]:
    """Answers, those of one run scored together."""
    answers: dict[int, Any] = {}
    for served in {id(one): one for one, _ in asked}.values():
        places = [place for place, (one, _) in enumerate(asked) if one is served]
        found = served.ask([asked[place][1] for place in places])
        answers.update(zip(places, found, strict=True))
    return [answers[place] for place in range(len(asked))]
