"""`mocme add`, `additions`, `remove`: entities that a run was not trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from mocme.cli.options import common, echo_json, facts_in
from mocme.core.console import bar, moving, show


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("name", required=False)
@click.option("--fact", "facts", multiple=True, metavar="H<TAB>R<TAB>T", help="A fact of it.")
@click.option(
    "--facts",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Facts of it, a TSV file.",
)
@click.option(
    "--text", "texts", multiple=True, help="For every modality made of texts; repeat for several."
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="TEXT",
    help="What texts call it, if not NAME; for pairs made of names. Repeat for several.",
)
@click.option(
    "--number",
    "numbers",
    multiple=True,
    metavar="ATTRIBUTE=NUMBER",
    help="For every modality made of numbers.",
)
@click.option(
    "--content",
    multiple=True,
    metavar="MODALITY=TEXT",
    help="Text of one modality, instead of --text.",
)
@click.option("--file", "files", multiple=True, metavar="MODALITY=PATH", help="Picture, sound, ...")
@click.option(
    "--tokens", multiple=True, metavar="MODALITY=TOKEN", help="Repeat for several of a modality."
)
@click.option("--vectors", multiple=True, metavar="MODALITY=FILE.npy", help="A ready vector.")
@click.option(
    "--from",
    "batch",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Many entities, JSON lines: all of them are added, or none.",
)
@common("device", "threads", "json", "trust")
def add(
    run: Path,
    name: str | None,
    facts: tuple[str, ...],
    file: Path | None,
    texts: tuple[str, ...],
    names: tuple[str, ...],
    numbers: tuple[str, ...],
    content: tuple[str, ...],
    files: tuple[str, ...],
    tokens: tuple[str, ...],
    vectors: tuple[str, ...],
    batch: Path | None,
    device: str,
    threads: int | None,
    as_json: bool,
    trust_code: bool,
) -> None:
    """Add the entity NAME to a trained run; nothing is retrained.

    From then on it takes part in every question. `mocme remove` takes it back.
    """
    from mocme.core.device import use_threads
    from mocme.inductive.new_entity import NewEntity, read_entities
    from mocme.runs.run import Run

    use_threads(threads)
    parts = (facts, file, texts, names, numbers, content, files, tokens, vectors)
    if (name is None) == (batch is None) or (batch is not None and any(parts)):
        raise click.UsageError("give a NAME with what is known of it, or --from a file alone")
    if batch is not None:
        entities = read_entities(batch)
    else:
        given = _content(content, files, tokens, vectors)
        entities = [
            NewEntity(
                str(name),
                _facts(facts, file),
                list(texts) or None,
                {key: _number(key, text) for key, text in map(_pair, numbers)} or None,
                given,
                names=names,
            )
        ]
    opened = Run.open(run, trust_code)
    with bar("adding", quiet=as_json) as (progress, task):
        made = opened.add_all(entities, device, moving(progress, task))
    if as_json:
        echo_json([item.as_dict() for item in made])
        return
    for item in made:
        click.echo(repr(item))
    if batch is None:
        click.echo(f"next: mocme predict {run} --about {name!r}")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@common("json", "trust")
def additions(run: Path, as_json: bool, trust_code: bool) -> None:
    """List the entities that were added to a run."""
    from mocme.runs.run import Run

    found = Run.open(run, trust_code).additions()
    if as_json:
        echo_json([item.as_dict() for item in found])
        return
    if not found:
        click.echo("no additions")
        return
    table = Table("entity", "facts", "content", "added", "notes")
    for item in found:
        about = item.as_dict()
        given = "\n".join(f"{key}: {what}" for key, what in about["given"].items())
        cells = [item.name, str(len(item.facts)), given, item.time, "\n".join(item.notes)]
        table.add_row(*(Text(cell) for cell in cells))
    show(table)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1, required=True)
@common("trust")
def remove(run: Path, names: tuple[str, ...], trust_code: bool) -> None:
    """Take additions back; without any, the run's files are as they were."""
    from mocme.runs.run import Run

    Run.open(run, trust_code).remove(*names)
    click.echo(f"removed: {', '.join(names)}")


def _facts(lines: tuple[str, ...], file: Path | None) -> list[tuple[str, str, str]]:
    found = []
    for line in lines:
        parts = line.split("\t")
        if len(parts) != 3:
            raise ValueError(
                f"--fact {line!r} has {len(parts)} parts between tabs; give head, relation and "
                f"tail, in most shells as $'Chad\\tborders\\tNiger'"
            )
        found.append((parts[0], parts[1], parts[2]))
    if file is not None:
        found += facts_in(file)[0]
    return found


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"{text!r}: must be NAME=VALUE")
    return key, value


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--number {key}={text}: {text!r} is not a number") from None


def _content(
    texts: tuple[str, ...],
    files: tuple[str, ...],
    tokens: tuple[str, ...],
    vectors: tuple[str, ...],
) -> dict[str, Any]:
    """Content by modality; a modality is given in one way only."""
    from mocme.inductive.new_entity import vector

    several: dict[str, list[str]] = {}
    for key, value in map(_pair, (*texts, *files)):
        several.setdefault(key, []).append(value)
    sets: dict[str, set[str]] = {}
    for key, value in map(_pair, tokens):
        sets.setdefault(key, set()).add(value)
    ready = {key: vector(Path(value)) for key, value in map(_pair, vectors)}
    for key in [*several, *sets, *ready]:
        if (key in several) + (key in sets) + (key in ready) > 1:
            raise ValueError(f"{key}: is given in two ways; give one")
    return {**several, **sets, **ready}
