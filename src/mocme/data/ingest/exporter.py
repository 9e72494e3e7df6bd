"""Export of a graph: to one file, or to a folder with one file per split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from mocme.data.formats import openke, writers
from mocme.data.formats.registry import format_named, format_of
from mocme.data.graph import Graph
from mocme.data.ingest.reader import LISTS
from mocme.storage.workspace import new_folder


def export(
    graph: Graph,
    out: str | Path,
    splits: Sequence[str] = (),
    kind: str | None = None,
    force: bool = False,
    complete: Callable[[Path], object] | None = None,
) -> None:
    """Write the facts of a graph.

    Args:
        out: a file, whose ending determines the format and the compression; ``-`` for standard
            output; or a folder (a name without an ending), which gets one file per split and the
            lists of names, so that `mocme.load` reads the same graph with the same ids.
        splits: to write; all by default. A folder always gets all.
        kind: the format of standard output or of a folder's files, a key of
            `mocme.data.formats.registry.KINDS`; or ``openke`` for a folder of that layout.
        force: replace an existing file.
        complete: adds to the files of a folder before it appears at `out`; if it raises an error,
            nothing appears there.

    Raises:
        ValueError: a split or format is unknown, the format cannot hold a name, or the file or
            folder exists.
    """
    if unknown := [split for split in splits if split not in graph.splits]:
        known = ", ".join(graph.splits)
        raise ValueError(f"{graph.name}: has no split {unknown[0]!r}; it has {known}")
    if str(out) != "-" and not Path(out).suffix:
        _export_folder(graph, Path(out), splits, kind, complete)
        return
    if kind is not None and str(out) != "-":
        raise ValueError(f"{out}: its ending names the format; leave the format out")
    if str(out) != "-" and Path(out).exists() and not force:
        raise ValueError(f"{out}: already exists; give another name, or force it")
    file_format = format_named(kind or "tsv") if str(out) == "-" else format_of(out)
    rows: Iterator[writers.Row] = chain.from_iterable(
        writers.fact_rows(graph, split) for split in splits or graph.splits
    )
    file_format.write(out, rows)


def _export_folder(
    graph: Graph,
    out: Path,
    splits: Sequence[str],
    kind: str | None,
    complete: Callable[[Path], object] | None,
) -> None:
    if splits:
        raise ValueError(f"{out}: a folder gets all splits; name a file to write only some")
    with new_folder(out) as folder:
        if kind == "openke":
            openke.write(folder, graph)
        else:
            _write_folder(graph, out, folder, kind or "tsv")
        if complete is not None:
            complete(folder)


def _write_folder(graph: Graph, out: Path, folder: Path, kind: str) -> None:
    """Write lists and splits into `folder`; errors on names name `out`."""
    file_format = format_named(kind)
    for file_name, vocabulary in zip(LISTS, (graph.entities, graph.relations), strict=True):
        for name in vocabulary:
            if "\n" in name:
                problem = "a line feed, which a list of names cannot"
                raise writers.name_error(out, name, problem, "write one file instead of a folder")
        writers.write_names(folder / file_name, vocabulary)
    for split in graph.splits:
        file_format.write(
            folder / f"{split}{file_format.endings[0]}", writers.fact_rows(graph, split)
        )
