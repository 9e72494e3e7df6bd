"""The kinds of encoders; a table ``{kind = "image", paths = [...]}`` becomes one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mocme.core.registry import ConfigError, build, discover
from mocme.encoders import kinds
from mocme.encoders.base import Encoder

Encoder.kinds = discover(Encoder, kinds)


def names() -> list[str]:
    """What kinds are called in tables and on the command line."""
    return [encoder.kind_name() for encoder in Encoder.kinds]


def encoder_of(table: Mapping[str, Any], path: str) -> Encoder:
    """The encoder that a table describes.

    Raises:
        ConfigError: a setting is wrong, with its path.
    """
    kind = table.get("kind")
    if not isinstance(kind, str) or not kind:
        raise ConfigError(f"{path}: needs a kind, one of {', '.join(names())}")
    if ":" not in kind:
        kind = kind.lower()
    return build(Encoder, {**table, "kind": kind}, path)  # type: ignore[type-abstract]
