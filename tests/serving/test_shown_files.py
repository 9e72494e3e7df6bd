"""Content of entities: only files of the graph's folder, and of the kind that their bytes show."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from http_helpers import assert_error, picture

import mocme
from mocme.runs.run import Run
from mocme.storage import RunFolder

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from mocme.serving.run_view import RunView

SECRET = b"SECRET of this machine\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
ENTITIES = 12


@pytest.fixture(scope="module")
def original(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_graph: Callable[..., Any],
    tiny_folder: Callable[..., Path],
) -> Path:
    """A folder with a graph and a run of it."""
    folder = tmp_path_factory.mktemp("original")
    tiny_folder(folder / "data", tiny_graph(dense={}, tokens={}))
    few = {"experts.embedding.training.epochs": 1, "experts.embedding.embedding_dim": 4}
    mocme.train(folder / "data", "structure", out=folder / "run", settings=few, device="cpu")
    return folder


@pytest.fixture
def home(original: Path, tmp_path: Path) -> Path:
    """A copy of both, next to files that nobody meant to show."""
    shutil.copytree(original, tmp_path / "home")
    RunFolder.open(tmp_path / "home" / "run").update_about(data=str(tmp_path / "home" / "data"))
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "private.png").write_bytes(picture())
    return tmp_path / "home"


def declare(home: Path, text: str, **files: bytes) -> None:
    """Add tables to graph.toml, and files to the graph's folder."""
    data = home / "data"
    with (data / "graph.toml").open("a") as file:
        file.write(text)
    for name, content in files.items():
        (data / name).write_bytes(content)


def photos(home: Path, *paths: str) -> None:
    """Declare a table of pictures, the first of e0, and so on."""
    table = "".join(f"e{n}\t{path}\n" for n, path in enumerate(paths))
    declare(home, '[encode.photo]\nkind = "image"\npaths = ["photos.tsv"]\n')
    (home / "data" / "photos.tsv").write_text(table)


def view_of(home: Path, *files_from: Path) -> RunView:
    from mocme.serving.run_view import RunView

    return RunView("run", Run.open(home / "run"), files_from=files_from)


def client_of(view: RunView) -> TestClient:
    from starlette.testclient import TestClient

    from mocme.serving.api import create_app

    return TestClient(create_app([view]), raise_server_exceptions=False)


def file_of(client: TestClient, number: int, **headers: str) -> Any:
    (link,) = client.get("/v1/entity", params={"name": f"e{number}"}).json()["files"]
    return client.get(link["url"], headers=headers)


def outside(home: Path) -> list[str]:
    """Paths out of the graph's folder to a picture and a text."""
    links = {"link.png": "../../private.png", "text.png": "../../secret"}
    for name, target in links.items():
        (home / "data" / name).symlink_to(target)
    (home / "data" / "up").symlink_to("../..")
    private = home.parent / "private.png"
    return ["../../private.png", str(private), *links, "up/private.png", "../../secret"]


def test_files_out_of_the_graphs_folder_are_not_sent(home: Path) -> None:
    paths = outside(home)
    photos(home, "inside.png", *paths)
    (home / "data" / "inside.png").write_bytes(picture())
    view = view_of(home)
    (note,) = view.content.notes
    assert note.startswith(f"{len(paths)} of {len(paths) + 1} files are not shown")
    assert "--files-from" in note
    assert view.info["notes"][0] == note
    with client_of(view) as client:
        (told,) = (n for n in client.get("/v1/runs").json()["runs"][0]["notes"] if "outside" in n)
        assert "--files-from" in told
        assert str(home.parent) not in told
        assert file_of(client, 0).content == picture()
        for number in range(1, len(paths) + 1):
            (link,) = client.get("/v1/entity", params={"name": f"e{number}"}).json()["files"]
            assert link["kind"] == "other"
            assert "not a regular file in the graph's folder" in link["hidden"]
            error = assert_error(client.get(link["url"]), 403, "not_shown")
            assert "--files-from" in error["remedy"]
            assert str(home.parent) not in json.dumps(error)


def test_files_of_a_folder_that_is_named_are_sent_if_they_are_media(home: Path) -> None:
    paths = outside(home)
    photos(home, *paths)
    with client_of(view_of(home, home.parent)) as client:
        for number, path in enumerate(paths):
            answer = file_of(client, number)
            if path in ("text.png", "../../secret"):
                error = assert_error(answer, 403, "not_shown")
                assert "is not a picture, sound or video" in error["message"]
            else:
                assert answer.content == picture()
    with pytest.raises(ValueError, match="is not a folder"):
        view_of(home, home.parent / "secret")


