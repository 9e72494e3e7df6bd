"""A run's graph, modalities and mixture, with or without its additions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mocme.data.graph import Graph, Vocabulary
from mocme.data.modality import Features, Modality, Pairs, Tokens
from mocme.data.pairs.build import merge_pairs
from mocme.experts.base import Extension
from mocme.experts.embedding.expert import EmbeddingExpert
from mocme.inductive.store import Addition, Additions
from mocme.inductive.usable import pairs_without, problems, warn_left_out
from mocme.mixture.base import Mixture


@dataclass(frozen=True, eq=False)
class RunContents:
    """Graph, modalities and mixture over the same entities in the same order."""

    graph: Graph
    features: Features
    mixture: Mixture

    @property
    def embeddings(self) -> list[EmbeddingExpert]:
        """The experts that compute vectors."""
        return [e for e in self.mixture.experts if isinstance(e, EmbeddingExpert)]

    @property
    def reads(self) -> set[str]:
        """Names of the modalities that some expert reads."""
        return {name for expert in self.mixture.experts for name in expert.reads}

    def usable(self, items: Additions, run: str) -> Additions:
        """The additions that can be used; a warning for each of the others.

        Args:
            run: the folder of the run, for the warnings.
        """
        found = problems(items, self.graph, self.features, self.embeddings)
        if not found:
            return items
        warn_left_out(items, found, run)
        pairs = pairs_without(items.pairs, self.graph.num_entities, len(items), found)
        return Additions([item for n, item in enumerate(items) if n not in found], pairs)

    def check_usable(self, items: Additions, run: str) -> None:
        """Refuse additions of which one cannot be used.

        Raises:
            ValueError: with the command that removes it.
        """
        found = problems(items, self.graph, self.features, self.embeddings)
        for position, reason in found.items():
            name = items[position].name
            raise ValueError(
                f"{run}: the addition {name!r} cannot be used, because {reason}; nothing is "
                f"changed; where it is stored already, remove it first: mocme entities remove "
                f"{run} {name!r}"
            )

    def extended(self, items: Additions) -> RunContents:
        """The contents with additions, which must be `usable`.

        Facts of additions belong to the train split; the fitted rules follow these facts and the
        pairs of additions. Training entities keep their ids, vectors, weights and mutual pairs
        exactly. Their scores change only by paths over an addition.
        """
        if not items:
            return self
        graph = extended_graph(self.graph, items)
        features = extended_features(self.features, items, self.graph.num_entities)
        rows = {e.name: [item.rows.get(e.name) for item in items] for e in self.embeddings}
        extension = Extension(graph, features, [item.vectors for item in items], rows)
        experts = [e.extended(extension.read_by(e)) for e in self.mixture.experts]
        mixture = self.mixture.extended(experts, graph)
        return RunContents(graph, features, mixture)


def check_pairs(trained: RunContents, items: Additions) -> None:
    """Check that the pairs of additions fit the run that they are used with.

    What each addition holds itself is checked by `RunContents.usable`.

    Raises:
        ValueError: a name or an id is not one of the run.
    """
    size = trained.graph.num_entities + len(items)
    for name, rows in items.pairs.items():
        if name not in trained.features.pairs:
            raise ValueError(f"this run has no pairs {name!r}")
        kinds = len(trained.features.pairs[name].kinds)
        limit = torch.tensor([kinds, size, size])
        if bool((rows >= limit).any()):
            raise ValueError(f"pairs of {name} have ids that this run does not have")
        _check_counts(name, rows, trained.features.pairs[name], items)


def _check_counts(name: str, rows: Tensor, pairs: Pairs, items: Additions) -> None:
    """Check that the pairs of additions are as many as each addition says."""
    kinds = len(pairs.kinds)
    cells = (rows[:, 1:] - pairs.num_entities) * kinds + rows[:, :1]
    counts = torch.bincount(cells[cells >= 0], minlength=len(items) * kinds).tolist()
    for position, item in enumerate(items):
        own = counts[position * kinds : (position + 1) * kinds]
        if {k: n for k, n in zip(pairs.kinds, own, strict=True) if n} != item.pairs.get(name, {}):
            raise ValueError(f"{item.name!r}: its pairs of {name} are not as many as it says")


def extended_graph(graph: Graph, items: Sequence[Addition]) -> Graph:
    """The graph with additions and their facts, which belong to the train split."""
    entities = Vocabulary([*graph.entities, *(item.name for item in items)])
    facts = [
        (entities.id(h), graph.relations.id(r), entities.id(t))
        for item in items
        for h, r, t in item.facts
    ]
    more = torch.tensor(list(dict.fromkeys(facts)), dtype=torch.int64).view(-1, 3)
    splits = {**graph.splits, "train": torch.cat([graph.facts("train"), more])}
    return replace(graph, entities=entities, splits=splits)


def extended_features(features: Features, items: Additions, first: int) -> Features:
    """The modalities with what additions have; ids of additions begin with `first`."""
    number = first + len(items)
    dense = {name: _dense(old, name, items, first) for name, old in features.dense.items()}
    tokens = {name: _tokens(old, name, items, first) for name, old in features.tokens.items()}
    none = torch.zeros(0, 3, dtype=torch.int64)
    pairs = {
        name: merge_pairs(old, items.pairs.get(name, none), number)
        for name, old in features.pairs.items()
    }
    return replace(features, dense=dense, tokens=tokens, pairs=pairs)


def _dense(old: Modality, name: str, items: Sequence[Addition], first: int) -> Modality:
    having = [position for position, item in enumerate(items) if name in item.vectors]
    values: list[Tensor] = [
        items[position].vectors[name].to(old.values.dtype) for position in having
    ]
    rows = torch.tensor(having, dtype=torch.int64) + first
    return Modality(
        torch.cat([old.values, torch.stack(values)]) if having else old.values,
        torch.cat([old.rows, rows]),
        first + len(items),
        old.provenance,
    )


def _tokens(old: Tokens, name: str, items: Sequence[Addition], first: int) -> Tokens:
    ids = {token: index for index, token in enumerate(old.vocabulary)}
    additional = [
        (first + position, token)
        for position, item in enumerate(items)
        for token in sorted(ids[word] for word in item.tokens.get(name, ()))
    ]
    more = torch.tensor(additional, dtype=torch.int64).view(-1, 2)
    entity, token = torch.cat([torch.stack([old.entity, old.token], 1), more]).unbind(1)
    number = first + len(items)
    return Tokens(old.vocabulary, entity.contiguous(), token.contiguous(), number, old.provenance)
