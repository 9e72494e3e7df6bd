"""Charts as inline SVG, in the colours of the page, so that they follow its light or dark mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mocme.audit.html import Markup, short, tag

# Lengths are in SVG units.
WIDTH = 760
LABEL, VALUE = 190, 190
ROW = 26


@dataclass(frozen=True)
class Bar:
    """A horizontal bar between 0 and 1.

    Attributes:
        parts: (share, colour class) from left to right.
        text: shown to the right of the bar.
    """

    name: str
    parts: Sequence[tuple[float, str]]
    text: str


def bars(title: str, rows: Sequence[Bar]) -> Markup:
    """Draw horizontal bars, one below the other, on a scale from 0 to 1."""
    scale = WIDTH - LABEL - VALUE
    shapes: list[str] = []
    for position, row in enumerate(rows):
        top = position * ROW
        baseline = top + 16
        shapes.append(_text(LABEL - 10, baseline, row.name, text_anchor="end"))
        shapes.append(_box(LABEL, top + 4, scale, 16, "track"))
        left = float(LABEL)
        for share, colour in row.parts:
            # At least 2 units wide, so that a small share is visible.
            width = max(share * scale, 2.0) if share else 0.0
            shapes.append(_box(left, top + 4, min(width, LABEL + scale - left), 16, colour))
            left = min(left + width, LABEL + scale)
        shapes.append(_text(LABEL + scale + 10, baseline, row.text, class_="value"))
    return _chart(title, ROW * len(rows) + 4, shapes)


def columns(title: str, counts: Mapping[str, int], axis: str) -> Markup:
    """Draw vertical columns with their counts above and their names below."""
    height, bottom = 170, 190
    largest = max(counts.values(), default=0) or 1
    step = WIDTH / max(1, len(counts))
    shapes: list[str] = [_line(0, bottom, WIDTH, bottom)]
    for position, (name, count) in enumerate(counts.items()):
        middle = (position + 0.5) * step
        tall = max(count / largest * (height - 20), 1.0) if count else 0.0
        shapes.append(_box(middle - 0.4 * step, bottom - tall, 0.8 * step, tall, "one"))
        shapes.append(_text(middle, bottom - tall - 5, f"{count:,}", text_anchor="middle"))
        shapes.append(_text(middle, bottom + 16, name, text_anchor="middle", class_="value"))
    shapes.append(_text(WIDTH / 2, bottom + 38, axis, text_anchor="middle", class_="value"))
    return _chart(title, bottom + 46, shapes)


def strips(title: str, groups: Mapping[str, Sequence[tuple[str, int]]], axis: str) -> Markup:
    """Draw a strip for each group, with a dot for each (name, count) on a logarithmic scale."""
    left, right, height = 120, WIDTH - 30, 46
    largest = max((n for members in groups.values() for _, n in members), default=1)
    powers = max(1, math.ceil(math.log10(max(largest, 1))))
    bottom = height * len(groups)
    shapes: list[str] = []
    for power in range(powers + 1):
        x = left + (right - left) * power / powers
        shapes.append(_line(x, 0, x, bottom + 4))
        shapes.append(_text(x, bottom + 18, f"{10**power:,}", text_anchor="middle", class_="value"))
    for position, (group, members) in enumerate(groups.items()):
        middle = position * height + height / 2
        shapes.append(_text(0, middle - 3, group))
        shapes.append(_text(0, middle + 13, f"{len(members):,} relations", class_="value"))
        for number, (name, count) in enumerate(members):
            x = left + (right - left) * math.log10(max(count, 1)) / powers
            # Seven heights in a fixed order, so that dots of the same count do not overlap.
            y = middle + (number * 5 % 7 - 3) * 4
            hint = tag("title", short(name) or "(empty)", f": {count:,}")
            shapes.append(tag("circle", hint, cx=_n(x), cy=_n(y), r=4, class_="dot"))
    shapes.append(
        _text((left + right) / 2, bottom + 38, axis, text_anchor="middle", class_="value")
    )
    return _chart(title, bottom + 46, shapes)


def _chart(title: str, height: float, shapes: Sequence[str]) -> Markup:
    svg = tag(
        "svg",
        tag("title", title),
        *shapes,
        viewBox=f"0 0 {WIDTH} {_n(height)}",
        role="img",
        aria_label=title,
    )
    return tag("figure", svg, class_="picture")


def _text(x: float, y: float, text: str, **attributes: object) -> Markup:
    return tag("text", text, x=_n(x), y=_n(y), **attributes)


def _box(x: float, y: float, width: float, height: float, colour: str) -> Markup:
    sizes = {"x": _n(x), "y": _n(y), "width": _n(width), "height": _n(height)}
    return tag("rect", **sizes, class_=colour)


def _line(x1: float, y1: float, x2: float, y2: float) -> Markup:
    return tag("line", x1=_n(x1), y1=_n(y1), x2=_n(x2), y2=_n(y2))


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
