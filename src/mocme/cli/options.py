"""Groups, options and helpers that the commands share."""

from __future__ import annotations

import errno
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from mocme.core.console import echo
from mocme.core.notices import Notice
from mocme.core.text import json_escape, visible

# The commands that have another name now.
RENAMED = {
    "check": "score",
    "mine": "complete",
    "vectors": "export-embeddings",
    "bench": "benchmark",
    "add": "entities add",
    "additions": "entities list",
    "remove": "entities remove",
}


class OrderedGroup(click.Group):
    """A group that lists its commands in the order of use, and reports errors without a trace."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        from mocme.core.interrupts import Interrupted

        try:
            with _notes_of_warnings():
                return super().invoke(ctx)
        except Interrupted as stop:
            echo(str(stop), err=True)
            ctx.exit(130)
        except BrokenPipeError:
            raise  # click ends in silence where nobody reads the output any more
        except (ValueError, OSError) as error:
            reason = _system_error(error) if isinstance(error, OSError) else str(error)
            echo(f"Error: {reason}", err=True)
            ctx.exit(1)
        except ImportError as error:  # of a library that no other check names
            if error.name is None or error.name.partition(".")[0] == "mocme":
                raise
            from mocme.core.extras import remedy

            echo(f"Error: {error}; {remedy('all')}", err=True)
            ctx.exit(1)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            echo("Error: out of memory; give a smaller input or smaller settings", err=True)
            ctx.exit(1)


def _system_error(error: OSError) -> str:
    """What the system refused, with the path and a remedy."""
    if not isinstance(error.filename, str) or not error.strerror:
        return str(error)
    path = Path(error.filename)
    for folder in (path, *path.parents):
        if folder.name.startswith(".") and folder.suffix == ".tmp":  # its writer made it up
            path = folder.parent
    if error.errno == errno.EROFS:
        return (
            f"{path}: cannot be written ({error.strerror}); give a path in a folder that can be "
            f"written"
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{path}: cannot be written ({error.strerror}); free some space, or give a path on "
            f"another disk"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{path}: cannot be used ({error.strerror}); change its permissions or those of its "
            f"folder, or give another path"
        )
    return f"{path}: {error.strerror}; check the path"


def _out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory is short, as torch does by several `RuntimeError`."""
    words = ("allocate memory", "out of memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


@contextmanager
def _notes_of_warnings() -> Iterator[None]:
    """Print notices as notes, without a place in the code."""
    with warnings.catch_warnings():
        default = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, Notice):
                echo(f"note: {message}", err=True)
            else:
                default(message, category, *rest, **more)

        warnings.showwarning = show
        yield


class MainGroup(OrderedGroup):
    """The group of all commands; an old name of a command is an error that gives the new one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in RENAMED:
            ctx.fail(f"mocme {args[0]} is now: mocme {RENAMED[args[0]]}")
        return super().resolve_command(ctx, args)


def read_facts(path: Path) -> tuple[list[tuple[str, str, str]], Sequence[int]]:
    """Read the facts (head, relation, tail) of a TSV file, and their line numbers.

    Raises:
        ValueError: some lines are not facts; the message lists them.
    """
    from mocme.data.formats import tsv

    table = tsv.read(path, 3)
    if table.report.rejects:
        raise ValueError(
            f"every line must be a fact of three names; correct these lines\n{table.report}"
        )
    return [(h, r, t) for h, r, t in table.rows], table.lines


def common(*names: str) -> Callable[[Any], Any]:
    """Add options that several commands share, by name."""
    options = {
        "features": click.option(
            "--features",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Folder of encoded modalities, if they are not next to the data.",
        ),
        "device": click.option(
            "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
        ),
        "threads": click.option(
            "--threads",
            type=int,
            help="Number of threads for tensor operations; default: all cores.",
        ),
        "json": click.option(
            "--json", "as_json", is_flag=True, help="Print JSON instead of a table."
        ),
        "trust": click.option(
            "--trust-code",
            is_flag=True,
            help="Import the code that the files which are read name (kind = "
            "'package.module:Class'), because you trust its author.",
        ),
    }

    def add_options(command: Any) -> Any:
        for name in reversed(names):
            command = options[name](command)
        return command

    return add_options


def echo_json(value: Any) -> None:
    """Print a value as JSON, in which characters that a terminal would act on are escapes."""
    click.echo(visible(json.dumps(value, indent=2, ensure_ascii=False), "\n", json_escape))
