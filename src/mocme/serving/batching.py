"""A worker thread with a bounded queue that answers waiting requests in batches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from mocme.core.device import lower_thread_priority

Q = TypeVar("Q")
A = TypeVar("A")


class QueueFull(RuntimeError):
    """The queue is full or closed; retry after `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the server is busy; try again in {retry_after} s")
        self.retry_after = retry_after


class Batching(Generic[Q, A]):
    """Answer requests from many threads in one worker thread, several at a time.

    Requests accumulate while the worker is busy and form its next batch: a single request under
    light load, large batches under heavy load. Requests that are cancelled while they wait are
    never begun.

    Args:
        answer: returns one answer per request, in order. An exception among the answers is raised
            for the request at its position.
        batch_size: maximum number of requests in one batch.
        capacity: maximum number of waiting requests.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A | Exception]],
        batch_size: int,
        capacity: int,
    ) -> None:
        self._answer, self._batch_size, self._capacity = answer, batch_size, capacity
        self._queue: deque[tuple[Q, Future[A]]] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="batching", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def alive(self) -> bool:
        """Whether the worker thread is running and accepts requests."""
        return self._thread.is_alive() and not self._stopped

    def submit(self, request: Q) -> Future[A]:
        """Queue a request.

        Raises:
            QueueFull: the queue is at capacity, or closed.
        """
        future: Future[A] = Future()
        with self._changed:
            if len(self._queue) >= self._capacity:
                # Those whose client has left take no room.
                self._queue = deque(item for item in self._queue if not item[1].cancelled())
            if self._stopped or len(self._queue) >= self._capacity:
                raise QueueFull(1)
            self._queue.append((request, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Answer the waiting requests, then stop the worker."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(timeout=5)

    def _work(self) -> None:
        lower_thread_priority()
        while batch := self._next_batch():
            requests = [request for request, _ in batch]
            try:
                answers: Sequence[Any] = self._answer(requests)
            except Exception as error:
                answers = [error] * len(batch)
            for (_, future), answer in zip(batch, answers, strict=True):
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def _next_batch(self) -> list[tuple[Q, Future[A]]]:
        """Wait for the next requests that are not cancelled; empty once closed and drained."""
        batch: list[tuple[Q, Future[A]]] = []
        with self._changed:
            while not batch:
                while not self._queue and not self._stopped:
                    self._changed.wait()
                if not self._queue:
                    return []
                while self._queue and len(batch) < self._batch_size:
                    request, future = self._queue.popleft()
                    if future.set_running_or_notify_cancel():
                        batch.append((request, future))
        return batch
