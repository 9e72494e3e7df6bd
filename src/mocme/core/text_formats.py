"""JSON and TOML from elsewhere: strict, and with a limit on nesting."""

from __future__ import annotations

import json
import math
import re
import tomllib
from typing import Any

# Levels of tables and lists. Far above what is ever written, and far below Python's own limit, so
# that no function that walks through a value can exceed that.
MAX_DEPTH = 100
# A key of TOML of so many parts.
_PART = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
_LONG_KEY = re.compile(rf"(?:{_PART}\.[ \t]*+){{100}}")
# A JSON escape that may be half a character.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def check_depth(value: Any) -> None:
    """Refuse a value that is nested more than `MAX_DEPTH` levels deep.

    Raises:
        ValueError: it is.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        # Not by recursion, and only containers are kept: a list of names costs one pass.
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if type(item) in (dict, list)
        ]
        if not level:
            return
    raise ValueError(_too_deep())


def parse_json(content: bytes | str, *, finite: bool = True) -> Any:
    """Parse JSON with the limit of `check_depth`.

    Args:
        finite: whether to refuse NaN, infinite numbers and those that are infinite as a float.

    Raises:
        ValueError: it is not JSON or not UTF-8, is nested too deeply, has a key twice, half a
            surrogate pair, or a number that is refused.
    """
    if isinstance(content, str):
        content = content.encode()
    try:
        value = json.loads(
            content,
            parse_float=_finite if finite else float,
            parse_constant=_finite if finite else float,
            object_pairs_hook=_distinct,
        )
    except RecursionError:
        raise ValueError(_too_deep()) from None
    if isinstance(value, dict | list):
        check_depth(value)
    if _SURROGATE.search(content):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML, with the limit of `check_depth`.

    Raises:
        tomllib.TOMLDecodeError: it is not TOML, or is nested too deeply.
    """
    # The time for a key grows with the square of its parts.
    if _LONG_KEY.search(text):
        raise tomllib.TOMLDecodeError(_too_deep())
    try:
        table = tomllib.loads(text)
        check_depth(table)
    except RecursionError:
        raise tomllib.TOMLDecodeError(_too_deep()) from None
    except ValueError as error:  # such as an integer of more digits than Python converts
        raise tomllib.TOMLDecodeError(str(error)) from None
    return table


def _too_deep() -> str:
    return f"is nested more than {MAX_DEPTH} levels deep"


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"contains the number {text}, which is not finite")
    return number


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"has the key {twice!r} twice in one object")
    return table
