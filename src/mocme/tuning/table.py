"""A search in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from mocme.tuning.plan import canonical
from mocme.tuning.trials import Trial, best


def shortened(paths: Sequence[str]) -> dict[str, str]:
    """Paths by as many of their last words as tell them apart."""
    found = {}
    for path in paths:
        words = path.split(".")
        tails = [".".join(words[-count:]) for count in range(1, len(words) + 1)]
        found[path] = next(
            (t for t in tails if sum(f".{p}".endswith(f".{t}") for p in paths) == 1), path
        )
    return found


def said(value: Any) -> str:
    """A value of a setting, short."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else canonical(value)


def settings_line(settings: Mapping[str, Any]) -> str:
    """Settings of a trial in one line."""
    names = shortened(list(settings))
    return "  ".join(f"{names[path]}={said(value)}" for path, value in settings.items())


def trials_table(title: str, trials: Sequence[Trial]) -> Table:
    """Trials, a row each; the best is marked."""
    paths = list(trials[0].settings) if trials else []
    names, top = shortened(paths), best(trials)
    table = Table(title=escape(title), caption="* the best; MRR of the valid split")
    for column in ("trial", "MRR", *(names[path] for path in paths), "seconds"):
        table.add_column(column, justify="right")
    table.add_column("")
    for trial in trials:
        mark = "*" if top is not None and trial.number == top.number else ""
        if trial.mrr is not None:
            value = f"{trial.mrr:.4f}"
        else:
            value = f"({trial.curve[-1][1]:.4f})" if trial.curve else "-"
        remark = f"as trial {trial.same_as}" if trial.same_as else ""
        remark = remark or ": ".join(filter(None, [trial.state, trial.reason]))
        table.add_row(
            f"{mark}{trial.number}",
            value,
            *(escape(said(trial.settings[path])) for path in paths),
            f"{trial.seconds:.1f}",
            "" if remark == "complete" else escape(remark),
        )
    return table


def importance_lines(found: Mapping[str, float]) -> list[str]:
    """Which settings mattered, most first."""
    if not found:
        return ["importance of settings: from ten complete trials on"]
    order = sorted(found.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{path} {share:.2f}" for path, share in order)
    return [f"importance of settings (PED-ANOVA, of being among the best tenth): {parts}"]
