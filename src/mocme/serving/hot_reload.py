"""A served run whose additions are reloaded when they change."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from mocme.core.deadline import Check, unlimited
from mocme.inductive.new_entity import NewEntity
from mocme.inductive.store import Addition
from mocme.serving.metrics import Metrics
from mocme.serving.run_view import RunView
from mocme.storage import Stamp

LOG = logging.getLogger("mocme.serving")


class HotReload:
    """A served run and its current view.

    A request keeps the view that was current when it started. A new view is built in the
    background and replaces the old one only once it is ready.

    Attributes:
        current: the view with the additions that were read last.
    """

    def __init__(self, run_view: RunView, metrics: Metrics) -> None:
        self.current, self._metrics = run_view, metrics
        self._failed_stamp: Stamp | None = None
        self._lock = threading.Lock()

    @property
    def stale(self) -> bool:
        """Whether the additions have changed since; costs two stat calls."""
        return self.current.read_stamp() not in (self.current.stamp, self._failed_stamp)

    def reload(self) -> RunView:
        """Rebuild the view if the additions changed, and return the current one.

        If they cannot be read, the old view stays in place, the log says why, and reading is tried
        again at the next change of the file.
        """
        with self._lock:
            if not self.stale:
                return self.current
            stamp, started = self.current.read_stamp(), time.perf_counter()
            try:
                self.current = self.current.reloaded()
            except Exception as error:
                self._failed_stamp = stamp
                self._metrics.count_reload("failed")
                LOG.error(
                    "%s: its additions changed and cannot be read; still serving the previous "
                    "ones: %s",
                    self.current.name,
                    error,
                    exc_info=not isinstance(error, ValueError | OSError),
                )
                return self.current
            self._failed_stamp = None
            self._metrics.count_reload("done")
            count, seconds = len(self.current.additions), time.perf_counter() - started
            LOG.info("%s: serves %d additions now (%.2f s)", self.current.name, count, seconds)
            return self.current

    def add(self, entity: NewEntity, check: Check = unlimited) -> Addition:
        """Add an entity, store it in the run's folder, and serve it.

        Args:
            check: see `Run.add_all`; once the entity is stored, it is served all the same.

        Raises:
            ValueError: the entity does not fit the run.
            RunLocked: another process is writing the run.
            OSError: the run's folder cannot be written.
        """
        now = self.current
        (addition,) = now.run.add_all([entity], loaded=now.loaded, check=check)
        self.reload()
        return addition

    def remove(self, names: Sequence[str], check: Check = unlimited) -> None:
        """Remove additions; see `Run.remove`."""
        now = self.current
        now.run.remove(*names, loaded=now.loaded, check=check)
        self.reload()
