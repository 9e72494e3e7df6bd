"""Plots of explanations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mocme.core.plotting import new_figure, save
from mocme.core.text import shorten

FOR, AGAINST = "#2f6f9f", "#b5545a"
LONGEST = 60

Bars = list[tuple[str, float]]


class Panel(NamedTuple):
    """Bars of one kind of evidence; positive values support the fact."""

    title: str
    bars: Bars
    unit: str


def draw(
    title: str, summary: str, panels: Sequence[Panel], neighbours: Sequence[str], out: Path
) -> None:
    """Plot the evidence for and against a fact as bars, and list the nearest entities.

    Args:
        neighbours: a line for each entity and space in which entities are compared.

    Raises:
        MissingLibrary: matplotlib is not installed; the message says how to install it.
    """
    panels = [panel for panel in panels if panel.bars]
    sizes = [0.34 * len(panel.bars) + 0.7 for panel in panels]
    sizes.append(0.2 * len(neighbours) + 0.5)
    figure = new_figure(out, figsize=(10, 0.8 + sum(sizes)), layout="constrained")
    # A dollar sign in a name must not start a formula.
    figure.suptitle(f"{title}\n{summary}", fontsize=11, x=0.01, ha="left", parse_math=False)
    axes = figure.subplots(len(sizes), 1, height_ratios=sizes, squeeze=False)[:, 0]
    for axis, panel in zip(axes, panels, strict=False):
        _draw_bars(axis, panel)
    axes[-1].axis("off")
    axes[-1].set_title("Nearest entities", fontsize=10, loc="left")
    axes[-1].text(
        0,
        1,
        "\n".join(neighbours),
        fontsize=8,
        va="top",
        transform=axes[-1].transAxes,
        parse_math=False,
    )
    save(figure, out, title)


def _draw_bars(axis: Any, panel: Panel) -> None:
    bars = panel.bars
    positions = range(len(bars))
    values = [value for _, value in bars]
    axis.barh(positions, values, 0.7, color=[FOR if value > 0 else AGAINST for value in values])
    axis.set_yticks(
        positions, [shorten(name, LONGEST) for name, _ in bars], fontsize=8, parse_math=False
    )
    axis.set_ylim(len(bars) - 0.5, -0.5)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_title(f"{panel.title}: {panel.unit}", fontsize=10, loc="left")
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)
