"""Facts as integers: vocabularies, questions, known answers and the graph itself.

A fact is (head, relation, tail). With R relations, ``r + R`` is the inverse of ``r``; a question
for a head is therefore a question for a tail of the inverse relation, and only that direction
exists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

SPLITS = ("train", "valid", "test", "known")


class UnknownName(ValueError):
    """A name that a vocabulary does not hold; the message suggests near ones.

    Attributes:
        near: names that look like it, best first.
        field: which part of what was asked holds it, where that is told.
    """

    def __init__(self, message: str, near: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.near = tuple(near)
        self.field = ""


class Vocabulary:
    """Names and their ids: the id of a name is its place in the sequence.

    Raises:
        ValueError: a name occurs twice.
    """

    def __init__(self, names: Iterable[str], what: str = "entity") -> None:
        self.names = tuple(names)
        self.what = what
        self._ids = {name: index for index, name in enumerate(self.names)}
        if len(self._ids) != len(self.names):
            places = enumerate(self.names)
            double = next(name for place, name in places if self._ids[name] != place)
            raise ValueError(f"the {what} name {double!r} occurs twice in a vocabulary")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, index: int) -> str:
        return self.names[index]

    def __contains__(self, name: object) -> bool:
        return name in self._ids

    def get(self, name: str) -> int | None:
        """The id of a name, or None."""
        return self._ids.get(name)

    def find(self, names: Iterable[str]) -> list[int | None]:
        """The ids of many names, None where there is none."""
        return list(map(self._ids.get, names))

    def id(self, name: str) -> int:
        """The id of a name.

        Raises:
            UnknownName: naming up to three near matches.
        """
        found = self._ids.get(name)
        if found is None:
            near = self.suggest(name)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise UnknownName(f"there is no {self.what} named {name!r} in the graph{hint}", near)
        return found

    def suggest(self, name: str, count: int = 3) -> list[str]:
        """Up to `count` names that look most like `name`, best first."""
        from rapidfuzz import fuzz, process, utils

        found = process.extract(
            name,
            self.names,
            scorer=fuzz.WRatio,
            processor=utils.default_process,
            limit=count,
            score_cutoff=60,
        )
        return [match for match, _, _ in found]

    def digest(self) -> str:
        """SHA-256 of the names in order, each ended by a line feed (as in entities.txt).

        Where a name holds a line feed itself, two lists could share that digest. Then each name is
        preceded by its length instead, after an empty name, which no file of names can hold.
        """
        total = hashlib.sha256()
        if any("\n" in name for name in self.names):
            total.update(b"\n")
            for name in self.names:
                raw = name.encode()
                total.update(b"%d\n%b" % (len(raw), raw))
        else:
            for name in self.names:
                total.update(name.encode() + b"\n")
        return total.hexdigest()


@dataclass(frozen=True, eq=False)
class Queries:
    """B questions (head, relation, ?); relations may be inverse ones."""

    head: Int[Tensor, " B"]
    relation: Int[Tensor, " B"]

    def __len__(self) -> int:
        return len(self.head)

    def __getitem__(self, index: Tensor | slice) -> Queries:
        return Queries(self.head[index], self.relation[index])

    def to(self, device: torch.device | str) -> Queries:
        """The same questions on another device."""
        return Queries(self.head.to(device), self.relation.to(device))


def distinct(facts: Int[Tensor, "n 3"]) -> Int[Tensor, "m 3"]:
    """Distinct facts in ascending order of head, relation and tail.

    Sorting one number a fact takes a twentieth of the time that sorting rows takes.
    """
    if not len(facts):
        return facts
    _, relations, tails = (facts.max(0).values + 1).tolist()
    if int(facts[:, 0].max() + 1) * relations * tails >= 2**63:
        rows: Tensor = torch.unique(facts, dim=0)
        return rows
    keys = torch.unique((facts[:, 0] * relations + facts[:, 1]) * tails + facts[:, 2])
    pairs = keys // tails
    return torch.stack([pairs // relations, pairs % relations, keys % tails], 1)


class AnswerIndex:
    """Distinct questions, sorted, and the answers of each (compressed sparse rows)."""

    def __init__(self, facts: Int[Tensor, "n 3"]) -> None:
        """Index directed facts (head, relation, tail); repeated ones count once."""
        facts = distinct(facts)
        self._span = int(facts[:, 0].max()) + 1 if len(facts) else 1
        keys = facts[:, 1] * self._span + facts[:, 0]
        # Stable, so that the answers of a question stay in ascending order.
        keys, order = torch.sort(keys, stable=True)
        self._keys, counts = torch.unique_consecutive(keys, return_counts=True)
        self.answers = facts[order, 2].contiguous()
        self.offsets = torch.zeros(len(counts) + 1, dtype=torch.int64)
        torch.cumsum(counts, 0, out=self.offsets[1:])
        self.queries = Queries(self._keys % self._span, self._keys // self._span)

    def __len__(self) -> int:
        return len(self._keys)

    def rows(self, index: Int[Tensor, " B"]) -> tuple[Tensor, Tensor]:
        """Answers of the questions at `index`, as pairs.

        Returns:
            place (n,), which position of `index` an answer belongs to, ascending; answers (n,).
        """
        start = self.offsets[index]
        counts = self.offsets[index + 1] - start
        place = torch.repeat_interleave(torch.arange(len(index)), counts)
        first = torch.cumsum(counts, 0) - counts
        within = torch.arange(len(place)) - first[place]
        return place, self.answers[start[place] + within]

    def lookup(self, queries: Queries) -> tuple[Tensor, Tensor]:
        """Known answers of any questions, as pairs (place in `queries`, answer)."""
        if not len(self):
            return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        keys = queries.relation * self._span + queries.head
        spot = torch.searchsorted(self._keys, keys).clamp_(max=len(self) - 1)
        found = (self._keys[spot] == keys) & (queries.head < self._span)
        where = found.nonzero().flatten()
        place, answers = self.rows(spot[where])
        return where[place], answers


def _none() -> Int[Tensor, "0 3"]:
    return torch.empty(0, 3, dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class Graph:
    """A multi-modal knowledge graph: names, facts by split, and where its modalities lie.

    Attributes:
        splits: split name to (n, 3) int64 distinct facts. `known` holds facts that are true but
            neither trained on nor asked for: they only hide right answers from a ranking.
        modalities: what the graph declares of its modalities (a table per name, see
            `mocme.data.modality`), read when a training asks for them.
        encode: which of them `mocme encode` makes of raw files, and how.
        listed: whether a list of names gave the entities their ids, not the order of facts.
        notes: what a reader should know of how it was read (rejects, duplicates), a line each.
        rejected: facts that reviewers found wrong (`mocme.data.reviewed`).
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
    rejected: Int[Tensor, "x 3"] = field(default_factory=_none)

    def __post_init__(self) -> None:
        for split, facts in (*self.splits.items(), ("rejected", self.rejected)):
            if split not in (*SPLITS, "rejected"):
                raise ValueError(f"a split is one of {', '.join(SPLITS)}, not {split!r}")
            if facts.ndim != 2 or facts.shape[1] != 3:
                raise ValueError(f"split {split!r} has shape {tuple(facts.shape)}, not (n, 3)")
            if facts.dtype != torch.int64:
                raise ValueError(f"split {split!r} holds {facts.dtype}, not int64 ids")
            limit = torch.tensor([self.num_entities, self.num_relations, self.num_entities])
            if bool(((facts < 0) | (facts >= limit)).any()):
                raise ValueError(
                    f"split {split!r} holds ids outside the {self.num_entities} entities and "
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
        """Distinct facts of some splits together (of all, when none is named)."""
        chosen = [self.splits[s] for s in splits or tuple(self.splits) if s in self.splits]
        if not chosen:
            return torch.empty(0, 3, dtype=torch.int64)
        return distinct(torch.cat(chosen))

    def directed(self, *splits: str) -> Int[Tensor, "n 3"]:
        """Facts of some splits in both directions: (h, r, t) and (t, r + R, h)."""
        return self._both(self.facts(*splits))

    def refusals(self) -> Int[Tensor, "n 3"]:
        """What is rejected, in both directions."""
        return self._both(distinct(self.rejected))

    def _both(self, facts: Int[Tensor, "n 3"]) -> Int[Tensor, "m 3"]:
        head, relation, tail = facts.unbind(1)
        inverse = torch.stack([tail, relation + self.num_relations, head], 1)
        return torch.cat([facts, inverse])

    def answers(self, *splits: str) -> AnswerIndex:
        """Known answers of every question that some splits answer."""
        return AnswerIndex(self.directed(*splits))

    def linked(self) -> Bool[Tensor, " N"]:
        """Which entities occur in a training fact."""
        seen = torch.zeros(self.num_entities, dtype=torch.bool)
        train = self.facts("train")
        seen[train[:, 0]] = True
        seen[train[:, 2]] = True
        return seen

    def reflexive(self) -> Int[Tensor, " r"]:
        """Relations of which some fact, of any split, is between an entity and itself."""
        head, relation, tail = self.facts().unbind(1)
        found: Tensor = torch.unique(relation[head == tail])
        return found

    def training_view(self) -> Graph:
        """The same graph without anything that a training may not see."""
        kept = {s: facts for s, facts in self.splits.items() if s in ("train", "valid")}
        return replace(self, splits=kept)

    def digest(self) -> str:
        """SHA-256 over names and facts, the same for the same graph however it was stored."""
        total = hashlib.sha256()
        total.update((self.entities.digest() + self.relations.digest()).encode())
        for split in SPLITS:
            total.update(split.encode())
            total.update(self.facts(split).numpy().tobytes() if split in self.splits else b"")
        if len(self.rejected):
            total.update(b"rejected" + distinct(self.rejected).numpy().tobytes())
        return total.hexdigest()
