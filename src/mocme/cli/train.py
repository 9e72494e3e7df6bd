"""`mocme train`, `resume` and `experiments`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from mocme.cli.options import common, echo_json
from mocme.core.console import TrainingDisplay, echo, echo_notes, show
from mocme.core.table import TextTable, columns
from mocme.core.text import counted


@click.command()
@click.argument("experiment", default="default")
@click.option(
    "--data",
    default="atlas",
    show_default=True,
    help="A folder with train.tsv, a file of facts, the name of a fetched benchmark, or atlas.",
)
@click.option(
    "--splits",
    type=click.Choice(["repaired", "as-published"]),
    help="Splits of a benchmark; default: repaired.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder of the new run."
)
@click.option("--seed", type=int, help="Seed, instead of the experiment's.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="PATH=VALUE",
    help="Another value for a setting, for instance experts.embedding.training.epochs=3.",
)
@click.option(
    "--reviews",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Decisions of mocme serve: accepted facts to train on, rejected ones as hard negatives.",
)
@common("features", "device", "threads", "trust")
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
    trust_code: bool,
) -> None:
    """Train EXPERIMENT (a TOML file or a shipped name) on a graph and write a run."""
    from mocme.core.device import use_threads
    from mocme.data.load import load
    from mocme.runs.config import Experiment
    from mocme.runs.experiment_files import parse_override
    from mocme.runs.train import train as train_run

    use_threads(threads)
    changes = dict(parse_override(text) for text in sets)
    settings = Experiment.load(experiment, changes, trust_code=trust_code)
    graph = load(data, version=splits, reviews=reviews)
    with TrainingDisplay() as display:
        run = train_run(
            graph,
            settings,
            out=out,
            seed=seed,
            device=device,
            features=features,
            observer=display,
            trust_code=trust_code,
        )
    _report(run)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@common("device", "threads", "trust")
def resume(run: Path, device: str, threads: int | None, trust_code: bool) -> None:
    """Resume a training that was stopped; the files of a finished one are checked."""
    from mocme.core.device import use_threads
    from mocme.runs.run import Run
    from mocme.runs.train import resume as resume_run

    use_threads(threads)
    present = Run.open(run, trust_code)
    if present.finished:
        present.contents(device, additions=False)  # it is read, so that damage is an error
        epochs = counted(len(present.log()), "epoch")
        echo(f"{run}: already finished after {epochs}; nothing to do")
        _next(present)
        return
    with TrainingDisplay() as display:
        finished = resume_run(run, device=device, observer=display, trust_code=trust_code)
    _report(finished)


@click.command()
@common("json")
def experiments(as_json: bool) -> None:
    """List the shipped experiments."""
    from mocme.runs.config import Experiment
    from mocme.runs.experiment_files import shipped

    loaded = {name: Experiment.load(path) for name, path in shipped().items()}
    if as_json:
        echo_json({name: experiment.table() for name, experiment in loaded.items()})
        return
    rows = []
    for name, experiment in loaded.items():
        mrr = experiment.expected.get("mrr")
        rows.append([name, experiment.description, "" if mrr is None else f"{mrr:.3f}"])
    titles = columns("experiment", "description", "expected (test MRR)")
    show(TextTable(titles, rows, title="mocme train EXPERIMENT ..."))


def _report(run: Any) -> None:
    """Print where a finished run is, which epoch was kept, and the next commands."""
    about, log = run.about, run.log()
    if not log:  # without epochs, the display has not shown them
        echo_notes(about["notes"])
    for line in kept_epochs(about["fits"], log):
        echo(line)
    echo(f"run written to {run.path}")
    _next(run)


def _next(run: Any) -> None:
    """Print the commands that follow a training."""
    if run.about["facts"].get("valid"):
        hint = "ranks valid; rank test after all choices are made"
        echo(f"next: mocme evaluate {run.path}     ({hint})")
    echo(f"next: mocme predict {run.path} --head NAME --relation NAME")


def kept_epochs(
    fits: Mapping[str, Mapping[str, Any]], log: Sequence[Mapping[str, Any]]
) -> list[str]:
    """A line for each expert of which an epoch before the last is kept.

    Args:
        fits: what is recorded of each expert's fit, by its name.
        log: records of epochs; `expert` is the name of the expert, `epoch` counts within it.
    """
    lines = []
    for name, fit in fits.items():
        epochs = [record for record in log if record["expert"] == name and "epoch" in record]
        kept = fit.get("best_epoch", epochs[-1]["epoch"] if epochs else None)
        measured = [r["valid"] for r in epochs if r["epoch"] == kept and "valid" in r]
        if not epochs or kept == epochs[-1]["epoch"] or not measured:
            continue
        mrr = measured[0].get("mrr", float("nan"))
        of_expert = f" of {name}" if len(fits) > 1 else ""
        lines.append(f"kept epoch {kept}{of_expert} (valid MRR {mrr:.4f})")
    return lines
