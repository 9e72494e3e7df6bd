"""Routes for health, readiness, metrics, and the web page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

from mocme.serving.dispatcher import Dispatcher
from mocme.serving.responses import Json, error_response
from mocme.serving.schema import answers

PAGES = Path(__file__).parents[1] / "pages"


def add_health_routes(app: FastAPI, dispatcher: Dispatcher) -> None:
    """Add the routes for health, metrics and the page."""

    @app.get("/healthz", response_model=answers.Health, tags=["process"])
    async def health() -> Json:
        """Report that the process is alive."""
        return Json({"status": "ok"})

    @app.get("/readyz", response_model=answers.Health, tags=["process"])
    async def ready() -> Json:
        """Report whether the server accepts questions."""
        queues_alive = dispatcher.score_queue.alive and dispatcher.slow_queue.alive
        if dispatcher.stopping or not queues_alive:
            return error_response(503, "not_ready", "the server is stopping", "use another server")
        return Json({"status": "ready"})

    @app.get("/metrics", tags=["process"], response_class=Response)
    async def metrics() -> Response:
        """Return counters and times in the Prometheus text format."""
        return Response(dispatcher.metrics.render(), media_type=dispatcher.metrics.content_type)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(PAGES / "index.html", headers={"cache-control": "no-cache"})

    app.mount("/static", _PageFiles(directory=PAGES), name="static")


class _PageFiles(StaticFiles):
    """Files of the page, which a browser revalidates on every load."""

    def file_response(self, *args: Any, **settings: Any) -> Response:
        """Return a file, or 304 if it has not changed."""
        response = super().file_response(*args, **settings)
        response.headers["cache-control"] = "no-cache"
        return response
