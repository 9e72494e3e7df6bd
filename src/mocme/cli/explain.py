"""`mocme explain`: what speaks for a fact."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from mocme.cli.ask import opened
from mocme.cli.options import common, echo_json
from mocme.core.console import explanation_tables, notes, show


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--head", required=True)
@click.option("--relation", "-r", required=True)
@click.option("--tail", required=True)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw it to this file too (.png, .svg, .pdf).",
)
@common("device", "threads", "json", "trust")
def explain(
    run: Path,
    head: str,
    relation: str,
    tail: str,
    picture: Path | None,
    device: str,
    threads: int | None,
    as_json: bool,
    trust_code: bool,
) -> None:
    """What speaks for a fact: modalities, training facts, patterns, paths, neighbours.

    Whether the weights of modalities tell what matters is measured when a run first explains, and
    kept in it.
    """
    from mocme.core.device import use_threads

    use_threads(threads)
    with opened(run, device, trust_code, as_json) as predictor:
        found = predictor.explain(head, relation, tail)
    if picture is not None:
        found.picture(picture)
    if as_json:
        echo_json(asdict(found))
        return
    click.echo(f"{found.title}: {found.summary}")
    for table in explanation_tables(found):
        show(table)
    click.echo("\n".join(found.remarks()))
    if picture is not None:
        notes([f"picture written to {picture}"])
