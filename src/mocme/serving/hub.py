"""The served runs and their decisions, and the two lanes in which questions wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from starlette.exceptions import HTTPException

from mocme.inference.predictions import Question
from mocme.reviews import Reviews
from mocme.serving.asking import Answering
from mocme.serving.limits import Limits
from mocme.serving.metrics import Metrics
from mocme.serving.served import Served

# Questions that are answered together, at most.
TOGETHER = 16
T = TypeVar("T")


class Hub:
    """The served runs, their decisions, and the two lanes in which questions wait."""

    def __init__(
        self, served: Sequence[Served], reviews: Reviews | None, limits: Limits, metrics: Metrics
    ) -> None:
        self.served = {one.name: one for one in served}
        self.first = served[0]
        self.reviews, self.limits, self.metrics = reviews, limits, metrics
        self.fast = Answering(scored, TOGETHER, limits.queue)
        self.slow: Answering[Callable[[], Any], Any] = Answering(
            lambda calls: [called(call) for call in calls], 1, limits.slow
        )
        self.stopping = False
        metrics.watch("scores", lambda: len(self.fast))
        metrics.watch("slow", lambda: len(self.slow))

    def run(self, name: str | None) -> Served:
        """A served run by its name.

        Raises:
            HTTPException: 404, there is none.
        """
        if name is None:
            return self.first
        if name not in self.served:
            known = ", ".join(self.served)
            raise HTTPException(404, f"no run named {name!r} is served; there is {known}")
        return self.served[name]

    async def ask(self, served: Served, question: Question) -> Any:
        """The answer to a question that needs one look at the scores."""
        given = [name for name in (question.head, question.tail) if name is not None]
        names = served.graph.entities
        if any(name not in names for name in given) or (
            question.relation is not None and question.relation not in served.graph.relations
        ):
            # Looking for near names takes time, which others should not wait for.
            await self.slowly(lambda: served.known(given, question.relation))
        return await self._wait(self.fast.ask, (served, question))

    async def slowly(self, call: Callable[[], T]) -> T:
        """What a call gives that takes longer."""
        found: T = await self._wait(self.slow.ask, call)
        return found

    async def _wait(self, ask: Callable[[Any], Any], question: Any) -> Any:
        future = asyncio.wrap_future(ask(question))
        return await asyncio.wait_for(future, self.limits.seconds)

    def kept(self) -> Reviews:
        """The decisions.

        Raises:
            HTTPException: 404, none are kept.
        """
        if self.reviews is None:
            raise HTTPException(404, "this server keeps no decisions; start it with --reviews FILE")
        return self.reviews

    def close(self) -> None:
        """Answer what waits, and end both lanes."""
        self.stopping = True
        self.fast.close()
        self.slow.close()


def called(call: Callable[[], Any]) -> Any:
    """What a call gives, or its error."""
    try:
        return call()
    except Exception as error:
        return error


def scored(asked: Sequence[tuple[Served, Question]]) -> Sequence[Any]:
    """Answers, those of one run scored together."""
    answers: dict[int, Any] = {}
    for served in {id(one): one for one, _ in asked}.values():
        places = [place for place, (one, _) in enumerate(asked) if one is served]
        found = served.ask([asked[place][1] for place in places])
        answers.update(zip(places, found, strict=True))
    return [answers[place] for place in range(len(asked))]
