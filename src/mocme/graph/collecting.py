"""Names to ids and facts to integers, block by block: what is held is the graph, not its text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import count

import numpy as np
import torch
from torch import Tensor

from mocme.graph.formats.report import Block, Report
from mocme.graph.triples import Vocabulary


class Collector:
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

    def add(self, split: str, block: Block, report: Report) -> None:
        """Add the facts of a block, in the order of its lines.

        Raises:
            ValueError: a fact names something that is not listed, with its line.
        """
        heads, relations, tails = block.columns
        ends: list[str] = [""] * (2 * len(heads))
        ends[0::2], ends[1::2] = heads, tails
        found = np.empty((len(heads), 3), np.int64)
        found[:, 0::2] = self._find(0, ends, 2, block, report).reshape(-1, 2)
        found[:, 1] = self._find(1, relations, 1, block, report)
        self.facts.setdefault(split, []).append(found)

    def _find(
        self, which: int, names: list[str], each: int, block: Block, report: Report
    ) -> np.ndarray:
        ids = self.names[which]
        try:
            return np.fromiter(map(ids.__getitem__, names), np.int64, len(names))
        except KeyError as error:
            place = next(place for place, name in enumerate(names) if name not in ids)
            raise ValueError(
                f"{report.path}: line {block.lines[place // each]}: {names[place]!r} is not "
                f"listed in {self.listed[which]}; add it there or remove that file (then the "
                f"names are collected from the facts)"
            ) from error

    def vocabularies(self) -> tuple[Vocabulary, Vocabulary]:
        """Names of entities and of relations."""
        entities, relations = self.names
        return Vocabulary(entities), Vocabulary(relations, "relation")

    def split(self, name: str) -> tuple[Tensor, int]:
        """Distinct facts of a split in the order in which they came, and how many repeated one."""
        parts = self.facts.get(name, [])
        facts = np.concatenate(parts) if parts else np.empty((0, 3), np.int64)
        entities, relations = map(len, self.names)
        if entities * relations * entities < 2**63:
            keys = (facts[:, 0] * relations + facts[:, 1]) * entities + facts[:, 2]
            _, first = np.unique(keys, return_index=True)
        else:
            _, first = np.unique(facts, axis=0, return_index=True)
        first.sort()
        return torch.from_numpy(facts[first]), len(facts) - len(first)


def _ids(names: Iterable[str] | None) -> dict[str, int]:
    if names is not None:
        return {name: place for place, name in enumerate(names)}
    # Looking a new name up gives it the next id.
    return defaultdict(count().__next__)
