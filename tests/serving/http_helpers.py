"""Requests and checks that several modules of the room use."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from starlette.testclient import TestClient

TOKEN = "a-long-enough-secret"
CHAD = {"head": "Chad", "relation": "borders"}
NEW = {
    "name": "Ada",
    "facts": [
        {"head": "Ada", "relation": "r0", "tail": "e1"},
        {"head": "e3", "relation": "r1", "tail": "Ada"},
    ],
}


def assert_error(answer: Any, status: int, code: str, field: str = "") -> dict[str, Any]:
    """Check that a response is an error without a stack trace, and return its detail."""
    assert answer.status_code == status, answer.text
    (error,) = answer.json().values()
    assert set(error) == {"code", "message", "remedy", "near"} | ({"field"} if field else set())
    assert (error["code"], error.get("field", "")) == (code, field), error
    assert "Traceback" not in answer.text
    return error


def picture(shade: int = 0, size: tuple[int, int] = (40, 30), format: str = "PNG") -> bytes:
    """Return the bytes of an image file."""
    image = pytest.importorskip("PIL.Image").new("RGB", size, (shade, 255 - shade, 100))
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def upload(client: TestClient, data: bytes, content_type: str = "image/png") -> Any:
    return client.post("/v1/pictures", content=data, headers={"content-type": content_type})
