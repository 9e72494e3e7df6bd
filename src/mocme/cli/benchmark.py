"""`mocme benchmark`: a list of experiments over graphs and seeds, by one protocol."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mocme.cli.options import common
from mocme.core.console import echo

if TYPE_CHECKING:
    from mocme.benchmark.plan import PlannedRun
    from mocme.benchmark.spec import BenchmarkSpec


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--runs",
    default=Path("runs"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for trainings in progress.",
)
@click.option("--keep", is_flag=True, help="Keep the folders of finished trainings, with models.")
@click.option("--only", multiple=True, metavar="NAME", help="Run only the row of this name.")
@click.option("--dry-run", is_flag=True, help="List the runs and their state; train nothing.")
@click.option(
    "--render",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Put the tables on this Markdown page, between its markers; train nothing.",
)
@click.option(
    "--check", is_flag=True, help="With --render: only check that the page is up to date."
)
@common("device", "threads", "trust")
def benchmark(
    file: Path,
    runs: Path,
    keep: bool,
    only: tuple[str, ...],
    dry_run: bool,
    page: Path | None,
    check: bool,
    device: str,
    threads: int | None,
    trust_code: bool,
) -> None:
    """Train and rank the experiments that FILE (TOML) lists, and store the results as files.

    The same command resumes after an interruption: existing results are not computed again.
    """
    if page is None and check:
        raise click.UsageError("--check needs --render PAGE")
    if page is not None and (only or dry_run or keep):
        raise click.UsageError("--render goes with --check only; it trains nothing")
    from mocme.benchmark.plan import plan
    from mocme.benchmark.spec import BenchmarkSpec

    spec = BenchmarkSpec.read(file)
    planned = plan(spec, runs, only, trust_code=trust_code)
    if page is not None:
        _render(spec, planned, page, check)
    elif dry_run:
        from mocme.benchmark.runner import survey

        echo("\n".join(map(str, survey(planned))))
    else:
        _run(spec, planned, device, threads, keep)


def _run(
    spec: BenchmarkSpec, planned: Sequence[PlannedRun], device: str, threads: int | None, keep: bool
) -> None:
    from mocme.benchmark import runner
    from mocme.core.device import find_device, use_threads
    from mocme.core.interrupts import Interrupted

    find_device(device)
    use_threads(threads)
    try:
        report = runner.run(spec, planned, device=device, threads=threads, keep=keep, tell=echo)
    except Interrupted as stop:
        command = shlex.join(["mocme", *sys.argv[1:]])
        raise Interrupted(f"{stop}; resume with the same command: {command}") from None
    failures = report.failures
    echo(
        f"{len(planned)} runs: {report.done} done now, {report.skipped} there already, "
        f"{len(failures)} failed; results in {spec.results}"
    )
    for name, reason in failures.items():
        echo(f"failed: {name}: {reason}", err=True)
    if failures:
        echo("the same command tries them again", err=True)
        click.get_current_context().exit(1)
    echo(f"next: mocme benchmark {spec.path} --render PAGE.md")


def _render(spec: BenchmarkSpec, planned: Sequence[PlannedRun], page: Path, check: bool) -> None:
    """Put the tables of results on a page, or check that they are up to date."""
    from mocme.benchmark.markdown import gather, put, render
    from mocme.benchmark.plot import draw
    from mocme.data.formats.writers import atomic_file

    if spec.picture is not None and not check:
        try:
            draw(spec, gather(planned), spec.picture)
        except ImportError as error:
            echo(f"no plot: {error}", err=True)
    text = put(page, spec.name, render(spec, planned, page))
    up_to_date = text == page.read_text(encoding="utf-8")
    if check:
        state = (
            "is up to date" if up_to_date else "differs from the results; render it without --check"
        )
        echo(f"{page}: {state}")
        if not up_to_date:
            click.get_current_context().exit(1)
        return
    if not up_to_date:
        with atomic_file(page) as file:
            file.write(text.encode())
    echo(f"{page}: {'was up to date' if up_to_date else 'written'}")
