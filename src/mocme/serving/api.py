"""The HTTP application, put together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from mocme.machine import environment
from mocme.reviews import Reviews
from mocme.serving.endpoints import adding, looking, process, questions, reviewing
from mocme.serving.guard import Guard
from mocme.serving.hub import Hub
from mocme.serving.limits import Limits
from mocme.serving.metrics import Metrics
from mocme.serving.pictures import Pictures
from mocme.serving.replies import ERRORS, Json, add_handlers
from mocme.serving.served import Served


def application(
    served: Sequence[Served],
    reviews: Reviews | None = None,
    limits: Limits = Limits(),
    token: str | None = None,
    hosts: frozenset[str] | None = None,
    pictures: Pictures | None = None,
) -> FastAPI:
    """The application for some runs; its threads begin at once and end with its lifespan.

    Args:
        pictures: where they are kept that are sent for new entities; None adds none.
    """
    hub = Hub(served, reviews, limits, Metrics(), pictures)

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
    for part in (questions, looking, reviewing, adding, process):
        part.add(app, hub)
    app.add_middleware(
        Guard,
        limits=limits,
        metrics=hub.metrics,
        token=token,
        hosts=hosts,
        larger={adding.PICTURES: limits.picture},
    )
    return app
