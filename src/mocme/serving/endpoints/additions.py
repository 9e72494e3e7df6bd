"""Routes that add, list and remove entities, and accept pictures for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import Response

from mocme.inductive.content import FILES, takes
from mocme.inductive.new_entity import Content, InvalidEntity, NewEntity
from mocme.inductive.pairs import accepted_modalities
from mocme.inductive.store import Addition
from mocme.serving.batching import QueueFull
from mocme.serving.dispatcher import Dispatcher
from mocme.serving.endpoints.browse import RunName
from mocme.serving.responses import Json
from mocme.serving.run_view import RunView
from mocme.serving.schema import answers, requests
from mocme.serving.uploads import ImageUploads

PICTURES = "/v1/pictures"
# Pictures that one process receives at a time; each is held in memory as a whole.
CONCURRENT_UPLOADS = 4
# Content types that a browser sends to another site only after a preflight request.
TYPES = ("image/png", "image/jpeg", "image/webp", "application/octet-stream")


def add_addition_routes(app: FastAPI, dispatcher: Dispatcher) -> None:
    """Add the routes for additions and uploaded pictures."""

    def require_uploads() -> ImageUploads:
        return dispatcher.uploads

    @app.post("/v1/additions", response_model=answers.AddedEntity, status_code=201, tags=["add"])
    async def add_entity(
        request: requests.AdditionRequest, uploads: ImageUploads = Depends(require_uploads)
    ) -> Json:
        """Add an entity to a run, without retraining; all queries include it from then on."""
        hot_run = dispatcher.hot_run(request.run)
        entity = _new_entity(request, hot_run.current, uploads)
        addition = await dispatcher.run_addition(lambda check: hot_run.add(entity, check))
        body = _addition_body(addition)
        if addition.name not in hot_run.current.additions:
            body["notes"].append("it is stored, but cannot be served yet; see the server's log")
        return Json(body, 201)

    @app.get("/v1/additions", response_model=answers.AdditionList, tags=["add"])
    async def list_additions(
        offset: Annotated[int, Query(ge=0, le=1 << 40)] = 0,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
        run: RunName = None,
    ) -> Json:
        """List the entities added to a run, oldest first."""
        run_view = await dispatcher.latest(dispatcher.hot_run(run))
        additions = list(run_view.additions.values())
        page = [_addition_body(addition) for addition in additions[offset : offset + limit]]
        return Json({"total": len(additions), "additions": page})

    @app.delete("/v1/additions", status_code=204, tags=["add"])
    async def remove_additions(
        name: Annotated[list[requests.Name], Query(min_length=1, max_length=1_000)],
        run: RunName = None,
        uploads: ImageUploads = Depends(require_uploads),
    ) -> Response:
        """Remove all the named additions, or none of them.

        An addition that occurs in facts of another addition can only be removed together with it.
        """
        hot_run = dispatcher.hot_run(run)
        await dispatcher.run_addition(lambda check: hot_run.remove(name, check))
        return Response(status_code=204)

    _add_upload_route(app, dispatcher, require_uploads)


def _add_upload_route(
    app: FastAPI, dispatcher: Dispatcher, require_uploads: Callable[[], ImageUploads]
) -> None:
    receiving = asyncio.Semaphore(CONCURRENT_UPLOADS)
    body = {"schema": {"type": "string", "format": "binary"}}

    @app.post(
        PICTURES,
        response_model=answers.UploadedImage,
        status_code=201,
        tags=["add"],
        openapi_extra={"requestBody": {"required": True, "content": dict.fromkeys(TYPES, body)}},
    )
    async def upload_picture(
        request: Request, uploads: ImageUploads = Depends(require_uploads)
    ) -> Json:
        """Upload a picture, with the bytes of its file as the body.

        Its id is for `POST /v1/additions`. The server keeps it temporarily; an added entity keeps
        only the vector computed from it.
        """
        if receiving.locked():
            raise QueueFull(1)
        async with receiving:
            data = await request.body()
            id = await dispatcher.run_addition(lambda check: uploads.store(data, check))
        return Json({"id": id, "bytes": len(data)}, 201)


def _new_entity(
    request: requests.AdditionRequest, run_view: RunView, uploads: ImageUploads
) -> NewEntity:
    """Convert a request to the library's form; file paths come from `uploads` only."""
    facts = [(fact.head, fact.relation, fact.tail) for fact in request.facts]
    modalities = accepted_modalities(run_view.loaded.trained)
    content: dict[str, Content] = {}
    for name, given in request.content.items():
        # The library reports a modality that the run does not have.
        kind = takes(modalities[name])[0] if name in modalities else "nothing"
        content[name] = _content(f"{request.name!r}, {name}", name, given, kind, uploads)
    return NewEntity(
        request.name, facts, request.text, request.numbers, content, names=request.names
    )


def _content(
    where: str, name: str, given: requests.ModalityContent, kind: str, uploads: ImageUploads
) -> Content:
    """Convert the content of one modality.

    Raises:
        InvalidEntity: the modality does not accept this content, or a picture is not stored.
    """
    field = f"content.{name}"
    if given.pictures is not None:
        if kind != "pictures":
            raise InvalidEntity(f"{where}: is not made of pictures; leave them out", field)
        try:
            return [uploads.find(id) for id in given.pictures]
        except LookupError as error:
            raise InvalidEntity(f"{where}: {error.args[0]}", field) from error
    if given.texts is not None:
        if kind in FILES:
            # The library would take a text for the path of a file on this machine.
            remedy = "send pictures to POST /v1/pictures" if kind == "pictures" else "give a vector"
            raise InvalidEntity(f"{where}: is made of files and takes no text; {remedy}", field)
        return given.texts
    if given.tokens is not None:
        return frozenset(given.tokens)
    if given.numbers is not None:
        return given.numbers
    assert given.vector is not None
    return given.vector


def _addition_body(addition: Addition) -> dict[str, Any]:
    facts = [dict(zip(("head", "relation", "tail"), fact, strict=True)) for fact in addition.facts]
    return {**addition.as_dict(), "facts": facts}
