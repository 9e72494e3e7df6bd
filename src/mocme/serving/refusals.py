"""Refused requests: their exceptions, and their answers as JSON."""

from __future__ import annotations

import json
from typing import Any

from starlette.exceptions import HTTPException

from mocme.serving.asgi import Send

METHODS = ("GET", "HEAD", "POST", "DELETE")


class TooLarge(HTTPException):
    """A body exceeded its limit while it was received.

    It is an HTTPException because FastAPI reports any other error at this point as invalid JSON.
    """

    def __init__(self) -> None:
        super().__init__(413, "the request is larger than this server accepts")


class Refusal(HTTPException):
    """A refused request, with a remedy.

    Args:
        retry_after: seconds after which it may be sent again.
    """

    def __init__(
        self, status: int, code: str, message: str, remedy: str, retry_after: int | None = None
    ) -> None:
        headers = None if retry_after is None else {"retry-after": str(retry_after)}
        super().__init__(status, message, headers)
        self.code, self.remedy = code, remedy


async def send_error(send: Send, status: int, code: str, message: str, remedy: str) -> None:
    """Send an error as JSON."""
    body = json.dumps(error_body(code, message, remedy), ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 405:
        headers.append((b"allow", ", ".join(METHODS).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_body(
    code: str, message: str, remedy: str = "", near: tuple[str, ...] = (), field: str = ""
) -> dict[str, Any]:
    """Return the JSON body of an error; `field` names the part of the request at fault."""
    detail = {"code": code, "message": message, "remedy": remedy, "near": list(near)}
    return {"error": detail | ({"field": field} if field else {})}
