"""`mocme bench`: a list of experiments over graphs and seeds, by one protocol."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mocme.cli.options import common


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--runs",
    default=Path("runs"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the trainings while they go on.",
)
@click.option("--keep", is_flag=True, help="Keep the folders of finished trainings, with models.")
@click.option("--only", multiple=True, metavar="NAME", help="Run the row of this name.")
@click.option("--dry-run", is_flag=True, help="List the runs and how far each is; train nothing.")
@click.option(
    "--render",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Put the tables on this Markdown page, between its markers; train nothing.",
)
@click.option("--check", is_flag=True, help="With --render: only say whether the page is right.")
@common("device", "threads")
def bench(
    file: Path,
    runs: Path,
    keep: bool,
    only: tuple[str, ...],
    dry_run: bool,
    page: Path | None,
    check: bool,
    device: str,
    threads: int | None,
) -> None:
    """Train and rank what FILE (TOML) lists, run by run, and keep the results as files.

    Called again, it goes on where it stopped: results that are there are not made again.
    """
    if page is None and check:
        raise click.UsageError("--check needs --render PAGE")
    if page is not None and (only or dry_run or keep):
        raise click.UsageError("--render goes with --check only; it trains nothing")
    from mocme.benchmark.plan import plan
    from mocme.benchmark.spec import BenchmarkSpec

    read = BenchmarkSpec.read(file)
    trials = plan(read, runs, only)
    if page is not None:
        _render(read, trials, page, check)
    elif dry_run:
        from mocme.benchmark.runner import survey

        click.echo("\n".join(map(str, survey(trials))))
    else:
        _run(read, trials, device, threads, keep)


def _run(read: Any, trials: Sequence[Any], device: str, threads: int | None, keep: bool) -> None:
    from mocme.benchmark import runner as running
    from mocme.core.device import Interrupted, find_device, use_threads

    find_device(device)
    use_threads(threads)
    try:
        report = running.run(
            read, trials, device=device, threads=threads, keep=keep, tell=click.echo
        )
    except Interrupted as stop:
        command = shlex.join(["mocme", *sys.argv[1:]])
        raise Interrupted(f"{stop}; go on with the same command: {command}") from None
    failed = report.failures
    click.echo(
        f"{len(trials)} runs: {report.done} done now, {report.skipped} there already, "
        f"{len(failed)} failed; results in {read.results}"
    )
    for name, why in failed.items():
        click.echo(f"failed: {name}: {why}", err=True)
    if failed:
        click.echo("the same command tries them again", err=True)
        click.get_current_context().exit(1)
    click.echo(f"next: mocme bench {read.path} --render PAGE.md")


def _render(read: Any, trials: Sequence[Any], page: Path, check: bool) -> None:
    from mocme.benchmark.markdown import gather, put, render
    from mocme.benchmark.plot import draw

    if read.picture is not None and not check:
        try:
            draw(read, gather(trials), read.picture)
        except ImportError as error:
            click.echo(f"no picture: {error}", err=True)
    text = put(page, read.name, render(read, trials, page))
    same = text == page.read_text(encoding="utf-8")
    if check:
        told = "is up to date" if same else "is not what the results say; render it without --check"
        click.echo(f"{page}: {told}")
        if not same:
            click.get_current_context().exit(1)
        return
    if not same:
        page.write_text(text, encoding="utf-8")
    click.echo(f"{page}: {'was up to date' if same else 'written'}")
