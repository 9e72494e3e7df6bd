"""Connects the fit of an expert to its run: checkpoints, log, progress, interruption."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, final, runtime_checkable

from mocme.core.interrupts import Interrupted
from mocme.runs.run import LOG, Run
from mocme.storage.errors import refuse_invalid


@runtime_checkable
class TrainingObserver(Protocol):
    """Watches a training."""

    def start(self, trainer: Any, run: Run) -> None:
        """A training of an expert begins or resumes."""

    def step(self, progress: Any) -> None:
        """A step is done."""

    def record(self, record: Mapping[str, Any]) -> None:
        """An epoch, an expert (key ``expert``) or the mixture (key ``mixture``) is done."""

    def stage(self, name: str) -> Callable[[int, int], None]:
        """A stage begins that receives (steps done, steps in all)."""


@final
class RunMonitor:
    """Reports the fit of one expert.

    Args:
        run: whose folder is written; the caller holds its lock.
        name: of the expert.
        stopped: is set when a stop was requested.
        observer: receives progress as well.
        offset: steps of the experts before, so that checkpoints of a run are numbered upwards.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        stopped: threading.Event,
        observer: TrainingObserver | None,
        offset: int,
    ) -> None:
        self.run, self.name, self.stopped, self.observer = run, name, stopped, observer
        self.offset, self.steps = offset, 0
        self._saved = time.monotonic()

    def resume(self, fit: Any) -> None:
        """Restore this expert's newest checkpoint, or save a first one."""
        checkpoint = self.run.folder.checkpoints.load()
        restored = False
        if checkpoint is not None:
            path = self.run.path / "checkpoints" / checkpoint.name
            # Before the logs are rewound: a state that is refused changes nothing.
            with refuse_invalid(path, f"delete the folder {path}; the one before it is used then"):
                _check_state(checkpoint.state)
                if checkpoint.state["expert"] == self.name:
                    fit.restore(checkpoint.state["fit"])
                    restored = True
            self.run.folder.checkpoints.rewind(checkpoint)
        if not restored:
            # Interrupted before its first epoch ends, an expert starts again here, log included.
            self._save(fit)
        self.steps = fit.progress.step

    def start(self, fit: Any) -> None:
        """Announce the training."""
        if self.observer is not None:
            self.observer.start(fit, self.run)

    def step(self, fit: Any) -> None:
        """Report a step.

        Raises:
            Interrupted: a stop was requested; the state is saved.
        """
        if self.observer is not None:
            self.observer.step(fit.progress)
        if self.stopped.is_set():
            self._save(fit)
            raise Interrupted(
                f"stopped at step {fit.progress.step} of {self.name}; continue with: mocme resume "
                f"{self.run.path}"
            )

    def record(self, record: Mapping[str, Any], fit: Any) -> None:
        """Log an epoch, and save a checkpoint if one is due or training is done."""
        record = {"expert": self.name, **record}
        self.run.folder.append(LOG, record)
        if self.observer is not None:
            self.observer.record(record)
        due = time.monotonic() - self._saved >= fit.settings.checkpoint_seconds
        if fit.progress.done or due:
            self._save(fit)
            self._saved = time.monotonic()
        self.steps = fit.progress.step

    def stage(self, name: str) -> Callable[[int, int], None]:
        """A callback for a fit without checkpoints."""
        # With the name under which the run holds the fit: it says what is held out.
        advance = None if self.observer is None else self.observer.stage(self.name)

        def progress(done: int, total: int) -> None:
            if advance is not None:
                advance(done, total)
            if self.stopped.is_set():
                raise Interrupted(
                    f"stopped while fitting {name}; continue with: mocme resume {self.run.path}"
                )

        return progress

    def finished(self, record: Mapping[str, Any]) -> None:
        """Report that the expert is fitted."""
        if self.observer is not None:
            self.observer.record({"expert": self.name, "fitted": record})

    def _save(self, fit: Any) -> None:
        state = {"expert": self.name, "fit": fit.state()}
        step = self.offset + fit.progress.step
        self.run.folder.checkpoints.save(step, state, [LOG])


def _check_state(state: Any) -> None:
    """Check what `RunMonitor` saves in a checkpoint.

    Raises:
        ValueError: a key is missing, unknown or wrong.
    """
    if not isinstance(state, Mapping) or set(state) != {"expert", "fit"}:
        raise ValueError("does not hold the state of an expert")
    if not isinstance(state["expert"], str) or not isinstance(state["fit"], Mapping):
        raise ValueError("does not hold the state of an expert")
