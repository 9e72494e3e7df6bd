"""Entities that a run was not trained with: added, listed, taken back; pictures for them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import Response

from mocme.inductive.content import FILES, takes
from mocme.inductive.new_entity import Content, InvalidEntity, NewEntity
from mocme.inductive.pairs import known
from mocme.inductive.store import Addition
from mocme.serving.batching import QueueFull
from mocme.serving.dispatcher import Dispatcher
from mocme.serving.endpoints.browse import RunName
from mocme.serving.middleware import Refusal
from mocme.serving.responses import Json
from mocme.serving.run_view import RunView
from mocme.serving.schema import answers, requests
from mocme.serving.uploads import ImageUploads

PICTURES = "/v1/pictures"
# Pictures that one process receives at a time, for each is held whole.
RECEIVED = 4
# Types that no page of another site can send unasked.
TYPES = ("image/png", "image/jpeg", "image/webp", "application/octet-stream")


def add(app: FastAPI, hub: Dispatcher) -> None:
    """Additions, and pictures for them."""

    def allowed() -> ImageUploads:
        return hub.pictures

    @app.post("/v1/additions", response_model=answers.AddedEntity, status_code=201, tags=["add"])
    async def make(asked: requests.NewAddition, pictures: ImageUploads = Depends(allowed)) -> Json:
        """Add an entity to a run; nothing is retrained, and it takes part in all questions."""
        live = hub.live(asked.run)
        entity = _entity(asked, live.now, pictures)
        made = await hub.adding(lambda: live.add(entity))
        told = _told(made)
        if made.name not in live.now.additions:
            told["notes"].append("it is kept, but cannot be served yet; see the server's log")
        return Json(told, 201)

    @app.get("/v1/additions", response_model=answers.AdditionList, tags=["add"])
    async def additions(
        offset: Annotated[int, Query(ge=0, le=1 << 40)] = 0,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
        run: RunName = None,
    ) -> Json:
        """Entities that were added to a run, in the order of their coming."""
        found = list((await hub.newest(hub.live(run))).additions.values())
        shown = [_told(item) for item in found[offset : offset + limit]]
        return Json({"total": len(found), "additions": shown})

    @app.delete("/v1/additions", status_code=204, tags=["add"])
    async def remove(
        name: Annotated[list[requests.Name], Query(min_length=1, max_length=1_000)],
        run: RunName = None,
        pictures: ImageUploads = Depends(allowed),
    ) -> Response:
        """Take additions back, all that are named or none.

        One that facts of another addition name goes only together with it.
        """
        live = hub.live(run)
        await hub.adding(lambda: live.remove(name))
        return Response(status_code=204)

    receiving = asyncio.Semaphore(RECEIVED)
    body = {"schema": {"type": "string", "format": "binary"}}

    @app.post(
        PICTURES,
        response_model=answers.UploadedImage,
        status_code=201,
        tags=["add"],
        openapi_extra={"requestBody": {"required": True, "content": dict.fromkeys(TYPES, body)}},
    )
    async def picture(request: Request, pictures: ImageUploads = Depends(allowed)) -> Json:
        """Send a picture, the bytes of its file as the body; its id is for `POST /v1/additions`.

        It is kept for a while only: what an entity is made of is its vector.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not kind.startswith("image/") and kind != "application/octet-stream":
            raise Refusal(
                415,
                "wrong_type",
                f"a picture is not sent as {kind or 'nothing'!r}",
                "send the bytes of its file, with the header: Content-Type: image/png (or as is)",
            )
        if receiving.locked():
            raise QueueFull(1)
        async with receiving:
            data = await asyncio.wait_for(request.body(), hub.limits.seconds)
            id = await hub.adding(lambda: pictures.keep(data))
        return Json({"id": id, "bytes": len(data)}, 201)


def _entity(asked: requests.NewAddition, served: RunView, pictures: ImageUploads) -> NewEntity:
    """As the library takes it; a path of a file comes from `pictures`, and from nowhere else."""
    facts = [(fact.head, fact.relation, fact.tail) for fact in asked.facts]
    has = known(served.loaded.trained)
    content: dict[str, Content] = {}
    for name, given in asked.content.items():
        # What the run does not have is told by the library, whatever is given for it.
        kind = takes(has[name])[0] if name in has else "nothing"
        content[name] = _content(f"{asked.name!r}, {name}", name, given, kind, pictures)
    return NewEntity(asked.name, facts, asked.text, asked.numbers, content, names=asked.names)


def _content(
    where: str, name: str, given: requests.ModalityContent, kind: str, pictures: ImageUploads
) -> Content:
    field = f"content.{name}"
    if given.pictures is not None:
        if kind != "pictures":
            raise InvalidEntity(f"{where}: is not made of pictures; leave them out", field)
        try:
            return [pictures.find(id) for id in given.pictures]
        except LookupError as error:
            raise InvalidEntity(f"{where}: {error.args[0]}", field) from error
    if given.texts is not None:
        if kind in FILES:
            # The library would take a text for the path of a file of this machine.
            how = "send pictures to POST /v1/pictures" if kind == "pictures" else "give a vector"
            raise InvalidEntity(f"{where}: is made of files, and takes no text; {how}", field)
        return given.texts
    if given.tokens is not None:
        return frozenset(given.tokens)
    if given.numbers is not None:
        return given.numbers
    assert given.vector is not None
    return given.vector


def _told(item: Addition) -> dict[str, Any]:
    about = item.as_dict()
    facts = [dict(zip(("head", "relation", "tail"), fact, strict=True)) for fact in item.facts]
    return {**about, "facts": facts}
