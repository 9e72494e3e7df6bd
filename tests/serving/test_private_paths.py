"""Messages for clients do not say where files of the server are."""

from __future__ import annotations

from pathlib import Path

import pytest

from mocme.serving.private_paths import PrivatePaths


def test_known_files_are_told_by_their_names() -> None:
    paths = PrivatePaths(["/srv/runs/atlas", "/srv/runs/b", Path("/home/ada/data/atlas"), "/x"])
    assert paths.hide("/srv/runs/atlas: no 'x'") == "atlas: no 'x'"
    assert paths.hide("/srv/runs/atlas/experts/a.json: x") == "atlas/experts/a.json: x"
    assert paths.hide("'/home/ada/data/atlas' and (/srv/runs/b)") == "'atlas' and (b)"


@pytest.mark.parametrize(
    "text",
    ["there is no entity '/m/0abc/x'", "GET /v1/search?q=...", "/x: a", "a/srv/runs/atlas", ""],
)
def test_other_texts_stay(text: str) -> None:
    assert PrivatePaths(["/srv/runs/atlas", "/x"]).hide(text) == text


def test_relative_and_linked_paths_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real" / "run").mkdir(parents=True)
    (tmp_path / "runs").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    paths = PrivatePaths(["runs/run", "here"])
    for place in ("runs/run", tmp_path / "runs" / "run", tmp_path / "real" / "run"):
        assert paths.hide(f"{place}: x") == "run: x"
    assert paths.hide(f"{tmp_path / 'here'}: x") == "here: x"


def test_notes_have_no_absolute_path() -> None:
    paths = PrivatePaths(["/srv/runs/atlas"])
    note = "2 files are not shown, first /etc/secret/a.png; start with --files-from DIR"
    assert paths.hide_all(note) == note.replace("/etc/secret/", "")
    assert paths.hide_all(r"C:\data\x.tsv: no") == "x.tsv: no"
    assert paths.hide_all("text/numbers or 1/2/3: see /v1") == "text/numbers or 1/2/3: see /v1"
