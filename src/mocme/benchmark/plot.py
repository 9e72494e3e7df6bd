"""Bar plot of a benchmark: MRR of each row on each graph, with the deviation over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from mocme.benchmark.markdown import ResultRow
from mocme.benchmark.spec import BenchmarkSpec
from mocme.core.plotting import new_figure, save

COLOURS = ("#9aa5b1", "#2f6f9f", "#d98e32", "#5a9e6f", "#8d6cab", "#b5545a", "#6aa6a6", "#b0a04a")


def draw(spec: BenchmarkSpec, rows: Sequence[ResultRow], out: Path) -> None:
    """Plot test if it was ranked, valid otherwise.

    Raises:
        MissingLibrary: matplotlib is not installed, with how to install it.
    """
    split = "test" if any(row.metrics("test") for row in rows) else "valid"
    graphs = list(dict.fromkeys(row.graph for row in rows))
    names = list(dict.fromkeys(row.name for row in rows))
    figure = new_figure(out, figsize=(max(5.0, 1.2 + len(graphs) * (0.5 + 0.45 * len(names))), 3.4))
    axes = figure.subplots()
    step = 0.8 / len(names)
    for index, name in enumerate(names):
        ranked = [row for row in rows if row.name == name and row.metrics(split)]
        # Bars of one graph are centred on its tick.
        offset = step * (index - (len(names) - 1) / 2)
        values = [[metrics["mrr"] for metrics in row.metrics(split)] for row in ranked]
        bars = axes.bar(
            [graphs.index(row.graph) + offset for row in ranked],
            [mean(seeds) for seeds in values],
            0.94 * step,
            yerr=[stdev(seeds) if len(seeds) > 1 else 0.0 for seeds in values],
            label=name,
            color=COLOURS[index % len(COLOURS)],
            error_kw={"capsize": 3, "elinewidth": 1},
        )
        axes.bar_label(bars, fmt="%.3f", fontsize=8, padding=2)
    axes.set_xticks(range(len(graphs)), graphs)
    axes.set_ylabel(f"{split} MRR")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        frameon=False, ncols=min(len(names), 4), loc="lower left", bbox_to_anchor=(0, 1), fontsize=8
    )
    save(figure, out, spec.name, bbox_inches="tight")
