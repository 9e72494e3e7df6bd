"""The log of a server: its format, and what is sent to it."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from mocme.core.notices import Notice
from mocme.core.text import visible

Logs = Literal["text", "json", "none"]
LOG = logging.getLogger("mocme.serving")
_FIELDS = ("request", "method", "path", "status", "ms")


class _TextFormatter(logging.Formatter):
    """Format each record as one line; a message cannot add lines or reach the terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        # Lines of a traceback, and of an error's message, are indented so that none looks like one
        # of the log.
        return visible(super().formatException(ei), keep="\n").replace("\n", "\n  ")


class _JsonFormatter(logging.Formatter):
    """Format each record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": time, "level": record.levelname.lower()}
        line["message"] = record.getMessage()
        line |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


def configure_logging(logs: Logs) -> None:
    """Send the server's log to standard error, as text or JSON lines, or discard it."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if logs == "none":
        handler = logging.NullHandler()
    handler.setFormatter(_JsonFormatter() if logs == "json" else _TextFormatter())
    for name in ("mocme.serving", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        # The middleware logs requests, so uvicorn logs only warnings and errors.
        logger.setLevel(logging.INFO if name == "mocme.serving" else logging.WARNING)


@contextmanager
def notices_in_log() -> Iterator[None]:
    """Send notices to the server's log instead of standard error."""
    default = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, Notice):
            LOG.warning("%s", message)
        else:
            default(message, category, *rest, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = default
