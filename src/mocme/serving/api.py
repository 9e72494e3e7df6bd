"""The HTTP application, put together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from mocme.machine import environment
from mocme.reviews import Reviews
from mocme.serving.endpoints import looking, process, questions, reviewing
from mocme.serving.guard import Guard
from mocme.serving.hub import Hub
from mocme.serving.limits import Limits
from mocme.serving.metrics import Metrics
from mocme.serving.replies import ERRORS, Json, add_handlers
from mocme.serving.served import Served


def application(
    served: Sequence[Served],
    reviews: Reviews | None = None,
    limits: Limits = Limits(),
    token: str | None = None,
    hosts: frozenset[str] | None = None,
) -> FastAPI:
    """The application for some runs; its two threads begin at once and end with its lifespan."""
    hub = Hub(served, reviews, limits, Metrics())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        yield
        hub.close()

    app = FastAPI(
        title="mocme",
        version=str(environment()["mocme"]),
        description="Ask trained runs for missing facts, and review what they suggest.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        default_response_class=Json,
        responses=ERRORS,
    )
    add_handlers(app, hub)
    for part in (questions, looking, reviewing, process):
        part.add(app, hub)
    app.add_middleware(Guard, limits=limits, metrics=hub.metrics, token=token, hosts=hosts)
    return app
