"""The rows of a graph as its files hold them: a fact that occurs twice is two rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from mocme.data.formats.report import Reject
from mocme.data.graph import SPLITS, Graph
from mocme.data.ingest.indexer import fact_keys
from mocme.data.ingest.reader import SINGLE_FILE, read_path

# Facts as (head, relation, tail), and a key for each; arrays of any length.
Rows = Int[np.ndarray, "_ 3"]
Keys = Int[np.ndarray, " _"]


@dataclass(frozen=True, eq=False)
class RawGraph:
    """A graph, whose facts are distinct, with the rows that it was read from.

    Attributes:
        rows: by split, in the order of the file, with repetitions.
        keys: an integer per row, by split; two rows of any splits have equal keys if they are the
            same fact.
        folder: that was read; None for a single file and for a graph in memory.
        rejects: by file, the first lines that were left out because they are not facts.
        rejected: number of all such lines, by file.
    """

    graph: Graph
    rows: Mapping[str, Rows]
    keys: Mapping[str, Keys]
    folder: Path | None = None
    rejects: Mapping[str, Sequence[Reject]] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def read(data: str | Path) -> RawGraph:
        """Read a folder or a file and keep repeated rows.

        The rows of a single file are split as `load` splits its facts: repetitions of a fact go to
        the same split.

        Raises:
            ValueError: as `load` does.
        """
        graph, indexer = read_path(data, reject=True)
        if SINGLE_FILE in indexer.facts:
            rows, folder = _split_rows(graph, indexer.rows(SINGLE_FILE)), None
        else:
            rows = {split: indexer.rows(split) for split in graph.splits}
            folder = Path(graph.folder or ".")
        damaged = {file: r for file, r in indexer.reports.items() if r.rejected}
        return replace(
            RawGraph.of(graph, rows),
            folder=folder,
            rejects={file: report.rejects for file, report in damaged.items()},
            rejected={file: report.rejected for file, report in damaged.items()},
        )

    @staticmethod
    def of(graph: Graph, rows: Mapping[str, Rows] | None = None) -> RawGraph:
        """A graph in memory; without `rows`, each of its facts is one row."""
        if rows is None:
            rows = {split: facts.numpy() for split, facts in graph.splits.items()}
        rows = {split: rows[split] for split in SPLITS if split in graph.splits}
        return RawGraph(graph, rows, dict(zip(rows, keys_of(rows.values(), graph), strict=True)))

    def distinct(self, *splits: str) -> Rows:
        """Distinct facts of some splits together (of all, if none is named), ordered by key."""
        chosen = [split for split in splits or self.rows if split in self.rows]
        rows, keys = _joined(self.rows[s] for s in chosen), [self.keys[s] for s in chosen]
        # Sorting one key per fact is 20 times as fast as sorting rows.
        _, first = np.unique(np.concatenate([*keys, rows[:0, 0]]), return_index=True)
        return rows[first]


def keys_of(parts: Iterable[Rows], graph: Graph) -> list[Keys]:
    """The keys of several arrays of facts, equal for equal facts only, across all arrays."""
    parts = list(parts)
    keys = fact_keys(_joined(parts), graph.num_entities, graph.num_relations)
    return np.split(keys, np.cumsum([len(part) for part in parts])[:-1])


def _joined(parts: Iterable[Rows]) -> Rows:
    return np.concatenate([np.empty((0, 3), np.int64), *parts])


def _split_rows(graph: Graph, rows: Rows) -> dict[str, Rows]:
    """The rows of one file by the split of their fact."""
    facts = [split.numpy() for split in graph.splits.values()]
    *keys_by_split, keys_of_rows = keys_of([*facts, rows], graph)
    keys = np.concatenate(keys_by_split)
    split_of_key = np.repeat(np.arange(len(facts)), list(map(len, facts)))
    # Every row is a fact of some split, so the search finds its key.
    order = np.argsort(keys)
    split_of_row = split_of_key[order][np.searchsorted(keys[order], keys_of_rows)]
    return {split: rows[split_of_row == index] for index, split in enumerate(graph.splits)}
