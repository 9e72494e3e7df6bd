"""An explanation as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mocme.core.plotting import new_figure, save
from mocme.core.text import short
from mocme.explanation.schema import Explanation, fact

FOR, AGAINST = "#2f6f9f", "#b5545a"
LONGEST = 60
MOST_BARS = 8

Bars = list[tuple[str, float]]


def draw(found: Explanation, out: Path) -> None:
    """Bars of what speaks for a fact and against it, and the nearest entities.

    Raises:
        ImportError: matplotlib is not installed, with how to install it.
    """
    panels = [panel for panel in _panels(found) if panel[1]]
    lists = [f"{short(name, LONGEST)} by {by}: {near}" for name, by, near in _near(found)]
    sizes = [0.34 * len(bars) + 0.7 for _, bars, _ in panels]
    sizes.append(0.2 * len(lists) + 0.5)
    figure = new_figure(out, figsize=(10, 0.8 + sum(sizes)), layout="constrained")
    # Names are shown as they are: a dollar sign begins no formula.
    title = f"{found.title}\n{found.summary}"
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", parse_math=False)
    axes = figure.subplots(len(sizes), 1, height_ratios=sizes, squeeze=False)[:, 0]
    for axis, (name, bars, unit) in zip(axes, panels, strict=False):
        _bars(axis, name, bars, unit)
    axes[-1].axis("off")
    axes[-1].set_title("Nearest entities", fontsize=10, loc="left")
    axes[-1].text(
        0, 1, "\n".join(lists), fontsize=8, va="top", transform=axes[-1].transAxes, parse_math=False
    )
    save(figure, out, found.title)


def _panels(found: Explanation) -> list[tuple[str, Bars, str]]:
    """Title, bars and unit; a bar to the right speaks for the fact."""
    names = {"head": found.head, "tail": found.tail}
    modalities = [
        (f"{share.name} of {short(names[share.of], 30)}", share.without)
        for share in found.modalities
        if share.without is not None
    ]
    supports = [(fact(row), -row.change) for row in found.supports]
    rules = [(rule.name, rule.share) for rule in found.rules[:MOST_BARS]]
    rest = len(found.rules) - len(rules)
    more = f" ({rest} more not drawn)" if rest else ""
    return [
        ("Modalities", modalities, "fall of the score when withheld"),
        ("Training facts", supports, "estimated fall of the score without it"),
        (f"Rules{more}", rules, "log odds"),
    ]


def _near(found: Explanation) -> list[tuple[str, str, str]]:
    names = {"head": found.head, "tail": found.tail}
    return [
        (names[own.of], own.by, ", ".join(short(near.name, 24) for near in own.entities))
        for own in found.neighbours
    ]


def _bars(axis: Any, title: str, bars: Bars, unit: str) -> None:
    places = range(len(bars))
    values = [value for _, value in bars]
    axis.barh(places, values, 0.7, color=[FOR if value > 0 else AGAINST for value in values])
    axis.set_yticks(
        places, [short(name, LONGEST) for name, _ in bars], fontsize=8, parse_math=False
    )
    axis.set_ylim(len(bars) - 0.5, -0.5)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_title(f"{title}: {unit}", fontsize=10, loc="left")
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)
