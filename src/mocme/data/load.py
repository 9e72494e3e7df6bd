"""Load a graph by path or by the name of a benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from mocme.data.benchmarks import registry
from mocme.data.graph import Graph
from mocme.data.ingest.reader import RATIOS, read_path
from mocme.data.quality.raw_rows import RawGraph
from mocme.data.reviews import apply_reviews

Version = Literal["repaired", "as-published"]


def load(
    data: str | Path,
    *,
    ratios: tuple[float, float, float] = RATIOS,
    seed: int = 0,
    version: Version | None = None,
    reviews: str | Path | None = None,
) -> Graph:
    """Read a graph.

    Args:
        data: ``"atlas"`` (the embedded data set); the name of a published benchmark that has been
            fetched (or lies in the folder ``MOCME_DATA``); a folder with ``train.tsv`` and, where
            there are any, ``valid.tsv``, ``test.tsv``, ``known.tsv``, ``entities.txt``,
            ``relations.txt`` and ``graph.toml``; an OpenKE folder; or one file of facts, split here
            by `ratios`. Facts may be in any known format (`mocme.data.formats.registry`). A file
            that holds lines but not one fact is an error, and so is a train split without a fact.
        ratios: shares of train, valid and test, for a single file only.
        seed: of that split.
        version: of a benchmark by name: ``repaired``, without the defects of its splits (the
            default), or ``as-published``.
        reviews: decisions of ``mocme serve``: accepted facts join train, rejected ones become hard
            negatives (see `mocme.data.reviews`).

    Raises:
        ValueError: with the file, the line and the remedy.
    """
    if version is not None and _is_path(data):
        raise ValueError(f"{data}: has no versions; version is for a benchmark that is named")
    if _is_path(data):
        graph = read_path(data, ratios, seed)[0]
    else:
        benchmark, folder = _benchmark(str(data), version or "repaired")
        graph = _titled(read_path(folder)[0], benchmark, folder)
    return graph if reviews is None else apply_reviews(graph, reviews)


def load_raw(data: str | Path) -> RawGraph:
    """Read what `load` reads and keep repeated rows; a benchmark is read as published.

    Raises:
        ValueError: as `load` does.
    """
    if _is_path(data):
        return RawGraph.read(data)
    benchmark, folder = _benchmark(str(data), "as-published")
    released = RawGraph.read(folder)
    return replace(released, graph=_titled(released.graph, benchmark, folder))


def _is_path(data: str | Path) -> bool:
    return data == "atlas" or Path(data).exists()


def _benchmark(name: str, version: str) -> tuple[registry.Benchmark, Path]:
    """A benchmark and its folder, where neither a folder nor a file has this name."""
    benchmark = registry.get(name)
    if benchmark is None:
        near = registry.suggest(name)
        hint = f", or a benchmark: {', '.join(near)}" if near else ""
        raise ValueError(
            f"{name}: there is no such folder or file; give a folder with train.tsv in it{hint}"
        )
    return benchmark, registry.locate(benchmark.name, version)


def _titled(graph: Graph, benchmark: registry.Benchmark, folder: Path) -> Graph:
    """The graph of a benchmark, with its published name and its notes."""
    return replace(graph, name=benchmark.name, notes=[*benchmark.notes(folder), *graph.notes])
