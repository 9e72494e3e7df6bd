"""HTML from parts: every text is escaped unless it was made here."""

from __future__ import annotations

import unicodedata
from html import escape

LONGEST = 80
# Marks that change the direction of the text after them, and so of the page around a name.
DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Elements that have no content and no end.
VOID = frozenset({"meta", "br"})


class Markup(str):
    """Markup, as `tag` makes it; every other text is escaped where it is put into a tag."""

    __slots__ = ()


def tag(name: str, /, *content: str, **attributes: object) -> Markup:
    """An element.

    Args:
        content: elements, or texts to be escaped.
        attributes: ``_`` stands for ``-`` and one at the end is dropped (``class_``); an
            attribute that is None is left out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(visible(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(*content)}</{name}>")


def join(*content: str) -> Markup:
    """Elements and texts one after the other."""
    return Markup("".join(c if isinstance(c, Markup) else escape(visible(c)) for c in content))


def visible(text: str) -> str:
    """A text with marks in place of what cannot be seen, ends a line or turns the direction."""
    return "".join(_mark(character) if _hidden(character) else character for character in text)


def short(text: str, longest: int = LONGEST) -> str:
    """The beginning of a long text, with how many characters were left out."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]}... ({len(text) - longest:,} more characters)"


def label(name: str) -> Markup:
    """A name of the data, apart from the direction of the text around it."""
    full = visible(name)[:1000] if len(name) > LONGEST else None
    return tag("bdi", short(name) or "(empty)", title=full)


def _hidden(character: str) -> bool:
    return character in DIRECTION or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _mark(character: str) -> str:
    return f"\\u{{{ord(character):x}}}"
