"""Work whose request has ended stops at its next check; work that waits is never begun."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from http_helpers import assert_error
from starlette.testclient import TestClient

from mocme.core.deadline import Check, Stopped
from mocme.data.graph import UnknownName
from mocme.serving.api import create_app
from mocme.serving.batching import Batching, QueueFull
from mocme.serving.dispatcher import Dispatcher
from mocme.serving.limits import Limits
from mocme.serving.metrics import Metrics
from mocme.serving.refusals import Refusal
from mocme.serving.run_view import RunView


class EmptyView:
    """A view of no run."""

    name, stamp, additions = "empty", "now", ()
    run = SimpleNamespace(path=Path("/nowhere/empty"))
    loaded = SimpleNamespace(trained=SimpleNamespace(graph=SimpleNamespace(folder=None)))

    def read_stamp(self) -> str:
        return "now"


Make = Callable[..., Dispatcher]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Dispatcher] = []

    def make_dispatcher(**limits: Any) -> Dispatcher:
        view = cast(RunView, EmptyView())
        made.append(Dispatcher([view], None, Limits(**limits), Metrics()))
        return made[-1]

    yield make_dispatcher
    for dispatcher in made:
        dispatcher.close()


class Work:
    """Work that goes on until it is stopped; it checks for that once it is `released`."""

    def __init__(self, released: bool = True) -> None:
        self.begun, self.ended, self.released = (threading.Event() for _ in range(3))
        if released:
            self.released.set()

    def __call__(self, check: Check) -> None:
        self.begun.set()
        self.released.wait()
        pause = threading.Event()
        try:
            while True:
                check()
                pause.wait(0.005)
        except Stopped:
            self.ended.set()
            raise


def lanes(dispatcher: Dispatcher, work: Callable[[Check], Any]) -> list[Callable[[], Any]]:
    return [
        lambda: dispatcher.call_slow(work),
        lambda: dispatcher.run_slow(None, lambda _, check: work(check)),
        lambda: dispatcher.run_addition(work),
    ]


@pytest.mark.parametrize("lane", [0, 1, 2])
def test_work_ends_at_the_deadline_and_waiting_work_is_not_begun(lane: int, make: Make) -> None:
    dispatcher = make(seconds=0.2, addition_seconds=0.2)
    # The first occupies the lane until both requests were answered.
    first, second = Work(released=False), Work()

    async def ask() -> list[Any]:
        calls = [lanes(dispatcher, work)[lane]() for work in (first, second)]
        return await asyncio.gather(*calls, return_exceptions=True)

    for error in asyncio.run(ask()):
        assert isinstance(error, TimeoutError | Stopped | Refusal)
    first.released.set()
    assert first.ended.wait(20)
    # The lane is free again, and has passed the second by.
    assert asyncio.run(lanes(dispatcher, lambda check: "next")[lane]()) == "next"
    assert not second.begun.is_set()


@pytest.mark.parametrize("lane", [0, 1, 2])
def test_work_ends_when_its_request_is_cancelled(lane: int, make: Make) -> None:
    dispatcher = make(seconds=1e6, addition_seconds=1e6)
    first, second = Work(), Work()

    async def ask() -> None:
        tasks = [asyncio.ensure_future(lanes(dispatcher, work)[lane]()) for work in (first, second)]
        assert await asyncio.to_thread(first.begun.wait, 20)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(ask())
    assert first.ended.wait(20)
    assert asyncio.run(lanes(dispatcher, lambda check: "next")[lane]()) == "next"
    assert not second.begun.is_set()


def test_a_request_has_one_deadline_also_when_it_is_tried_again(make: Make) -> None:
    dispatcher = make(seconds=1e6)
    view = dispatcher.runs["empty"].current
    view.stamp = "older"  # type: ignore[assignment]
    view.reloaded = EmptyView  # type: ignore[method-assign, assignment]
    deadlines: list[Any] = []

    def call(_: Any, check: Any) -> None:
        deadlines.append(check.__self__)
        if len(deadlines) == 1:
            raise UnknownName("?")

    asyncio.run(dispatcher.run_slow(None, call))
    first, second = deadlines
    assert first is second


def test_fast_calls_are_bounded_in_number_and_time(make: Make) -> None:
    dispatcher = make(seconds=0.2, queue=2)
    resume = threading.Event()

    async def ask() -> list[Any]:
        calls = [dispatcher.run_now(None, lambda _: resume.wait(20)) for _ in range(3)]
        return await asyncio.gather(*calls, return_exceptions=True)

    loop = asyncio.new_event_loop()
    errors = loop.run_until_complete(ask())
    assert [type(error) for error in errors] == [TimeoutError, TimeoutError, QueueFull]
    resume.set()
    assert loop.run_until_complete(dispatcher.run_now(None, lambda _: "next")) == "next"
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_a_batch_stops_between_two_questions(run_view: RunView) -> None:
    begun, resume = threading.Event(), threading.Event()
    asked: list[str] = []

    class SlowView(RunView):
        def __init__(self) -> None:
            self.__dict__.update(vars(run_view))

        def missing(self, request: Any, check: Any) -> Any:
            asked.append(request.entity)
            begun.set()
            assert resume.wait(20)
            return super().missing(request, check)

    app = create_app([SlowView()], limits=Limits(seconds=0.3))
    with TestClient(app, raise_server_exceptions=False) as client:
        questions = [{"ask": "missing", "entity": name} for name in ("Chad", "Niger", "Mali")]
        assert_error(client.post("/v1/batch", json={"questions": questions}), 504, "too_slow")
        resume.set()
        # The lane answers the next request only after it has left the batch.
        assert client.post("/v1/explain", json={}).status_code == 422
        facts = [{"head": "Chad", "relation": "borders", "tail": "Mali"}]
        assert client.post("/v1/score", json={"facts": facts}).status_code == 200
    assert asked == ["Chad"]


def test_questions_are_scored_while_one_of_them_is_wanted(run_view: RunView) -> None:
    from mocme.core.deadline import Deadline
    from mocme.prediction.schema import Question
    from mocme.serving.dispatcher import _score_batch, _Scoring

    question = Question("Chad", "borders", None)
    past, future = Deadline(-1), Deadline(1e9)
    wanted = [_Scoring(run_view, question, deadline) for deadline in (past, future)]
    assert len(_score_batch(wanted)) == 2
    with pytest.raises(Stopped):
        _score_batch(wanted[:1])


def test_requests_whose_client_left_take_no_room_in_a_queue() -> None:
    started, resume = threading.Event(), threading.Event()

    def answer(requests: Any) -> Any:
        started.set()
        assert resume.wait(20)
        return requests

    queue: Batching[int, int] = Batching(answer, 1, 2)
    first = queue.submit(0)
    assert started.wait(20)
    left = [queue.submit(1), queue.submit(2)]
    with pytest.raises(QueueFull):
        queue.submit(3)
    assert all(future.cancel() for future in left)
    more = [queue.submit(4), queue.submit(5)]
    with pytest.raises(QueueFull):
        queue.submit(6)
    resume.set()
    assert [future.result(20) for future in (first, *more)] == [0, 4, 5]
    queue.close()
