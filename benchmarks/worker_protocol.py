"""What both workers of `compare_pykeen.py` share: the clock, and the loop that answers commands.

It uses the standard library only, because the environments of both libraries import it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from typing import Any

Record = dict[str, Any]


class MeasurementDone(Exception):
    """As many items have been timed as were asked for."""


class Clock:
    """Times batches, from the end of the last warm-up batch on."""

    def __init__(self, warm: int, wanted: int) -> None:
        self.warm, self.wanted = max(1, warm), wanted
        self.seen = self.counted = self.items = self.largest = 0
        self.started = self.seconds = 0.0

    def tick(self, size: int) -> None:
        """Record the end of a batch of this size.

        Raises:
            MeasurementDone: as many items have been timed as were wanted.
        """
        now = time.perf_counter()
        self.seen += 1
        self.largest = max(self.largest, size)
        if self.seen <= self.warm:
            self.started = now
            return
        self.counted += 1
        self.items += size
        self.seconds = now - self.started
        if self.items >= self.wanted:
            raise MeasurementDone

    def result(self, per_pass: int) -> Record:
        """Measured seconds, extrapolated to an epoch of `per_pass` items."""
        return {
            "seconds": self.seconds,
            "seconds_per_pass": self.seconds / self.items * per_pass,
            "items": self.items,
            "items_per_pass": per_pass,
            "batches": self.counted,
        }


def serve(side: object) -> None:
    """Answer commands from standard input until it ends; a command names a method and arguments."""
    # What a library prints goes to the log, so that standard output has answers only.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    idle = 0.0
    before = time.process_time()
    for line in sys.stdin:
        idle += time.process_time() - before
        command = json.loads(line)
        try:
            answer = getattr(side, command.pop("do"))(**command)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        # Processor time that this process used while it was idle.
        answer["idle_cpu_seconds"] = idle
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        before = time.process_time()
