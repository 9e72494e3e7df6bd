"""The process itself: health, readiness, metrics, and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

from mocme.serving.dispatcher import Dispatcher
from mocme.serving.responses import Json, failed
from mocme.serving.schema import answers

PAGES = Path(__file__).parents[1] / "pages"


def add(app: FastAPI, hub: Dispatcher) -> None:
    """Health, metrics and the page."""

    @app.get("/healthz", response_model=answers.Health, tags=["process"])
    async def health() -> Json:
        """Whether the process answers."""
        return Json({"status": "ok"})

    @app.get("/readyz", response_model=answers.Health, tags=["process"])
    async def ready() -> Json:
        """Whether it takes questions."""
        if hub.stopping or not hub.fast.alive or not hub.slow.alive:
            return failed(503, "not_ready", "the server is stopping", "ask another one")
        return Json({"status": "ready"})

    @app.get("/metrics", tags=["process"], response_class=Response)
    async def metrics() -> Response:
        """Counts and times for Prometheus."""
        return Response(hub.metrics.text(), media_type=hub.metrics.content_type)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(PAGES / "index.html", headers={"cache-control": "no-cache"})

    app.mount("/static", _Pages(directory=PAGES), name="static")


class _Pages(StaticFiles):
    """Files of the page: a browser asks each time whether they are still the same."""

    def file_response(self, *args: Any, **settings: Any) -> Response:
        """A file, or that it has not changed."""
        response = super().file_response(*args, **settings)
        response.headers["cache-control"] = "no-cache"
        return response
