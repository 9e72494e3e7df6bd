"""Pictures uploaded for new entities."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from http_helpers import assert_error, picture, upload
from starlette.testclient import TestClient

from mocme.runs.run import Run
from mocme.serving.limits import Limits
from mocme.serving.uploads import ImageUploads


def test_an_entity_is_added_with_a_picture(picture_client: TestClient, tmp_path: Path) -> None:
    modalities = picture_client.get("/v1/runs").json()["runs"][0]["modalities"]
    takes = {item["name"]: (item["takes"], item["attributes"]) for item in modalities}
    assert takes == {
        "structure": ("nothing", []),
        "image": ("pictures", []),
        "word": ("texts", []),
        "number": ("numbers", ["size"]),
    }
    uploaded = upload(picture_client, picture(80), "image/png; charset=x")
    assert uploaded.status_code == 201
    content = {"image": {"pictures": [uploaded.json()["id"]]}}
    body = {"name": "Ada", "text": "A red house", "numbers": {"size": 9}, "content": content}
    created = picture_client.post("/v1/additions", json=body)
    assert created.status_code == 201, created.text
    assert set(created.json()["modalities"]) == {"image", "number", "word"}
    assert created.json()["given"]["image"] == "a file"
    entity = picture_client.get("/v1/entity", params={"name": "Ada"}).json()
    assert entity["texts"] == [{"modality": "word", "text": "A red house"}]
    # The vector equals the one of the same picture in the training data.
    (item,) = Run.open(tmp_path / "pictured").additions()
    trained = Run.open(tmp_path / "pictured")
    modality = trained.features(trained.graph()).dense["image"]
    (row,) = (modality.rows == trained.graph().entities.id("e2")).nonzero().flatten()
    assert torch.allclose(item.vectors["image"], modality.values[row].float(), atol=2e-3)


def test_a_path_is_never_content(
    picture_client: TestClient, picture_run: Path, upload_folder: Path
) -> None:
    path = upload_folder.parent / "file.png"
    path.write_bytes(picture())
    for given in ({"texts": [str(path)]}, {"tokens": [str(path)]}):
        answer = picture_client.post(
            "/v1/additions", json={"name": "Ada", "content": {"image": given}}
        )
        assert_error(answer, 422, "invalid", "content.image")
    for id in ("../file.png", "file.png", str(path), "." * 64):
        given = {"pictures": [id]}
        answer = picture_client.post(
            "/v1/additions", json={"name": "Ada", "content": {"image": given}}
        )
        assert_error(answer, 422, "invalid", "content.image.pictures.0")
    given = {"pictures": ["0" * 64]}
    answer = picture_client.post("/v1/additions", json={"name": "Ada", "content": {"image": given}})
    error = assert_error(answer, 422, "invalid", "content.image")
    assert "POST /v1/pictures" in error["message"]
    error = assert_error(
        picture_client.post("/v1/additions", json={"name": "Ada", "content": {"word": given}}),
        *(422, "invalid", "content.word"),
    )
    assert "not made of pictures" in error["message"]


def bomb(side: int) -> bytes:
    """Return a PNG of a few hundred bytes that declares side * side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", body), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_hostile_pictures_are_refused_with_a_remedy(
    picture_client: TestClient, upload_folder: Path
) -> None:
    for data, message in (
        (b"", "an empty file"),
        (b"no picture at all", "no picture of a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
        (picture()[:-40], "is broken"),
        (picture(format="JPEG", size=(300, 300))[:-900], "is broken"),
        (bomb(8_000), "has 64 megapixels; the limit is 50"),
        (bomb(60_000), "megapixels; the limit is 50"),
    ):
        error = assert_error(upload(picture_client, data), 422, "no_picture")
        assert message in error["message"]
        assert "20 MB and 50 megapixels" in error["remedy"]
    assert not list(upload_folder.iterdir())
    large = picture() + b"0" * 20_000_000
    assert_error(upload(picture_client, large), 413, "too_large")

    def chunks() -> Iterator[bytes]:
        for _ in range(25):
            yield b"0" * 1_000_000

    headers = {"content-type": "image/png"}
    assert_error(
        picture_client.post("/v1/pictures", content=chunks(), headers=headers), 413, "too_large"
    )
    data = picture() + b"0" * 2_000_000  # too large for any other request
    assert upload(picture_client, data).status_code == 201
    assert_error(picture_client.post("/v1/tails", content=data), 413, "too_large")


def test_content_types_without_preflight_are_refused(
    picture_client: TestClient, upload_folder: Path
) -> None:
    """A page of another site can send these types without a preflight request."""
    for content_type in (
        "text/plain",
        "multipart/form-data",
        "application/x-www-form-urlencoded",
        "",
    ):
        assert_error(upload(picture_client, picture(), content_type), 415, "wrong_type")
    assert not list(upload_folder.iterdir())


def test_the_least_recently_used_pictures_are_deleted(
    picture_client: TestClient, upload_folder: Path
) -> None:
    ids = [upload(picture_client, picture(shade)).json()["id"] for shade in (1, 2, 3)]
    upload(picture_client, picture(1))  # now the most recently used
    ids.append(upload(picture_client, picture(4)).json()["id"])
    assert {path.name for path in upload_folder.iterdir()} == {ids[0], ids[2], ids[3]}
    tiny = ImageUploads(upload_folder, Limits(stored_bytes=1))
    tiny.store(picture(5))
    assert not list(upload_folder.iterdir())
