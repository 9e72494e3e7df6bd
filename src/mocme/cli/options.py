"""What commands share: their order, their errors, their options."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click


class OrderedGroup(click.Group):
    """Commands in the order of their use; errors a user can act on, without a trace."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        from mocme.core.device import Interrupted

        try:
            return super().invoke(ctx)
        except Interrupted as stop:
            click.echo(str(stop), err=True)
            ctx.exit(130)
        except (ValueError, OSError) as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)


def facts_in(path: Path) -> tuple[list[tuple[str, str, str]], Sequence[int]]:
    """The facts of a TSV file (head, relation, tail), and the line of each.

    Raises:
        ValueError: a line is no such fact; all of them are told.
    """
    from mocme.data.formats import tsv

    table = tsv.read(path, 3)
    if table.report.rejects:
        raise ValueError(f"every line must be a fact of three names; correct these\n{table.report}")
    return [(h, r, t) for h, r, t in table.rows], table.lines


def common(*names: str) -> Callable[[Any], Any]:
    """Options that several commands share."""
    options = {
        "features": click.option(
            "--features",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Folder of encoded modalities, where they do not lie beside the data.",
        ),
        "device": click.option(
            "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
        ),
        "threads": click.option(
            "--threads", type=int, help="Threads for arithmetic; all cores by default."
        ),
        "json": click.option(
            "--json", "as_json", is_flag=True, help="Print JSON instead of a table."
        ),
        "trust": click.option(
            "--trust-code",
            is_flag=True,
            help="Import code that the run's maker named in its configuration.",
        ),
    }

    def add(command: Any) -> Any:
        for name in reversed(names):
            command = options[name](command)
        return command

    return add


def echo_json(found: Any) -> None:
    """Print as JSON, for programs."""
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))
