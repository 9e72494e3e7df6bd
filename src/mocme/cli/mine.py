"""`mocme mine`: the best new facts of a whole graph into a file."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from mocme.cli.ask import opened
from mocme.cli.options import common, echo_json
from mocme.core.console import bar, show

EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--min-probability", "least", default=0.5, show_default=True, help="0.001 to 1.")
@click.option("--limit", default=1_000_000, show_default=True, help="How many facts at most.")
@click.option("--relation", "-r", "names", multiple=True, help="Mine only these relations.")
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    help="A file: .tsv, .csv, .jsonl, .parquet with numbers, .nt, .cypher without; .gz, .zst.",
)
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
@click.option("--guard", is_flag=True, help="Names that a spreadsheet would run get an apostrophe.")
@click.option(
    "--judge",
    is_flag=True,
    help="Mine as if the valid split were unknown, and tell how many of its facts are found.",
)
@click.option("--estimate", is_flag=True, help="Say what it would cost, and stop.")
@common("device", "threads", "json", "trust")
def mine(
    run: Path,
    least: float,
    limit: int,
    names: tuple[str, ...],
    out: Path | None,
    force: bool,
    guard: bool,
    judge: bool,
    estimate: bool,
    device: str,
    threads: int | None,
    as_json: bool,
    trust_code: bool,
) -> None:
    """The likeliest new facts of a whole graph, over all relations, best first.

    Exact: nothing is sampled. Stopped by Ctrl-C, it goes on by the same command.
    """
    from mocme.core.device import use_threads
    from mocme.data.graph import Graph
    from mocme.prediction import writing
    from mocme.prediction.graph_completion import GraphCompletion
    from mocme.prediction.predictor import Predictor

    use_threads(threads)
    if (out is None) != (judge or estimate):
        raise click.UsageError("give --out a file, or one of --judge and --estimate")
    if out is not None and out.exists() and not force:
        raise ValueError(f"{out}: is there already; give another name, or --force")
    # A judgement is of the run as it was trained; what is mined includes additions.
    with opened(run, device, trust_code, as_json, additions=not judge) as predictor:
        graph: Graph = predictor.graph
        relations = [graph.relations.id(name) for name in names] or None
        if judge:
            unknown = replace(graph, splits={"train": graph.facts("train")})
            predictor = Predictor(predictor.model, unknown, predictor.calibration)
        miner = GraphCompletion(predictor, relations=relations, limit=limit, least=least)
        state = None if out is None else _State(out, miner, run)
        if state is not None:
            state.resume()
        questions, seconds = _cost(miner)
        if estimate:
            _tell_cost(questions, seconds, as_json)
            return
        if not as_json:
            click.echo(f"up to {questions:,} questions, about {_span(seconds)}", err=True)
        _mine(miner, state, questions, as_json)
        if judge:
            _tell_judgement(_judged(miner.facts, graph), as_json)
            return
        assert out is not None
        assert state is not None
        writing.write(out, miner.facts, graph, guard=guard)
        state.remove()
    if as_json:
        echo_json({"facts": len(miner.facts), "out": str(out), "questions": questions})
        return
    click.echo(f"{len(miner.facts):,} new facts written to {out}")


class _State:
    """What is mined so far, beside the file that it will become."""

    def __init__(self, out: Path, miner: Any, run: Path) -> None:
        self.path, self.miner = out.with_name(f".{out.name}.mining"), miner
        about = (run / "run.json").read_bytes() + _additions(run)
        asked = repr((miner.relations, miner.limit, miner.least))
        self.identity = hashlib.sha256(about + asked.encode()).hexdigest()

    def resume(self) -> None:
        """Go on from what is there, if it is of this run and these settings."""
        from mocme.data.modality import read_safetensors
        from mocme.prediction.graph_completion import CompletedFacts

        if not self.path.exists():
            return
        try:
            tensors, metadata = read_safetensors(self.path)
        except ValueError:  # cut off while it was written
            return
        if metadata.get("identity") != self.identity:
            return
        self.miner.facts = CompletedFacts(*(tensors[name] for name in _NAMES))
        self.miner.done = int(metadata["done"])

    def keep(self) -> None:
        """Write what is there now, whole or not at all."""
        from safetensors.torch import save

        from mocme.data.formats.writers import written

        found = self.miner.facts
        tensors = {name: getattr(found, name).contiguous() for name in _NAMES}
        metadata = {"identity": self.identity, "done": str(self.miner.done)}
        with written(self.path) as file:
            file.write(save(tensors, metadata))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def _additions(run: Path) -> bytes:
    """What is recorded of a run's additions, by which another set of them is seen."""
    from mocme.inductive.store import FILE

    record = run / f"{FILE}.sha256"
    return record.read_bytes() if record.exists() else b""


