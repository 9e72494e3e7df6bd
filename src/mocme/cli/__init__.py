"""The command line: thin commands over the library, a module for each topic."""

from __future__ import annotations

import click

from mocme.cli import (
    audit,
    benchmark,
    complete,
    data,
    demo,
    encode,
    entities,
    evaluate,
    explain,
    predict,
    serve,
    train,
    tune,
)
from mocme.cli.options import MainGroup


@click.group(cls=MainGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mocme")
def main() -> None:
    """Complete multi-modal knowledge graphs: train, rank, predict missing facts."""


# In the order of use, which is the order of the help.
for _command in (
    train.train,
    train.resume,
    tune.tune,
    evaluate.evaluate,
    benchmark.benchmark,
    predict.predict,
    explain.explain,
    predict.score,
    predict.calibrate,
    complete.complete,
    predict.export_embeddings,
    serve.serve,
    entities.entities,
    data.import_graph,
    data.export_graph,
    encode.encode,
    audit.audit,
    data.fetch,
    train.experiments,
    demo.demo,
):
    main.add_command(_command)
