"""What a terminal shows: tables, bars and the lines of a training."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

METRICS = ("mrr", "hits@1", "hits@3", "hits@10", "mr", "amri")


def show(what: Any) -> None:
    """Print a table to standard output, not wider than it needs where that is no terminal."""
    Console(width=None if sys.stdout.isatty() else 140, highlight=False).print(what)


def notes(lines: Sequence[str]) -> None:
    """What a reader should know of the inputs, to standard error."""
    for line in lines:
        click.echo(line, err=True)


def finish(run: Any, already: bool = False) -> None:
    """Say where the run is, which pass was kept, and what to do next."""
    about, log = run.folder.about, run.log()
    if already:
        click.echo(f"already finished after {len(log)} passes; nothing to do")
    elif about["best_epoch"] != len(log):
        kept = log[about["best_epoch"] - 1]
        click.echo(f"kept pass {kept['epoch']} (valid MRR {kept['valid']['mrr']:.4f})")
    click.echo(f"run written to {run.path}")
    if about["facts"].get("valid"):
        click.echo(
            f"next: mocme evaluate {run.path}     (ranks valid; test only when all is chosen)"
        )
    click.echo(f"next: mocme predict {run.path} --head NAME --relation NAME")


def modalities_line(run: Any) -> str:
    """Which modalities a training has, and for how many entities."""
    counts = dict(run.folder.about["entities"])
    total = counts.pop("all")
    parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    none = "" if len(counts) > 1 else " only (a graph.toml can declare more: docs/data.md)"
    return f"modalities of {total:,} entities: {parts}{none}"


def metrics_table(title: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """Metrics, a row for each part."""
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    for metric in (*METRICS, "count"):
        table.add_column(
            metric.upper() if metric in ("mrr", "mr", "amri") else metric, justify="right"
        )
    for name, values in rows:
        cells = []
        for metric in METRICS:
            value = values.get(metric)
            cells.append(
                "" if value is None else f"{value:.1f}" if metric == "mr" else f"{value:.4f}"
            )
        table.add_row(escape(name), *cells, f"{values.get('count', 0):,}")
    return table


def predictions_table(title: str, items: Sequence[Any]) -> Table:
    """Predictions, a row each, with the weight of each modality in the answer's vector."""
    chances = any(item.probability is not None for item in items)
    applies = any(item.applies is not None for item in items)
    caption = "scores compare within a question only; then each modality's weight in the answer"
    if chances:
        caption = (
            "probability: that it is a known fact, if the question has an answer; a lower bound, "
            "and it compares between questions; then each modality's weight in the answer"
        )
    table = Table(title=escape(title), caption=caption)
    names = list(items[0].weights) if len(items) else []
    remarks = [item.remark for item in items]
    for column in ("", "head", "relation", "tail"):
        table.add_column(column)
    more = [*(["probability"] if chances else []), *(["applies"] if applies else [])]
    for column in ("score", *more, *names):
        table.add_column(column, justify="right")
    if any(remarks):
        table.add_column("remark", overflow="fold")
    for place, (item, remark) in enumerate(zip(items, remarks, strict=True)):
        cells = [str(place + 1), escape(item.head), escape(item.relation), escape(item.tail)]
        cells.append(f"{item.score:.3f}")
        for asked, value in ((chances, item.probability), (applies, item.applies)):
            if asked:
                cells.append("-" if value is None else f"{value:.1%}")
        cells += [f"{item.weights[name]:.2f}" if item.weights[name] else "-" for name in names]
        table.add_row(*cells, *([escape(remark)] if any(remarks) else []))
    return table


def explanation_tables(found: Any) -> list[Table]:
    """A table for each part of an explanation."""
    made = []
    for title, head, rows in found.tables():
        table = Table(title=escape(title), title_justify="left")
        for column in head:
            numbers = column.startswith(("weight", "paths", "log odds", "change", "by "))
            table.add_column(column, justify="right" if numbers else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(escape, row))
        made.append(table)
    return made


def reliability_table(record: Mapping[str, Any]) -> Table:
    """Predicted and observed frequencies of a calibration, by predicted probability."""
    before, after = record["before"], record["after"]
    table = Table(
        title=f"{record['answers']:,} answers of {record['questions']:,} questions, among "
        f"{record['candidates']:,} candidates",
        caption=f"error of candidates at 1 % or more: {after['error_of_likely']:.4f} (shares of "
        f"the softmax as they are: {before['error_of_likely']:.4f}); each half of the questions "
        f"was predicted from the other",
    )
    for column in ("predicted between", "candidates", "predicted", "observed"):
        table.add_column(column, justify="right")
    for row in after["bins"]:
        span = f"{row['from']:.2%} and {row['to']:.2%}"
        cells = [f"{row['predicted']:.2%}", f"{row['observed']:.2%}"] if row["count"] else ["-"] * 2
        table.add_row(span, f"{row['count']:,}", *cells)
    return table


