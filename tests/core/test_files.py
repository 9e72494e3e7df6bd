"""Only regular files are read, and a TOML file is a table or an error that names it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mocme.core import files
from mocme.core.files import open_regular, read_toml


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"text"


def test_whatever_has_no_end_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, kind in [("pipe", "a pipe"), ("zero", "a device"), (".", "a folder")]:
        path = tmp_path / name
        for read in (open_regular, read_toml):
            with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: is {kind}, and a reg"):
                read(path)


@pytest.mark.parametrize("name", ["absent", "a\0b", "x" * 300])
def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"check"):
        open_regular(tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_toml(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes('name = "é"\r\n'.encode(encoding))
    assert read_toml(path) == {"name": "é"}


@pytest.mark.parametrize(
    "data",
    [
        b"a = " + b"[" * 100_000,
        b"a = " + b"{b=" * 100_000,
        b"[" + b"a." * 100_000 + b"a]\nb = 1",
        b"name = ",
        b"\xff = 1",
        "a = 1".encode("utf-16-le"),
    ],
)
def test_what_is_not_toml_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: not valid TOML: "):
        read_toml(path)


def test_a_toml_file_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TOML_BYTES", 100)
    (tmp_path / "a.toml").write_text(f'a = "{"x" * 200}"')
    with pytest.raises(ValueError, match=r"a.toml: is larger than"):
        read_toml(tmp_path / "a.toml")
