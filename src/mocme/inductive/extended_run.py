"""A run's graph, modalities and model with its additions: what a predictor is asked of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mocme.data.graph import Graph, Vocabulary
from mocme.data.modality import Features, Modality, Tokens
from mocme.data.pairs.build import merged
from mocme.experts.embedding.model import Model
from mocme.experts.rules.adjacency import relations_of
from mocme.inductive.extended_model import AddedEntities, ExtendedModel
from mocme.inductive.store import Addition, Additions


@dataclass(frozen=True, eq=False)
class RunContents:
    """What belongs together: the same entities in the same order in all three."""

    graph: Graph
    features: Features
    model: Model

    def extended(self, items: Additions) -> RunContents:
        """The same with some additions.

        Their facts are facts of the train split; patterns, as they were fitted, walk over them and
        over their pairs. Old entities keep ids, vectors, weights and the pairs among each other to
        the bit, and their scores but for what paths over an addition add.
        """
        if not items:
            return self
        graph = extended_graph(self.graph, items)
        features = extended_features(self.features, items, self.graph.num_entities)
        base = self.model
        device = base.device
        model = ExtendedModel(base, added_of(items, base, device))
        if base.evidence is not None:
            relations = relations_of(graph, features)
            model.evidence = replace(base.evidence, relations=relations)
        return RunContents(graph, features, model)


def added_of(items: Sequence[Addition], model: Model, device: torch.device) -> AddedEntities:
    """Additions as a model takes them."""
    rows = torch.zeros(len(items), model.settings.width)
    present = torch.zeros(len(items), len(model.modalities), dtype=torch.bool)
    for place, item in enumerate(items):
        if item.row is not None:
            rows[place], present[place, 0] = item.row, True
    values, places = {}, {}
    for column, name in enumerate(model.modalities[1:], 1):
        own = [place for place, item in enumerate(items) if name in item.vectors]
        width = len(model.get_buffer(f"centre_{name}"))
        found = [items[place].vectors[name].float() for place in own]
        values[name] = torch.stack(found) if own else torch.zeros(0, width)
        places[name] = torch.tensor(own, dtype=torch.int64)
        present[places[name], column] = True
    return AddedEntities(
        rows.to(device),
        present.to(device),
        {name: tensor.to(device) for name, tensor in values.items()},
        {name: tensor.to(device) for name, tensor in places.items()},
    )


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
    dense = {name: _dense(own, name, items, first) for name, own in features.dense.items()}
    tokens = {name: _tokens(own, name, items, first) for name, own in features.tokens.items()}
    none = torch.zeros(0, 3, dtype=torch.int64)
    pairs = {
        name: merged(own, items.pairs.get(name, none), number)
        for name, own in features.pairs.items()
    }
    return replace(features, dense=dense, tokens=tokens, pairs=pairs)


def _dense(old: Modality, name: str, items: Sequence[Addition], first: int) -> Modality:
    own = [place for place, item in enumerate(items) if name in item.vectors]
    values: list[Tensor] = [items[place].vectors[name].to(old.values.dtype) for place in own]
    rows = torch.tensor(own, dtype=torch.int64) + first
    return Modality(
        torch.cat([old.values, torch.stack(values)]) if own else old.values,
        torch.cat([old.rows, rows]),
        first + len(items),
        old.provenance,
    )


def _tokens(old: Tokens, name: str, items: Sequence[Addition], first: int) -> Tokens:
    ids = {token: place for place, token in enumerate(old.vocabulary)}
    found = [
        (first + place, token)
        for place, item in enumerate(items)
        for token in sorted(ids[word] for word in item.tokens.get(name, ()))
    ]
    more = torch.tensor(found, dtype=torch.int64).view(-1, 2)
    entity, token = torch.cat([torch.stack([old.entity, old.token], 1), more]).unbind(1)
    number = first + len(items)
    return Tokens(old.vocabulary, entity.contiguous(), token.contiguous(), number, old.provenance)
