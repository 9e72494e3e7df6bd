"""Facts as integer ids: vocabularies, queries, known answers and the graph.

A fact is (head, relation, tail). With R relations, ``r + R`` is the inverse of ``r``. A query for
heads is a query for tails of the inverse relation, so there is only one direction of queries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mocme.core.text import shorten

SPLITS = ("train", "valid", "test", "known")


# Characters of a name for which similar ones are looked for.
MAX_MISSPELT = 200
# Names of a vocabulary that are listed where none is similar.
MAX_LISTED = 20


class UnknownName(ValueError):
    """A name is not in the vocabulary; the message suggests similar names.

    Attributes:
        near: similar names, best first.
        field: the field of the request that gave the name, empty if unknown.
    """

    def __init__(self, message: str, near: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.near = tuple(near)
        self.field = ""


class Vocabulary:
    """Names and their ids: the id of a name is its position.

    Args:
        what: what a name denotes, for error messages.

    Raises:
        ValueError: a name occurs twice.
    """

    def __init__(self, names: Iterable[str], what: str = "entity") -> None:
        self.names = tuple(names)
        self.what = what
        self._ids = {name: index for index, name in enumerate(self.names)}
        if len(self._ids) != len(self.names):
            positions = enumerate(self.names)
            repeated = next(name for index, name in positions if self._ids[name] != index)
            raise ValueError(f"the {what} name {repeated!r} occurs twice in a vocabulary")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, index: int) -> str:
        return self.names[index]

    def __contains__(self, name: object) -> bool:
        return name in self._ids

    def get(self, name: str) -> int | None:
        """Return the id of a name, or None if it is unknown."""
        return self._ids.get(name)

    def find(self, names: Iterable[str]) -> list[int | None]:
        """Return the ids of several names, None for each unknown name."""
        return list(map(self._ids.get, names))

    def id(self, name: str) -> int:
        """Return the id of a name.

        Raises:
            UnknownName: with up to three similar names, or all relations if they are few.
        """
        index = self._ids.get(name)
        if index is None:
            near = self.suggest(name)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else self._all()
            raise UnknownName(f"there is no {self.what} named {name!r} in the graph{hint}", near)
        return index

    def _all(self) -> str:
        """All names, if they are few and not those of entities, as the end of an error."""
        if self.what == "entity" or not 0 < len(self) <= MAX_LISTED:
            return ""
        return f"; its {self.what}s: {', '.join(repr(shorten(name, 60)) for name in self.names)}"

    def suggest(self, name: str, count: int = 3) -> list[str]:
        """Return up to `count` names most similar to `name`, best first.

        None for a name of more than `MAX_MISSPELT` characters: the comparison takes time by its
        length, for each of the names.
        """
        if len(name) > MAX_MISSPELT:
            return []
        from rapidfuzz import fuzz, process, utils

        matches = process.extract(
            name,
            self.names,
            scorer=fuzz.WRatio,
            processor=utils.default_process,
            limit=count,
            score_cutoff=60,
        )
        return [match for match, _, _ in matches]

    def digest(self) -> str:
        """Return the SHA-256 of the names in order, each followed by a line feed (entities.txt).

        If a name contains a line feed, that would not be unique. Then each name is preceded by its
        length instead, after an empty name, which a file of names cannot contain.
        """
        return self._digest

    @cached_property
    def _digest(self) -> str:
        lines = "".join(f"{name}\n" for name in self.names)
        if lines.count("\n") == len(self.names):
            return hashlib.sha256(lines.encode()).hexdigest()
        total = hashlib.sha256(b"\n")
        for name in self.names:
            raw = name.encode()
            total.update(b"%d\n%b" % (len(raw), raw))
        return total.hexdigest()


@dataclass(frozen=True, eq=False)
class Queries:
    """B queries (head, relation, ?); a relation may be an inverse one."""

    head: Int[Tensor, " B"]
    relation: Int[Tensor, " B"]

    def __len__(self) -> int:
        return len(self.head)

    def __getitem__(self, index: Tensor | slice) -> Queries:
        return Queries(self.head[index], self.relation[index])

    def to(self, device: torch.device | str) -> Queries:
        """Copy the queries to another device."""
        return Queries(self.head.to(device), self.relation.to(device))


def distinct(facts: Int[Tensor, "n 3"]) -> Int[Tensor, "m 3"]:
    """Return the distinct facts in ascending order of head, relation and tail."""
    if not len(facts):
        return facts
    sizes = _sizes(facts)
    if sizes is None:
        rows: Tensor = torch.unique(facts, dim=0)
        return rows
    keys = torch.unique(_keys(facts, *sizes))
    relations, tails = sizes
    queries = keys // tails
    return torch.stack([queries // relations, queries % relations, keys % tails], 1)


def contained(facts: Int[Tensor, "n 3"], others: Int[Tensor, "m 3"]) -> Bool[Tensor, " n"]:
    """Return which of the facts are among others."""
    if not len(facts) or not len(others):
        return torch.zeros(len(facts), dtype=torch.bool)
    both = torch.cat([others, facts])
    sizes = _sizes(both)
    if sizes is None:
        _, keys = torch.unique(both, dim=0, return_inverse=True)
    else:
        keys = _keys(both, *sizes)
    among: Tensor = torch.isin(keys[len(others) :], keys[: len(others)])
    return among


def _sizes(facts: Int[Tensor, "n 3"]) -> tuple[int, int] | None:
    """How many relations and tails a key of `_keys` counts; None if it does not fit 63 bits."""
    heads, relations, tails = (facts.max(0).values + 1).tolist()
    return None if heads * relations * tails >= 2**63 else (relations, tails)


def _keys(facts: Int[Tensor, "n 3"], relations: int, tails: int) -> Int[Tensor, " n"]:
    """One key for each fact, which sorts about twenty times as fast as rows do."""
    return (facts[:, 0] * relations + facts[:, 1]) * tails + facts[:, 2]


class AnswerIndex:
    """The distinct queries of some facts, sorted, with their answers as compressed sparse rows.

    Attributes:
        queries: Q distinct queries, ascending by relation, then head.
        answers: the answers of all queries, ascending within each query.
        offsets: (Q + 1,) where the answers of each query begin in `answers`.
    """

    def __init__(self, facts: Int[Tensor, "n 3"]) -> None:
        """Index directed facts (head, relation, tail); duplicates count once."""
        facts = distinct(facts)
        self._span = int(facts[:, 0].max()) + 1 if len(facts) else 1
        keys = facts[:, 1] * self._span + facts[:, 0]
        # A stable sort keeps the answers of each query in ascending order.
        keys, order = torch.sort(keys, stable=True)
        self._keys, counts = torch.unique_consecutive(keys, return_counts=True)
        self.answers = facts[order, 2].contiguous()
        self.offsets = torch.zeros(len(counts) + 1, dtype=torch.int64)
        torch.cumsum(counts, 0, out=self.offsets[1:])
        self.queries = Queries(self._keys % self._span, self._keys // self._span)

    def __len__(self) -> int:
        return len(self._keys)

    def rows(self, index: Int[Tensor, " B"]) -> tuple[Tensor, Tensor]:
        """Return the answers of the queries at `index`, as pairs.

        Returns:
            positions (n,) in `index`, ascending, and the answers (n,) that belong to them.
        """
        start = self.offsets[index]
        counts = self.offsets[index + 1] - start
        positions = torch.repeat_interleave(torch.arange(len(index)), counts)
        first = torch.cumsum(counts, 0) - counts
        rank = torch.arange(len(positions)) - first[positions]
        return positions, self.answers[start[positions] + rank]

    def lookup(self, queries: Queries) -> tuple[Tensor, Tensor]:
        """Return the known answers of any queries, as pairs (position in `queries`, answer)."""
        index = self.position(queries)
        known_at = (index >= 0).nonzero().flatten()
        positions, answers = self.rows(index[known_at])
        return known_at[positions], answers

    def position(self, queries: Queries) -> Int[Tensor, " B"]:
        """Return the position of any queries in this index; -1 where it has no answer."""
        if not len(self):
            return torch.full_like(queries.head, -1)
        keys = queries.relation * self._span + queries.head
        index = torch.searchsorted(self._keys, keys).clamp_(max=len(self) - 1)
        # A head beyond the span would have the key of another relation.
        known = (self._keys[index] == keys) & (queries.head < self._span)
        return torch.where(known, index, -1)


def _no_facts() -> Int[Tensor, "0 3"]:
    return torch.empty(0, 3, dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class Graph:
    """A multi-modal knowledge graph: names, facts by split, and declarations of its modalities.

    Attributes:
        splits: split name to (n, 3) int64 distinct facts. `known` has true facts that are neither
            trained on nor ranked; they only filter correct answers out of a ranking.
        modalities: the ``[modalities.NAME]`` tables of the graph, one per name (see
            `mocme.data.features.sources`); the files are read when a training needs them.
        encode: the ``[encode.NAME]`` tables: modalities that `mocme encode` makes from raw files.
        inputs: the files that were read, with their digests.
        listed: whether the entity ids come from a list of names, not from the order of the facts.
        notes: notes on how the graph was read (rejects, duplicates), one line each.
        rejected: facts that reviewers rejected (`mocme.data.reviewed_graph.apply_reviews`).
    """

    entities: Vocabulary
    relations: Vocabulary
    splits: Mapping[str, Int[Tensor, "n 3"]]
    name: str = "graph"
    folder: str | None = None
    modalities: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    encode: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    listed: bool = False
    rejected: Int[Tensor, "x 3"] = field(default_factory=_no_facts)

    def __post_init__(self) -> None:
        for split, facts in (*self.splits.items(), ("rejected", self.rejected)):
            if split not in (*SPLITS, "rejected"):
                raise ValueError(f"a split is one of {', '.join(SPLITS)}, not {split!r}")
            if facts.ndim != 2 or facts.shape[1] != 3:
                raise ValueError(f"split {split!r} has shape {tuple(facts.shape)}, not (n, 3)")
            if facts.dtype != torch.int64:
                raise ValueError(f"split {split!r} has the type {facts.dtype}, not int64 ids")
            limit = torch.tensor([self.num_entities, self.num_relations, self.num_entities])
            if bool(((facts < 0) | (facts >= limit)).any()):
                raise ValueError(
                    f"split {split!r} has ids outside the {self.num_entities} entities and "
                    f"{self.num_relations} relations"
                )

    def __repr__(self) -> str:
        counts = ", ".join(f"{split} {len(facts):,}" for split, facts in self.splits.items())
        return (
            f"Graph({self.name}: {self.num_entities:,} entities, {self.num_relations:,} relations; "
            f"facts: {counts})"
        )

    @property
    def num_entities(self) -> int:
        return len(self.entities)

    @property
    def num_relations(self) -> int:
        return len(self.relations)

    def facts(self, *splits: str) -> Int[Tensor, "n 3"]:
        """Return the distinct facts of the union of some splits (by default, of all)."""
        chosen = [self.splits[s] for s in splits or tuple(self.splits) if s in self.splits]
        if not chosen:
            return _no_facts()
        return distinct(torch.cat(chosen))

    def directed(self, *splits: str) -> Int[Tensor, "n 3"]:
        """Return the facts of some splits in both directions: (h, r, t) and (t, r + R, h)."""
        return self._both_directions(self.facts(*splits))

    def refusals(self) -> Int[Tensor, "n 3"]:
        """Return the rejected facts in both directions."""
        return self._both_directions(distinct(self.rejected))

    def _both_directions(self, facts: Int[Tensor, "n 3"]) -> Int[Tensor, "m 3"]:
        head, relation, tail = facts.unbind(1)
        inverse = torch.stack([tail, relation + self.num_relations, head], 1)
        return torch.cat([facts, inverse])

    def answers(self, *splits: str) -> AnswerIndex:
        """Index the answers that some splits (by default, all) give to their queries."""
        return AnswerIndex(self.directed(*splits))

    def linked(self) -> Bool[Tensor, " N"]:
        """Return a mask of the entities that occur in a training fact."""
        linked = torch.zeros(self.num_entities, dtype=torch.bool)
        train = self.facts("train")
        linked[train[:, 0]] = True
        linked[train[:, 2]] = True
        return linked

    def reflexive(self) -> Int[Tensor, " r"]:
        """Return the relations with a fact, in any split, between an entity and itself."""
        head, relation, tail = self.facts().unbind(1)
        relations: Tensor = torch.unique(relation[head == tail])
        return relations

    def training_view(self) -> Graph:
        """Return the graph with train, and the facts of valid that are not in train.

        These are what a training may see. Facts of valid that are trained on choose nothing.
        """
        return self._training_view

    @cached_property
    def _training_view(self) -> Graph:
        visible = {s: facts for s, facts in self.splits.items() if s in ("train", "valid")}
        seen = contained(self.facts("valid"), self.facts("train"))
        if seen.any():
            visible["valid"] = self.facts("valid")[~seen]
        return replace(self, splits=visible)

    def digest(self) -> str:
        """Return the SHA-256 of names and facts; it does not depend on the storage format."""
        total = hashlib.sha256()
        total.update((self.entities.digest() + self.relations.digest()).encode())
        for split in SPLITS:
            total.update(split.encode())
            total.update(self.facts(split).numpy().tobytes() if split in self.splits else b"")
        if len(self.rejected):
            total.update(b"rejected" + distinct(self.rejected).numpy().tobytes())
        return total.hexdigest()
