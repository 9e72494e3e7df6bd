"""`mocme tune`: search for settings on the valid split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mocme.cli.options import common, echo_json
from mocme.core.console import ProgressBar, echo, echo_notes, show
from mocme.core.text import visible

if TYPE_CHECKING:
    from mocme.tuning.plan import Plan
    from mocme.tuning.trials import SearchFolder, Trial


class _SearchDisplay:
    """The progress of a search: a bar for the current trial, a line for each finished one."""

    def __init__(self, total: int) -> None:
        self.total, self.bar = total, ProgressBar("reading")

    def __enter__(self) -> _SearchDisplay:
        self.progress, self.task = self.bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.__exit__(*error)

    def inputs(self, lines: Sequence[str]) -> None:
        """Print notes on the inputs."""
        echo_notes(lines)

    def begin(self, number: int, settings: Mapping[str, Any]) -> None:
        """Start the bar of a trial."""
        self.progress.reset(self.task, description=f"trial {number} of {self.total}", total=None)

    def step(self, done: int, total: int) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=done, total=total)

    def end(self, trial: Trial, best: Trial | None) -> None:
        """Print the line of a finished trial."""
        from mocme.tuning.table import settings_line

        if trial.mrr is not None:
            outcome = f"valid MRR {trial.mrr:.4f}"
        else:
            outcome = f"{trial.state}: {trial.reason}"
        same = f" (as trial {trial.same_as})" if trial.same_as else ""
        line = f"trial {trial.number:3d} of {self.total}  {outcome}{same}  {trial.seconds:.1f} s"
        if best is not None and best.number != trial.number:
            line += f"  best {best.mrr:.4f} (trial {best.number})"
        self.progress.console.print(
            visible(f"{line}  {settings_line(trial.settings)}"), highlight=False, markup=False
        )


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the search; default: runs/ and the name of FILE. A search that exists is "
    "resumed.",
)
@click.option("--show", "show_only", is_flag=True, help="Print the existing trials; train nothing.")
@common("device", "threads", "json", "trust")
def tune(
    file: Path,
    out: Path | None,
    show_only: bool,
    device: str,
    threads: int | None,
    as_json: bool,
    trust_code: bool,
) -> None:
    """Search for the best settings on the valid split alone, as FILE (TOML) describes.

    Every trial is recorded, and the best one is written as an experiment. The same command resumes
    after an interruption.
    """
    from mocme.core.device import use_threads
    from mocme.tuning.plan import Plan
    from mocme.tuning.search import tune as search
    from mocme.tuning.trials import SearchFolder

    use_threads(threads)
    plan = Plan.read(file, trust_code=trust_code)
    out = out or Path("runs") / file.stem
    if show_only:
        folder = SearchFolder.open(out, plan.about())
    else:
        with _SearchDisplay(plan.trials) as display:
            folder = search(plan, out=out, device=device, watch=display)
    if as_json:
        echo_json([asdict(trial) for trial in folder.trials()])
        return
    _report(plan, folder)


def _report(plan: Plan, folder: SearchFolder) -> None:
    """Print the trials, the importance of settings and the next command, and draw a plot."""
    from mocme.tuning.plots import draw
    from mocme.tuning.study import Study
    from mocme.tuning.table import importance_lines, trials_table
    from mocme.tuning.trials import BEST

    trials = folder.trials()
    show(trials_table(f"{plan.file.name}: {len(trials)} of {plan.trials} trials", trials))
    for lines in (
        lambda: importance_lines(Study(plan, trials).importance()),
        lambda: [f"plot written to {draw(folder.path, plan, trials)}"],
    ):
        try:
            echo("\n".join(lines()))
        except ValueError as error:  # an optional library is missing
            echo(str(error), err=True)
    best = folder.path / BEST
    if best.exists():
        data = f"--data {plan.graph}" + (f" --splits {plan.version}" if plan.version else "")
        data += f" --features {plan.features}" if plan.features else ""
        data += " --trust-code" if plan.trust_code else ""
        echo(f"next: mocme train {best} {data} --out runs/{folder.path.name}-best")
    else:
        echo("no trial is complete; see their reasons above")