def benchmarks_table(found: Sequence[Any]) -> Table:
    """Benchmarks, a row each."""
    table = Table(title="mocme fetch NAME", caption="rows as published", show_lines=True)
    table.add_column("benchmark", no_wrap=True)
    for column in ("entities", "relations", "train / valid / test"):
        table.add_column(column, justify="right")
    for column in ("licence", "defects as published"):
        table.add_column(column)
    for benchmark in found:
        table.add_row(
            escape(benchmark.name),
            f"{benchmark.entities:,}",
            f"{benchmark.relations:,}",
            " / ".join(f"{rows:,}" for rows in benchmark.facts.values()),
            escape(benchmark.licence),
            escape("; ".join(benchmark.defects)),
        )
    return table


class Rate(ProgressColumn):
    """How much is done in a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s")


class bar:
    """A progress bar on standard error."""

    def __init__(self, what: str, quiet: bool = False) -> None:
        self.what = what
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet,
        )

    def __enter__(self) -> tuple[Progress, Any]:
        self.progress.start()
        return self.progress, self.progress.add_task(self.what, total=None)

    def __exit__(self, *error: object) -> None:
        self.progress.stop()


def moving(progress: Progress, task: Any) -> Callable[[int, int], None]:
    """What moves a bar, told (done, in all)."""
    return lambda done, total: progress.update(task, completed=done, total=total)


def patterns_line(record: Mapping[str, Any]) -> str:
    """What was found of patterns, and how much they count."""
    if not record["patterns"]:
        return "patterns  none was found; a lower model.patterns.support or .confidence finds more"
    line = f"patterns  {record['patterns']:,} found"
    line += f"; strength {record['strength']:g}, sharpness {record['sharpness']:g}"
    if "tried" in record:
        best = max(row[2] for row in record["tried"])
        line += f" chosen on valid: MRR {best:.4f} ({record['without']:.4f} without)"
    else:
        line += f" given by {record['chosen_by']}"
    return f"{line}  {record['seconds']:.1f} s"


class TrainingDisplay:
    """A training as it goes on: its stages where it has several, a bar, and a line for each pass.

    Args:
        notes: tell what a reader should know of the inputs, first.
    """

    def __init__(self, title: str = "", notes: bool = True) -> None:
        self.bar, self.title, self.notes = bar(f"training {title}".strip()), title, notes

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.__exit__(*error)

    def start(self, trainer: Any, run: Any) -> None:
        """Show what is about to happen."""
        if self.notes and not trainer.progress.step:
            notes([*run.folder.about["notes"], modalities_line(run)])
        self.progress, self.task = self.bar.__enter__()
        self.passes = trainer.settings.passes
        self.progress.update(self.task, total=trainer.total_steps, completed=trainer.progress.step)
        # Patterns are found and weighed beside what the passes trained.
        self.two = run.experiment.parts()[1].patterns is not None
        if not trainer.progress.done:
            self._tell_stage(1, f"vectors, {self.passes} passes over the training facts")

    def step(self, progress: Any) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=progress.step)

    def stage(self, name: str) -> Callable[[int, int], None]:
        """A bar of its own for what comes after the passes."""
        self._tell_stage(2, f"{name}, found in the training facts and weighed")
        return moving(self.progress, self.progress.add_task(name, total=None))

    def _tell_stage(self, number: int, what: str) -> None:
        if self.two:
            line = f"{self.title or 'training'}, stage {number} of 2: {what}"
            self.progress.console.print(line, highlight=False, markup=False)

    def record(self, record: Mapping[str, Any]) -> None:
        """Print the line of a pass, or of the patterns."""
        if "patterns" in record:
            self.progress.console.print(patterns_line(record["patterns"]), highlight=False)
            return
        line = f"pass {record['epoch']:3d} of {self.passes}  loss {record['loss']:.4f}"
        if "valid" in record:
            line += f"  valid MRR {record['valid']['mrr']:.4f}"
        self.progress.console.print(f"{line}  {record['seconds']:.1f} s", highlight=False)
