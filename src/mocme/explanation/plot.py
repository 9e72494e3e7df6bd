"""Plots of explanations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mocme.core.plotting import new_figure, save
from mocme.core.text import shorten
from mocme.explanation.schema import Explanation, fact

FOR, AGAINST = "#2f6f9f", "#b5545a"
LONGEST = 60
MOST_BARS = 8

Bars = list[tuple[str, float]]


def draw(explanation: Explanation, out: Path) -> None:
    """Plot the evidence for and against a fact as bars, and list the nearest entities.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.
    """
    panels = [panel for panel in _panels(explanation) if panel[1]]
    lists = [
        f"{shorten(name, LONGEST)} by {by}: {names}"
        for name, by, names in _neighbour_names(explanation)
    ]
    sizes = [0.34 * len(bars) + 0.7 for _, bars, _ in panels]
    sizes.append(0.2 * len(lists) + 0.5)
    figure = new_figure(out, figsize=(10, 0.8 + sum(sizes)), layout="constrained")
    # A dollar sign in a name must not start a formula.
    title = f"{explanation.title}\n{explanation.summary}"
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", parse_math=False)
    axes = figure.subplots(len(sizes), 1, height_ratios=sizes, squeeze=False)[:, 0]
    for axis, (name, bars, unit) in zip(axes, panels, strict=False):
        _bars(axis, name, bars, unit)
    axes[-1].axis("off")
    axes[-1].set_title("Nearest entities", fontsize=10, loc="left")
    axes[-1].text(
        0, 1, "\n".join(lists), fontsize=8, va="top", transform=axes[-1].transAxes, parse_math=False
    )
    save(figure, out, explanation.title)


def _panels(explanation: Explanation) -> list[tuple[str, Bars, str]]:
    """Return title, bars and unit of each panel; positive bars support the fact."""
    names = {"head": explanation.head, "tail": explanation.tail}
    modalities = [
        (f"{share.name} of {shorten(names[share.of], 30)}", share.without)
        for share in explanation.modalities
        if share.without is not None
    ]
    supports = [(fact(row), -row.change) for row in explanation.supports]
    rules = [(rule.name, rule.share) for rule in explanation.rules[:MOST_BARS]]
    omitted = len(explanation.rules) - len(rules)
    suffix = f" ({omitted} more not shown)" if omitted else ""
    return [
        ("Modalities", modalities, "score drop when withheld"),
        ("Training facts", supports, "estimated score drop without it"),
        (f"Rules{suffix}", rules, "log odds"),
    ]


def _neighbour_names(explanation: Explanation) -> list[tuple[str, str, str]]:
    """Return entity, compared space and names of the nearest entities."""
    names = {"head": explanation.head, "tail": explanation.tail}
    return [
        (names[group.of], group.by, ", ".join(shorten(near.name, 24) for near in group.entities))
        for group in explanation.neighbours
    ]


def _bars(axis: Any, title: str, bars: Bars, unit: str) -> None:
    positions = range(len(bars))
    values = [value for _, value in bars]
    axis.barh(positions, values, 0.7, color=[FOR if value > 0 else AGAINST for value in values])
    axis.set_yticks(
        positions, [shorten(name, LONGEST) for name, _ in bars], fontsize=8, parse_math=False
    )
    axis.set_ylim(len(bars) - 0.5, -0.5)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_title(f"{title}: {unit}", fontsize=10, loc="left")
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)
