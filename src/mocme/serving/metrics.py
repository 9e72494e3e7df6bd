"""Counters and times for Prometheus, of one process or of several combined."""

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
    """The metrics of a server.

    If the environment variable PROMETHEUS_MULTIPROC_DIR names a folder, the metrics of all
    processes that share it are combined.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        # The metrics of one method, route and status: finding them by their labels is slow.
        self._counters: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
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
            "mocme_busy", "Requests refused because a queue is full.", registry=self._registry
        )
        self._reloads = Counter(
            "mocme_renewals",
            "Reloads of a run's changed additions: done or failed.",
            ("result",),
            registry=self._registry,
        )
        self._waiting = Gauge(
            "mocme_waiting",
            "Requests waiting in a queue.",
            ("lane",),
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Record an answered request."""
        kind = (method, route, status)
        if kind not in self._counters:
            requests = self._requests.labels(method, route, str(status))
            self._counters[kind] = requests, self._seconds.labels(route)
        requests, durations = self._counters[kind]
        requests.inc()
        durations.observe(seconds)

    def count_refused(self) -> None:
        """Record a request refused because a queue is full."""
        self._refused.inc()

    def count_reload(self, result: Literal["done", "failed"]) -> None:
        """Record an attempt to reload a run's additions."""
        self._reloads.labels(result).inc()

    def watch_queue(self, name: str, length: Callable[[], int]) -> None:
        """Report the length of a queue whenever metrics are read; not with several processes."""
        gauge = self._waiting.labels(name)
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            gauge.set_function(length)

    def render(self) -> bytes:
        """Render the metrics in the Prometheus text format."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        combined = CollectorRegistry()
        MultiProcessCollector(combined)
        return generate_latest(combined)
