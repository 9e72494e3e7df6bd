"""Missing optional libraries: one line, with a command that can be copied."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from mocme.core import extras
from mocme.core.extras import MissingLibrary, extra, remedy

ROOT = Path(__file__).parents[2]


class Installed:
    """A distribution of which only the origin is known."""

    def __init__(self, origin: dict[str, Any] | None) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.origin is None else json.dumps(self.origin)


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (None, '"mocme[image]"'),
        (
            {"url": "file:///w/mocme-1-py3-none-any.whl", "archive_info": {}},
            '"mocme[image] @ file:///w/mocme-1-py3-none-any.whl"',
        ),
        ({"url": "file:///my/clone", "dir_info": {}}, '"mocme[image] @ file:///my/clone"'),
        (
            {"url": "https://host/m.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            '"mocme[image] @ git+https://host/m.git@abc"',
        ),
        (
            {"url": "file:///my%20own/clone", "dir_info": {"editable": True}},
            '-e "/my own/clone[image]"',
        ),
    ],
)
def test_the_command_installs_from_where_the_package_came(
    origin: dict[str, Any] | None, requirement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(origin))
    assert remedy("image").startswith('install the extra "image": ')
    assert remedy("image").endswith(f"pip install {requirement}")


def test_in_a_clone_the_versions_are_the_tested_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    origin = {"url": ROOT.as_uri(), "dir_info": {"editable": True}}
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(origin))
    assert remedy("rdf").endswith(f'pip install -c {ROOT}/constraints.txt -e "{ROOT}[rdf]"')


def test_without_an_installation_the_command_is_that_of_a_clone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    assert remedy("rdf").endswith('pip install -e ".[rdf]"')


def test_the_pip_is_that_of_this_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(extras.shutil, "which", lambda name: str(tmp_path / name))
    assert f"{sys.executable} -m pip install" in remedy("rdf")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert "-m pip" not in remedy("rdf")


def test_a_missing_library_is_an_import_error_and_a_value_error() -> None:
    with pytest.raises(MissingLibrary) as caught, extra("that", "rdf", "RDF needs"):
        import no_such_library_of_anyone  # noqa: F401
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == f"RDF needs that, which is not installed; {remedy('rdf')}"


def test_every_extra_that_a_message_names_exists() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r'\b(?:extra|missing)\("?[\w\- ]+"?, "(\w+)"', sources))
    assert len(named) > 8
    assert named <= set(declared["optional-dependencies"])
