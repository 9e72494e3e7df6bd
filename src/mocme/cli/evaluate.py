"""`mocme evaluate`: rank the facts of a split."""

from __future__ import annotations

from pathlib import Path

import click

from mocme.cli.options import common, echo_json
from mocme.cli.tables import metrics_table
from mocme.core.console import ProgressBar, echo, progress_callback, show

PARTS = ("direction", "answer", "head", "cardinality", "answer has", "relation")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["valid", "test"]), default="valid", show_default=True)
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(PARTS),
    default=("direction", "answer"),
    show_default=True,
    help="Breakdowns to show; JSON always has all of them.",
)
@common("device", "threads", "json", "trust")
def evaluate(
    run: Path,
    split: str,
    by: tuple[str, ...],
    device: str,
    threads: int | None,
    as_json: bool,
    trust_code: bool,
) -> None:
    """Rank the facts of a split; every evaluation is recorded in the run."""
    from mocme.core.device import use_threads
    from mocme.runs.run import Run

    use_threads(threads)
    trained = Run.open(run, trust_code)
    with ProgressBar("ranking", quiet=as_json) as (progress, task):
        result = trained.evaluate(split, device, progress_callback(progress, task))
    if as_json:
        echo_json(result)
        return
    rows = [(split, result)]
    for part in by:
        rows += [
            (f"  {part}: {name}", values) for name, values in result["by"].get(part, {}).items()
        ]
    title = f"{result['experiment']} on {result['graph']}, seed {result['seed']}"
    show(metrics_table(title, rows))
    protocol = result["protocol"]
    count = result["evaluations_of_this_split"]
    echo(
        f"filtered by {', '.join(protocol['filter'])}; realistic ties; both directions; "
        f"all entities compete; {split} evaluation number {count} of this run"
    )
