"""Files are opened only beneath allowed folders, after links are resolved, and never wait."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from mocme.core import allowed_files
from mocme.core.allowed_files import AllowedFolders, NotAllowed


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "inner" / "deep").mkdir(parents=True)
    (home / "inner" / "deep" / "file").write_bytes(b"inside")
    (tmp_path / "home-2").mkdir()
    for outside in (tmp_path / "secret", tmp_path / "home-2" / "file"):
        outside.write_bytes(b"outside")
    return home


def content(folders: AllowedFolders, path: Path) -> bytes:
    with folders.open(path) as file:
        return file.read()


def test_files_beneath_a_folder_are_opened(home: Path) -> None:
    folders = AllowedFolders([home])
    (home / "link").symlink_to("inner/deep/file")
    (home / "folder").symlink_to("inner")
    absolute = home / "absolute"
    absolute.symlink_to(home / "inner" / "deep" / "file")
    for path in ("inner/deep/file", "link", "folder/deep/file", "absolute", "inner/../link"):
        assert content(folders, home / path) == b"inside"
        assert folders.holds(home / path)
        assert folders.check(home / path) == (home / "inner" / "deep" / "file").resolve()


def test_files_elsewhere_are_refused(home: Path) -> None:
    folders = AllowedFolders([home / "inner", home])
    (home / "link").symlink_to("../secret")
    (home / "chain").symlink_to("link")
    (home / "up").symlink_to("..")
    paths = ["../secret", "../home-2/file", "link", "chain", "up/secret", "inner/../../secret"]
    for path in [*(home / name for name in paths), home.parent / "secret"]:
        assert not folders.holds(path)
        assert folders.outside([home / "inner" / "deep" / "file", path]) == [path]
        for use in (folders.open, folders.check):
            with pytest.raises(NotAllowed, match="outside of the folders"):
                use(path)
    # A folder that is named is allowed, whatever links to it.
    assert content(AllowedFolders([home.parent]), home / "chain") == b"outside"
    assert content(AllowedFolders([home, home.parent]), home / "link") == b"outside"


def test_no_folder_allows_nothing(home: Path) -> None:
    with pytest.raises(NotAllowed):
        AllowedFolders([]).open(home / "inner" / "deep" / "file")
    with pytest.raises(ValueError, match="is not a folder"):
        AllowedFolders([home / "inner" / "deep" / "file"])


def test_the_root_folder_allows_everything(home: Path) -> None:
    assert content(AllowedFolders(["/"]), home.parent / "secret") == b"outside"


def test_what_is_not_a_regular_file_is_refused_without_waiting(home: Path) -> None:
    folders = AllowedFolders([home, "/dev"])
    os.mkfifo(home / "pipe")
    for path in (home / "pipe", Path("/dev/zero"), home / "inner", home):
        with pytest.raises(NotAllowed, match="is not a regular file"):
            folders.open(path)
    for path in (home / "pipe", Path("/dev/zero")):
        with pytest.raises(NotAllowed, match="is not a regular file"):
            folders.check(path)


def test_what_is_missing_is_an_error_of_the_system(home: Path) -> None:
    folders = AllowedFolders([home])
    (home / "circle").symlink_to("circle")
    for path in (home / "nothing", home / "circle"):
        for use in (folders.open, folders.check):
            with pytest.raises(OSError, match=r"nothing|circle"):
                use(path)


@pytest.mark.parametrize("part", ["inner", "inner/deep", "inner/deep/file"])
def test_a_link_that_replaces_a_part_after_the_check_is_refused(
    part: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is resolved, then a part of it becomes a link to a folder with the same names."""
    folders = AllowedFolders([home])
    other = home.parent / "other"
    (other / "inner" / "deep").mkdir(parents=True)
    (other / "inner" / "deep" / "file").write_bytes(b"outside")
    resolve = os.path.realpath

    def resolved_then_replaced(path: Path, **options: bool) -> str:
        real = resolve(path, **options)
        (home / part).rename(home.parent / "moved")
        (home / part).symlink_to(other / part)
        return real

    monkeypatch.setattr(allowed_files.os.path, "realpath", resolved_then_replaced)
    with pytest.raises(NotAllowed, match="is not a regular file, or was replaced"):
        folders.open(home / "inner" / "deep" / "file")


def test_no_descriptor_is_left_open(home: Path) -> None:
    folders = AllowedFolders([home])
    before = len(os.listdir("/dev/fd"))
    for path in ("inner", "inner/deep/file", "nothing", "../secret"):
        with contextlib.suppress(NotAllowed, OSError):
            folders.open(home / path).close()
    assert len(os.listdir("/dev/fd")) == before
