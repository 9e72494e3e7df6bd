"""A search in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from mocme.tuning.plan import canonical
from mocme.tuning.trials import Trial, best


def shortened(paths: Sequence[str]) -> dict[str, str]:
    """Each path's shortest unambiguous tail, such as ``embedding_dim``."""
    names = {}
    for path in paths:
        keys = path.split(".")
        tails = [".".join(keys[-count:]) for count in range(1, len(keys) + 1)]
        names[path] = next(
            (t for t in tails if sum(f".{p}".endswith(f".{t}") for p in paths) == 1), path
        )
    return names


def value_text(value: Any) -> str:
    """A setting's value in few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else canonical(value)


def settings_line(settings: Mapping[str, Any]) -> str:
    """Settings of a trial in one line."""
    names = shortened(list(settings))
    return "  ".join(f"{names[path]}={value_text(value)}" for path, value in settings.items())


def trials_table(title: str, trials: Sequence[Trial]) -> Table:
    """One row per trial; the best one is marked."""
    paths = list(trials[0].settings) if trials else []
    names, best_trial = shortened(paths), best(trials)
    table = Table(title=escape(title), caption="* best trial; MRR on the valid split")
    for column in ("trial", "MRR", *(names[path] for path in paths), "seconds"):
        table.add_column(column, justify="right")
    table.add_column("")
    for trial in trials:
        mark = "*" if best_trial is not None and trial.number == best_trial.number else ""
        if trial.mrr is not None:
            mrr = f"{trial.mrr:.4f}"
        else:
            mrr = f"({trial.curve[-1][1]:.4f})" if trial.curve else "-"
        remark = f"same as trial {trial.same_as}" if trial.same_as else ""
        remark = remark or ": ".join(filter(None, [trial.state, trial.reason]))
        table.add_row(
            f"{mark}{trial.number}",
            mrr,
            *(escape(value_text(trial.settings[path])) for path in paths),
            f"{trial.seconds:.1f}",
            "" if remark == "complete" else escape(remark),
        )
    return table


def importance_lines(importance: Mapping[str, float]) -> list[str]:
    """Importance of the settings, highest first."""
    if not importance:
        return ["importance of settings: needs ten complete trials"]
    order = sorted(importance.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{path} {share:.2f}" for path, share in order)
    return [f"importance of settings (PED-ANOVA, for being among the best tenth): {parts}"]
