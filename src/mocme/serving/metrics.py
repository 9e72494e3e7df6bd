"""Counts and times for Prometheus, of one process or of several together."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)


class Metrics:
    """What a server counts.

    Where the environment names a folder PROMETHEUS_MULTIPROC_DIR, all processes that share it are
    told of together.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mocme_requests",
            "Requests, by method, route and status.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "mocme_request_seconds",
            "Time of a request in seconds, by route.",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._refused = Counter(
            "mocme_busy", "Requests refused because too many wait.", registry=self._registry
        )
        self._renewed = Counter(
            "mocme_renewals",
            "Changed additions of a run, taken up (done) or unreadable (failed).",
            ("result",),
            registry=self._registry,
        )
        self._waiting = Gauge(
            "mocme_waiting",
            "Questions that wait for an answer.",
            ("lane",),
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def seen(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def busy(self) -> None:
        """A request was refused."""
        self._refused.inc()

    def renewed(self, result: Literal["done", "failed"]) -> None:
        """What is added to a run was read again."""
        self._renewed.labels(result).inc()

    def watch(self, lane: str, waiting: Callable[[], int]) -> None:
        """Tell how many wait in a lane, whenever asked; in several processes not live."""
        gauge = self._waiting.labels(lane)
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            gauge.set_function(waiting)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)
        return generate_latest(together)
