"""Load a graph by path or by the name of a benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mocme.data.benchmarks import registry
from mocme.data.benchmarks.registry import Benchmark, Version
from mocme.data.graph import Graph
from mocme.data.ingest.reader import RATIOS, read_path
from mocme.data.quality.raw_rows import RawGraph
from mocme.data.reviewed_graph import apply_reviews


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
            fetched (or is in the folder ``MOCME_DATA``); a folder with ``train.tsv`` and,
            optionally, ``valid.tsv``, ``test.tsv``, ``known.tsv``, ``entities.txt``,
            ``relations.txt`` and ``graph.toml``; an OpenKE folder; or one file of facts, which is
            split by `ratios`. Facts may be in any known format (`mocme.data.formats.registry`). A
            file with lines but without a fact is an error, and so is a train split without a fact.
        ratios: fractions of train, valid and test, for a single file only.
        seed: of that split.
        version: of a benchmark by name: ``repaired``, without the defects of its splits (the
            default), or ``as-published``.
        reviews: decisions of ``mocme serve``: accepted facts are added to train, rejected ones
            become hard negatives (see `mocme.data.reviewed_graph`).

    Raises:
        ValueError: with the file, the line and the remedy.
    """
    if _is_path(data):
        if version is not None:
            raise ValueError(f"{data}: has no versions; version is for a benchmark by name")
        graph, _ = read_path(data, ratios, seed)
    else:
        benchmark, folder = _find_benchmark(str(data), version or "repaired")
        graph = _with_notes(read_path(folder)[0], benchmark, folder)
    return graph if reviews is None else apply_reviews(graph, reviews)


def load_raw(data: str | Path) -> RawGraph:
    """Read a graph as `load` does and keep repeated rows; a benchmark is read as published.

    Raises:
        ValueError: as `load` does.
    """
    if _is_path(data):
        return RawGraph.read(data)
    benchmark, folder = _find_benchmark(str(data), "as-published")
    raw = RawGraph.read(folder)
    return replace(raw, graph=_with_notes(raw.graph, benchmark, folder))


def _is_path(data: str | Path) -> bool:
    return data == "atlas" or Path(data).exists()


def _find_benchmark(name: str, version: Version) -> tuple[Benchmark, Path]:
    """The benchmark of a name, and its folder.

    Raises:
        ValueError: there is none, or it is not on this machine.
    """
    benchmark = registry.get(name)
    if benchmark is None:
        similar = registry.suggest(name)
        hint = f", or a benchmark: {', '.join(similar)}" if similar else ""
        raise ValueError(
            f"{name}: there is no such folder or file; give a folder with train.tsv in it{hint}"
        )
    return benchmark, registry.locate(benchmark.name, version)


def _with_notes(graph: Graph, benchmark: Benchmark, folder: Path) -> Graph:
    """The graph with the published name and the notes of its benchmark."""
    return replace(graph, name=benchmark.name, notes=[*benchmark.notes(folder), *graph.notes])
