"""Which stored additions a run can use: one that is not must not keep the run from opening."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mocme.core.finite import all_finite
from mocme.core.notices import Notice
from mocme.data.graph import Graph
from mocme.data.modality import AnyModality, Features, Modality, Tokens
from mocme.experts.embedding.expert import EmbeddingExpert
from mocme.inductive.store import Addition


class AdditionLeftOut(Notice):
    """An addition of a run cannot be used, and is left out until it is removed."""


def problems(
    items: Sequence[Addition],
    graph: Graph,
    features: Features,
    embeddings: Sequence[EmbeddingExpert],
) -> dict[int, str]:
    """What is wrong with additions as they are stored, by position.

    An addition whose facts name one that cannot be used cannot be used either.

    Args:
        graph, features, embeddings: of the run as it was trained.
    """
    modalities = features.all()
    bases = {name: pairs.basis for name, pairs in features.pairs.items()}
    modalities |= {n: basis.vectors for n, basis in bases.items() if basis and basis.vectors}
    widths = {expert.name: expert.base.settings.embedding_dim for expert in embeddings}
    found: dict[int, str] = {}
    names: set[str] = set()
    for position, item in enumerate(items):
        if item.name in graph.entities or item.name in names:
            found[position] = "another entity has its name"
        elif reason := _content_problem(item, modalities) or _row_problem(item, widths):
            found[position] = reason
        names.add(item.name)
    while True:
        usable = {item.name for n, item in enumerate(items) if n not in found}
        more = {
            n: reason
            for n, item in enumerate(items)
            if n not in found and (reason := _fact_problem(item, graph, usable))
        }
        if not more:
            return found
        found |= more


def _content_problem(item: Addition, modalities: Mapping[str, AnyModality]) -> str:
    for name, vector in item.vectors.items():
        modality = modalities.get(name)
        if not isinstance(modality, Modality):
            return f"the run has no vectors of {name}"
        if vector.shape != (modality.width,):
            return f"its vector of {name} has shape {tuple(vector.shape)}, not ({modality.width},)"
        # In the type in which the run holds it, and in the one in which a model reads it.
        if not _finite(vector.to(modality.values.dtype)):
            return f"its vector of {name} is not finite in {modality.values.dtype}"
    for name, tokens in item.tokens.items():
        modality = modalities.get(name)
        if not isinstance(modality, Tokens) or not set(tokens) <= set(modality.vocabulary):
            return f"it has tokens of {name} that the run does not have"
    return ""


def _row_problem(item: Addition, widths: Mapping[str, int]) -> str:
    for name, row in item.rows.items():
        # A row of an embedding that the mixture does not use is not read.
        if name in widths and (row.shape != (widths[name],) or not _finite(row)):
            return f"its row of {name} is not finite, or not of width {widths[name]}"
    return ""


def _fact_problem(item: Addition, graph: Graph, usable: set[str]) -> str:
    for head, relation, tail in item.facts:
        if relation not in graph.relations:
            return f"the run has no relation {relation!r}, which its facts name"
        for name in (head, tail):
            if name not in graph.entities and name not in usable:
                return f"its facts name {name!r}, which is no entity, or left out itself"
    return ""


def _finite(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and all_finite(tensor.float())


def pairs_without(
    pairs: Mapping[str, Tensor], first: int, count: int, positions: Mapping[int, str]
) -> dict[str, Tensor]:
    """Rows (kind, head, tail) that name none of these additions, in the numbering of the others.

    Args:
        first: id of the first addition; `count`: number of additions, these included.
        positions: of those that are left out.
    """
    kept = torch.tensor([n not in positions for n in range(count)], dtype=torch.bool)
    kept = torch.cat([torch.ones(first, dtype=torch.bool), kept])
    ids = kept.cumsum(0) - 1
    result = {}
    for name, rows in pairs.items():
        rows = rows[kept[rows[:, 1]] & kept[rows[:, 2]]]
        result[name] = torch.stack([rows[:, 0], ids[rows[:, 1]], ids[rows[:, 2]]], 1)
    return result


def warn_left_out(items: Sequence[Addition], found: Mapping[int, str], run: str) -> None:
    """Warn of each addition that is left out, with the command that removes it."""
    for position, reason in found.items():
        name = items[position].name
        warnings.warn(
            f"the addition {name!r} is left out, because {reason}; remove it with: mocme entities "
            f"remove {run} {name!r}",
            AdditionLeftOut,
            stacklevel=3,
        )
