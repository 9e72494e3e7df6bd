"""A served run whose additions may change while it is asked."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from mocme.inductive.new_entity import NewEntity
from mocme.inductive.store import Addition
from mocme.serving.metrics import Metrics
from mocme.serving.run_view import RunView
from mocme.storage import Stamp

LOG = logging.getLogger("mocme.serving")


class HotReload:
    """What is served of a run now.

    A question is answered by the `now` that it met: another takes its place between questions, and
    only when it is ready.

    Attributes:
        now: the run with the additions that were read last.
    """

    def __init__(self, served: RunView, metrics: Metrics) -> None:
        self.now, self._metrics = served, metrics
        self._failed: Stamp | None = None
        self._lock = threading.Lock()

    @property
    def stale(self) -> bool:
        """Whether the run's additions have changed since; two looks at an inode."""
        return self.now.present_stamp() not in (self.now.stamp, self._failed)

    def renew(self) -> RunView:
        """Take up what the run has now, where that changed; what cannot be read changes nothing.

        The log says why, and it is tried again when the file changes again.
        """
        with self._lock:
            if not self.stale:
                return self.now
            seen, started = self.now.present_stamp(), time.perf_counter()
            try:
                self.now = self.now.renewed()
            except Exception as error:
                self._failed = seen
                self._metrics.renewed("failed")
                LOG.error(
                    "%s: its additions changed and cannot be read; it is served as before: %s",
                    self.now.name,
                    error,
                    exc_info=not isinstance(error, ValueError | OSError),
                )
                return self.now
            self._failed = None
            self._metrics.renewed("done")
            number, seconds = len(self.now.additions), time.perf_counter() - started
            LOG.info("%s: serves %d additions now (%.2f s)", self.now.name, number, seconds)
            return self.now

    def add(self, entity: NewEntity) -> Addition:
        """Add an entity, keep it in the run's folder, and serve it.

        Raises:
            ValueError: it does not fit the run.
            RunLocked: another process is writing the run.
            OSError: it cannot be kept.
        """
        now = self.now
        (made,) = now.run.add_all([entity], loaded=now.loaded)
        self.renew()
        return made

    def remove(self, names: Sequence[str]) -> None:
        """Take additions back; see `Run.remove`."""
        now = self.now
        now.run.remove(*names, loaded=now.loaded)
        self.renew()
