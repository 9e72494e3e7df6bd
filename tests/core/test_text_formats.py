"""JSON and TOML from elsewhere: strict, and with a limit on nesting."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from mocme.core.registry import ConfigError
from mocme.core.text_formats import MAX_DEPTH, parse_json, parse_toml
from mocme.data.ingest.reader import read_graph_toml
from mocme.data.ingest.recipe import Recipe
from mocme.runs.experiment_files import parse_override, read_toml

DEEP_TOML = {
    "lists": "x = " + "[" * 5000 + "]" * 5000,
    "keys": f"[{'.'.join('a' * 3000)}]",
    "inline tables": "x = " + "{a = " * 5000,
}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "nested more than 100"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested more than 100"),
        ('{"a":' * 50_000, "nested more than 100"),
        ("1e999", "the number 1e999, which is not finite"),
        ("[NaN]", "the number NaN"),
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        (r'"\ud800"', "surrogates not allowed"),
        ("9" * 5000, "digits"),
        ("{", "Expecting"),
    ],
)
def test_json_that_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_json(text)


def test_json_as_it_is_written() -> None:
    assert parse_json(r'{"a": [1, 2.5, null, "\ud83d\ude00"]}') == {"a": [1, 2.5, None, "😀"]}
    assert parse_json("[Infinity]", finite=False) == [float("inf")]
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)


@pytest.mark.parametrize("kind", DEEP_TOML)
def test_deep_toml_is_an_error_of_its_file(tmp_path: Path, kind: str) -> None:
    text = DEEP_TOML[kind]
    with pytest.raises(tomllib.TOMLDecodeError):
        parse_toml(text)
    path = tmp_path / "graph.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"graph\.toml"):
        read_graph_toml(tmp_path)
    with pytest.raises(ConfigError, match=r"graph\.toml"):
        read_toml(path)
    with pytest.raises(ValueError, match=r"graph\.toml"):
        Recipe.read(path)
    assert parse_override(f"a={'[' * 5000}") == ("a", "[" * 5000)
