"""`mocme encode`: modalities of raw files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mocme.cli.options import Group, common, echo_json
from mocme.machine import use_threads
from mocme.terminal import bar

KINDS = {
    "text": "Texts by a sentence encoder.",
    "image": "Pictures by a network.",
    "audio": "Sounds by log-mel statistics, or a network.",
    "video": "Videos: frames by a picture encoder, averaged.",
    "numeric": "Numbers, scaled attribute by attribute.",
    "words": "Words, bigrams or subwords of texts as sets of tokens.",
    "bins": "Numbers as sets of tokens, one for each quantile bin.",
    "codes": "Vectors of another modality as sets of tokens (--set of=NAME).",
}


@click.group(cls=Group)
def encode() -> None:
    """Make modalities of raw files: texts, pictures, sounds, videos, numbers.

    `mocme encode all DATA` makes what DATA/graph.toml declares under [encode.NAME]; the other
    commands make one modality and declare it there. What is there already is not made again.
    """


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
    from mocme.encoders import making
    from mocme.encoders.base import Advance

    use_threads(threads)
    with bar("encode", quiet=as_json) as (progress, task):

        def watch(name: str) -> Advance:
            progress.reset(task, description=name, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        made = making.encode(
            data, tables, out=out, device=device, allow_download=allow_download, watch=watch
        )
    if as_json:
        echo_json([outcome.as_dict() for outcome in made])
        return
    for outcome in made:
        click.echo(str(outcome))
    where = f" --features {out}" if out is not None else ""
    click.echo(f"next: mocme train --data {data}{where} --out runs/{Path(data).name}")


def _one_kind(kind: str, about: str) -> click.Command:
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
    @click.option("--entity", help="Column of the entity's name.")
    @click.option(
        "--column", "columns", multiple=True, help="Column of the content, one or one a table."
    )
    @click.option(
        "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Another setting of the encoder."
    )
    @_options
    def command(
        data: str,
        paths: tuple[str, ...],
        name: str | None,
        entity: str | None,
        columns: tuple[str, ...],
        sets: tuple[str, ...],
        **options: Any,
    ) -> None:
        from mocme.config import parse_override

        table: dict[str, Any] = {"kind": kind}
        if paths:
            table["paths"] = [_from_graph(data, path) for path in paths]
        if entity is not None:
            table["entity"] = entity
        if columns:
            table["columns"] = list(columns)
        table.update(parse_override(text) for text in sets)
        _encode(data, {name or kind: table}, **options)

    command.__doc__ = f"{about}\n\nDATA is a graph: its folder, its file, or its name."
    return click.command(kind)(command)


def _from_graph(data: str, path: str) -> str:
    """A path as graph.toml has it: from the graph's folder, where it lies there.

    What is not found from here is left as it is: it is looked for in the graph's folder.
    """
    if not os.path.exists(path):
        return path
    folder, full = os.path.realpath(data), os.path.realpath(path)
    inside = os.path.isdir(data) and full.startswith(folder + os.sep)
    return os.path.relpath(full, folder) if inside else full


for _kind, _about in KINDS.items():
    encode.add_command(_one_kind(_kind, _about))
