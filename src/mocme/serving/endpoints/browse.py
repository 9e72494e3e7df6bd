"""Routes that show runs, entities, facts, files and reports."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query
from fastapi.responses import FileResponse, Response

from mocme.serving.dispatcher import Dispatcher
from mocme.serving.media_files import MediaResponse, NotShown
from mocme.serving.refusals import Refusal
from mocme.serving.responses import Json
from mocme.serving.schema import answers

Text = Annotated[str, Query(min_length=1, max_length=10_000)]
RunName = Annotated[
    str | None, Query(max_length=1_000, description="Name of a served run; the first by default.")
]


def add_browse_routes(app: FastAPI, dispatcher: Dispatcher) -> None:
    """Add the routes for runs, entities and their facts."""

    @app.get("/v1/runs", response_model=answers.RunList, tags=["look"])
    async def list_runs() -> Json:
        """List the served runs."""
        views = [await dispatcher.latest(hot_run) for hot_run in dispatcher.runs.values()]
        hide = dispatcher.paths.hide_all
        runs = [{**view.info, "notes": list(map(hide, view.info["notes"]))} for view in views]
        return Json({"runs": runs, "version": app.version, "adds": dispatcher.accepts_additions})

    @app.get("/v1/search", response_model=answers.NameMatches, tags=["look"])
    async def search(
        q: Annotated[str, Query(max_length=1_000)] = "",
        k: Annotated[int, Query(ge=1, le=100)] = 20,
        run: RunName = None,
    ) -> Json:
        """Search entities by prefix of the name, prefix of a word in it, or similarity."""
        return Json(await dispatcher.run_now(run, lambda run_view: run_view.find_names(q, k)))

    @app.get("/v1/entity", response_model=answers.EntityInfo, tags=["look"])
    async def entity(name: Text, run: RunName = None) -> Json:
        """Describe an entity: its modalities, raw content and types."""
        return Json(await dispatcher.run_now(run, lambda run_view: run_view.entity(name)))

    @app.get("/v1/facts", response_model=answers.FactPage, tags=["look"])
    async def facts(
        name: Text,
        relation: Annotated[str | None, Query(max_length=10_000)] = None,
        offset: Annotated[int, Query(ge=0, le=1 << 40)] = 0,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
        run: RunName = None,
    ) -> Json:
        """List the facts of an entity, from all splits."""
        return Json(
            await dispatcher.run_now(
                run, lambda run_view: run_view.facts(name, relation, offset, limit)
            )
        )

    @app.get("/v1/neighbourhood", response_model=answers.Neighbourhood, tags=["look"])
    async def neighbourhood(
        name: Text, limit: Annotated[int, Query(ge=1, le=200)] = 40, run: RunName = None
    ) -> Json:
        """Return an entity, its neighbours, and the facts among them."""
        return Json(
            await dispatcher.run_now(run, lambda run_view: run_view.neighbourhood(name, limit))
        )

    @app.get("/v1/file", tags=["look"], response_class=FileResponse)
    async def file(
        name: Text,
        modality: Text,
        index: Annotated[int, Query(ge=0, le=1 << 30)] = 0,
        run: RunName = None,
    ) -> Response:
        """Return a picture, sound or video of an entity."""
        try:
            media = await dispatcher.run_now(
                run, lambda run_view: run_view.file(name, modality, index)
            )
        except NotShown as reason:
            remedy = "start the server with --files-from DIR to show the media files in DIR"
            message = f"file {index} of {modality!r} is not shown: {reason}"
            raise Refusal(403, "not_shown", message, remedy) from reason
        return MediaResponse(media)

    @app.get("/v1/report", response_model=answers.RunReport, tags=["look"])
    async def report(run: RunName = None) -> Json:
        """Return the evaluations, the training log and the calibration of a run."""
        return Json(await dispatcher.run_now(run, lambda run_view: run_view.report()))
