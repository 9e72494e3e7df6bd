"""Pictures as inline SVG, drawn with the page's own colours, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mocme.audit.html import Markup, short, tag

WIDTH = 760
LABEL, VALUE = 190, 190
ROW = 26


@dataclass(frozen=True)
class Bar:
    """A horizontal bar between 0 and 1.

    Attributes:
        parts: (share, colour class) from left to right.
        text: shown at its right.
    """

    name: str
    parts: Sequence[tuple[float, str]]
    text: str


def bars(title: str, rows: Sequence[Bar]) -> Markup:
    """Horizontal bars, one below the other, on a scale from 0 to 1."""
    room = WIDTH - LABEL - VALUE
    shapes: list[str] = []
    for place, row in enumerate(rows):
        top = place * ROW
        middle = top + 16
        shapes.append(_text(LABEL - 10, middle, row.name, text_anchor="end"))
        shapes.append(_box(LABEL, top + 4, room, 16, "track"))
        left = float(LABEL)
        for share, colour in row.parts:
            # What is there must be seen, however little it is.
            width = max(share * room, 2.0) if share else 0.0
            shapes.append(_box(left, top + 4, min(width, LABEL + room - left), 16, colour))
            left = min(left + width, LABEL + room)
        shapes.append(_text(LABEL + room + 10, middle, row.text, class_="value"))
    return _picture(title, ROW * len(rows) + 4, shapes)


def columns(title: str, heights: Mapping[str, int], axis: str) -> Markup:
    """Upright columns with their numbers, and what they stand for below."""
    height, low = 170, 190
    top = max(heights.values(), default=0) or 1
    step = WIDTH / max(1, len(heights))
    shapes: list[str] = [_line(0, low, WIDTH, low)]
    for place, (name, count) in enumerate(heights.items()):
        middle = (place + 0.5) * step
        tall = max(count / top * (height - 20), 1.0) if count else 0.0
        shapes.append(_box(middle - 0.4 * step, low - tall, 0.8 * step, tall, "one"))
        shapes.append(_text(middle, low - tall - 5, f"{count:,}", text_anchor="middle"))
        shapes.append(_text(middle, low + 16, name, text_anchor="middle", class_="value"))
    shapes.append(_text(WIDTH / 2, low + 38, axis, text_anchor="middle", class_="value"))
    return _picture(title, low + 46, shapes)


def strips(title: str, groups: Mapping[str, Sequence[tuple[str, int]]], axis: str) -> Markup:
    """A strip for each group with a dot for each (name, number), on a logarithmic scale."""
    left, right, high = 120, WIDTH - 30, 46
    largest = max((n for members in groups.values() for _, n in members), default=1)
    powers = max(1, math.ceil(math.log10(max(largest, 1))))
    bottom = high * len(groups)
    shapes: list[str] = []
    for power in range(powers + 1):
        x = left + (right - left) * power / powers
        shapes.append(_line(x, 0, x, bottom + 4))
        shapes.append(_text(x, bottom + 18, f"{10**power:,}", text_anchor="middle", class_="value"))
    for place, (group, members) in enumerate(groups.items()):
        middle = place * high + high / 2
        shapes.append(_text(0, middle - 3, group))
        shapes.append(_text(0, middle + 13, f"{len(members):,} relations", class_="value"))
        for number, (name, count) in enumerate(members):
            x = left + (right - left) * math.log10(max(count, 1)) / powers
            # Side by side in a fixed order, so that dots of one size do not hide each other.
            y = middle + (number * 5 % 7 - 3) * 4
            hint = tag("title", short(name) or "(empty)", f": {count:,}")
            shapes.append(tag("circle", hint, cx=_n(x), cy=_n(y), r=4, class_="dot"))
    shapes.append(
        _text((left + right) / 2, bottom + 38, axis, text_anchor="middle", class_="value")
    )
    return _picture(title, bottom + 46, shapes)


def _picture(title: str, height: float, shapes: Sequence[str]) -> Markup:
    drawing = tag(
        "svg",
        tag("title", title),
        *shapes,
        viewBox=f"0 0 {WIDTH} {_n(height)}",
        role="img",
        aria_label=title,
    )
    return tag("figure", drawing, class_="picture")


def _text(x: float, y: float, text: str, **attributes: object) -> Markup:
    return tag("text", text, x=_n(x), y=_n(y), **attributes)


def _box(x: float, y: float, width: float, height: float, colour: str) -> Markup:
    sizes = {"x": _n(x), "y": _n(y), "width": _n(width), "height": _n(height)}
    return tag("rect", **sizes, class_=colour)


def _line(x1: float, y1: float, x2: float, y2: float) -> Markup:
    return tag("line", x1=_n(x1), y1=_n(y1), x2=_n(x2), y2=_n(y2))


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
