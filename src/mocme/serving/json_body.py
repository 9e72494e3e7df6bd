"""Read the JSON of a request strictly: one meaning, or an error."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from mocme.serving.refusals import Refusal

# Keys of one object; the largest that is valid holds as many numbers of an entity. Each unknown
# key would become an error of its own, which takes 1 KB.
MAX_KEYS = 10_000
_REMEDY = "GET /v1/openapi.json describes valid requests"
# The escape of half a surrogate pair; only escapes can leave one without the other.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class JsonRoute(APIRoute):
    """A route whose body is read by `parse_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, which reads the body strictly."""
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return handle_strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parse_json(await self.body())


def parse_json(data: bytes) -> Any:
    """Parse JSON without NaN, infinity, repeated keys and unpaired surrogates.

    Raises:
        JSONDecodeError: it is not JSON.
        Refusal: 400, it is nested too deeply or not UTF-8; 422, it has one of the above.
    """
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise Refusal(400, "bad_json", "the JSON is nested too deeply", _REMEDY) from None
    except ValueError as error:  # not UTF-8, or a number of thousands of digits
        reason = str(error).partition(";")[0][:100]
        raise Refusal(400, "bad_json", f"the JSON cannot be read ({reason})", _REMEDY) from None
    if _SURROGATE.search(data):
        _check_surrogates(value)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise Refusal(422, "invalid", f"{name} is not JSON", _REMEDY)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; the meaning of one with a repeated key depends on the program."""
    if len(pairs) > MAX_KEYS:
        message = f"an object of the request has more than {MAX_KEYS:,} keys"
        raise Refusal(422, "invalid", message, _REMEDY)
    made = dict(pairs)
    if len(made) != len(pairs):
        repeated = Counter(name for name, _ in pairs).most_common(1)[0][0][:100]
        raise Refusal(422, "invalid", f"the key {repeated!r} is given twice", "give it once")
    return made


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_distinct)


def _check_surrogates(value: Any) -> None:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting += [*part, *part.values()]
        elif isinstance(part, list):
            waiting += part
        elif isinstance(part, str) and any("\ud800" <= letter <= "\udfff" for letter in part):
            message = "a text contains an unpaired surrogate, which is not valid text"
            raise Refusal(422, "invalid", message, _REMEDY)
