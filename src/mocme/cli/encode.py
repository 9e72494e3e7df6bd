"""`mocme encode`: modalities from raw files."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from mocme.cli.options import OrderedGroup, common, echo_json
from mocme.core.console import ProgressBar, echo, progress_callback
from mocme.core.registry import Configurable, settings


class EncodeGroup(OrderedGroup):
    """`encode all`, then a command for each kind of encoder.

    The kinds are looked up when this group runs or shows its help: importing the encoders imports
    torch, which other commands and the help of `mocme` do not need.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *_encoders()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is None and (encoder := _encoders().get(cmd_name)) is not None:
            command = _command_of(encoder)
        return command


@click.group(cls=EncodeGroup)
def encode() -> None:
    """Encode raw files as modalities: texts, pictures, sounds, videos, numbers.

    `mocme encode all DATA` encodes what DATA/graph.toml declares under [encode.NAME]; the other
    commands encode one modality and declare it there. Results that exist are not encoded again.
    """


class _EncoderCommand(click.Command):
    """A command whose help ends with the settings of its encoder."""

    encoder: type[Configurable]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Settings that have an option of their own.
        options = ("paths", "entity", "columns", "attributes", "delimiter")
        from mocme.encoders.catalog import setting_docs

        docs = setting_docs(self.encoder)
        names = [name for name in settings(self.encoder) if name not in options]
        lines = "".join(f"    {name}: {docs[name]}\n" for name in names)
        formatter.write(f"\nSettings, with --set:\n{lines}")


def _options(command: Any) -> Any:
    command = click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder for the results, if DATA is not a folder of yours; train with --features.",
    )(command)
    command = click.option(
        "--allow-download", is_flag=True, help="Download a pretrained model from a hub."
    )(command)
    return common("device", "threads", "json", "trust")(command)


@encode.command("all")
@click.argument("data")
@_options
def encode_all(data: str, **options: Any) -> None:
    """Encode everything that DATA declares."""
    _encode(data, None, **options)


def _encode(
    data: str,
    tables: Mapping[str, Mapping[str, Any]] | None,
    out: Path | None,
    allow_download: bool,
    device: str,
    threads: int | None,
    as_json: bool,
    trust_code: bool,
) -> None:
    from mocme.core.device import use_threads
    from mocme.encoders.encode import EncodingError
    from mocme.encoders.encode import encode as encode_modalities

    use_threads(threads)
    with ProgressBar("encode", quiet=as_json) as (progress, task):

        def start_modality(name: str) -> Callable[[int, int], None]:
            progress.reset(task, description=name, total=None)
            return progress_callback(progress, task)

        failure: EncodingError | None = None
        try:
            reports = encode_modalities(
                data,
                tables,
                out=out,
                device=device,
                allow_download=allow_download,
                watch=start_modality,
                trust_code=trust_code,
            )
        except EncodingError as error:
            reports, failure = error.reports, error
    if as_json:
        echo_json([report.as_dict() for report in reports])
    else:
        for report in reports:
            echo(str(report))
    if failure is not None:
        raise failure
    if as_json:
        return
    where = f" --features {out}" if out is not None else ""
    echo(f"next: mocme train --data {data}{where} --out runs/{Path(data).name}")


def _encoders() -> dict[str, type[Configurable]]:
    """The encoders by kind."""
    import mocme.encoders.catalog  # noqa: F401  (it registers the kinds)
    from mocme.encoders.base import Encoder

    return {encoder.kind_name(): encoder for encoder in Encoder.kinds}


def _command_of(encoder: type[Configurable]) -> click.Command:
    """The command that encodes one modality by an encoder."""
    kind, known = encoder.kind_name(), settings(encoder)

    @click.argument("data")
    @click.option(
        "--from",
        "paths",
        multiple=True,
        metavar="PATH",
        help="A table (TSV, CSV, JSON lines, Parquet), or a folder of files named by entity; "
        "relative to this folder or to DATA.",
    )
    @click.option("--name", help=f"Name of the modality; default: {kind}.")
    @click.option(
        "--entity", "entities", multiple=True, help="Column of the entity's name, in every table."
    )
    @click.option("--delimiter", help=r"Read tables as CSV with this delimiter; \t for a tab.")
    @click.option(
        "--column",
        "columns",
        multiple=True,
        help="Column of the content, one for all tables or one for each; of numbers, one for each "
        "attribute.",
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
        from mocme.runs.experiment_files import parse_override

        table: dict[str, Any] = {"kind": kind}
        if paths:
            table["paths"] = [_relative_to_graph(data, path) for path in paths]
        elif "paths" in known:
            raise click.UsageError("name the files to encode, with --from")
        if len(entities) > 1:
            raise click.UsageError(
                "--entity is the same column for all tables; encode the tables one by one"
            )
        if entities:
            table["entity"] = entities[0]
        if delimiter is not None:
            table["delimiter"] = delimiter.replace("\\t", "\t")
        if columns:
            # Encoders of numbers have attributes instead: each column is one.
            table["columns" if "columns" in known else "attributes"] = list(columns)
        table.update(parse_override(text) for text in sets)
        if "of" in known and "of" not in table:
            raise click.UsageError("name the modality to encode, with --set of=NAME")
        _encode(data, {name or kind: table}, **options)

    summary = inspect.cleandoc(encoder.__doc__ or "").partition("\n")[0]
    command.__doc__ = f"{summary}\n\nDATA is a graph: its folder, its file, or its name."
    result = click.command(kind, cls=_EncoderCommand)(command)
    result.encoder = encoder
    return result


def _relative_to_graph(data: str, path: str) -> str:
    """A path for graph.toml: relative to the graph's folder if the file is in there.

    A path that does not exist here stays unchanged: it is looked up in the graph's folder.
    """
    if not os.path.exists(path):
        return path
    folder, full = os.path.realpath(data), os.path.realpath(path)
    inside = os.path.isdir(data) and full.startswith(folder + os.sep)
    return os.path.relpath(full, folder) if inside else full
