"""Names to ids, block by block: memory holds the indexed facts, not the text of the files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import count, islice

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mocme.data.formats.coded import CodedColumn, unify_dictionaries
from mocme.data.formats.report import Block, Report
from mocme.data.graph import Vocabulary
from mocme.data.names import name_problem, refused


class FactIndexer:
    """Indexes the facts of several splits from blocks of names.

    Ids follow the order of first occurrence (the head of a fact before its tail), unless a list of
    names determines them.

    Args:
        entities, relations: all allowed names, in the order of their ids.
        lists: the files of these names, for the error about a name that is not listed.
        reject: what becomes of a fact with a name that is refused (`mocme.data.names`): it is
            rejected, or it is an error.
        breaks: whether tabs and line breaks in a name are refused too.

    Attributes:
        names: ids by name, for entities and for relations.
        facts: arrays of shape (n, 3) by split, one per block.
        reports: by file.
    """

    def __init__(
        self,
        entities: Iterable[str] | None = None,
        relations: Iterable[str] | None = None,
        lists: Sequence[str] = ("entities.txt", "relations.txt"),
        reject: bool = False,
        breaks: bool = False,
    ) -> None:
        self.lists, self.reject, self.breaks = lists, reject, breaks
        self.names = [_ids(names) for names in (entities, relations)]
        self.facts: dict[str, list[np.ndarray]] = {}
        self.reports: dict[str, Report] = {}

    def add(self, split: str, block: Block, report: Report) -> None:
        """Add the facts of a block, in the order of its lines.

        Raises:
            ValueError: a fact has a name that is not listed, or without `reject`, one that is
                refused.
        """
        self.reports[report.path] = report
        sizes = [len(names) for names in self.names]
        facts = self._facts(block, report)
        # Only names that are new have to be checked, and they are the last ones of a dictionary.
        new = [
            list(islice(reversed(names), len(names) - size))
            for names, size in zip(self.names, sizes, strict=True)
        ]
        if bad := refused([*new[0], *new[1]], breaks=self.breaks):
            for names, added in zip(self.names, new, strict=True):
                _forget(names, added)
            facts = self._facts(self._without(bad, block, report), report)
        self.facts.setdefault(split, []).append(facts)

    def _facts(self, block: Block, report: Report) -> Int[np.ndarray, "n 3"]:
        heads, relations, tails = block.columns
        facts = np.empty((len(heads), 3), np.int64)
        facts[:, 0::2] = self._ids_of(0, (heads, tails), block, report)
        facts[:, 1:2] = self._ids_of(1, (relations,), block, report)
        return facts

    def _without(self, bad: set[str], block: Block, report: Report) -> Block:
        """The rows of a block without those that have a bad name, which are rejected.

        Raises:
            ValueError: without `reject`, for the first of them.
        """
        kept: list[tuple[str, ...]] = []
        numbers: list[int] = []
        for row, line in zip(zip(*block.columns, strict=True), block.lines, strict=True):
            if bad.isdisjoint(row):
                kept.append(row)
                numbers.append(line)
                continue
            reason = name_problem(next(name for name in row if name in bad), breaks=self.breaks)
            if not self.reject:
                raise ValueError(
                    f"{report.path}: line {line}: {reason}; or leave such lines out: mocme import "
                    f"{report.path} --out FOLDER"
                )
            report.rows -= 1
            report.reject(line, reason, "\t".join(row))
        return Block(tuple(map(list, zip(*kept, strict=True))) or ([], [], []), numbers)

    def _ids_of(
        self, which: int, columns: Sequence[Sequence[str]], block: Block, report: Report
    ) -> Int[np.ndarray, "n columns"]:
        """The ids of names, which are looked up row by row.

        Args:
            which: 0 for entities, 1 for relations.
        """
        ids, width = self.names[which], len(columns)
        coded = [column for column in columns if isinstance(column, CodedColumn)]
        if len(coded) == width:
            names, codes = unify_dictionaries(coded)
        else:
            names = [""] * (width * len(columns[0]))
            for index, column in enumerate(columns):
                names[index::width] = column
            codes = np.arange(len(names)).reshape(-1, width)
        try:
            ids_of_names = np.fromiter(map(ids.__getitem__, names), np.int64, len(names))
        except KeyError as error:
            unlisted = next(code for code, name in enumerate(names) if name not in ids)
            row = int(np.argwhere(codes == unlisted)[0, 0])
            raise ValueError(
                f"{report.path}: line {block.lines[row]}: {names[unlisted]!r} is not "
                f"listed in {self.lists[which]}; add it there or remove that file (then the "
                f"names are collected from the facts)"
            ) from error
        ids_of_rows: Int[np.ndarray, "n columns"] = ids_of_names[codes]
        return ids_of_rows

    def vocabularies(self) -> tuple[Vocabulary, Vocabulary]:
        """The entities and the relations."""
        entities, relations = self.names
        return Vocabulary(entities), Vocabulary(relations, "relation")

    def rows(self, split: str) -> Int[np.ndarray, "n 3"]:
        """Facts of a split in the order in which they were added, with repetitions."""
        return np.concatenate([np.empty((0, 3), np.int64), *self.facts.get(split, ())])

    def split(self, name: str) -> tuple[Tensor, int]:
        """Distinct facts of a split, by first occurrence, and the number of repetitions."""
        facts = self.rows(name)
        entities, relations = map(len, self.names)
        distinct = facts[_first_occurrences(fact_keys(facts, entities, relations))]
        return torch.from_numpy(distinct), len(facts) - len(distinct)


def fact_keys(
    facts: Int[np.ndarray, "n 3"], num_entities: int, num_relations: int
) -> Int[np.ndarray, " n"]:
    """One integer per fact, equal for equal facts only."""
    if num_entities * num_relations * num_entities < 2**63:
        keys: np.ndarray = (facts[:, 0] * num_relations + facts[:, 1]) * num_entities + facts[:, 2]
    else:
        keys = np.unique(facts, axis=0, return_inverse=True)[1].reshape(-1)
    return keys


def _first_occurrences(keys: Int[np.ndarray, " n"]) -> slice | Bool[np.ndarray, " n"]:
    """Which keys occur for the first time.

    Few keys are repeated, and sorting keys takes an eighth of the time of sorting them with their
    indices (`np.unique` with `return_index`). So only the repeated keys are treated with indices.
    """
    ordered = np.sort(keys)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(repeated):
        return slice(None)
    nearest = np.minimum(np.searchsorted(repeated, keys), len(repeated) - 1)
    indices = np.flatnonzero(repeated[nearest] == keys)
    _, first = np.unique(keys[indices], return_index=True)
    kept = np.ones(len(keys), bool)
    kept[indices] = False
    kept[indices[first]] = True
    return kept


def _forget(ids: dict[str, int], names: Iterable[str]) -> None:
    """Take back the ids of the names that were added last."""
    for name in names:
        del ids[name]
    if isinstance(ids, defaultdict):
        ids.default_factory = count(len(ids)).__next__


def _ids(names: Iterable[str] | None) -> dict[str, int]:
    if names is not None:
        return {name: index for index, name in enumerate(names)}
    # Looking up a new name assigns it the next id.
    return defaultdict(count().__next__)
