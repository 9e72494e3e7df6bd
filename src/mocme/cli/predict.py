"""`mocme predict`, `score`, `calibrate` and `export-embeddings`: ask a trained run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mocme.cli.options import common, echo_json, read_facts
from mocme.cli.tables import calibration_note, reliability_table
from mocme.core.console import ProgressBar, echo, progress_callback, show


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--head", help="Head of the facts.")
@click.option("--relation", "-r", help="Relation of the facts.")
@click.option("--tail", help="Tail of the facts.")
@click.option("--about", help="Predict the missing facts of this entity, over all relations.")
@click.option(
    "-k", "count", default=10, show_default=True, help="Number of answers, at most 1,000."
)
@click.option(
    "--known",
    type=click.Choice(["hide", "mark"]),
    default="hide",
    show_default=True,
    help="What to do with facts that the graph already has.",
)
@click.option(
    "--among",
    type=click.Choice(["all", "observed"]),
    default="all",
    show_default=True,
    help="observed: only entities that answer this relation somewhere in the graph.",
)
@click.option("--min-probability", default=0.0, help="Leave out less probable answers (0 to 1).")
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
    """Predict missing facts: give two of --head, --relation and --tail, or --about alone.

    Probabilities are fitted on the valid split when a run is first asked, and stored in the run.
    """
    from mocme.core.device import use_threads

    use_threads(threads)
    given = [head is not None, relation is not None, tail is not None]
    if (about is None and sum(given) != 2) or (about is not None and any(given)):
        raise click.UsageError("give two of --head, --relation and --tail, or --about alone")
    if among != "all" and (about is not None or relation is None):
        raise click.UsageError("--among observed is for a question with a --relation")
    least: dict[str, Any] = {"min_probability": min_probability}
    with open_predictor(run, device, trust_code, as_json) as predictor:
        if about is not None:
            predictions = predictor.missing(about, count, **least)
        elif head is not None and relation is not None:
            predictions = predictor.tails(head, relation, count, known, among=among, **least)
        elif relation is not None:
            predictions = predictor.heads(relation, str(tail), count, known, among=among, **least)
        else:
            predictions = predictor.relations(str(head), str(tail), count, known, **least)
    _print(predictions, as_json)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("facts", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@common("device", "threads", "json", "trust")
def score(
    run: Path, facts: Path, device: str, threads: int | None, as_json: bool, trust_code: bool
) -> None:
    """Score each fact of a TSV file (head, relation, tail), with its probability, in file order."""
    from mocme.core.device import use_threads
    from mocme.data.graph import UnknownName

    use_threads(threads)
    triples, lines = read_facts(facts)
    with open_predictor(run, device, trust_code, as_json) as predictor:
        for (h, r, t), line in zip(triples, lines, strict=True):
            try:
                predictor.graph.entities.id(h), predictor.graph.entities.id(t)
                predictor.graph.relations.id(r)
            except UnknownName as error:
                raise ValueError(f"{facts}: line {line}: {error}") from error
        predictions = predictor.score_facts(triples)
    _print(predictions, as_json)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@common("device", "threads", "json", "trust")
def calibrate(run: Path, device: str, threads: int | None, as_json: bool, trust_code: bool) -> None:
    """Fit the probabilities of a run on its valid split again, and show how reliable they are.

    A run is calibrated automatically when it is first asked.
    """
    from mocme.core.device import use_threads
    from mocme.runs.run import Run

    use_threads(threads)
    with ProgressBar("calibrating", quiet=as_json) as (progress, task):
        calibration = Run.open(run, trust_code).calibrate(device, progress_callback(progress, task))
    record = calibration.record
    if as_json:
        echo_json(record)
        return
    show(reliability_table(record))
    for note in filter(None, (calibration.weak, calibration_note(record))):
        echo(f"note: {note}", err=True)


@click.command("export-embeddings")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out", "-o", required=True, type=click.Path(path_type=Path), help="Folder for the files."
)
@click.option("--parquet", is_flag=True, help="Write Parquet instead of .npy and lists of names.")
@click.option("--expert", metavar="NAME", help="Embedding to export; the run's first by default.")
@common("device", "trust")
def export_embeddings(
    run: Path, out: Path, parquet: bool, expert: str | None, device: str, trust_code: bool
) -> None:
    """Write the embeddings of all entities and relations."""
    from mocme.prediction.export import write_embeddings

    with open_predictor(run, device, trust_code, quiet=False) as predictor:
        for file in write_embeddings(out, predictor, "parquet" if parquet else "npy", expert):
            echo(str(file))


@contextmanager
def open_predictor(
    run: Path, device: str, trust_code: bool, quiet: bool, additions: bool = True
) -> Iterator[Any]:
    """Open a run for questions, with a progress bar if it has to be calibrated first.

    A note on a weak calibration follows the answers.
    """
    from mocme.runs.run import Run

    trained = Run.open(run, trust_code)
    if trained.calibrated:
        predictor = trained.predictor(device, additions=additions)
    else:
        with ProgressBar("calibrating, once", quiet=quiet) as (progress, task):
            predictor = trained.predictor(
                device, progress_callback(progress, task), additions=additions
            )
    yield predictor
    if predictor.calibration is not None and predictor.calibration.weak:
        echo(f"note: {predictor.calibration.weak}", err=True)


def show_predictions(predictions: Any) -> None:
    """Print predictions as a table, with a caption that explains its numbers."""
    from mocme.prediction.schema import Checked

    caption = "scores of different questions cannot be compared; "
    if any(item.probability is not None for item in predictions):
        caption = (
            "probability: that it is a known fact, if the question has an answer; the probability "
            "that it is true is higher, because unknown facts count as false; probabilities of "
            "different questions can be compared, scores cannot; "
        )
    if isinstance(predictions, Checked):
        caption += "score and probability are means of both directions; "
    caption += "then the weight of each modality in the answer"
    show(replace(predictions.table(), caption=caption))


def _print(predictions: Any, as_json: bool) -> None:
    if as_json:
        items = [item.as_dict() for item in predictions]
        echo_json({"question": predictions.question, "predictions": items})
    elif not len(predictions):
        echo(f"{predictions.question}: {predictions.nothing}")
    else:
        show_predictions(predictions)
