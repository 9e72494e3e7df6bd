"""`mocme complete`: write the most probable new facts of a whole graph to a file."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mocme.cli.options import common, echo_json
from mocme.cli.predict import open_predictor
from mocme.core.console import ProgressBar, echo, show
from mocme.core.table import TextTable, columns

if TYPE_CHECKING:
    from mocme.data.graph import Graph
    from mocme.prediction.graph_completion import CompletedFacts, GraphCompletion

# Bins of the probability in the table of --judge.
EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# Columns of `CompletedFacts`, as tensors of the state.
COLUMNS = ("facts", "chance", "probability", "score")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--min-probability", "least", default=0.5, show_default=True, help="0.001 to 1.")
@click.option("--limit", default=1_000_000, show_default=True, help="Maximum number of facts.")
@click.option("--relation", "-r", "names", multiple=True, help="Complete only these relations.")
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    help="A file: .tsv, .csv, .jsonl, .parquet with scores, .nt, .cypher without; .gz, .zst.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option(
    "--guard",
    is_flag=True,
    help="Put an apostrophe before names that a spreadsheet would run as a formula.",
)
@click.option(
    "--judge",
    is_flag=True,
    help="Complete as if the valid split were unknown, and report how many of its facts are found.",
)
@click.option("--estimate", is_flag=True, help="Print the estimated cost, and stop.")
@common("device", "threads", "json", "trust")
def complete(
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
    """Write the most probable new facts of a graph, over all relations, best first.

    The search is exact: nothing is sampled. After Ctrl-C the same command resumes.
    """
    from mocme.core.device import use_threads
    from mocme.prediction.export import write_facts
    from mocme.prediction.graph_completion import GraphCompletion
    from mocme.prediction.predictor import Predictor

    use_threads(threads)
    if (out is None) != (judge or estimate):
        raise click.UsageError("give --out a file, or one of --judge and --estimate")
    if out is not None and out.exists() and not force:
        raise ValueError(f"{out}: exists already; give another name, or --force")
    # --judge measures the run as it was trained; otherwise additions take part.
    with open_predictor(run, device, trust_code, as_json, additions=not judge) as predictor:
        graph: Graph = predictor.graph
        relations = [graph.relations.id(name) for name in names] or None
        if judge:
            unknown = replace(graph, splits={"train": graph.facts("train")})
            predictor = Predictor(predictor.mixture, unknown, predictor.calibration)
        completion = GraphCompletion(predictor, relations=relations, limit=limit, least=least)
        state = None if out is None else _State(out, completion, run)
        if state is not None:
            state.resume()
        questions, seconds = _cost(completion)
        if estimate:
            _print_cost(questions, seconds, as_json)
            return
        if not as_json:
            echo(_cost_line(questions, seconds), err=True)
        _search(completion, state, questions, as_json)
        if judge:
            _print_judgement(_judgement(completion.facts, graph), as_json)
            return
        assert out is not None
        assert state is not None
        write_facts(out, completion.facts, graph, guard=guard)
        state.remove()
    if as_json:
        echo_json({"facts": len(completion.facts), "out": str(out), "questions": questions})
        return
    echo(f"{len(completion.facts):,} new facts written to {out}")


class _State:
    """The state of an unfinished search, in a hidden file next to the output."""

    def __init__(self, out: Path, completion: GraphCompletion, run: Path) -> None:
        self.path, self.completion = out.with_name(f".{out.name}.mining"), completion
        inputs = (run / "run.json").read_bytes() + _additions_digest(run)
        settings = repr((completion.relations, completion.limit, completion.least))
        self.identity = hashlib.sha256(inputs + settings.encode()).hexdigest()

    def resume(self) -> None:
        """Load the state, if it belongs to this run and these settings."""
        from mocme.data.modality_files import read_safetensors
        from mocme.prediction.graph_completion import CompletedFacts

        if not self.path.exists():
            return
        try:
            tensors, metadata = read_safetensors(self.path)
        except ValueError:  # truncated while it was written
            return
        if metadata.get("identity") != self.identity:
            return
        self.completion.facts = CompletedFacts(*(tensors[name] for name in COLUMNS))
        self.completion.done = int(metadata["done"])

    def keep(self) -> None:
        """Write the state atomically."""
        from safetensors.torch import save

        from mocme.data.formats.writers import atomic_file

        facts = self.completion.facts
        tensors = {name: getattr(facts, name).contiguous() for name in COLUMNS}
        metadata = {"identity": self.identity, "done": str(self.completion.done)}
        with atomic_file(self.path) as file:
            file.write(save(tensors, metadata))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def _additions_digest(run: Path) -> bytes:
    """The recorded digest of a run's additions; empty if it has none."""
    from mocme.inductive.store import FILE

    record = run / f"{FILE}.sha256"
    return record.read_bytes() if record.exists() else b""


