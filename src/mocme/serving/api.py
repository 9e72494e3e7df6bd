"""The HTTP application, put together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from mocme.core.device import environment
from mocme.data.reviews import Reviews
from mocme.serving.dispatcher import Dispatcher
from mocme.serving.endpoints import additions as adding
from mocme.serving.endpoints import browse as looking
from mocme.serving.endpoints import health as process
from mocme.serving.endpoints import predict as questions
from mocme.serving.endpoints import reviews as reviewing
from mocme.serving.limits import Limits
from mocme.serving.metrics import Metrics
from mocme.serving.middleware import RequestGuard
from mocme.serving.responses import ERRORS, Json, add_handlers
from mocme.serving.run_view import RunView
from mocme.serving.uploads import ImageUploads


def application(
    served: Sequence[RunView],
    reviews: Reviews | None = None,
    limits: Limits = Limits(),
    token: str | None = None,
    hosts: frozenset[str] | None = None,
    pictures: ImageUploads | None = None,
) -> FastAPI:
    """The application for some runs; its threads begin at once and end with its lifespan.

    Args:
        pictures: where they are kept that are sent for new entities; None adds none.
    """
    hub = Dispatcher(served, reviews, limits, Metrics(), pictures)

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
        RequestGuard,
        limits=limits,
        metrics=hub.metrics,
        token=token,
        hosts=hosts,
        larger={adding.PICTURES: limits.picture},
    )
    return app
