"""HTML elements from parts; every text is escaped unless it is `Markup`."""

from __future__ import annotations

import unicodedata
from html import escape

LONGEST = 80
# Marks that change the direction of the text after them, and so of the page around a name.
DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Elements that have no content and no end tag.
VOID = frozenset({"meta", "br"})


class Markup(str):
    """Markup made by `tag`; every other text is escaped when it is put into an element."""

    __slots__ = ()


def tag(name: str, /, *content: str, **attributes: object) -> Markup:
    """Make an element.

    Args:
        content: elements, or texts to be escaped.
        attributes: ``_`` stands for ``-``, and a trailing one is dropped (``class_``); an
            attribute that is None is left out.
    """
    attribute_text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(visible(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{attribute_text}>")
    return Markup(f"<{name}{attribute_text}>{join(*content)}</{name}>")


def join(*content: str) -> Markup:
    """Concatenate elements and texts."""
    return Markup("".join(c if isinstance(c, Markup) else escape(visible(c)) for c in content))


def visible(text: str) -> str:
    """Replace characters that are invisible, end a line or change the direction by their code."""
    return "".join(_code(character) if _hidden(character) else character for character in text)


def short(text: str, longest: int = LONGEST) -> str:
    """Cut a long text, and append the number of characters that were left out."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]}... ({len(text) - longest:,} more characters)"


def label(name: str) -> Markup:
    """Make an element for a name of the data, isolated from the text direction around it."""
    full = visible(name)[:1000] if len(name) > LONGEST else None
    return tag("bdi", short(name) or "(empty)", title=full)


def _hidden(character: str) -> bool:
    return character in DIRECTION or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _code(character: str) -> str:
    return f"\\u{{{ord(character):x}}}"
