"""The served runs, their reviews, and the queues in which requests wait."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from starlette.exceptions import HTTPException

from mocme.core.deadline import Check, Deadline, Stopped
from mocme.data.graph import UnknownName
from mocme.data.reviews import Reviews
from mocme.prediction.schema import Question
from mocme.serving.batching import Batching, QueueFull
from mocme.serving.hot_reload import HotReload
from mocme.serving.limits import Limits
from mocme.serving.metrics import Metrics
from mocme.serving.private_paths import PrivatePaths
from mocme.serving.refusals import Refusal
from mocme.serving.run_view import RunView
from mocme.serving.uploads import ImageUploads

LOG = logging.getLogger("mocme.serving")
# Maximum number of questions scored in one batch.
SCORE_BATCH = 16
# Seconds between checks for changed additions.
POLL_SECONDS = 1.0
T = TypeVar("T")


class _Scoring(NamedTuple):
    """A question that waits to be scored with others."""

    run_view: RunView
    question: Question
    deadline: Deadline


class Dispatcher:
    """The served runs, their reviews, and the queues in which requests wait.

    A background thread checks every `POLL_SECONDS` whether the additions of a run have changed.
    """

    def __init__(
        self,
        run_views: Sequence[RunView],
        reviews: Reviews | None,
        limits: Limits,
        metrics: Metrics,
        uploads: ImageUploads | None = None,
    ) -> None:
        self.runs = {run_view.name: HotReload(run_view, metrics) for run_view in run_views}
        self._default_run = run_views[0].name
        self.reviews, self.limits, self.metrics = reviews, limits, metrics
        self._uploads = uploads
        self.paths = _private_paths(run_views, reviews, uploads)
        self.score_queue = Batching(_score_batch, SCORE_BATCH, limits.queue)
        self.slow_queue: Batching[Callable[[], Any], Any] = call_queue(limits.slow_queue)
        # One reload serves all requests that wait for it.
        self._reload_queue: Batching[Callable[[], Any], Any] = call_queue(limits.queue)
        # Encoding is slow; its own queue keeps predictions from waiting behind it.
        self._addition_queue: Batching[Callable[[], Any], Any] = call_queue(limits.addition_queue)
        # Fast calls that run in threads of their own, or wait for one.
        self._fast_calls = 0
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="additions poller", daemon=True)
        self._poller.start()
        metrics.watch_queue("scores", lambda: len(self.score_queue))
        metrics.watch_queue("slow", lambda: len(self.slow_queue))
        metrics.watch_queue("adding", lambda: len(self._addition_queue))

    @property
    def stopping(self) -> bool:
        """Whether new requests are no longer accepted."""
        return self._stop.is_set()

    def hot_run(self, name: str | None) -> HotReload:
        """Find a served run by name; None is the first.

        Raises:
            HTTPException: 404, no such run is served.
        """
        if name is None:
            return self.runs[self._default_run]
        if name not in self.runs:
            available = ", ".join(self.runs)
            raise HTTPException(404, f"no run named {name!r} is served; available: {available}")
        return self.runs[name]

    async def predict(self, run: str | None, question: Question) -> Any:
        """Answer a question that needs one pass of scores."""
        run_view = self.hot_run(run).current
        names = [name for name in (question.head, question.tail) if name is not None]
        entities = run_view.graph.entities
        if any(name not in entities for name in names) or (
            question.relation is not None and question.relation not in run_view.graph.relations
        ):
            # Finding near matches is slow and must not delay the score queue.
            await self.run_slow(run, lambda view, _: view.check_names(names, question.relation))
            run_view = self.hot_run(run).current
        deadline = Deadline(self.limits.seconds)
        request = _Scoring(run_view, question, deadline)
        return await self._result(self.score_queue.submit, request, deadline)

    async def run_slow(self, run: str | None, call: Callable[[RunView, Check], T]) -> T:
        """Run a slow call on a run, in the slow queue.

        The call receives a check that ends it once its deadline passes or its client disconnects.
        """
        return await self._retry_unknown(
            run,
            lambda run_view, deadline: self._result(
                self.slow_queue.submit, partial(call, run_view, deadline.check), deadline
            ),
        )

    async def run_now(self, run: str | None, call: Callable[[RunView], T]) -> T:
        """Run a fast call on a run in a thread of its own, in no queue.

        Raises:
            QueueFull: as many of them run or wait as may wait in a queue.
        """
        if self._fast_calls >= self.limits.queue:
            raise QueueFull(1)

        def begin(run_view: RunView, deadline: Deadline) -> T:
            deadline.check()  # it may have waited for a thread
            return call(run_view)

        async def run_in_thread(run_view: RunView, deadline: Deadline) -> T:
            call = asyncio.to_thread(begin, run_view, deadline)
            return await asyncio.wait_for(call, deadline.remaining)

        self._fast_calls += 1
        try:
            return await self._retry_unknown(run, run_in_thread)
        finally:
            self._fast_calls -= 1

    async def call_slow(self, call: Callable[[Check], T]) -> T:
        """Run a slow call that may concern several runs, in the slow queue; see `run_slow`."""
        deadline = Deadline(self.limits.seconds)
        submit = self.slow_queue.submit
        result: T = await self._result(submit, partial(call, deadline.check), deadline)
        return result

    async def _retry_unknown(
        self, run: str | None, call: Callable[[RunView, Deadline], Awaitable[T]]
    ) -> T:
        """Call; on an unknown name, reload changed additions and call once more."""
        deadline = Deadline(self.limits.seconds)
        hot_run = self.hot_run(run)
        run_view = hot_run.current
        try:
            return await call(run_view, deadline)
        except UnknownName:
            latest = await self.latest(hot_run)
            if latest is run_view:
                raise
            return await call(latest, deadline)

    async def latest(self, hot_run: HotReload) -> RunView:
        """Return a run with its current additions, reloading them if they changed."""
        if not hot_run.stale:
            return hot_run.current
        # All requests need the reload, so it goes on when one that waits for it ends.
        deadline = Deadline(self.limits.seconds)
        run_view: RunView = await self._result(self._reload_queue.submit, hot_run.reload, deadline)
        return run_view

    def _poll(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            for hot_run in self.runs.values():
                with suppress(QueueFull, OSError):
                    if hot_run.stale:
                        self._reload_queue.submit(hot_run.reload).result()

    @staticmethod
    async def _result(submit: Callable[[Any], Any], request: Any, deadline: Deadline) -> Any:
        """Wait for the result of a queue until the deadline.

        After it, or when the client disconnects, work that waits is never begun, and work that has
        begun ends at its next check.
        """
        future = asyncio.wrap_future(submit(request))
        try:
            return await asyncio.wait_for(future, deadline.remaining)
        except asyncio.CancelledError:
            deadline.cancel()
            raise

    @property
    def accepts_additions(self) -> bool:
        """Whether entities may be added to the served runs."""
        return self._uploads is not None

    @property
    def uploads(self) -> ImageUploads:
        """Pictures uploaded for new entities.

        Raises:
            Refusal: 403, this server accepts no additions.
        """
        if self._uploads is None:
            raise Refusal(
                403,
                "not_allowed",
                "this server does not accept changes to the additions of its runs",
                "start it with: mocme serve RUN --additions",
            )
        return self._uploads

    async def run_addition(self, call: Callable[[Check], T]) -> T:
        """Run a call that adds or removes entities or stores a picture, one at a time.

        Raises:
            Refusal: 504, it timed out; 507, the disk is full; 503, another disk error.
        """
        deadline = Deadline(self.limits.addition_seconds)

        def begin() -> T:
            deadline.check()
            return call(deadline.check)

        try:
            result: T = await self._result(self._addition_queue.submit, begin, deadline)
            return result
        except (TimeoutError, Stopped):
            raise Refusal(
                504,
                "too_slow",
                f"not finished within {self.limits.addition_seconds:g} s, and stopped unless it is "
                f"being stored",
                "check whether it did before sending it again: GET /v1/additions",
            ) from None
        except OSError as error:
            raise storage_refusal(error) from error

    def require_reviews(self) -> Reviews:
        """Return the reviews.

        Raises:
            HTTPException: 404, this server stores none.
        """
        if self.reviews is None:
            raise HTTPException(
                404, "this server stores no decisions; start it with --reviews FILE"
            )
        return self.reviews

    def close(self) -> None:
        """Answer the waiting requests and stop all queues."""
        self._stop.set()
        for queue in (
            self.score_queue,
            self.slow_queue,
            self._addition_queue,
            self._reload_queue,
        ):
            queue.close()
        if self._uploads is not None:
            self._uploads.close()
        self._poller.join(timeout=5)


def _private_paths(
    run_views: Sequence[RunView], reviews: Reviews | None, uploads: ImageUploads | None
) -> PrivatePaths:
    paths: list[str | Path] = [view.run.path for view in run_views]
    paths += [folder for view in run_views if (folder := view.loaded.trained.graph.folder)]
    paths += [] if reviews is None else [reviews.path]
    # Each picture has a name of its own; that of their folder says nothing either.
    paths += [] if uploads is None else [uploads.folder, uploads.folder / "picture"]
    return PrivatePaths(paths)


def storage_refusal(error: OSError) -> Refusal:
    """Convert a disk error to a refusal that does not reveal paths."""
    LOG.error("cannot write: %s", error)
    reason = error.strerror or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "nothing was changed; free space on the server's disk, then send it again"
        return Refusal(507, "no_room", f"the server's disk is full ({reason})", remedy)
    remedy = "nothing was changed; make the server's disk writable, then send it again"
    return Refusal(503, "not_kept", f"the server cannot write to its disk ({reason})", remedy)


def call_queue(capacity: int) -> Batching[Callable[[], Any], Any]:
    """Create a queue that runs calls one after the other."""
    return Batching(lambda calls: [call_or_error(call) for call in calls], 1, capacity)


def call_or_error(call: Callable[[], Any]) -> Any:
    """Return the result of a call, or the exception it raised."""
    try:
        return call()
    except Exception as error:
        return error


def _score_batch(requests: Sequence[_Scoring]) -> Sequence[Any]:
    """Answer the questions of several requests."""

    def check() -> None:
        """Stop once nobody waits for any of the answers."""
        if all(request.deadline.passed for request in requests):
            requests[0].deadline.check()

    return score_views([(request.run_view, request.question) for request in requests], check)


def score_views(requests: Sequence[tuple[RunView, Question]], check: Check) -> Sequence[Any]:
    """Answer questions in order; those of one run are scored together."""
    answers: dict[int, Any] = {}
    for run_view in {id(view): view for view, _ in requests}.values():
        indices = [index for index, (view, _) in enumerate(requests) if view is run_view]
        batch = run_view.predict([requests[index][1] for index in indices], check)
        answers.update(zip(indices, batch, strict=True))
    return [answers[index] for index in range(len(requests))]
