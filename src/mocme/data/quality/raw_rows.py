"""The rows of a graph as its files hold them: a fact that stands there twice is two rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from mocme.data.formats.report import Reject
from mocme.data.graph import SPLITS, Graph
from mocme.data.ingest.reader import read_path

# Facts as (head, relation, tail), and a number for each; as many as there are.
Rows = Int[np.ndarray, "_ 3"]
Keys = Int[np.ndarray, " _"]


@dataclass(frozen=True, eq=False)
class RawGraph:
    """A graph (whose facts are distinct) and the rows that it was read from.

    Attributes:
        rows: split name to rows in the order of the file, repeated ones included.
        keys: a number for each row, the same for equal facts only, over all splits.
        folder: that was read; None for a single file and for a graph in memory.
        rejects: by file, lines that were left out because they are no facts.
    """

    graph: Graph
    rows: Mapping[str, Rows]
    keys: Mapping[str, Keys]
    folder: Path | None = None
    rejects: Mapping[str, Sequence[Reject]] = field(default_factory=dict)

    @staticmethod
    def read(data: str | Path) -> RawGraph:
        """Read a folder or a file and keep repeated rows.

        A single file, which `load` splits, is split alike: a repeated row goes with its fact.

        Raises:
            ValueError: as `load` does.
        """
        path = Path(data)
        graph, collector = read_path(data)
        if path.is_file():
            rows = _divided(graph, collector.rows("all"))
        else:
            rows = {split: collector.rows(split) for split in graph.splits}
        rejects = {name: own.rejects for name, own in collector.reports.items() if own.rejects}
        folder = None if path.is_file() else Path(graph.folder or ".")
        return replace(RawGraph.of(graph, rows), folder=folder, rejects=rejects)

    @staticmethod
    def of(graph: Graph, rows: Mapping[str, Rows] | None = None) -> RawGraph:
        """A graph in memory; without `rows` each of its facts is one row."""
        if rows is None:
            rows = {split: facts.numpy() for split, facts in graph.splits.items()}
        rows = {split: rows[split] for split in SPLITS if split in graph.splits}
        return RawGraph(graph, rows, dict(zip(rows, numbered(rows.values(), graph), strict=True)))

    def distinct(self, *splits: str) -> Rows:
        """Distinct facts of some splits together (of all, when none is named)."""
        chosen = [split for split in splits or self.rows if split in self.rows]
        rows, keys = _joined(self.rows[s] for s in chosen), [self.keys[s] for s in chosen]
        # Sorting one number a fact takes a twentieth of the time that sorting rows takes.
        _, first = np.unique(np.concatenate([*keys, rows[:0, 0]]), return_index=True)
        return rows[first]


def numbered(parts: Iterable[Rows], graph: Graph) -> list[Keys]:
    """A number for each fact, the same for equal facts only, whichever part they stand in."""
    parts = list(parts)
    entities, relations = graph.num_entities, graph.num_relations
    if entities * relations * entities < 2**63:
        return [(p[:, 0] * relations + p[:, 1]) * entities + p[:, 2] for p in parts]
    _, place = np.unique(_joined(parts), axis=0, return_inverse=True)
    return np.split(place.reshape(-1), np.cumsum([len(part) for part in parts])[:-1])


def _joined(parts: Iterable[Rows]) -> Rows:
    return np.concatenate([np.empty((0, 3), np.int64), *parts])


def _divided(graph: Graph, rows: Rows) -> dict[str, Rows]:
    """Rows of one file by the split that their fact is in."""
    names = list(graph.splits)
    *parts, keys = numbered([*(graph.splits[s].numpy() for s in names), rows], graph)
    together = np.concatenate(parts)
    order = np.argsort(together)
    split = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order]
    found = split[np.searchsorted(together[order], keys)]
    return {name: rows[found == place] for place, name in enumerate(names)}
