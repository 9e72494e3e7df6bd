"""A graph out again: into one file, or into a folder of a file a split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from mocme.data.formats import openke, writers
from mocme.data.formats.registry import format_named, format_of
from mocme.data.graph import Graph


def export(
    graph: Graph,
    out: str | Path,
    splits: Sequence[str] = (),
    kind: str | None = None,
    force: bool = False,
) -> None:
    """Write the facts of a graph.

    Args:
        out: a file, whose ending tells the format and the compression; ``-`` for standard output;
            or a folder (a name without an ending), which gets a file for each split and the lists
            of names, so that `loading.load` reads the same graph, ids included.
        splits: to write; all by default. A folder gets them all.
        kind: the format of standard output or of a folder's files: ``tsv``, ``csv``, ``jsonl``,
            ``parquet``, ``nt``, ``cypher``; ``openke`` for a folder of that layout.
        force: replace a file that is there already.

    Raises:
        ValueError: a split or format is unknown, a name cannot stand in the format, or the file or
            folder is there already.
    """
    if unknown := [split for split in splits if split not in graph.splits]:
        there = ", ".join(graph.splits)
        raise ValueError(f"{graph.name}: has no split {unknown[0]!r}; it has {there}")
    if str(out) != "-" and not Path(out).suffix:
        _folder(graph, Path(out), splits, kind)
        return
    if kind is not None and str(out) != "-":
        raise ValueError(f"{out}: its ending names the format; leave the format out")
    if str(out) != "-" and Path(out).exists() and not force:
        raise ValueError(f"{out}: is there already; give another name, or force it")
    found = format_named(kind or "tsv") if str(out) == "-" else format_of(out)
    rows: Iterator[writers.Row] = chain.from_iterable(
        writers.rows(graph, split) for split in splits or graph.splits
    )
    found.write(out, rows)


def _folder(graph: Graph, out: Path, splits: Sequence[str], kind: str | None) -> None:
    if splits:
        raise ValueError(f"{out}: a folder gets all splits; name a file to write only some")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ValueError(f"{out}: is there already; remove it or name another folder")
    if kind == "openke":
        openke.write(out, graph)
        return
    known = format_named(kind or "tsv")
    out.mkdir(parents=True, exist_ok=True)
    for name, vocabulary in (("entities", graph.entities), ("relations", graph.relations)):
        for text in vocabulary:
            if "\n" in text:
                problem = "a line feed, which a list of names cannot"
                raise writers.refusal(out, text, problem, "write one file instead of a folder")
        with writers.written(out / f"{name}.txt") as file:
            file.write("".join(f"{text}\n" for text in vocabulary).encode())
    for split in graph.splits:
        known.write(out / f"{split}{known.endings[0]}", writers.rows(graph, split))
