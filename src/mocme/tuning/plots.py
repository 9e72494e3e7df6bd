"""Plot of a search: validation MRR by trial, and by each setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mocme.core.extras import extra
from mocme.data.formats.writers import atomic_file
from mocme.tuning.plan import Plan, Range, canonical
from mocme.tuning.table import shortened
from mocme.tuning.trials import Trial, best

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOT = "trials.png"
COLUMNS = 3
COMPLETE, PRUNED, BEST = "#1f6f8b", "#b0b0b0", "#d1495b"
LONGEST_LABEL = 14


def draw(folder: Path, plan: Plan, trials: Sequence[Trial]) -> Path:
    """Write the plot into the search's folder.

    Raises:
        MissingLibrary: matplotlib is not installed, with the remedy.
    """
    with extra("matplotlib", "pictures", f"{PLOT} needs"):
        from matplotlib.figure import Figure
    count = 1 + len(plan.ranges)
    columns = 2 if count == 4 else min(COLUMNS, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    _by_trial(panels[0], trials)
    names = shortened(list(plan.ranges))
    for panel, (path, span) in zip(panels[1:], plan.ranges.items(), strict=False):
        _by_setting(panel, names[path], path, span, trials)
    for panel in panels[count:]:
        panel.set_visible(False)
    for panel in panels[::columns]:
        panel.set_ylabel("validation MRR")
    figure.suptitle(
        f"{plan.file.name}: {len(trials)} trials on validation (red: best; crosses: pruned)",
        fontsize="medium",
    )
    with atomic_file(folder / PLOT) as file:
        figure.savefig(file, format="png", dpi=110)
    return folder / PLOT


def _by_trial(panel: Axes, trials: Sequence[Trial]) -> None:
    numbers = {trial.number: float(trial.number) for trial in trials}
    _points(panel, trials, numbers)
    best_so_far, heights = -math.inf, []
    for trial in trials:
        best_so_far = max(best_so_far, -math.inf if trial.mrr is None else trial.mrr)
        heights.append(best_so_far if math.isfinite(best_so_far) else math.nan)
    panel.step(list(numbers.values()), heights, where="post", color=BEST, linewidth=1)
    panel.set_xlabel("trial (line: best so far)")
    panel.locator_params(axis="x", integer=True)


def _by_setting(panel: Axes, name: str, path: str, span: Range, trials: Sequence[Trial]) -> None:
    panel.set_xlabel(name)
    if span.choices is not None:
        choices = [canonical(value) for value in span.choices]
        _points(
            panel, trials, {t.number: choices.index(canonical(t.settings[path])) for t in trials}
        )
        panel.set_xticks(range(len(choices)), [_label(value) for value in span.choices])
        panel.set_xlim(-0.5, len(choices) - 0.5)
        return
    _points(panel, trials, {t.number: t.settings[path] for t in trials})
    low, high = span.ends()
    if span.log:
        ticks = [low * (high / low) ** (index / 3) for index in range(4)]
        panel.set_xscale("log")
        panel.set_xlim(ticks[0] / (high / low) ** 0.05, ticks[-1] * (high / low) ** 0.05)
        panel.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        panel.set_xticks([], minor=True)
    else:
        panel.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        panel.locator_params(axis="x", integer=span.is_integer)


def _points(panel: Axes, trials: Sequence[Trial], positions: Mapping[int, float]) -> None:
    """A dot for each complete trial, a cross for each pruned one at its last validation.

    Args:
        positions: x coordinate by number of the trial.
    """
    best_trial = best(trials)
    for trial in trials:
        if trial.mrr is not None:
            is_best = best_trial is not None and trial.number == best_trial.number
            colour = BEST if is_best else COMPLETE
            panel.plot(positions[trial.number], trial.mrr, "o", color=colour)
        elif trial.state == "pruned" and trial.curve:
            panel.plot(positions[trial.number], trial.curve[-1][1], "x", color=PRUNED)
    panel.grid(alpha=0.3)


def _label(value: Any) -> str:
    text = value if isinstance(value, str) else canonical(value)
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"
