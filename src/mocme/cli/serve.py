"""`mocme serve`: runs over HTTP, and the page for reviewing them."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from mocme.cli.options import common
from mocme.core.console import ProgressBar, echo, progress_callback
from mocme.core.extras import missing

LIBRARIES = ("fastapi", "starlette", "httptools", "prometheus_client", "pydantic", "uvicorn")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, help="Port to listen on; 0: a free one.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the token that requests must carry; or set the variable MOCME_TOKEN.",
)
@click.option(
    "--allow-host", "hosts", multiple=True, help="Another host name that requests may use."
)
@click.option(
    "--reviews",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of the decisions; default: reviews.sqlite in the first run's folder.",
)
@click.option(
    "--files-from",
    multiple=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Show texts, pictures, sounds and videos from this folder too, not from those of the "
    "graphs alone; repeatable.",
)
@click.option("--additions", is_flag=True, help="Let clients add entities to the runs.")
@click.option(
    "--workers", default=1, show_default=True, help="Number of processes; they share memory."
)
@click.option("--seconds", default=20.0, show_default=True, help="Time limit of a request.")
@click.option("--queue", default=128, show_default=True, help="Number of questions that may wait.")
@click.option(
    "--logs",
    type=click.Choice(["text", "json", "none"]),
    help="Format of the request log; default: text in a terminal, else JSON.",
)
@common("threads", "trust")
def serve(
    runs: tuple[Path, ...],
    host: str,
    port: int,
    token_file: Path | None,
    hosts: tuple[str, ...],
    reviews: Path | None,
    files_from: tuple[Path, ...],
    additions: bool,
    workers: int,
    seconds: float,
    queue: int,
    logs: Any,
    threads: int | None,
    trust_code: bool,
) -> None:
    """Serve RUNS over HTTP, with a page to ask them and to review what they predict.

    Only this machine can connect, unless another --host and a token are given.
    """
    from mocme.core.device import use_threads
    from mocme.serving.limits import Limits
    from mocme.serving.server import Address
    from mocme.serving.server import serve as run_server

    for library in LIBRARIES:
        # Not imported yet: with several processes, the server first sets up their shared metrics.
        if find_spec(library) is None:
            raise missing(library, "serve", "mocme serve needs")
    use_threads(threads)
    token = os.environ.get("MOCME_TOKEN") or None
    if token_file is not None:
        token = token_file.read_text(encoding="utf-8").strip()
    address = Address(host, port, token, hosts)
    log_format: Any = logs or ("text" if sys.stderr.isatty() else "json")
    with ProgressBar("opening", quiet=not sys.stderr.isatty()) as (progress, task):

        def started(url: str, notes: list[str]) -> None:
            progress.stop()
            for note in notes:
                echo(f"note: {note}", err=True)
            echo(f"mocme serves {', '.join(map(str, runs))} on {url}  (Ctrl-C stops it)")

        run_server(
            runs,
            address,
            Limits(seconds=seconds, queue=queue),
            reviews=reviews,
            additions=additions,
            workers=workers,
            logs=log_format,
            trust_code=trust_code,
            files_from=files_from,
            started=started,
            advance=progress_callback(progress, task),
        )
