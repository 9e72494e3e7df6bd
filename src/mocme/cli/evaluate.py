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
    number = "evaluations_of_this_split"
    recorded = result[number] <= sum(e["split"] == split for e in trained.evaluations())
    if as_json:
        # Without a record there is no number: the next evaluation would have the same one.
        kept = {key: value for key, value in result.items() if recorded or key != number}
        echo_json({**kept, "recorded": recorded})
        return
    rows = [(split, result)]
    for part in by:
        rows += [
            (f"  {part}: {name}", values) for name, values in result["by"].get(part, {}).items()
        ]
    title = f"{result['experiment']} on {result['graph']}, seed {result['seed']}"
    show(metrics_table(title, rows))
    protocol = result["protocol"]
    counted = f"number {result[number]} of this run" if recorded else "that is not recorded"
    echo(
        f"filtered by {', '.join(protocol['filter'])}; realistic ties; both directions; "
        f"all entities compete; {split} evaluation {counted}"
    )
