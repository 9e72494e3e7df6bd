"""`mocme tune`: search for settings on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mocme.cli.options import common, echo_json
from mocme.core.console import bar, notes, show
from mocme.core.device import use_threads


class _Live:
    """A search as it goes on: a bar for the trial, and a line for each that is over."""

    def __init__(self, total: int) -> None:
        self.total, self.bar = total, bar("reading")

    def __enter__(self) -> _Live:
        self.progress, self.task = self.bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.__exit__(*error)

    def inputs(self, lines: Sequence[str]) -> None:
        """Say what was read."""
        notes(lines)

    def begin(self, number: int, settings: Mapping[str, Any]) -> None:
        """Start the bar of a trial."""
        self.progress.reset(self.task, description=f"trial {number} of {self.total}", total=None)

    def step(self, done: int, total: int) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=done, total=total)

    def end(self, trial: Any, best: Any) -> None:
        """Print the line of a trial."""
        from mocme.tuning.table import settings_line

        if trial.mrr is not None:
            what = f"valid MRR {trial.mrr:.4f}"
        else:
            what = f"{trial.state}: {trial.reason}"
        same = f" (as trial {trial.same_as})" if trial.same_as else ""
        line = f"trial {trial.number:3d} of {self.total}  {what}{same}  {trial.seconds:.1f} s"
        if best is not None and best.number != trial.number:
            line += f"  best {best.mrr:.4f} (trial {best.number})"
        self.progress.console.print(
            f"{line}  {settings_line(trial.settings)}", highlight=False, markup=False
        )


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the search; runs/ and the name of FILE by default. One that was begun is "
    "gone on with.",
)
@click.option("--show", "shown", is_flag=True, help="Print the trials there are; train nothing.")
@common("device", "threads", "json")
def tune(
    file: Path, out: Path | None, shown: bool, device: str, threads: int | None, as_json: bool
) -> None:
    """Search for the best settings, as FILE (TOML) says, by the valid split alone.

    Every trial is recorded, and the best one is written as an experiment. Stopped at any time, the
    same command goes on.
    """
    from mocme.tuning.plan import Plan
    from mocme.tuning.search import tune as search
    from mocme.tuning.trials import SearchFolder

    use_threads(threads)
    plan = Plan.read(file)
    out = out or Path("runs") / file.stem
    if shown:
        folder = SearchFolder.open(out, plan.about())
    else:
        with _Live(plan.trials) as live:
            folder = search(plan, out=out, device=device, observer=live)
    if as_json:
        echo_json([asdict(trial) for trial in folder.trials()])
        return
    _report(plan, folder)


def _report(plan: Any, folder: Any) -> None:
    """The table of trials, the importance of settings, a picture, and what to do next."""
    from mocme.tuning.plots import draw
    from mocme.tuning.study import Study
    from mocme.tuning.table import importance_lines, trials_table
    from mocme.tuning.trials import BEST

    trials = folder.trials()
    show(trials_table(f"{plan.file.name}: {len(trials)} of {plan.trials} trials", trials))
    for make in (
        lambda: importance_lines(Study(plan, trials).importance()),
        lambda: [f"picture written to {draw(folder.path, plan, trials)}"],
    ):
        try:
            click.echo("\n".join(make()))
        except ValueError as error:  # a library that only this needs
            click.echo(str(error), err=True)
    if (folder.path / BEST).exists():
        best = folder.path / BEST
        data = f"--data {plan.graph}" + (f" --splits {plan.version}" if plan.version else "")
        data += f" --features {plan.features}" if plan.features else ""
        click.echo(f"next: mocme train {best} {data} --out runs/{folder.path.name}-best")
    else:
        click.echo("no trial is complete; see their reasons above")
