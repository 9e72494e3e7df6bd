"""What an answer is made of: JSON, and errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mocme.data.graph import UnknownName
from mocme.data.reviews import ReviewError
from mocme.inductive.new_entity import InvalidEntity
from mocme.inductive.store import NoAddition
from mocme.serving.batching import QueueFull
from mocme.serving.dispatcher import Dispatcher
from mocme.serving.middleware import Refusal, failure
from mocme.serving.schema import answers
from mocme.storage import RunLocked

# As the schema tells them.
ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": answers.ErrorBody, "description": "A token is needed."},
    403: {"model": answers.ErrorBody, "description": "This server does not do that."},
    404: {"model": answers.ErrorBody, "description": "There is nothing of that name."},
    413: {"model": answers.ErrorBody, "description": "The request is too large."},
    422: {"model": answers.ErrorBody, "description": "Something in the request is wrong."},
    503: {"model": answers.ErrorBody, "description": "Too many wait; see Retry-After."},
    504: {"model": answers.ErrorBody, "description": "It took too long."},
}


class Json(JSONResponse):
    """JSON without spaces, in which no number is NaN."""

    def render(self, content: Any) -> bytes:
        """As bytes."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def failed(
    status: int,
    code: str,
    message: str,
    remedy: str = "",
    near: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    field: str = "",
) -> Json:
    """An error as the answer."""
    return Json(failure(code, message, remedy, tuple(near), field), status, headers)


def add_handlers(app: FastAPI, hub: Dispatcher) -> None:
    """Errors of the library as answers, each with its status."""

    @app.exception_handler(UnknownName)
    async def unknown(_: Request, error: UnknownName) -> Json:
        remedy = "search for it: GET /v1/search?q=..."
        return failed(404, "unknown_name", str(error), remedy, error.near, field=error.field)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Json:
        told = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]]
        remedy = "what is asked for stands in GET /v1/openapi.json"
        return failed(422, "invalid", "; ".join(told), remedy)

    @app.exception_handler(Refusal)
    async def refusal(_: Request, error: Refusal) -> Json:
        told = str(error.detail)
        return failed(error.status_code, error.code, told, error.remedy, (), error.headers)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Json:
        codes = {404: "not_found", 405: "wrong_method", 413: "too_large"}
        code = codes.get(error.status_code, "refused")
        return failed(error.status_code, code, str(error.detail), "", (), error.headers)

    @app.exception_handler(ReviewError)
    async def unkept(_: Request, error: ReviewError) -> Json:
        return failed(503, "not_kept", str(error), "the decision is not kept; send it again", ())

    @app.exception_handler(InvalidEntity)
    async def unfit(_: Request, error: InvalidEntity) -> Json:
        return failed(422, "invalid", str(error), field=error.field)

    @app.exception_handler(NoAddition)
    async def not_added(_: Request, error: NoAddition) -> Json:
        return failed(404, "not_found", str(error), "see which there are: GET /v1/additions")

    @app.exception_handler(RunLocked)
    async def locked(_: Request, error: RunLocked) -> Json:
        after = {"retry-after": "2"}
        return failed(503, "busy", str(error), "wait as Retry-After says", (), after)

    @app.exception_handler(ValueError)
    async def wrong(_: Request, error: ValueError) -> Json:
        return failed(422, "invalid", str(error))

    @app.exception_handler(LookupError)
    async def nothing(_: Request, error: LookupError) -> Json:
        return failed(404, "not_found", str(error.args[0]) if error.args else "not there")

    @app.exception_handler(QueueFull)
    async def busy(_: Request, error: QueueFull) -> Json:
        hub.metrics.busy()
        after = {"retry-after": str(error.after)}
        return failed(503, "busy", str(error), "wait as Retry-After says", (), after)

    @app.exception_handler(TimeoutError)
    async def late(_: Request, error: TimeoutError) -> Json:
        seconds = hub.limits.seconds
        remedy = "ask for less at once, or start the server with a larger --seconds"
        return failed(504, "too_slow", f"no answer within {seconds:g} s", remedy)
