"""`mocme demo`: the demonstration on the embedded graph."""

from __future__ import annotations

from pathlib import Path

import click

from mocme.cli.options import common


@click.command()
@click.option(
    "--out",
    default=Path("runs/demo"),
    type=click.Path(path_type=Path),
    show_default=True,
    help="Folder for the two runs.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of both trainings.")
@common("device", "threads")
def demo(out: Path, seed: int, device: str, threads: int | None) -> None:
    """Train on the embedded graph Atlas, compare with structure only, and predict facts."""
    from mocme.cli import demonstration
    from mocme.core.device import use_threads

    use_threads(threads)
    demonstration.run(out, seed, device)
