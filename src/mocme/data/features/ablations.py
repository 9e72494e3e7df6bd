"""Controls: a modality of the same size and presence without its content.

What a modality gives beyond its control is what its content gives; the rest is regularisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mocme.data.modality import AnyModality, Modality, Pairs, Tokens

Replace = Literal["nothing", "random", "shuffled", "hidden"]


@dataclass(frozen=True)
class Ablation:
    """What stands in the place of a modality's content, for which share of its entities.

    Args:
        replace: ``nothing``: the modality as it is. ``random``: Gaussian vectors with the mean and
            deviation of each column, or token sets of the same sizes drawn by frequency.
            ``shuffled``: the content of another entity that has it (a permutation; by chance an
            entity may keep its own). ``hidden``: none, as if the entities did not have it. Pairs:
            ``random`` exchanges the tails within a kind, ``shuffled`` gives all pairs of a head to
            another head, ``hidden`` takes them away.
        share: of the entities that have it (of the heads of pairs), drawn by lot; those of a
            smaller share are among those of a larger one.
        seed: of all that is drawn.
    """

    replace: Replace = "nothing"
    share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError("replace_share is a share in [0, 1]")
        if self.replace == "hidden" and self.share == 1:
            raise ValueError(
                'replace = "hidden" needs a replace_share below 1; to hide a modality of all '
                "entities, leave it out ([data] without)"
            )

    def __call__(self, modality: AnyModality) -> AnyModality:
        """The modality with what is replaced."""
        if self.replace == "nothing" or not self.share:
            return modality
        generator = torch.Generator().manual_seed(self.seed)
        note = f"{self.replace}, seed {self.seed}"
        if self.share == 1:
            return _replaced(modality, self.replace, generator, note)
        has = modality.present() if not isinstance(modality, Pairs) else _heads(modality)
        chosen = has.nonzero().flatten()
        chosen = chosen[torch.randperm(len(chosen), generator=generator)]
        mask = torch.zeros_like(has)
        mask[chosen[: round(self.share * len(chosen))]] = True
        note = f"{self.replace} for the share {self.share} of entities, seed {self.seed}"
        kept = _part(modality, ~mask, {**modality.provenance, "replaced": note})
        if self.replace == "hidden":
            return kept
        part = _part(modality, mask, modality.provenance)
        return _joined(kept, _replaced(part, self.replace, generator, note))


def _replaced(
    modality: AnyModality, replace: Replace, generator: torch.Generator, note: str
) -> AnyModality:
    noted = {**modality.provenance, "replaced": note}
    if isinstance(modality, Modality):
        return _dense(modality, replace, generator, noted)
    if isinstance(modality, Pairs):
        return _pairs(modality, replace, generator, noted)
    return _tokens(modality, replace, generator, noted)


def _heads(pairs: Pairs) -> Bool[Tensor, " N"]:
    mask = torch.zeros(pairs.num_entities, dtype=torch.bool)
    mask[pairs.head] = True
    return mask


def _part(
    modality: AnyModality, entities: Bool[Tensor, " N"], note: Mapping[str, str]
) -> AnyModality:
    """The modality of some entities alone (pairs: by their heads)."""
    number = modality.num_entities
    if isinstance(modality, Modality):
        own = entities[modality.rows]
        return Modality(modality.values[own], modality.rows[own], number, note)
    if isinstance(modality, Pairs):
        own = entities[modality.head]
        kind, head, tail = (x[own] for x in (modality.kind, modality.head, modality.tail))
        return Pairs(modality.kinds, kind, head, tail, number, note)
    own = entities[modality.entity]
    return Tokens(modality.vocabulary, modality.entity[own], modality.token[own], number, note)


def _joined(first: AnyModality, second: AnyModality) -> AnyModality:
    """Two parts of one modality as one; the first's provenance stays."""
    number, note = first.num_entities, first.provenance
    if isinstance(first, Modality) and isinstance(second, Modality):
        rows, order = torch.cat([first.rows, second.rows]).sort()
        values = torch.cat([first.values.float(), second.values.float()])[order]
        return Modality(values, rows, number, note)
    if isinstance(first, Tokens) and isinstance(second, Tokens):
        both = [torch.stack([t.entity, t.token], 1) for t in (first, second)]
        entity, token = (c.contiguous() for c in torch.unique(torch.cat(both), dim=0).T)
        return Tokens(first.vocabulary, entity, token, number, note)
    assert isinstance(first, Pairs)
    assert isinstance(second, Pairs)
    both = [torch.stack([p.kind, p.head, p.tail], 1) for p in (first, second)]
    kind, head, tail = (c.contiguous() for c in torch.unique(torch.cat(both), dim=0).T)
    return Pairs(first.kinds, kind, head, tail, number, note)


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
