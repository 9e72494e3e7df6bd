"""Graphs and modalities of a selection of entities, as if the others had never existed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mocme.data.graph import Graph, Vocabulary
from mocme.data.modality import Features, Modality, Pairs, Tokens
from mocme.data.pairs.build import build_pairs
from mocme.data.strings import EntityTexts


def new_ids(order: Tensor, count: int) -> Tensor:
    """New id by old id for the entities `order`; -1 for all others of `count`."""
    ids = torch.full((count,), -1)
    ids[order] = torch.arange(len(order))
    return ids


def select_graph(graph: Graph, order: Tensor, splits: Mapping[str, Tensor]) -> Graph:
    """The graph of the entities `order` (old ids), in this order.

    Args:
        splits: facts in old ids; those with other entities are left out.
    """
    ids = new_ids(order, graph.num_entities)
    selected = {}
    for name, facts in splits.items():
        mapped = torch.stack([ids[facts[:, 0]], facts[:, 1], ids[facts[:, 2]]], 1)
        selected[name] = mapped[(mapped >= 0).all(1)]
    names = Vocabulary([graph.entities[n] for n in order.tolist()])
    return replace(graph, entities=names, splits=selected)


def select_features(features: Features, count: int, order: Tensor) -> Features:
    """The modalities of the entities `order`; tokens that none of them has are left out."""
    ids, size = new_ids(order, count), len(order)
    dense = {name: select_vectors(m, ids, size) for name, m in features.dense.items()}
    tokens = {name: select_tokens(m, ids, size) for name, m in features.tokens.items()}
    pairs = {name: select_pairs(m, dense, ids, size) for name, m in features.pairs.items()}
    return Features(dense, tokens, pairs)


def select_vectors(modality: Modality, ids: Tensor, size: int) -> Modality:
    """Vectors of the entities that have a new id, sorted by it."""
    rows = ids[modality.rows]
    order = rows.argsort()[int((rows < 0).sum()) :]
    return Modality(modality.values[order].float(), rows[order], size, modality.provenance)


def select_tokens(modality: Tokens, ids: Tensor, size: int) -> Tokens:
    """Tokens of the entities that have a new id, with the vocabulary that these use."""
    entity = ids[modality.entity]
    kept = entity >= 0
    used, token = torch.unique(modality.token[kept], return_inverse=True)
    entity = entity[kept]
    order = (entity * max(1, len(used)) + token).argsort()
    provenance = dict(modality.provenance)
    if "frequency" in provenance:
        counts = json.loads(provenance["frequency"])
        provenance["frequency"] = json.dumps([counts[n] for n in used.tolist()])
    vocabulary = tuple(modality.vocabulary[n] for n in used.tolist())
    return Tokens(vocabulary, entity[order], token[order], size, provenance)


def select_pairs(modality: Pairs, dense: Mapping[str, Modality], ids: Tensor, size: int) -> Pairs:
    """Pairs recomputed from the content of the entities that have a new id, and of no other."""
    basis = modality.basis
    if basis is None:
        raise ValueError("the pairs do not say what they were made from; are they a control?")
    texts = {
        what: EntityTexts.of(
            {int(ids[e]): text for e, text in column.by_entity().items() if ids[e] >= 0}
        )
        for what, column in basis.texts.items()
    }
    vectors = None if basis.vectors is None else select_vectors(basis.vectors, ids, size)
    return build_pairs(
        replace(basis, texts=texts, vectors=vectors), size, modality.provenance, dense
    )
