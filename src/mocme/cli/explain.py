"""`mocme explain`: the evidence for a fact."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from mocme.cli.options import common, echo_json
from mocme.cli.predict import open_predictor
from mocme.core.console import echo, echo_notes, show
from mocme.core.plotting import require_matplotlib


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--head", required=True, help="Head of the fact.")
@click.option("--relation", "-r", required=True, help="Relation of the fact.")
@click.option("--tail", required=True, help="Tail of the fact.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw a plot to this file too (.png, .svg, .pdf).",
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
    """Explain a fact by modalities, training facts, rules, paths and neighbours.

    Whether the weights of modalities are faithful is measured when a run first explains a fact, and
    stored in the run.
    """
    from mocme.core.device import use_threads

    use_threads(threads)
    if picture is not None:
        require_matplotlib(picture)
    with open_predictor(run, device, trust_code, as_json) as predictor:
        explanation = predictor.explain(head, relation, tail)
    if picture is not None:
        explanation.picture(picture)
    if as_json:
        echo_json(asdict(explanation))
        return
    echo(f"{explanation.title}: {explanation.summary}")
    for table in explanation.tables():
        show(table)
    echo("\n".join(explanation.remarks()))
    if picture is not None:
        echo_notes([f"plot written to {picture}"])
