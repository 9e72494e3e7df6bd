"""A thread that answers: what waits is answered together, and only so much may wait."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from mocme.core.device import give_way

Q = TypeVar("Q")
A = TypeVar("A")


class QueueFull(RuntimeError):
    """More waits than may; try again in `after` seconds."""

    def __init__(self, after: int) -> None:
        super().__init__(f"the server is busy; try again in {after} s")
        self.after = after


class Batching(Generic[Q, A]):
    """Questions from many threads, answered by one, several at a time.

    While it answers, questions gather, and what has gathered is answered next: alone when little
    is asked, in large blocks when much is. A question that nobody waits for any more is dropped.

    Args:
        answer: answers in the order of the questions; an exception as an answer is raised where the
            question was asked.
        together: how many are answered at a time.
        waiting: how many may wait.
    """

    def __init__(
        self, answer: Callable[[Sequence[Q]], Sequence[A | Exception]], together: int, waiting: int
    ) -> None:
        self._answer, self._together, self._waiting = answer, together, waiting
        self._queue: deque[tuple[Q, Future[A]]] = deque()
        self._wake = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="answering", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def alive(self) -> bool:
        """Whether its thread answers."""
        return self._thread.is_alive() and not self._stopped

    def ask(self, question: Q) -> Future[A]:
        """The answer to come.

        Raises:
            Busy: too many wait already, or it has been closed.
        """
        future: Future[A] = Future()
        with self._wake:
            if self._stopped or len(self._queue) >= self._waiting:
                raise QueueFull(1)
            self._queue.append((question, future))
            self._wake.notify()
        return future

    def close(self) -> None:
        """Answer what waits, and end."""
        with self._wake:
            self._stopped = True
            self._wake.notify()
        self._thread.join(timeout=5)

    def _work(self) -> None:
        give_way()
        while block := self._next():
            questions = [question for question, _ in block]
            try:
                answers: Sequence[Any] = self._answer(questions)
            except Exception as error:
                answers = [error] * len(block)
            for (_, future), answer in zip(block, answers, strict=True):
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def _next(self) -> list[tuple[Q, Future[A]]]:
        """The next questions that somebody waits for; none at the end."""
        block: list[tuple[Q, Future[A]]] = []
        with self._wake:
            while not block:
                while not self._queue and not self._stopped:
                    self._wake.wait()
                if not self._queue:
                    return []
                while self._queue and len(block) < self._together:
                    question, future = self._queue.popleft()
                    if future.set_running_or_notify_cancel():
                        block.append((question, future))
        return block
