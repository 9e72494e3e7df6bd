"""Interrupts a training at a chosen step."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import Any

from mocme.experts.embedding.trainer import Progress, Trainer
from mocme.runs.run import Run


class Stop:
    """Presses Ctrl-C after some steps."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.steps = after, 0

    def start(self, trainer: Trainer, run: Run) -> None:
        self.trainer = trainer

    def step(self, progress: Progress) -> None:
        self.steps += 1
        if self.steps == self.after:
            signal.raise_signal(signal.SIGINT)

    def record(self, record: Mapping[str, Any]) -> None:
        pass

    def stage(self, name: str) -> Callable[[int, int], None]:
        return lambda done, total: None
