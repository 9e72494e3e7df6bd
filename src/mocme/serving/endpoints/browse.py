"""Looking about: runs, entities, facts, files, the report."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException

from mocme.serving.dispatcher import Dispatcher
from mocme.serving.entity_content import LARGEST, kind_of
from mocme.serving.responses import Json
from mocme.serving.schema import answers

Text = Annotated[str, Query(min_length=1, max_length=10_000)]
RunName = Annotated[str | None, Query(max_length=1_000, description="Which of the served runs.")]


def add(app: FastAPI, hub: Dispatcher) -> None:
    """Runs, entities and their facts."""

    @app.get("/v1/runs", response_model=answers.Runs, tags=["look"])
    async def runs() -> Json:
        """The served runs."""
        abouts = [(await hub.newest(live)).about for live in hub.runs.values()]
        return Json({"runs": abouts, "version": app.version, "adds": hub.adds})

    @app.get("/v1/search", response_model=answers.NameMatches, tags=["look"])
    async def search(
        q: Annotated[str, Query(max_length=1_000)] = "",
        k: Annotated[int, Query(ge=1, le=100)] = 20,
        run: RunName = None,
    ) -> Json:
        """Entities by the beginning of their name, of a word in it, or by likeness."""
        return Json(await hub.look(run, lambda served: served.find(q, k)))

    @app.get("/v1/entity", response_model=answers.EntityInfo, tags=["look"])
    async def entity(name: Text, run: RunName = None) -> Json:
        """An entity, and what is known of it."""
        return Json(await hub.look(run, lambda served: served.entity(name)))

    @app.get("/v1/facts", response_model=answers.FactPage, tags=["look"])
    async def facts(
        name: Text,
        relation: Annotated[str | None, Query(max_length=10_000)] = None,
        offset: Annotated[int, Query(ge=0, le=1 << 40)] = 0,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
        run: RunName = None,
    ) -> Json:
        """Facts of an entity, of all splits."""
        return Json(await hub.look(run, lambda served: served.facts(name, relation, offset, limit)))

    @app.get("/v1/neighbourhood", response_model=answers.Neighbourhood, tags=["look"])
    async def neighbourhood(
        name: Text, limit: Annotated[int, Query(ge=1, le=200)] = 40, run: RunName = None
    ) -> Json:
        """An entity, its neighbours, and the facts among them."""
        return Json(await hub.look(run, lambda served: served.neighbourhood(name, limit)))

    @app.get("/v1/file", tags=["look"], response_class=FileResponse)
    async def file(
        name: Text,
        modality: Text,
        index: Annotated[int, Query(ge=0, le=1 << 30)] = 0,
        run: RunName = None,
    ) -> Response:
        """A picture, sound or film of an entity."""
        path = await hub.look(run, lambda served: served.file(name, modality, index))
        if path.stat().st_size > LARGEST:
            raise HTTPException(404, f"the file has more than {LARGEST:,} bytes, and is not sent")
        kind, media = kind_of(path)
        # A picture may be a document that runs scripts (SVG): nothing may, in a file of the graph.
        sandbox = {
            "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'"
        }
        how = "inline" if kind != "other" else "attachment"
        return FileResponse(path, media_type=media, headers=sandbox, content_disposition_type=how)

    @app.get("/v1/report", response_model=answers.RunReport, tags=["look"])
    async def report(run: RunName = None) -> Json:
        """Evaluations, the training's passes and the calibration."""
        return Json(await hub.look(run, lambda served: served.report()))
