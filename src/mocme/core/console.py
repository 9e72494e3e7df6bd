"""Terminal output: tables, progress bars and the progress of a training."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
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
from rich.text import Text

# Columns of a table that is not printed to a terminal.
WIDTH = 140


def show(table: Any) -> None:
    """Print a table to standard output, as wide as the terminal."""
    Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False).print(table)


def echo_notes(lines: Sequence[str]) -> None:
    """Print notes to standard error, one per line."""
    for line in lines:
        click.echo(line, err=True)


class Rate(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s")


class bar:
    """A progress bar on standard error; entering it returns the display and the task."""

    def __init__(self, description: str, quiet: bool = False) -> None:
        self.description = description
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
        return self.progress, self.progress.add_task(self.description, total=None)

    def __exit__(self, *error: object) -> None:
        self.progress.stop()


def moving(progress: Progress, task: Any) -> Callable[[int, int], None]:
    """Return a callback that sets a bar to (steps done, steps in total)."""
    return lambda done, total: progress.update(task, completed=done, total=total)


def modalities_line(run: Any) -> str:
    """The modalities of a training, with the number of entities that have each."""
    counts = dict(run.folder.about["entities"])
    total = counts.pop("all")
    parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    hint = "" if len(counts) > 1 else " only (a graph.toml can declare more: docs/data.md)"
    return f"modalities of {total:,} entities: {parts}{hint}"


def patterns_line(record: Mapping[str, Any]) -> str:
    """The number of patterns found, with their strength and sharpness."""
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
    """The progress of a training: a bar, a line for each epoch, and its stages if it has two.

    Args:
        notes: whether to print the notes on the inputs at the start.
    """

    def __init__(self, title: str = "", notes: bool = True) -> None:
        self.bar, self.title, self.notes = bar(f"training {title}".strip()), title, notes

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.__exit__(*error)

    def start(self, trainer: Any, run: Any) -> None:
        """Print the notes of a new training, and start the bar."""
        if self.notes and not trainer.progress.step:
            echo_notes([*run.folder.about["notes"], modalities_line(run)])
        self.progress, self.task = self.bar.__enter__()
        self.epochs = trainer.settings.passes
        self.progress.update(self.task, total=trainer.total_steps, completed=trainer.progress.step)
        # Patterns are a second stage: they are mined and weighted after the embeddings.
        self.has_patterns = run.experiment.parts()[1].patterns is not None
        if not trainer.progress.done:
            self._print_stage(1, f"embeddings, {self.epochs} epochs over the training facts")

    def step(self, progress: Any) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=progress.step)

    def stage(self, name: str) -> Callable[[int, int], None]:
        """Start a bar for the stage after the last epoch, and return its callback."""
        self._print_stage(2, f"{name}, found in the training facts and weighted")
        return moving(self.progress, self.progress.add_task(name, total=None))

    def _print_stage(self, number: int, description: str) -> None:
        if self.has_patterns:
            line = f"{self.title or 'training'}, stage {number} of 2: {description}"
            self.progress.console.print(line, highlight=False, markup=False)

    def record(self, record: Mapping[str, Any]) -> None:
        """Print the line of an epoch, or of the patterns."""
        if "patterns" in record:
            self.progress.console.print(patterns_line(record["patterns"]), highlight=False)
            return
        line = f"epoch {record['epoch']:3d} of {self.epochs}  loss {record['loss']:.4f}"
        if "valid" in record:
            line += f"  valid MRR {record['valid']['mrr']:.4f}"
        self.progress.console.print(f"{line}  {record['seconds']:.1f} s", highlight=False)
