"""Raw files are copied from the graph's folder, and from folders that the user names."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mocme import cli
from mocme.core.allowed_files import NotAllowed
from mocme.data.load import load
from mocme.encoders.export_raw import export_raw

SECRET = "SECRET of this machine\n"
TABLES = {
    "words": '[modalities.x]\nkind = "words"\npaths = ["{path}"]\n',
    "numbers": '[modalities.x]\nkind = "numbers"\npath = "{path}"\n',
    "mentions": '[modalities.x]\nkind = "mentions"\nnames = ["{path}"]\n',
    "encoded text": '[encode.x]\nkind = "text"\npaths = ["{path}"]\n',
    "list of files": '[encode.x]\nkind = "image"\npaths = ["{path}"]\n',
}


def png() -> bytes:
    file = io.BytesIO()
    pytest.importorskip("PIL.Image").new("RGB", (4, 3)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def data(tmp_path: Path, tiny_graph: Callable[..., Any], tiny_folder: Callable[..., Path]) -> Path:
    (tmp_path / "secret.tsv").write_text(f"e1\t{SECRET}")
    (tmp_path / "private.png").write_bytes(png())
    (tmp_path / "out").mkdir()
    folder: Path = tiny_folder(tmp_path / "data", tiny_graph(dense={}, tokens={}))
    return folder


def exported(data: Path, declared: str, *files_from: Path) -> list[str]:
    (data / "graph.toml").write_text(declared)
    return export_raw(load(data), data.parent / "out", files_from=files_from)


def copies(data: Path) -> dict[str, bytes]:
    out = data.parent / "out"
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "graph.toml"]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("path", ["../secret.tsv", "/ABSOLUTE/secret.tsv", "link.tsv"])
@pytest.mark.parametrize("table", TABLES)
def test_a_table_out_of_the_graphs_folder_is_refused(table: str, path: str, data: Path) -> None:
    (data / "link.tsv").symlink_to("../secret.tsv")
    declared = TABLES[table].format(path=path.replace("/ABSOLUTE", str(data.parent)))
    with pytest.raises(NotAllowed, match=r"outside of .*; .*--files-from DIR"):
        exported(data, declared)
    assert SECRET.encode() not in b"".join(copies(data).values())


def test_a_link_in_a_folder_of_texts_is_refused(data: Path) -> None:
    (data / "inner").mkdir()
    (data / "inner" / "link.tsv").symlink_to("../../secret.tsv")
    with pytest.raises(NotAllowed, match=r"inner/link.tsv: lies outside"):
        exported(data, TABLES["words"].format(path="inner"))
    (data / "inner" / "link.tsv").unlink()
    (data / "inner" / "circle").symlink_to("..")
    with pytest.raises(ValueError, match=r"inner/circle: is a link to a folder"):
        exported(data, TABLES["words"].format(path="inner"))
    os.mkfifo(data / "pipe")
    with pytest.raises(NotAllowed, match="pipe: is not a regular file"):
        exported(data, TABLES["words"].format(path="pipe"))
    assert copies(data) == {}


@pytest.mark.parametrize("path", ["../private.png", "/ABSOLUTE/private.png", "link.png"])
def test_a_listed_file_out_of_the_graphs_folder_is_refused(path: str, data: Path) -> None:
    (data / "link.png").symlink_to("../private.png")
    path = path.replace("/ABSOLUTE", str(data.parent))
    (data / "list.tsv").write_text(f"e1\t{path}\n")
    declared = TABLES["list of files"].format(path="list.tsv")
    with pytest.raises(NotAllowed, match=r"outside of .*; .*--files-from DIR"):
        exported(data, declared)
    assert "x/e1.png" not in copies(data)
    assert exported(data, declared, data.parent) == ["x: 1 file copied"]
    assert copies(data)["x/e1.png"] == png()


def test_only_media_are_copied_from_named_folders(data: Path) -> None:
    """What lies in the graph's folder belongs to the graph, even if it is damaged."""
    (data / "broken.png").write_bytes(b"no picture")
    (data / "list.tsv").write_text("e1\tbroken.png\ne2\t../secret.tsv\ne3\t../private.png\n")
    notes = exported(data, TABLES["list of files"].format(path="list.tsv"), data.parent)
    assert notes[0] == "x: 2 files copied"
    assert "'e2'" in notes[1]
    assert "is no picture, sound or video" in notes[1]
    assert set(copies(data)) == {"x.tsv", "x/e1.png", "x/e3.png"}


def test_a_path_with_dots_stays_in_the_output_folder(data: Path) -> None:
    (data / "inner").mkdir()
    (data / "inner" / "a.tsv").write_text("e1\ttext\n")
    exported(data, TABLES["words"].format(path=f"../{data.name}/inner/a.tsv"))
    assert set(copies(data)) == {"a.tsv"}
    exported(data, TABLES["words"].format(path="inner/../inner/a.tsv"))
    assert set(copies(data)) == {"a.tsv", "inner/a.tsv"}


def test_the_command_names_folders(data: Path) -> None:
    (data / "graph.toml").write_text(TABLES["words"].format(path="../secret.tsv"))
    raw = data.parent / "raw"
    refused = CliRunner().invoke(cli.main, ["export", str(data), str(raw), "--raw"])
    assert refused.exit_code == 1
    assert "--files-from DIR" in refused.output
    again = data.parent / "again"
    words = ["export", str(data), str(again), "--raw", "--files-from", str(data.parent)]
    assert CliRunner().invoke(cli.main, words).exit_code == 0
    assert (again / "secret.tsv").read_text() == f"e1\t{SECRET}"
    words.remove("--raw")
    assert CliRunner().invoke(cli.main, words).exit_code == 2
