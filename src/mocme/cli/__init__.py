"""The command line: thin commands over the library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from mocme.cli.additions import add, additions, remove
from mocme.cli.ask import calibrate, check, predict, vectors
from mocme.cli.bench import bench
from mocme.cli.encode import encode
from mocme.cli.explain import explain
from mocme.cli.mine import mine
from mocme.cli.options import OrderedGroup, common, echo_json
from mocme.cli.serve import serve
from mocme.cli.tune import tune
from mocme.core.console import (
    TrainingDisplay,
    bar,
    benchmarks_table,
    finish,
    metrics_table,
    moving,
    notes,
    show,
)
from mocme.core.device import use_threads

PARTS = ("direction", "answer", "head", "cardinality", "answer has", "relation")


@click.group(cls=OrderedGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mocme")
def main() -> None:
    """Complete multi-modal knowledge graphs: train, rank honestly, ask for missing facts."""


@main.command()
@click.argument("experiment", default="default")
@click.option(
    "--data",
    default="atlas",
    show_default=True,
    help="A folder with train.tsv, one file of facts, a fetched benchmark by name, or atlas.",
)
@click.option(
    "--splits",
    type=click.Choice(["repaired", "as-published"]),
    help="Of a benchmark by name; repaired by default.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder of the new run."
)
@click.option("--seed", type=int, help="Instead of the experiment's.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="PATH=VALUE",
    help="Another value for a setting, for instance training.passes=3.",
)
@click.option(
    "--reviews",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Decisions of mocme serve: accepted facts to train on, rejected ones as hard negatives.",
)
@common("features", "device", "threads")
def train(
    experiment: str,
    data: str,
    splits: Any,
    out: Path,
    seed: int | None,
    reviews: Path | None,
    features: Path | None,
    sets: tuple[str, ...],
    device: str,
    threads: int | None,
) -> None:
    """Train EXPERIMENT (a TOML file or a shipped name) on a graph and write a run."""
    from mocme.data.load import load
    from mocme.runs import train as work
    from mocme.runs.config import Experiment, parse_override

    use_threads(threads)
    chosen = Experiment.load(experiment, dict(parse_override(text) for text in sets))
    graph = load(data, version=splits, reviews=reviews)
    with TrainingDisplay() as live:
        run = work.train(
            graph, chosen, out=out, seed=seed, device=device, features=features, observer=live
        )
    finish(run)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@common("device", "threads", "trust")
def resume(run: Path, device: str, threads: int | None, trust_code: bool) -> None:
    """Go on with a training that was stopped."""
    from mocme.runs import train as work
    from mocme.runs.run import Run

    use_threads(threads)
    already = Run.open(run, trust_code).finished
    with TrainingDisplay() as live:
        done = work.resume(run, device=device, observer=live, trust_code=trust_code)
    finish(done, already)


main.add_command(tune)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["valid", "test"]), default="valid", show_default=True)
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(PARTS),
    default=("direction", "answer"),
    show_default=True,
    help="Parts to show; JSON always has all of them.",
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
    from mocme.runs.run import Run

    use_threads(threads)
    opened = Run.open(run, trust_code)
    with bar("ranking", quiet=as_json) as (progress, task):
        result = opened.evaluate(split, device, moving(progress, task))
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
    click.echo(
        f"filtered by {', '.join(protocol['filter'])}; realistic ties; both directions; "
        f"all entities compete; {split} evaluation number {count} of this run"
    )


main.add_command(bench)


main.add_command(predict)
main.add_command(explain)
main.add_command(check)
main.add_command(calibrate)
main.add_command(mine)
main.add_command(vectors)
main.add_command(serve)
main.add_command(add)
main.add_command(additions)
main.add_command(remove)


@main.command("import")
@click.argument("source")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder of the new graph."
)
@click.option("--format", "kind", help="Of a file of facts, where its ending does not tell.")
@common("json")
def bring_in(source: str, out: Path, kind: str | None, as_json: bool) -> None:
    """Make a graph of SOURCE: a recipe (TOML) of tables and dumps, a file of facts, or -."""
    from mocme.data.ingest import importer as importing
    from mocme.data.ingest import recipe as recipes
    from mocme.encoders.catalog import encoder_of

    if source.endswith(".toml") and kind is None:
        recipe = recipes.Recipe.read(source)
        for name, table in recipe.encode.items():
            encoder_of(table, f"{source}: encode.{name}")
    else:
        recipe = recipes.Recipe.of_facts(source, kind)
    with bar("import", quiet=as_json) as (progress, task):
        brought = importing.bring_in(
            recipe,
            out,
            lambda report: progress.update(
                task, description=f"lines of {Path(report.path).name}", completed=report.lines
            ),
        )
    if as_json:
        echo_json(brought.as_dict())
        return
    click.echo(str(brought))
    if recipe.encode:
        click.echo(f"next: mocme encode all {out}")
    click.echo(f"next: mocme audit {out}")
    click.echo(f"next: mocme train --data {out} --out runs/{out.name}")


@main.command()
@click.argument("data")
@click.argument("out")
@click.option(
    "--split",
    "splits",
    multiple=True,
    type=click.Choice(["train", "valid", "test", "known"]),
    help="Splits to write to a file; all by default.",
)
@click.option("--format", "kind", help="Of standard output (OUT is -), or openke for a folder.")
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
@click.option("--raw", is_flag=True, help="Copy what its modalities are made of, to a folder.")
def export(
    data: str, out: str, splits: tuple[str, ...], kind: str | None, force: bool, raw: bool
) -> None:
    """Write the facts of DATA to OUT: a file (its ending names the format), a folder, or -."""
    from mocme.data.ingest.exporter import export as write
    from mocme.data.load import load

    graph = load(data)
    if raw and (out == "-" or Path(out).suffix or kind == "openke"):
        raise click.UsageError("--raw needs a folder (a name without an ending), not openke")
    write(graph, out, splits, kind, force)
    if out == "-":
        return
    count = sum(len(graph.splits[split]) for split in splits or graph.splits)
    stay = "" if raw else " (modalities stay where they are)"
    click.echo(f"{count:,} facts written to {out}{stay}")
    if raw:
        from mocme.encoders.export_raw import export_raw

        click.echo("\n".join(export_raw(graph, Path(out))))
        click.echo(f"next: mocme encode all {out}")


main.add_command(encode)


@main.command()
@click.argument("data")
@click.option(
    "--page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the audit as one HTML file.",
)
@click.option(
    "--repair",
    "out",
    type=click.Path(path_type=Path),
    help="Write the repaired splits to this new folder.",
)
@click.option(
    "--floors/--no-floors",
    default=True,
    show_default=True,
    help="Rank by frequency and by a lookup table.",
)
@common("features", "threads", "json")
def audit(
    data: str,
    features: Path | None,
    page: Path | None,
    out: Path | None,
    floors: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Show what is wrong with the graph DATA, before anyone trusts a number."""
    from mocme.audit.audit import audit as examine
    from mocme.audit.page import write_page
    from mocme.audit.table import overview
    from mocme.data.load import load_raw
    from mocme.data.quality.repair import repair

    use_threads(threads)
    released = load_raw(data)
    result = examine(released, features, ranked=floors)
    changes = None if out is None else repair(released, out)
    if page is not None:
        write_page(result, page)
    if as_json:
        told = None if changes is None else [str(change) for change in changes]
        echo_json({**result.as_dict(), "changes": told})
        return
    show(overview(result))
    if page is not None:
        click.echo(f"page written to {page}")
    if changes is not None:
        click.echo("\n".join(map(str, changes)) or "nothing to repair")
        click.echo(f"repaired graph written to {out}")


