"""`mocme import`, `export` and `fetch`: graphs in and out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from mocme.cli.options import common, echo_json
from mocme.cli.tables import benchmarks_table
from mocme.core.console import ProgressBar, echo, echo_notes, show
from mocme.core.text import counted, visible


@click.command("import")
@click.argument("source")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder of the new graph."
)
@click.option("--format", "kind", help="Format of a file of facts, if its ending does not name it.")
@common("json", "trust")
def import_graph(source: str, out: Path, kind: str | None, as_json: bool, trust_code: bool) -> None:
    """Make a graph of SOURCE: a recipe (TOML) of tables and dumps, a file of facts, or -."""
    from mocme.data.ingest import importer
    from mocme.data.ingest.recipe import Recipe
    from mocme.encoders.catalog import encoder_of

    if source.endswith(".toml") and kind is None:
        recipe = Recipe.read(source)
        for name, table in recipe.encode.items():  # a wrong setting fails before any work
            encoder_of(table, f"{source}: encode.{name}", trust_code=trust_code)
    else:
        recipe = Recipe.of_facts(source, kind)
    with ProgressBar("import", quiet=as_json) as (progress, task):
        result = importer.import_recipe(
            recipe,
            out,
            lambda report: progress.update(
                task,
                description=visible(f"lines of {Path(report.path).name}"),
                completed=report.lines,
            ),
        )
    if as_json:
        echo_json(result.as_dict())
        return
    echo(str(result))
    if recipe.encode:
        echo(f"next: mocme encode all {out}")
    echo(f"next: mocme audit {out}")
    echo(f"next: mocme train --data {out} --out runs/{out.name}")


@click.command("export")
@click.argument("data")
@click.argument("out")
@click.option(
    "--split",
    "splits",
    multiple=True,
    type=click.Choice(["train", "valid", "test", "known"]),
    help="Splits to write to a file; default: all.",
)
@click.option(
    "--format", "kind", help="Format of standard output (OUT is -), or openke for a folder."
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--raw", is_flag=True, help="Copy the raw files of the modalities too, to a folder.")
@click.option(
    "--files-from",
    multiple=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="With --raw: copy files from this folder too, not from that of DATA alone; repeatable.",
)
@common("trust")
def export_graph(
    data: str,
    out: str,
    splits: tuple[str, ...],
    kind: str | None,
    force: bool,
    raw: bool,
    files_from: tuple[Path, ...],
    trust_code: bool,
) -> None:
    """Write the facts of DATA to OUT: a file (its ending names the format), a folder, or -."""
    from mocme.data.ingest import exporter
    from mocme.data.load import load

    graph = load(data)
    if raw and (out == "-" or Path(out).suffix or kind == "openke"):
        raise click.UsageError("--raw needs a folder (a name without an ending), not openke")
    if files_from and not raw:
        raise click.UsageError("--files-from goes with --raw")
    if raw:
        from mocme.encoders.catalog import encoder_of

        for name, table in graph.encode.items():  # a wrong setting fails before any work
            encoder_of(table, f"encode.{name}", trust_code=trust_code)
    lines: list[str] = []

    def copy_raw(folder: Path) -> None:
        from mocme.encoders.export_raw import export_raw

        lines.extend(export_raw(graph, folder, trust_code=trust_code, files_from=files_from))

    exporter.export(graph, out, splits, kind, force, copy_raw if raw else None)
    if out == "-":
        return
    count = sum(len(graph.splits[split]) for split in splits or graph.splits)
    stay = "" if raw else " (modalities stay where they are)"
    echo(f"{counted(count, 'fact')} written to {out}{stay}")
    if raw:
        echo("\n".join(lines))
        echo(f"next: mocme encode all {out}")


@click.command()
@click.argument("name", required=False)
@click.option("--list", "list_all", is_flag=True, help="List the available benchmarks.")
@click.option("--force", is_flag=True, help="Download again what exists already.")
@common("json")
def fetch(name: str | None, list_all: bool, force: bool, as_json: bool) -> None:
    """Download a published benchmark into the cache, check it and convert it."""
    from mocme.data.benchmarks import registry

    if name is None or list_all:
        benchmarks = [registry.find(name)] if name else list(registry.all_benchmarks().values())
        if as_json:
            echo_json({benchmark.name: benchmark.as_dict() for benchmark in benchmarks})
        else:
            show(benchmarks_table(benchmarks))
        return
    benchmark = registry.find(name)
    sizes = {remote.name: remote.size for remote in benchmark.files}
    with ProgressBar(benchmark.name, quiet=as_json) as (progress, task):

        def start_file(file: str) -> Callable[[int, int | None], None]:
            progress.reset(task, description=f"{benchmark.name}: {file}", total=sizes[file])
            return lambda done, total: progress.update(
                task, completed=done, total=total or sizes[file]
            )

        folder = registry.fetch(benchmark, force=force, advance=start_file)
    if as_json:
        echo_json({**benchmark.as_dict(), "folder": str(folder)})
        return
    echo_notes(benchmark.notes())
    echo(f"{benchmark.name} is in {folder}")
    echo(f"next: mocme train --data {benchmark.name} --out runs/{benchmark.name}")
