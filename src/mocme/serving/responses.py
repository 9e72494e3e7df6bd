"""JSON responses, and the conversion of exceptions to error responses."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mocme.core.deadline import Stopped
from mocme.core.text import shorten
from mocme.data.graph import UnknownName
from mocme.data.review_schema import ReviewError, ReviewsMoved
from mocme.inductive.new_entity import InvalidEntity
from mocme.inductive.store import NoAddition
from mocme.serving.batching import QueueFull
from mocme.serving.dispatcher import Dispatcher
from mocme.serving.refusals import Refusal, error_body
from mocme.serving.schema import answers
from mocme.storage import RunLocked, RunReplaced

LOG = logging.getLogger("mocme.serving")
# Error responses listed in the schema.
ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": answers.ErrorBody, "description": "A token is required."},
    403: {"model": answers.ErrorBody, "description": "This server does not allow it."},
    404: {"model": answers.ErrorBody, "description": "Nothing has this name."},
    409: {"model": answers.ErrorBody, "description": "The run was replaced."},
    413: {"model": answers.ErrorBody, "description": "The request is too large."},
    422: {"model": answers.ErrorBody, "description": "The request is invalid."},
    503: {"model": answers.ErrorBody, "description": "The queue is full; see Retry-After."},
    504: {"model": answers.ErrorBody, "description": "The request timed out."},
}
# Characters of a part of a request in an answer; the names of its keys may have any length.
LONGEST_FIELD = 200
_WAIT = "wait as long as Retry-After says"
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Json(JSONResponse):
    """Compact JSON; NaN and infinity are errors."""

    def render(self, content: Any) -> bytes:
        """Encode the content; unpaired surrogates become question marks."""
        return _ENCODER.encode(content).encode("utf-8", "replace")


def error_response(
    status: int,
    code: str,
    message: str,
    remedy: str = "",
    near: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    field: str = "",
) -> Json:
    """Create an error response."""
    return Json(error_body(code, message, remedy, tuple(near), field), status, headers)


def _invalid_field(error: RequestValidationError) -> str:
    """The one part of a request that is wrong, as "facts.2.head"; empty if there are several."""
    problems = error.errors()
    first = problems[0]
    # The first part of a location says where the request has it: body, query or path.
    locations = [problem["loc"][1:] for problem in problems]
    shared = [p[0] for p in zip(*locations, strict=False) if all(part == p[0] for part in p)]
    if first["loc"][0] == "body":
        if first["type"] == "json_invalid":
            return ""
        missing = len(problems) == 1 and first["type"] == "missing"
        shared = _present(error.body, shared[:-1] if missing else shared)
        shared += locations[0][-1:] if missing else []
    return shorten(".".join(map(str, shared)), LONGEST_FIELD)


def _present(value: Any, location: Sequence[str | int]) -> list[str | int]:
    """Those parts of a location that a body has; others name a choice of the schema."""
    present = []
    for part in location:
        try:
            value = value[part]
        except (LookupError, TypeError):
            continue
        present.append(part)
    return present


def add_error_handlers(app: FastAPI, dispatcher: Dispatcher) -> None:
    """Convert the library's exceptions to error responses, each with its status.

    Messages of the library may name files; where they are is in no answer.
    """

    def hide(message: object) -> str:
        hidden = dispatcher.paths.hide(str(message))
        if hidden != str(message):
            LOG.warning("%s", message)  # whoever runs the server needs the place
        return hidden

    @app.exception_handler(UnknownName)
    async def unknown_name(_: Request, error: UnknownName) -> Json:
        remedy = "search for it: GET /v1/search?q=..."
        return error_response(
            404, "unknown_name", hide(error), remedy, error.near, field=error.field
        )

    @app.exception_handler(RequestValidationError)
    async def invalid_request(_: Request, error: RequestValidationError) -> Json:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]]
        remedy = "GET /v1/openapi.json describes valid requests"
        field = _invalid_field(error)
        return error_response(422, "invalid", "; ".join(problems), remedy, field=field)

    @app.exception_handler(Refusal)
    async def refusal(_: Request, error: Refusal) -> Json:
        message = hide(error.detail)
        return error_response(
            error.status_code, error.code, message, error.remedy, (), error.headers
        )

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Json:
        codes = {404: "not_found", 405: "wrong_method", 413: "too_large"}
        code = codes.get(error.status_code, "refused")
        return error_response(error.status_code, code, hide(error.detail), "", (), error.headers)

    @app.exception_handler(ReviewError)
    async def review_not_stored(_: Request, error: ReviewError) -> Json:
        remedy = "the decision was not stored; send it again"
        if isinstance(error, ReviewsMoved):
            remedy = "nothing was stored; put the file back or start the server again"
        return error_response(503, "not_kept", hide(error), remedy)

    @app.exception_handler(InvalidEntity)
    async def invalid_entity(_: Request, error: InvalidEntity) -> Json:
        return error_response(422, "invalid", hide(error), field=error.field)

    @app.exception_handler(NoAddition)
    async def no_addition(_: Request, error: NoAddition) -> Json:
        return error_response(404, "not_found", hide(error), "list them: GET /v1/additions")

    @app.exception_handler(RunLocked)
    async def run_locked(_: Request, error: RunLocked) -> Json:
        headers = {"retry-after": "2"}
        return error_response(503, "busy", hide(error), _WAIT, (), headers)

    @app.exception_handler(RunReplaced)
    async def run_replaced(_: Request, error: RunReplaced) -> Json:
        LOG.error("%s", error)
        message = "the run's folder holds another model than the one that is served"
        remedy = "nothing was changed; start the server again"
        return error_response(409, "replaced", message, remedy)

    @app.exception_handler(ValueError)
    async def invalid_value(_: Request, error: ValueError) -> Json:
        return error_response(422, "invalid", hide(error))

    @app.exception_handler(LookupError)
    async def not_found(_: Request, error: LookupError) -> Json:
        message = hide(error.args[0]) if error.args else "not found"
        return error_response(404, "not_found", message)

    @app.exception_handler(QueueFull)
    async def queue_full(_: Request, error: QueueFull) -> Json:
        dispatcher.metrics.count_refused()
        headers = {"retry-after": str(error.retry_after)}
        return error_response(503, "busy", hide(error), _WAIT, (), headers)

    @app.exception_handler(Stopped)
    @app.exception_handler(TimeoutError)
    async def timed_out(_: Request, error: Exception) -> Json:
        seconds = dispatcher.limits.seconds
        remedy = "send a smaller request, or start the server with a larger --seconds"
        return error_response(504, "too_slow", f"no answer within {seconds:g} s", remedy)