@main.command()
@click.argument("name", required=False)
@click.option("--list", "listed", is_flag=True, help="List the benchmarks there are.")
@click.option("--force", is_flag=True, help="Download again what is there already.")
@common("json")
def fetch(name: str | None, listed: bool, force: bool, as_json: bool) -> None:
    """Download a published benchmark into the cache, check it and convert it."""
    from mocme.data.benchmarks import registry as benchmarks

    if name is None or listed:
        chosen = [benchmarks.find(name)] if name else list(benchmarks.known().values())
        if as_json:
            echo_json({benchmark.name: benchmark.as_dict() for benchmark in chosen})
        else:
            show(benchmarks_table(chosen))
        return
    benchmark = benchmarks.find(name)
    sizes = {remote.name: remote.size for remote in benchmark.files}
    with bar(benchmark.name, quiet=as_json) as (progress, task):

        def advance(file: str) -> Callable[[int, int | None], None]:
            progress.reset(task, description=f"{benchmark.name}: {file}", total=sizes[file])
            return lambda done, whole: progress.update(
                task, completed=done, total=whole or sizes[file]
            )

        folder = benchmarks.fetch(benchmark, force=force, advance=advance)
    if as_json:
        echo_json({**benchmark.as_dict(), "folder": str(folder)})
        return
    notes(benchmark.notes())
    click.echo(f"{benchmark.name} is in {folder}")
    click.echo(f"next: mocme train --data {benchmark.name} --out runs/{benchmark.name}")


@main.command()
@common("json")
def experiments(as_json: bool) -> None:
    """List the shipped experiments."""
    from mocme.runs.config import Experiment, shipped

    found = {name: Experiment.load(path) for name, path in shipped().items()}
    if as_json:
        echo_json({n: e.table() for n, e in found.items()})
        return
    table = Table(
        "experiment", "what it is", "expected (test MRR)", title="mocme train EXPERIMENT ..."
    )
    for name, experiment in found.items():
        expected = experiment.expected.get("mrr")
        table.add_row(name, experiment.description, "" if expected is None else f"{expected:.3f}")
    show(table)


@main.command()
@click.option(
    "--out", default=Path("runs/demo"), type=click.Path(path_type=Path), show_default=True
)
@click.option("--seed", default=0, show_default=True)
@common("device", "threads")
def demo(out: Path, seed: int, device: str, threads: int | None) -> None:
    """Train on the embedded graph Atlas, compare with structure only, and predict facts."""
    from mocme.cli import demo as shown

    use_threads(threads)
    shown.run(out, seed, device)