def test_a_file_is_sent_as_what_its_content_shows(home: Path) -> None:
    files = {
        "a.txt": (picture(format="JPEG"), "image/jpeg", "image"),
        "b.html": (SVG, "image/svg+xml", "image"),
        "c.png": (b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wav", "audio"),
        "d.mp3": (b"\x1aE\xdf\xa3\x01\x00webm", "video/webm", "video"),
    }
    photos(home, *files, "page.png", "empty.png", "missing.png")
    for name, (content, _, _) in files.items():
        (home / "data" / name).write_bytes(content)
    (home / "data" / "page.png").write_bytes(b"<html><script>alert(1)</script></html>")
    (home / "data" / "empty.png").touch()
    with client_of(view_of(home)) as client:
        for number, (content, media, kind) in enumerate(files.values()):
            (link,) = client.get("/v1/entity", params={"name": f"e{number}"}).json()["files"]
            assert (link["kind"], link["hidden"]) == (kind, "")
            answer = client.get(link["url"])
            assert answer.content == content
            assert answer.headers["content-type"] == media
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"].startswith("sandbox")
        for number in (4, 5):
            assert_error(file_of(client, number), 403, "not_shown")
        assert_error(file_of(client, 6), 404, "not_found")


def test_what_replaces_a_file_is_checked_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(home, "photo.png")
    photo = home / "data" / "photo.png"
    photo.write_bytes(picture())
    view = view_of(home)
    assert view.content.notes == []
    with client_of(view) as client:
        assert file_of(client, 0).status_code == 200
        photo.unlink()
        photo.symlink_to("../../private.png")
        assert_error(file_of(client, 0), 403, "not_shown")
        photo.unlink()
        os.mkfifo(photo)
        assert_error(file_of(client, 0), 403, "not_shown")
        photo.unlink()
        photo.write_bytes(SECRET)
        assert_error(file_of(client, 0), 403, "not_shown")
        photo.write_bytes(picture())
        assert file_of(client, 0).status_code == 200
        monkeypatch.setattr("mocme.serving.media_files.MAX_FILE_BYTES", 10)
        assert "larger than 10" in assert_error(file_of(client, 0), 403, "not_shown")["message"]


def test_ranges_and_open_files(home: Path) -> None:
    photos(home, "photo.png")
    content = picture(size=(300, 200))
    (home / "data" / "photo.png").write_bytes(content)
    with client_of(view_of(home)) as client:
        part = file_of(client, 0, range="bytes=2-9")
        assert (part.status_code, part.content) == (206, content[2:10])
        assert part.headers["content-range"] == f"bytes 2-9/{len(content)}"
        many = "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 400, 2))
        whole = file_of(client, 0, range=many)
        assert (whole.status_code, whole.content) == (200, content)
        assert file_of(client, 0, range=f"bytes={len(content)}-").status_code == 416
        before = len(os.listdir("/dev/fd"))
        for headers in ({}, {"range": "bytes=1-2"}, {"range": "bytes=999999-"}, {"range": "x"}):
            file_of(client, 0, **headers)
        assert len(os.listdir("/dev/fd")) == before


DECLARED = {
    "words": '[modalities.x]\nkind = "words"\npaths = ["{path}"]\n',
    "mentions": '[modalities.x]\nkind = "mentions"\nnames = ["n.tsv"]\ntexts = ["{path}"]\n',
    "similar": '[modalities.x]\nkind = "similar"\npaths = ["{path}"]\n',
    "numbers": '[modalities.x]\nkind = "numbers"\npath = "{path}"\n',
    "encoded text": '[encode.x]\nkind = "text"\npaths = ["{path}"]\n',
    "encoded words": '[encode.x]\nkind = "words"\npaths = ["{path}"]\n',
    "encoded numbers": '[encode.x]\nkind = "numeric"\npaths = ["{path}"]\n',
    "list of files": '[encode.x]\nkind = "image"\npaths = ["{path}"]\n',
    "types": '[types]\npath = "{path}"\n',
}


@pytest.mark.parametrize("path", ["../../table.tsv", "/ABSOLUTE/table.tsv", "link.tsv"])
@pytest.mark.parametrize("table", DECLARED)
def test_tables_out_of_the_graphs_folder_are_not_read(table: str, path: str, home: Path) -> None:
    numbers = "numbers" in table
    cells = "size\t7" if numbers else "SECRET"
    (home.parent / "table.tsv").write_text(f"e1\t{cells}\n")
    (home / "data" / "link.tsv").symlink_to("../../table.tsv")
    path = path.replace("/ABSOLUTE", str(home.parent))
    declare(home, DECLARED[table].format(path=path))
    view = view_of(home)
    entity = view.entity("e1")
    assert not any(entity[key] for key in ("texts", "numbers", "files", "types"))
    (note,) = view.content.notes
    assert "outside" in note
    assert "--files-from" in note
    shown = view_of(home, home.parent).entity("e1")
    assert any(shown[key] for key in ("texts", "numbers", "files", "types"))


def test_a_folder_and_a_pipe_as_tables(home: Path) -> None:
    (home / "data" / "photos").symlink_to("../../pictures")
    (home.parent / "pictures").mkdir()
    (home.parent / "pictures" / "e1.png").write_bytes(picture())
    os.mkfifo(home / "data" / "pipe.tsv")
    declare(
        home,
        '[encode.x]\nkind = "image"\npaths = ["photos"]\n[encode.y]\nkind = "text"\n'
        'paths = ["pipe.tsv"]\n',
    )
    view = view_of(home)
    assert view.entity("e1")["files"] == []
    assert [("outside" in note, "regular file" in note) for note in view.content.notes] == [
        (True, False),
        (False, True),
    ]


def test_a_data_folder_without_a_graph_is_not_shown(home: Path) -> None:
    """The folder's path comes from the run, which may come from anyone."""
    folder = home.parent / "documents"
    folder.mkdir()
    (folder / "diary.tsv").write_text("e1\tSECRET\n")
    (folder / "graph.toml").write_text(DECLARED["words"].format(path="diary.tsv"))
    RunFolder.open(home / "run").update_about(data=str(folder))
    view = view_of(home)
    assert view.entity("e1")["texts"] == []
    (note,) = view.content.notes
    assert f"--files-from {folder}" in note
    assert view_of(home, folder).entity("e1")["texts"]


def test_the_command_names_folders(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from mocme import cli

    received: dict[str, Any] = {}
    monkeypatch.setattr(
        "mocme.serving.server.serve", lambda *_, **options: received.update(options)
    )
    words = [
        "serve",
        str(home / "run"),
        "--files-from",
        str(home),
        "--files-from",
        str(home.parent),
    ]
    assert CliRunner().invoke(cli.main, words).exit_code == 0
    assert received["files_from"] == (home, home.parent)
    assert CliRunner().invoke(cli.main, [*words, "--files-from", "/no/folder"]).exit_code == 2
