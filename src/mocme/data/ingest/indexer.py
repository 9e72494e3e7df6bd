"""Names to ids and facts to integers, block by block: what is held is the graph, not its text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import count

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mocme.data.formats.coded import CodedColumn, together
from mocme.data.formats.report import Block, Report
from mocme.data.graph import Vocabulary


class FactIndexer:
    """Collects facts of several splits from blocks of names.

    Ids are given in the order in which names come (the head of a fact before its tail), unless a
    list of names is given, which then fixes them.

    Args:
        entities, relations: all names there may be, in the order of their ids.
        listed: what lists them, for the error about a name that they lack.
    """

    def __init__(
        self,
        entities: Iterable[str] | None = None,
        relations: Iterable[str] | None = None,
        listed: Sequence[str] = ("entities.txt", "relations.txt"),
    ) -> None:
        self.listed = listed
        self.names = [_ids(names) for names in (entities, relations)]
        self.facts: dict[str, list[np.ndarray]] = {}
        self.reports: dict[str, Report] = {}

    def add(self, split: str, block: Block, report: Report) -> None:
        """Add the facts of a block, in the order of its lines.

        Raises:
            ValueError: a fact names something that is not listed, with its line.
        """
        self.reports[report.path] = report
        heads, relations, tails = block.columns
        found = np.empty((len(heads), 3), np.int64)
        found[:, 0::2] = self._find(0, (heads, tails), block, report)
        found[:, 1:2] = self._find(1, (relations,), block, report)
        self.facts.setdefault(split, []).append(found)

    def _find(
        self, which: int, columns: Sequence[Sequence[str]], block: Block, report: Report
    ) -> Int[np.ndarray, "n columns"]:
        """The ids of names, which are looked up row by row."""
        ids, each = self.names[which], len(columns)
        coded = [column for column in columns if isinstance(column, CodedColumn)]
        if len(coded) == each:
            names, places = together(coded)
        else:
            names = [""] * (each * len(columns[0]))
            for place, column in enumerate(columns):
                names[place::each] = column
            places = np.arange(len(names)).reshape(-1, each)
        try:
            found = np.fromiter(map(ids.__getitem__, names), np.int64, len(names))
        except KeyError as error:
            strange = next(place for place, name in enumerate(names) if name not in ids)
            row = int(np.argwhere(places == strange)[0, 0])
            raise ValueError(
                f"{report.path}: line {block.lines[row]}: {names[strange]!r} is not "
                f"listed in {self.listed[which]}; add it there or remove that file (then the "
                f"names are collected from the facts)"
            ) from error
        ids_of_rows: Int[np.ndarray, "n columns"] = found[places]
        return ids_of_rows

    def vocabularies(self) -> tuple[Vocabulary, Vocabulary]:
        """Names of entities and of relations."""
        entities, relations = self.names
        return Vocabulary(entities), Vocabulary(relations, "relation")

    def rows(self, name: str) -> Int[np.ndarray, "n 3"]:
        """Facts of a split in the order in which they came, repeated ones included."""
        return np.concatenate([np.empty((0, 3), np.int64), *self.facts.get(name, ())])

    def split(self, name: str) -> tuple[Tensor, int]:
        """Distinct facts of a split in the order in which they came, and how many repeated one."""
        facts = self.rows(name)
        entities, relations = map(len, self.names)
        if entities * relations * entities < 2**63:
            keys = (facts[:, 0] * relations + facts[:, 1]) * entities + facts[:, 2]
            kept = _firsts(keys)
        else:
            _, kept = np.unique(facts, axis=0, return_index=True)
            kept.sort()
        distinct = facts[kept]
        return torch.from_numpy(distinct), len(facts) - len(distinct)


def _firsts(keys: Int[np.ndarray, " n"]) -> slice | Bool[np.ndarray, " n"]:
    """Which numbers are not those of an earlier place.

    Few are repeated, as a rule, and to sort numbers takes an eighth of the time that sorting them
    with their places takes.
    """
    ordered = np.sort(keys)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(repeated):
        return slice(None)
    near = np.minimum(np.searchsorted(repeated, keys), len(repeated) - 1)
    places = np.flatnonzero(repeated[near] == keys)
    _, first = np.unique(keys[places], return_index=True)
    kept = np.ones(len(keys), bool)
    kept[places] = False
    kept[places[first]] = True
    return kept


def _ids(names: Iterable[str] | None) -> dict[str, int]:
    if names is not None:
        return {name: place for place, name in enumerate(names)}
    # Looking a new name up gives it the next id.
    return defaultdict(count().__next__)
