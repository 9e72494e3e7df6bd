"""Controls: a modality of the same size and presence without its content.

What a modality gives beyond its control is what its content gives; the rest is regularisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from mocme.graph.modalities import AnyModality, Modality, Pairs, Tokens

Replace = Literal["nothing", "random", "shuffled"]


def control(modality: AnyModality, replace: Replace, seed: int) -> AnyModality:
    """The same modality, or a control of the same size without its content.

    ``random``: Gaussian vectors with the mean and deviation of each column, or token sets of the
    same sizes drawn by frequency. ``shuffled``: the content of another entity that has it (a
    permutation; by chance an entity may keep its own). Pairs: ``random`` exchanges the tails within
    a kind, ``shuffled`` gives all pairs of a head to another head.
    """
    if replace == "nothing":
        return modality
    generator = torch.Generator().manual_seed(seed)
    note = {**modality.provenance, "replaced": f"{replace}, seed {seed}"}
    if isinstance(modality, Modality):
        return _dense(modality, replace, generator, note)
    if isinstance(modality, Pairs):
        return _pairs(modality, replace, generator, note)
    return _tokens(modality, replace, generator, note)


def _dense(
    modality: Modality, replace: Replace, generator: torch.Generator, note: Mapping[str, str]
) -> Modality:
    values = modality.values.float()
    if replace == "random":
        noise = torch.randn(values.shape, generator=generator)
        values = values.mean(0) + noise * values.std(0, correction=0)
    else:
        values = values[torch.randperm(len(values), generator=generator)]
    return Modality(values, modality.rows, modality.num_entities, note)


def _tokens(
    tokens: Tokens, replace: Replace, generator: torch.Generator, note: Mapping[str, str]
) -> Tokens:
    if replace == "shuffled":
        has, index = torch.unique(tokens.entity, return_inverse=True)
        entity, token = has[torch.randperm(len(has), generator=generator)][index], tokens.token
    else:
        entity = tokens.entity
        token = tokens.token[torch.randperm(len(entity), generator=generator)]
        token = _apart(entity, token, len(tokens.vocabulary), generator)
    pairs = torch.unique(torch.stack([entity, token], 1), dim=0)
    entity, token = pairs[:, 0].contiguous(), pairs[:, 1].contiguous()
    return Tokens(tokens.vocabulary, entity, token, tokens.num_entities, note)


def _pairs(
    pairs: Pairs, replace: Replace, generator: torch.Generator, note: Mapping[str, str]
) -> Pairs:
    """Pairs that would repeat or join an entity to itself are left out; they are few."""
    head, tail = pairs.head, pairs.tail
    if replace == "shuffled":
        has, index = torch.unique(head, return_inverse=True)
        head = has[torch.randperm(len(has), generator=generator)][index]
    else:
        order = torch.argsort(pairs.kind + torch.rand(len(tail), generator=generator).double() / 2)
        tail = tail[order]
    made = torch.unique(torch.stack([pairs.kind, head, tail], 1)[head != tail], dim=0)
    kind, head, tail = (column.contiguous() for column in made.T)
    return Pairs(pairs.kinds, kind, head, tail, pairs.num_entities, note)


def _apart(
    entity: Int[Tensor, " n"], token: Int[Tensor, " n"], size: int, generator: torch.Generator
) -> Int[Tensor, " n"]:
    """Exchange tokens until no entity has one twice: otherwise sets would shrink.

    Every exchange removes a repetition and makes none, so it ends; where no exchange is possible
    (a token that nearly all entities have), the repetition stays.
    """
    token = token.clone()
    for place in _repeated(entity, token, size).tolist():
        own = token[entity == entity[place]]
        owners = entity[token == token[place]]
        free = ~torch.isin(token, own) & ~torch.isin(entity, owners)
        partners = free.nonzero().flatten()
        if len(partners):
            drawn = int(torch.randint(len(partners), (1,), generator=generator))
            other = int(partners[drawn])
            token[place], token[other] = token[other].clone(), token[place].clone()
    return token


def _repeated(
    entity: Int[Tensor, " n"], token: Int[Tensor, " n"], size: int
) -> Int[Tensor, " repeated"]:
    """Places of pairs that stand already at an earlier place."""
    keys, order = torch.sort(entity * size + token, stable=True)
    again = torch.zeros(len(keys), dtype=torch.bool)
    again[1:] = keys[1:] == keys[:-1]
    return order[again].sort().values
