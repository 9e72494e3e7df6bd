"""A search as a picture: validation MRR by trial, and by each setting."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mocme.tuning.plan import Plan, Range, canonical
from mocme.tuning.table import shortened
from mocme.tuning.trials import Trial, best

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = "trials.png"
COLUMNS = 3
COMPLETE, PRUNED, BEST = "#1f6f8b", "#b0b0b0", "#d1495b"


def draw(folder: Path, plan: Plan, trials: Sequence[Trial]) -> Path:
    """Write the picture into the search's folder.

    Raises:
        ValueError: matplotlib is not installed, with the remedy.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            f"{PICTURE} needs matplotlib, which is not installed; pip install 'mocme[pictures]'"
        ) from error
    count = 1 + len(plan.ranges)
    columns = 2 if count == 4 else min(COLUMNS, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    _by_trial(panels[0], trials)
    names = shortened(list(plan.ranges))
    for panel, (path, found) in zip(panels[1:], plan.ranges.items(), strict=False):
        _by_setting(panel, names[path], path, found, trials)
    for panel in panels[count:]:
        panel.set_visible(False)
    for panel in panels[::columns]:
        panel.set_ylabel("validation MRR")
    figure.suptitle(
        f"{plan.file.name}: {len(trials)} trials by validation (red: the best; crosses: pruned)",
        fontsize="medium",
    )
    fresh = folder / f".{PICTURE}.tmp"
    figure.savefig(fresh, format="png", dpi=110)
    os.replace(fresh, folder / PICTURE)
    return folder / PICTURE


def _by_trial(panel: Axes, trials: Sequence[Trial]) -> None:
    numbers = {trial.number: float(trial.number) for trial in trials}
    _dots(panel, trials, numbers)
    reached, heights = -math.inf, []
    for trial in trials:
        reached = max(reached, -math.inf if trial.mrr is None else trial.mrr)
        heights.append(reached if math.isfinite(reached) else math.nan)
    panel.step(list(numbers.values()), heights, where="post", color=BEST, linewidth=1)
    panel.set_xlabel("trial; the line is the best so far")
    panel.locator_params(axis="x", integer=True)


def _by_setting(panel: Axes, name: str, path: str, found: Range, trials: Sequence[Trial]) -> None:
    panel.set_xlabel(name)
    if found.choices is not None:
        known = [canonical(value) for value in found.choices]
        _dots(panel, trials, {t.number: known.index(canonical(t.settings[path])) for t in trials})
        panel.set_xticks(range(len(known)), [_label(value) for value in found.choices])
        panel.set_xlim(-0.5, len(known) - 0.5)
        return
    _dots(panel, trials, {t.number: t.settings[path] for t in trials})
    low, high = found.ends()
    if found.log:
        ticks = [low * (high / low) ** (place / 3) for place in range(4)]
        panel.set_xscale("log")
        panel.set_xlim(ticks[0] / (high / low) ** 0.05, ticks[-1] * (high / low) ** 0.05)
        panel.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        panel.set_xticks([], minor=True)
    else:
        panel.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        panel.locator_params(axis="x", integer=found.whole)


def _dots(panel: Axes, trials: Sequence[Trial], places: Mapping[int, float]) -> None:
    """A dot for each trial; pruned ones where their training was given up."""
    top = best(trials)
    for trial in trials:
        if trial.mrr is not None:
            colour = BEST if top is not None and trial.number == top.number else COMPLETE
            panel.plot(places[trial.number], trial.mrr, "o", color=colour)
        elif trial.state == "pruned" and trial.curve:
            panel.plot(places[trial.number], trial.curve[-1][1], "x", color=PRUNED)
    panel.grid(alpha=0.3)


def _label(value: Any) -> str:
    text = value if isinstance(value, str) else canonical(value)
    return text if len(text) <= 14 else f"{text[:13]}…"
