"""`mocme serve`: runs over HTTP, and the page for reviewing them."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from mocme.cli.options import common
from mocme.core.console import bar, moving


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option("--port", default=8000, show_default=True, help="0 takes a free one.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the token that requests must bring; or the variable MOCME_TOKEN.",
)
@click.option(
    "--allow-host", "hosts", multiple=True, help="A further name this server is called by."
)
@click.option(
    "--reviews",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of the decisions; reviews.sqlite in the first run's folder by default.",
)
@click.option(
    "--additions", is_flag=True, help="Entities may be added to the runs, and taken back."
)
@click.option("--workers", default=1, show_default=True, help="Processes, which share memory.")
@click.option("--seconds", default=20.0, show_default=True, help="Time for one request.")
@click.option("--queue", default=128, show_default=True, help="Questions that may wait.")
@click.option(
    "--logs",
    type=click.Choice(["text", "json", "none"]),
    help="A line a request; by default text on a terminal and JSON elsewhere.",
)
@common("threads", "trust")
def serve(
    runs: tuple[Path, ...],
    host: str,
    port: int,
    token_file: Path | None,
    hosts: tuple[str, ...],
    reviews: Path | None,
    additions: bool,
    workers: int,
    seconds: float,
    queue: int,
    logs: Any,
    threads: int | None,
    trust_code: bool,
) -> None:
    """Serve RUNS over HTTP, with a page to ask them and to review what they suggest.

    Only this machine can reach it, unless another --host and a token are given.
    """
    from mocme.core.device import use_threads
    from mocme.serving.limits import Limits
    from mocme.serving.server import Address
    from mocme.serving.server import serve as run_server

    for library in ("fastapi", "prometheus_client", "uvicorn"):
        # Found, but not imported: several processes prepare for metrics before that.
        if find_spec(library) is None:
            raise ValueError(
                f"mocme serve needs {library}, which is not installed; pip install 'mocme[serve]'"
            )
    use_threads(threads)
    token = os.environ.get("MOCME_TOKEN") or None
    if token_file is not None:
        token = token_file.read_text(encoding="utf-8").strip()
    address = Address(host, port, token, hosts)
    how: Any = logs or ("text" if sys.stderr.isatty() else "json")
    with bar("opening", quiet=not sys.stderr.isatty()) as (progress, task):

        def started(url: str, notes: list[str]) -> None:
            progress.stop()
            for note in notes:
                click.echo(f"note: {note}", err=True)
            click.echo(f"mocme serves {', '.join(map(str, runs))} on {url}  (Ctrl-C stops it)")

        run_server(
            runs,
            address,
            Limits(seconds=seconds, queue=queue),
            reviews=reviews,
            additions=additions,
            workers=workers,
            logs=how,
            trust_code=trust_code,
            started=started,
            advance=moving(progress, task),
        )
