"""Assemble the HTTP application."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from mocme.core.device import environment
from mocme.data.reviews import Reviews
from mocme.serving.dispatcher import Dispatcher
from mocme.serving.endpoints.additions import PICTURES, add_addition_routes
from mocme.serving.endpoints.browse import add_browse_routes
from mocme.serving.endpoints.health import add_health_routes
from mocme.serving.endpoints.predict import add_prediction_routes
from mocme.serving.endpoints.reviews import add_review_routes
from mocme.serving.json_body import JsonRoute
from mocme.serving.limits import Limits
from mocme.serving.metrics import Metrics
from mocme.serving.middleware import RequestGuard
from mocme.serving.responses import ERRORS, Json, add_error_handlers
from mocme.serving.run_view import RunView
from mocme.serving.uploads import ImageUploads


def create_app(
    run_views: Sequence[RunView],
    reviews: Reviews | None = None,
    limits: Limits = Limits(),
    token: str | None = None,
    hosts: frozenset[str] | None = None,
    uploads: ImageUploads | None = None,
) -> FastAPI:
    """Create the application for some runs.

    Its threads start immediately and stop with the application's lifespan.

    Args:
        uploads: stores pictures sent for new entities; None disables additions.
    """
    dispatcher = Dispatcher(run_views, reviews, limits, Metrics(), uploads)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        yield
        dispatcher.close()

    app = FastAPI(
        title="mocme",
        version=str(environment()["mocme"]),
        description="Query trained runs for missing facts, and review the suggestions.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        default_response_class=Json,
        responses=ERRORS,
        # Spans of the framework may hold what was asked; metrics are those of `Metrics`.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.router.route_class = JsonRoute
    add_error_handlers(app, dispatcher)
    add_prediction_routes(app, dispatcher)
    add_browse_routes(app, dispatcher)
    add_review_routes(app, dispatcher)
    add_addition_routes(app, dispatcher)
    add_health_routes(app, dispatcher)
    app.add_middleware(
        RequestGuard,
        limits=limits,
        metrics=dispatcher.metrics,
        token=token,
        hosts=hosts,
        body_limits={PICTURES: limits.picture_bytes},
    )
    return app
