"""Log lines about decisions that were refused or failed."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

LOG = logging.getLogger("mocme.serving")
DECISIONS = "/v1/reviews"
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


def is_decision(method: str, path: str) -> bool:
    """Return whether a request stores or undoes a decision."""
    return method in ("POST", "DELETE") and (path == DECISIONS or path.startswith(f"{DECISIONS}/"))


def log_failures(send: Send, method: str, request_id: str) -> Send:
    """Wrap `send` of a decision: an error response is logged with its reason when it is complete.

    A reviewer may not notice a refusal, so whoever runs the server must be able to find it.
    """
    status, body = 0, bytearray()

    async def send_and_log(message: Message) -> None:
        nonlocal status
        await send(message)
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body" and status >= 400:
            body.extend(message.get("body", b""))
            if not message.get("more_body", False):
                what = "stored" if method == "POST" else "undone"
                LOG.warning(
                    "a decision was not %s: %d %s",
                    what,
                    status,
                    _reason(bytes(body)),
                    extra={"request": request_id, "status": status},
                )

    return send_and_log


def _reason(body: bytes) -> str:
    """Return code and message of an error response; control characters are escaped."""
    try:
        error = json.loads(body)["error"]
        return f"{error['code']} {error['message']!r}"
    except (ValueError, LookupError, TypeError):
        return repr(body[:200])
