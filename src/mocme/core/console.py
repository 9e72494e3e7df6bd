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

from mocme.core.text import visible

# Columns of a table that is not printed to a terminal.
WIDTH = 140


def echo(text: object = "", *, err: bool = False) -> None:
    """Print text whose characters that a terminal would act on are escapes; line ends stay."""
    click.echo(visible(str(text), keep="\n"), err=err)


def show(table: Any) -> None:
    """Print a table to standard output, as wide as the terminal."""
    Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False).print(table)


def echo_notes(lines: Sequence[str]) -> None:
    """Print notes to standard error, one per line."""
    for line in lines:
        echo(line, err=True)


class Rate(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s")


class ProgressBar:
    """A progress bar on standard error; entering it returns the display and the task."""

    def __init__(self, description: str, quiet: bool = False) -> None:
        self.description = description
        self.progress = Progress(
            # A description may hold a name, in which brackets are no markup.
            TextColumn("{task.description}", markup=False),
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


def progress_callback(progress: Progress, task: Any) -> Callable[[int, int], None]:
    """Return a callback that sets a bar to (steps done, steps in total)."""
    return lambda done, total: progress.update(task, completed=done, total=total)


def modalities_line(run: Any) -> str:
    """The modalities of a training, with the number of entities that have each."""
    counts = dict(run.about["entities"])
    total = counts.pop("all")
    parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    hint = "" if len(counts) > 1 else " only (a graph.toml can declare more: docs/data.md)"
    return f"modalities of {total:,} entities: {parts}{hint}"


def rules_line(name: str, fit: Mapping[str, Any]) -> str:
    """The number of rules that an expert found."""
    if not fit["rules"]:
        return f"{name}  none was found; a lower experts.{name}.support or .confidence finds more"
    return f"{name}  {fit['rules']:,} found"


def mixture_lines(record: Mapping[str, Any]) -> list[str]:
    """What was fitted: the weights of a sum, or what a learned mixture found on held-out facts."""
    if "reason" in record:
        return _learned_lines(record)
    lines = []
    for name, choice in record["experts"].items():
        weight = record["weights"][name]
        line = f"mixture  {name}: strength {weight['strength']:g}"
        if len(choice.get("tried", [[0, 0, 0]])[0]) > 2:
            line += f", sharpness {weight['sharpness']:g}"
        if "tried" in choice:
            best = max(row[-1] for row in choice["tried"])
            line += f" chosen on valid: MRR {best:.4f} ({choice['without']:.4f} without)"
        else:
            line += f" given by {choice['chosen_by']}"
        lines.append(line)
    if lines:
        lines[-1] += f"  {record['seconds']:.1f} s"
    return lines


def _learned_lines(record: Mapping[str, Any]) -> list[str]:
    """What each expert gives alone, what the mixture gives, and what was left out."""
    lines = []
    if "alone" in record:
        of = "facts of valid" if record["fitted_on"] == "valid" else "held-out training facts"
        lines.append(f"mixture  MRR on {record['facts']:,} {of}, in both directions:")
        used = record["weights"]
        for step in record["steps"]:
            name = step["expert"]
            line = f"mixture    {name}: {record['alone'][name]:.4f} alone"
            if step is not record["steps"][0]:
                together = step.get("learned", step["sum"])
                line += f", {together:.4f} with those above"
            lines.append(line if name in used else f"{line}; left out")
    line = f"mixture  {record['kind']}: {record['reason']}"
    if record.get("learned") is not None:
        line += f" (learned {record['learned']:.4f}, sum {record['sum']:.4f})"
    elif "sum" in record:
        line += f" (MRR {record['sum']:.4f})"
    return [*lines, f"{line}  {record['seconds']:.1f} s"]


class TrainingDisplay:
    """The progress of a training: bars, a line for each epoch, and a line for each expert.

    Args:
        notes: whether to print the notes on the inputs at the start.
    """

    def __init__(self, title: str = "", notes: bool = True) -> None:
        self.bar, self.title, self.notes = ProgressBar(f"training {title}".strip()), title, notes
        self.started, self.stages, self.stage_number, self.most = False, 0, 0, ""

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.__exit__(*error)

    def start(self, trainer: Any, run: Any) -> None:
        """Print the notes of a new training, and start the bar of an expert's epochs."""
        if self.notes and not trainer.progress.step:
            echo_notes([*run.about["notes"], modalities_line(run)])
            self.notes = False
        self._begin(run)
        self.epochs = trainer.settings.epochs
        self.task = self.progress.add_task(
            self.bar.description, total=trainer.total_steps, completed=trainer.progress.step
        )
        if not trainer.progress.done:
            self._print_stage(f"embeddings, {self.epochs} epochs over the training facts")

    def step(self, progress: Any) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=progress.step)

    def stage(self, name: str) -> Callable[[int, int], None]:
        """Start a bar for a stage without epochs, and return its callback."""
        self._begin(None)
        what = " of the experts" if name == "mixture" else ", fitted on the training facts"
        self._print_stage(f"{name}{what}")
        return progress_callback(self.progress, self.progress.add_task(name, total=None))

    def _begin(self, run: Any) -> None:
        """Start the bar once."""
        if self.started:
            return
        self.progress, first = self.bar.__enter__()
        self.progress.remove_task(first)
        self.stages = 0 if run is None else len(run.about["experts"])
        if run is not None and any(e.get("optional") for e in run.experiment.experts.values()):
            # Those that have nothing to read are left out.
            self.most = "at most "
        if run is not None and run.about.get("held_out"):
            # Without the held-out facts first, then again those that the mixture chose.
            self.stages, self.most = 2 * self.stages, "at most "
        self.started = True

    def _print_stage(self, description: str) -> None:
        self.stage_number += 1
        if 1 < self.stages >= self.stage_number:
            count = f"stage {self.stage_number} of {self.most}{self.stages}"
            line = f"{self.title or 'training'}, {count}: {description}"
            self.progress.console.print(visible(line), highlight=False, markup=False)

    def record(self, record: Mapping[str, Any]) -> None:
        """Print the line of an epoch, of a fitted expert, or of the mixture."""
        lines = []
        if "mixture" in record:
            lines = mixture_lines(record["mixture"])
        elif "fitted" in record:
            fit = record["fitted"]
            lines = [rules_line(record["expert"], fit)] if "rules" in fit else []
        else:
            line = f"epoch {record['epoch']:3d} of {self.epochs}  loss {record['loss']:.4f}"
            if "valid" in record:
                line += f"  valid MRR {record['valid']['mrr']:.4f}"
            lines = [f"{line}  {record['seconds']:.1f} s"]
        for line in lines:
            self.progress.console.print(visible(line), highlight=False, markup=False)
