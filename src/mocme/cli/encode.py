"""`mocme encode`: modalities of raw files."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mocme.cli.options import OrderedGroup, common, echo_json
from mocme.core.console import bar, moving
from mocme.core.device import use_threads
from mocme.core.registry import Configurable, settings
from mocme.encoders import encode as making
from mocme.encoders.base import Advance, Encoder
from mocme.encoders.catalog import setting_docs


@click.group(cls=OrderedGroup)
def encode() -> None:
    """Make modalities of raw files: texts, pictures, sounds, videos, numbers.

    `mocme encode all DATA` makes what DATA/graph.toml declares under [encode.NAME]; the other
    commands make one modality and declare it there. What is there already is not made again.
    """


class _OneKind(click.Command):
    """A command whose help ends with the settings of its encoder."""

    part: type[Configurable]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Settings that have an option of their own.
        options = ("paths", "entity", "columns", "attributes", "delimiter")
        docs = setting_docs(self.part)
        names = [name for name in settings(self.part) if name not in options]
        lines = "".join(f"    {name}: {docs[name]}\n" for name in names)
        formatter.write(f"\nSettings, with --set:\n{lines}")


def _options(command: Any) -> Any:
    command = click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder for the results, where DATA is no folder of yours; train with --features.",
    )(command)
    command = click.option(
        "--allow-download", is_flag=True, help="Fetch a pretrained model from a hub."
    )(command)
    return common("device", "threads", "json")(command)


@encode.command("all")
@click.argument("data")
@_options
def everything(data: str, **options: Any) -> None:
    """Make everything that DATA declares."""
    _encode(data, None, **options)


def _encode(
    data: str,
    tables: Mapping[str, Mapping[str, Any]] | None,
    out: Path | None,
    allow_download: bool,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    use_threads(threads)
    with bar("encode", quiet=as_json) as (progress, task):

        def watch(name: str) -> Advance:
            progress.reset(task, description=name, total=None)
            return moving(progress, task)

        fault: making.NotEncoded | None = None
        try:
            made = making.encode(
                data, tables, out=out, device=device, allow_download=allow_download, watch=watch
            )
        except making.NotEncoded as error:
            made, fault = error.made, error
    if as_json:
        echo_json([outcome.as_dict() for outcome in made])
    else:
        for outcome in made:
            click.echo(str(outcome))
    if fault is not None:
        raise fault
    if as_json:
        return
    where = f" --features {out}" if out is not None else ""
    click.echo(f"next: mocme train --data {data}{where} --out runs/{Path(data).name}")


def _one_kind(part: type[Configurable]) -> click.Command:
    kind, known = part.kind_name(), settings(part)

    @click.argument("data")
    @click.option(
        "--from",
        "paths",
        multiple=True,
        metavar="PATH",
        help="A table (TSV, CSV, JSON lines, Parquet), or a folder of files named by entity; from "
        "here or from DATA.",
    )
    @click.option("--name", help=f"Of the modality; {kind} by default.")
    @click.option(
        "--entity", "entities", multiple=True, help="Column of the entity's name, in every table."
    )
    @click.option("--delimiter", help=r"Reads tables as CSV with it; \t for a tab.")
    @click.option(
        "--column",
        "columns",
        multiple=True,
        help="Column of the content, one or one a table; of numbers, one an attribute.",
    )
    @click.option(
        "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Another setting of the encoder."
    )
    @_options
    def command(
        data: str,
        paths: tuple[str, ...],
        name: str | None,
        entities: tuple[str, ...],
        delimiter: str | None,
        columns: tuple[str, ...],
        sets: tuple[str, ...],
        **options: Any,
    ) -> None:
        from mocme.runs.config import parse_override

        table: dict[str, Any] = {"kind": kind}
        if paths:
            table["paths"] = [_from_graph(data, path) for path in paths]
        elif "paths" in known:
            raise click.UsageError("say what to encode, with --from")
        if len(entities) > 1:
            raise click.UsageError("--entity is one for all tables; encode them one by one")
        if entities:
            table["entity"] = entities[0]
        if delimiter is not None:
            table["delimiter"] = delimiter.replace("\\t", "\t")
        if columns:
            # Each is an attribute where the content is numbers.
            table["columns" if "columns" in known else "attributes"] = list(columns)
        table.update(parse_override(text) for text in sets)
        if "of" in known and "of" not in table:
            raise click.UsageError("say of which modality, with --set of=NAME")
        _encode(data, {name or kind: table}, **options)

    about = inspect.cleandoc(part.__doc__ or "").partition("\n")[0]
    command.__doc__ = f"{about}\n\nDATA is a graph: its folder, its file, or its name."
    made = click.command(kind, cls=_OneKind)(command)
    made.part = part
    return made


def _from_graph(data: str, path: str) -> str:
    """A path as graph.toml has it: from the graph's folder, where it lies there.

    What is not found from here is left as it is: it is looked for in the graph's folder.
    """
    if not os.path.exists(path):
        return path
    folder, full = os.path.realpath(data), os.path.realpath(path)
    inside = os.path.isdir(data) and full.startswith(folder + os.sep)
    return os.path.relpath(full, folder) if inside else full


for _part in Encoder.kinds:
    encode.add_command(_one_kind(_part))