_NAMES = ("facts", "chance", "probability", "score")


def _cost(miner: Any) -> tuple[int, float]:
    """Questions that are left, and the seconds they may take: measured on some."""
    left = miner.relations[miner.done :]
    counts = {relation: miner.questions(relation) for relation in left}
    questions = sum(counts.values())
    if not questions:
        return 0, 0.0
    most = max(counts, key=lambda relation: counts[relation])
    size = min(miner.predictor.block(), 64, miner.predictor.graph.num_entities)
    asked = list(range(size))
    miner.predictor.unknown(asked, [most] * size)  # what is made once is not counted
    started = time.perf_counter()
    miner.predictor.unknown(asked, [most] * size)
    # What is found is asked in the other direction too.
    return questions, 2 * questions * (time.perf_counter() - started) / size


def _mine(miner: Any, state: _State | None, questions: int, quiet: bool) -> None:
    from mocme.core.device import Interrupted, stop_signal

    with stop_signal() as stopped, bar("mining", quiet=quiet) as (progress, task):
        progress.update(task, total=questions)

        def advance(asked: int, _: int) -> None:
            progress.advance(task, asked)
            if stopped.is_set() and state is not None:
                raise Interrupted(f"stopped; the same command goes on from {state.path}")

        while miner.done < len(miner.relations):
            miner.step(advance)
            if state is not None:
                state.keep()
        progress.update(task, completed=questions)


def _judged(found: Any, graph: Any) -> dict[str, Any]:
    """How many mined facts are in the valid split, by probability."""
    valid = {tuple(fact) for fact in graph.facts("valid").tolist()}
    right = [tuple(fact) in valid for fact in found.facts.tolist()]
    chances = found.chance.tolist()
    rows = []
    for low, high in pairwise(EDGES):
        place = [n for n, c in enumerate(chances) if low <= c < high or c == high == 1]
        if place:
            rows.append(
                {
                    "from": low,
                    "to": high,
                    "facts": len(place),
                    "chance": sum(chances[n] for n in place) / len(place),
                    "precision": sum(right[n] for n in place) / len(place),
                }
            )
    return {
        "facts": len(right),
        "of valid": sum(right),
        "precision": sum(right) / len(right) if right else None,
        "recall": sum(right) / len(valid) if valid else None,
        "by chance": rows,
    }


def _tell_judgement(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        echo_json(found)
        return
    table = Table(
        title=f"{found['facts']:,} facts mined with the valid split unknown; {found['of valid']:,} "
        f"of them are in it",
        caption="true facts that are not in the valid split count as false: a lower bound",
    )
    for column in ("probability between", "facts", "mean probability", "of valid"):
        table.add_column(column, justify="right")
    for row in reversed(found["by chance"]):
        span = f"{row['from']:.0%} and {row['to']:.0%}"
        table.add_row(span, f"{row['facts']:,}", f"{row['chance']:.1%}", f"{row['precision']:.1%}")
    show(table)


def _tell_cost(questions: int, seconds: float, as_json: bool) -> None:
    if as_json:
        echo_json({"questions": questions, "seconds": round(seconds, 1)})
        return
    click.echo(f"up to {questions:,} questions, about {_span(seconds)}")


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