def _cost(completion: GraphCompletion) -> tuple[int, float]:
    """Remaining questions, and the estimated seconds, measured on a block of questions."""
    counts = {
        relation: completion.questions(relation)
        for relation in completion.relations[completion.done :]
    }
    questions = sum(counts.values())
    if not questions:
        return 0, 0.0
    largest = max(counts, key=lambda relation: counts[relation])
    predictor = completion.predictor
    size = min(predictor.scorer.block(), 64, predictor.graph.num_entities)
    entities = list(range(size))
    predictor.scorer.unknown(entities, [largest] * size)  # fills the caches
    started = time.perf_counter()
    predictor.scorer.unknown(entities, [largest] * size)
    # Twice: answers are scored in the other direction too.
    return questions, 2 * questions * (time.perf_counter() - started) / size


def _search(completion: GraphCompletion, state: _State | None, questions: int, quiet: bool) -> None:
    """Complete all relations, and store the state after each."""
    from mocme.core.interrupts import Interrupted, stop_signal

    with stop_signal() as stopped, ProgressBar("completing", quiet=quiet) as (progress, task):
        progress.update(task, total=questions)

        def advance(asked: int, _: int) -> None:
            progress.advance(task, asked)
            if stopped.is_set() and state is not None:
                raise Interrupted(f"stopped; the same command resumes from {state.path}")

        while completion.done < len(completion.relations):
            completion.step(advance)
            if state is not None:
                state.keep()
        progress.update(task, completed=questions)


def _judgement(new_facts: CompletedFacts, graph: Graph) -> dict[str, Any]:
    """Precision and recall of new facts on the valid split, also by bin of the probability."""
    valid = {tuple(fact) for fact in graph.facts("valid").tolist()}
    in_valid = [tuple(fact) in valid for fact in new_facts.facts.tolist()]
    probabilities = new_facts.chance.tolist()
    bins = []
    for low, high in pairwise(EDGES):
        # The last bin includes its upper edge.
        rows = [n for n, p in enumerate(probabilities) if low <= p < high or p == high == 1]
        if rows:
            bins.append(
                {
                    "from": low,
                    "to": high,
                    "facts": len(rows),
                    "chance": sum(probabilities[n] for n in rows) / len(rows),
                    "precision": sum(in_valid[n] for n in rows) / len(rows),
                }
            )
    return {
        "facts": len(in_valid),
        "of valid": sum(in_valid),
        "precision": sum(in_valid) / len(in_valid) if in_valid else None,
        "recall": sum(in_valid) / len(valid) if valid else None,
        "by chance": bins,
    }


def _print_judgement(judgement: dict[str, Any], as_json: bool) -> None:
    if as_json:
        echo_json(judgement)
        return
    titles = ("probability between", "facts", "mean probability", "of valid")
    rows = [
        [
            f"{row['from']:.0%} and {row['to']:.0%}",
            f"{row['facts']:,}",
            f"{row['chance']:.1%}",
            f"{row['precision']:.1%}",
        ]
        for row in reversed(judgement["by chance"])
    ]
    table = TextTable(
        columns(*titles, right=titles),
        rows,
        title=f"{judgement['facts']:,} new facts with the valid split unknown; "
        f"{judgement['of valid']:,} of them are in it",
        caption="true facts outside the valid split count as false, so the true shares are higher",
    )
    show(table)


def _print_cost(questions: int, seconds: float, as_json: bool) -> None:
    if as_json:
        echo_json({"questions": questions, "seconds": round(seconds, 1)})
        return
    echo(_cost_line(questions, seconds))


def _cost_line(questions: int, seconds: float) -> str:
    return f"up to {questions:,} questions, about {_duration(seconds)}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
