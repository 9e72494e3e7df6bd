"""`mocme entities`: add entities that a run was not trained with, list and remove them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mocme.cli.options import OrderedGroup, common, echo_json, read_facts
from mocme.core.console import ProgressBar, echo, progress_callback, show
from mocme.core.table import TextTable, columns


@click.group(cls=OrderedGroup)
def entities() -> None:
    """Add new entities to a trained run, list and remove them; nothing is retrained."""


@entities.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("name", required=False)
@click.option("--fact", "facts", multiple=True, metavar="H<TAB>R<TAB>T", help="A fact of it.")
@click.option(
    "--facts",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A TSV file of its facts.",
)
@click.option(
    "--text",
    "texts",
    multiple=True,
    help="Text for every modality made of texts; repeat for several.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="TEXT",
    help="Its name in texts, if not NAME; for pairs made of names. Repeat for several.",
)
@click.option(
    "--number",
    "numbers",
    multiple=True,
    metavar="ATTRIBUTE=NUMBER",
    help="Number for every modality made of numbers.",
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
@click.option("--vectors", multiple=True, metavar="MODALITY=FILE.npy", help="An encoded vector.")
@click.option(
    "--from",
    "batch",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Add many entities from JSON lines: all of them, or none.",
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

    All questions include it from then on. `mocme entities remove` removes it.
    """
    from mocme.core.device import use_threads
    from mocme.inductive.new_entity import NewEntity, read_entities
    from mocme.runs.run import Run

    use_threads(threads)
    described = any((facts, file, texts, names, numbers, content, files, tokens, vectors))
    if (name is None) == (batch is None) or (batch is not None and described):
        raise click.UsageError("give a NAME with its content and facts, or --from a file alone")
    if batch is not None:
        new_entities = read_entities(batch)
    else:
        new_entities = [
            NewEntity(
                str(name),
                _facts(facts, file),
                list(texts) or None,
                {key: _number(key, text) for key, text in map(_pair, numbers)} or None,
                _content(content, files, tokens, vectors),
                names=names,
            )
        ]
    trained = Run.open(run, trust_code)
    with ProgressBar("adding", quiet=as_json) as (progress, task):
        added = trained.add_all(new_entities, device, progress_callback(progress, task))
    if as_json:
        echo_json([addition.as_dict() for addition in added])
        return
    for addition in added:
        echo(repr(addition))
    if batch is None:
        echo(f"next: mocme predict {run} --about {name!r}")


@entities.command("list")
@click.argument("run", type=click.Path(path_type=Path))
@common("json", "trust")
def list_entities(run: Path, as_json: bool, trust_code: bool) -> None:
    """List the entities that were added to a run."""
    from mocme.runs.run import Run

    additions = Run.open(run, trust_code).additions()
    if as_json:
        echo_json([addition.as_dict() for addition in additions])
        return
    if not additions:
        echo("no additions")
        return
    rows = []
    for addition in additions:
        given = "\n".join(f"{key}: {text}" for key, text in addition.as_dict()["given"].items())
        facts, notes = str(len(addition.facts)), "\n".join(addition.notes)
        rows.append([addition.name, facts, given, addition.time, notes])
    show(TextTable(columns("entity", "facts", "content", "added", "notes"), rows))


@entities.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1, required=True)
@common("trust")
def remove(run: Path, names: tuple[str, ...], trust_code: bool) -> None:
    """Remove added entities; without any, the run's files are those of the training again."""
    from mocme.runs.run import Run

    Run.open(run, trust_code).remove(*names)
    echo(f"removed: {', '.join(names)}")


def _facts(lines: tuple[str, ...], file: Path | None) -> list[tuple[str, str, str]]:
    """Facts of the options --fact and --facts."""
    facts = []
    for line in lines:
        parts = line.split("\t")
        if len(parts) != 3:
            raise ValueError(
                f"--fact {line!r} has {len(parts)} parts between tabs; give head, relation and "
                f"tail, in most shells as $'Chad\\tborders\\tNiger'"
            )
        facts.append((parts[0], parts[1], parts[2]))
    if file is not None:
        facts += read_facts(file)[0]
    return facts


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"{text!r}: must be NAME=VALUE")
    return key, value


def _number(key: str, text: str) -> float:
    from mocme.core.numbers import parse_number

    try:
        return parse_number(text)
    except ValueError as error:
        raise ValueError(f"--number {key}={text}: {text!r} is {error}") from None


def _content(
    texts: tuple[str, ...],
    files: tuple[str, ...],
    tokens: tuple[str, ...],
    vectors: tuple[str, ...],
) -> dict[str, Any]:
    """Content by modality; each modality may be given in one way only."""
    from mocme.inductive.new_entity import vector

    raw: dict[str, list[str]] = {}
    for key, value in map(_pair, (*texts, *files)):
        raw.setdefault(key, []).append(value)
    token_sets: dict[str, set[str]] = {}
    for key, value in map(_pair, tokens):
        token_sets.setdefault(key, set()).add(value)
    encoded = {key: vector(Path(value)) for key, value in map(_pair, vectors)}
    for key in [*raw, *token_sets, *encoded]:
        if (key in raw) + (key in token_sets) + (key in encoded) > 1:
            raise ValueError(f"{key}: is given in two ways; give one")
    return {**raw, **token_sets, **encoded}
