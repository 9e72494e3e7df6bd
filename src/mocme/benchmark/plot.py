"""A bench as bars: MRR of each row on each graph, with its deviation over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from mocme.benchmark.markdown import ResultRow
from mocme.benchmark.spec import BenchmarkSpec
from mocme.core.plotting import new_figure, save

COLOURS = ("#9aa5b1", "#2f6f9f", "#d98e32", "#5a9e6f", "#8d6cab", "#b5545a", "#6aa6a6", "#b0a04a")


def draw(bench: BenchmarkSpec, lines: Sequence[ResultRow], out: Path) -> None:
    """Draw the last split that was measured (test, if it was).

    Raises:
        ImportError: matplotlib is not installed, with how to install it.
    """
    split = "test" if any(line.of("test") for line in lines) else "valid"
    graphs = list(dict.fromkeys(line.graph for line in lines))
    names = list(dict.fromkeys(line.row.name for line in lines))
    figure = new_figure(out, figsize=(max(5.0, 1.2 + len(graphs) * (0.5 + 0.45 * len(names))), 3.4))
    axes = figure.subplots()
    step = 0.8 / len(names)
    for place, name in enumerate(names):
        own = [line for line in lines if line.row.name == name and line.of(split)]
        spots = [graphs.index(line.graph) + step * (place - (len(names) - 1) / 2) for line in own]
        values = [[found["mrr"] for found in line.of(split)] for line in own]
        bars = axes.bar(
            spots,
            [mean(each) for each in values],
            0.94 * step,
            yerr=[stdev(each) if len(each) > 1 else 0.0 for each in values],
            label=name,
            color=COLOURS[place % len(COLOURS)],
            error_kw={"capsize": 3, "elinewidth": 1},
        )
        axes.bar_label(bars, fmt="%.3f", fontsize=8, padding=2)
    axes.set_xticks(range(len(graphs)), graphs)
    axes.set_ylabel(f"{split} MRR")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        frameon=False, ncols=min(len(names), 4), loc="lower left", bbox_to_anchor=(0, 1), fontsize=8
    )
    save(figure, out, bench.name, bbox_inches="tight")
