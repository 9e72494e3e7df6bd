"""The kinds of encoders; a table ``{kind = "image", paths = [...]}`` becomes one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mocme.core.registry import ConfigError, build
from mocme.encoders.audio import Audio
from mocme.encoders.base import Encoder
from mocme.encoders.bins import Bins
from mocme.encoders.codes import Codes
from mocme.encoders.image import Image
from mocme.encoders.numeric import Numeric
from mocme.encoders.text import Text
from mocme.encoders.video import Video
from mocme.encoders.words import Words

Encoder.kinds = (Text, Image, Audio, Video, Numeric, Words, Bins, Codes)


def names() -> list[str]:
    """What kinds are called in tables and on the command line."""
    return [kind.__name__.lower() for kind in Encoder.kinds]


def encoder_of(table: Mapping[str, Any], path: str) -> Encoder:
    """The encoder that a table describes.

    Raises:
        ConfigError: a setting is wrong, with its path.
    """
    kind = table.get("kind")
    if not isinstance(kind, str) or not kind:
        raise ConfigError(f"{path}: needs a kind, one of {', '.join(names())}")
    known = {part.__name__.lower(): part.__name__ for part in Encoder.kinds}
    if ":" not in kind and kind.lower() not in known:
        raise ConfigError(f"{path}.kind: {kind!r} is none of: {', '.join(names())}")
    settings = {**table, "kind": known.get(kind.lower(), kind)}
    return build(Encoder, settings, path)  # type: ignore[type-abstract]
