"""`mocme predict`, `check`, `calibrate`: ask a trained run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from mocme.cli.options import common, echo_json, facts_in
from mocme.core.console import bar, moving, predictions_table, reliability_table, show
from mocme.core.device import use_threads


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--head", help="Of the facts that are asked for.")
@click.option("--relation", "-r")
@click.option("--tail")
@click.option("--about", help="Ask what is missing about this entity, over all relations.")
@click.option("-k", "count", default=10, show_default=True, help="How many; at most 1,000.")
@click.option(
    "--known",
    type=click.Choice(["hide", "mark"]),
    default="hide",
    show_default=True,
    help="Facts that the graph holds already.",
)
@click.option(
    "--among",
    type=click.Choice(["all", "observed"]),
    default="all",
    show_default=True,
    help="observed: only entities that answer this relation somewhere in the graph.",
)
@click.option("--min-probability", default=0.0, help="Leave out what is less probable (0 to 1).")
@common("device", "threads", "json", "trust")
def predict(
    run: Path,
    head: str | None,
    relation: str | None,
    tail: str | None,
    about: str | None,
    count: int,
    known: Any,
    among: Any,
    min_probability: float,
    device: str,
    threads: int | None,
    as_json: bool,
    trust_code: bool,
) -> None:
    """The likeliest missing facts: give two of --head, --relation and --tail, or --about alone.

    Probabilities are fitted on the valid split when a run is asked for the first time, and kept
    in it.
    """
    use_threads(threads)
    given = [head is not None, relation is not None, tail is not None]
    if (about is None and sum(given) != 2) or (about is not None and any(given)):
        raise click.UsageError("give two of --head, --relation and --tail, or --about alone")
    if among != "all" and (about is not None or relation is None):
        raise click.UsageError("--among observed is for a question with a --relation")
    least: dict[str, Any] = {"min_probability": min_probability}
    with opened(run, device, trust_code, as_json) as predictor:
        if about is not None:
            found = predictor.missing(about, count, **least)
        elif head is not None and relation is not None:
            found = predictor.tails(head, relation, count, known, among=among, **least)
        elif relation is not None:
            found = predictor.heads(relation, str(tail), count, known, among=among, **least)
        else:
            found = predictor.relations(str(head), str(tail), count, known, **least)
    _tell(found, as_json)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("facts", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@common("device", "threads", "json", "trust")
def check(
    run: Path, facts: Path, device: str, threads: int | None, as_json: bool, trust_code: bool
) -> None:
    """Score and probability of each fact of a TSV file (head, relation, tail), in its order."""
    from mocme.data.graph import UnknownName

    use_threads(threads)
    triples, lines = facts_in(facts)
    with opened(run, device, trust_code, as_json) as predictor:
        for (h, r, t), line in zip(triples, lines, strict=True):
            try:
                predictor.graph.entities.id(h), predictor.graph.entities.id(t)
                predictor.graph.relations.id(r)
            except UnknownName as error:
                raise ValueError(f"{facts}: line {line}: {error}") from error
        found = predictor.score_facts(triples)
    _tell(found, as_json)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@common("device", "threads", "json", "trust")
def calibrate(run: Path, device: str, threads: int | None, as_json: bool, trust_code: bool) -> None:
    """Fit a run's probabilities on its valid split anew, and show how far they are right.

    Done once by itself when a run is first asked; this shows the table.
    """
    from mocme.core.device import use_threads
    from mocme.runs.run import Run

    use_threads(threads)
    with bar("calibrating", quiet=as_json) as (progress, task):
        record = Run.open(run, trust_code).calibrate(device, moving(progress, task)).record
    if as_json:
        echo_json(record)
        return
    show(reliability_table(record))


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), help="A folder.")
@click.option("--parquet", is_flag=True, help="Parquet instead of .npy and lists of names.")
@common("device", "trust")
def vectors(run: Path, out: Path, parquet: bool, device: str, trust_code: bool) -> None:
    """Write the vectors of all entities and relations."""
    from mocme.prediction import export as writing

    with opened(run, device, trust_code, quiet=False) as predictor:
        for file in writing.write(out, predictor, "parquet" if parquet else "npy"):
            click.echo(str(file))


@contextmanager
def opened(
    run: Path, device: str, trust_code: bool, quiet: bool, additions: bool = True
) -> Iterator[Any]:
    """A run to ask, with a bar while it is calibrated."""
    from mocme.runs.run import CALIBRATION, Run

    found = Run.open(run, trust_code)
    # Without a valid split there is nothing to fit probabilities on.
    if found.folder.has(CALIBRATION) or not found.folder.about["facts"].get("valid"):
        predictor = found.predictor(device, additions=additions)
    else:
        with bar("calibrating, once", quiet=quiet) as (progress, task):
            predictor = found.predictor(device, moving(progress, task), additions=additions)
    yield predictor
    if predictor.calibration is not None and predictor.calibration.weak:
        click.echo(f"note: {predictor.calibration.weak}", err=True)


def _tell(found: Any, as_json: bool) -> None:
    if as_json:
        items = [item.as_dict() for item in found]
        echo_json({"question": found.question, "predictions": items})
        return
    if not len(found):
        click.echo(f"{found.question}: {found.nothing}")
        return
    show(predictions_table(found.question, found))
