"""The kinds of encoders; a table ``{kind = "image", paths = [...]}`` becomes one of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from mocme.core.registry import ConfigError, build, discover
from mocme.encoders import kinds
from mocme.encoders.base import Encoder

Encoder.kinds = discover(Encoder, kinds)


def kind_names() -> list[str]:
    """Values of `kind` in tables, which are the names of commands too."""
    return [encoder.kind_name() for encoder in Encoder.kinds]


def encoder_of(table: Mapping[str, Any], path: str, *, trust_code: bool = False) -> Encoder:
    """Make the encoder that a table describes.

    Args:
        trust_code: import the class of the user that the table names.

    Raises:
        ConfigError: a setting is wrong; with its path.
    """
    kind = table.get("kind")
    if not isinstance(kind, str) or not kind:
        raise ConfigError(f"{path}: needs a kind, one of {', '.join(kind_names())}")
    if ":" not in kind:
        kind = kind.lower()
    settings = {**table, "kind": kind}
    return build(Encoder, settings, path, trust_code=trust_code)  # type: ignore[type-abstract]


def setting_docs(encoder: type) -> dict[str, str]:
    """The description of each setting, from the docstrings of a class and of its parents.

    Descriptions are the entries under ``Args:``; that of a subclass replaces that of its parent.
    """
    docs: dict[str, str] = {}
    for part in reversed(encoder.__mro__):
        text = inspect.cleandoc(part.__dict__.get("__doc__") or "").partition("\nArgs:\n")[2]
        # The section ends where a line is not indented. Entries are indented by 4 spaces, their
        # further lines by more.
        section = re.split(r"\n(?=\S)", text, maxsplit=1)[0]
        for entry in re.findall(r"^    (\w+: .*(?:\n {5,}.*)*)", section, re.MULTILINE):
            name, _, description = entry.partition(": ")
            docs[name] = description
    return docs
