"""Ablations: replace the content of a modality, but keep its size and the entities that have it.

The gain of a modality over its ablation is the gain from its content; the gain of the ablation
itself is regularisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mocme.data.modality import AnyModality, Modality, Pairs, Tokens, entity_mask

Replace = Literal["nothing", "random", "shuffled", "hidden"]


@dataclass(frozen=True)
class Ablation:
    """What replaces the content of a modality, and for which share of its entities.

    Attributes:
        replace: ``nothing`` changes nothing. ``random`` draws Gaussian vectors with the mean and
            standard deviation of each column, or token sets of the same sizes by frequency.
            ``shuffled`` permutes the content among the entities that have it (by chance, an entity
            may keep its own). ``hidden`` removes the modality from the entities. For pairs,
            ``random`` permutes the tails within a kind, ``shuffled`` gives all pairs of a head to
            another head, and ``hidden`` removes the pairs of a head.
        share: the share of the entities that have the modality (for pairs: of the heads), drawn at
            random. The entities of a smaller share are among those of a larger one.
        seed: seed of all random draws.

    Raises:
        ValueError: `share` is out of range, or everything would be hidden.
    """

    replace: Replace = "nothing"
    share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError("replace_share must be within [0, 1]")
        if self.replace == "hidden" and self.share == 1:
            raise ValueError(
                'replace = "hidden" needs a replace_share below 1; to hide a modality of all '
                "entities, leave it out ([data] without)"
            )

    def __call__(self, modality: AnyModality) -> AnyModality:
        """Return the modality with its content replaced."""
        if self.replace == "nothing" or not self.share:
            return modality
        generator = torch.Generator().manual_seed(self.seed)
        note = f"{self.replace}, seed {self.seed}"
        if self.share == 1:
            return _replace_content(modality, self.replace, generator, note)
        if isinstance(modality, Pairs):
            present = entity_mask(modality.num_entities, modality.head)
        else:
            present = modality.present()
        entities = present.nonzero().flatten()
        entities = entities[torch.randperm(len(entities), generator=generator)]
        chosen = entity_mask(len(present), entities[: round(self.share * len(entities))])
        note = f"{self.replace} for the share {self.share} of entities, seed {self.seed}"
        kept = _restrict(modality, ~chosen, {**modality.provenance, "replaced": note})
        if self.replace == "hidden":
            return kept
        part = _restrict(modality, chosen, modality.provenance)
        return _merge(kept, _replace_content(part, self.replace, generator, note))


def _replace_content(
    modality: AnyModality, replace: Replace, generator: torch.Generator, note: str
) -> AnyModality:
    provenance = {**modality.provenance, "replaced": note}
    if isinstance(modality, Modality):
        return _replace_vectors(modality, replace, generator, provenance)
    if isinstance(modality, Pairs):
        return _replace_pairs(modality, replace, generator, provenance)
    return _replace_tokens(modality, replace, generator, provenance)


def _restrict(
    modality: AnyModality, entities: Bool[Tensor, " N"], provenance: Mapping[str, str]
) -> AnyModality:
    """Keep the content of some entities only (for pairs: of their heads)."""
    number = modality.num_entities
    if isinstance(modality, Modality):
        keep = entities[modality.rows]
        return Modality(modality.values[keep], modality.rows[keep], number, provenance)
    if isinstance(modality, Pairs):
        keep = entities[modality.head]
        kind, head, tail = (x[keep] for x in (modality.kind, modality.head, modality.tail))
        return Pairs(modality.kinds, kind, head, tail, number, provenance)
    keep = entities[modality.entity]
    entity, token = modality.entity[keep], modality.token[keep]
    return Tokens(modality.vocabulary, entity, token, number, provenance)


def _merge(first: AnyModality, second: AnyModality) -> AnyModality:
    """Join two parts of one modality; the provenance is that of the first."""
    number, provenance = first.num_entities, first.provenance
    if isinstance(first, Modality) and isinstance(second, Modality):
        rows, order = torch.cat([first.rows, second.rows]).sort()
        values = torch.cat([first.values.float(), second.values.float()])[order]
        return Modality(values, rows, number, provenance)
    if isinstance(first, Tokens) and isinstance(second, Tokens):
        both = [torch.stack([t.entity, t.token], 1) for t in (first, second)]
        entity, token = _distinct_columns(torch.cat(both))
        return Tokens(first.vocabulary, entity, token, number, provenance)
    assert isinstance(first, Pairs)
    assert isinstance(second, Pairs)
    both = [torch.stack([p.kind, p.head, p.tail], 1) for p in (first, second)]
    kind, head, tail = _distinct_columns(torch.cat(both))
    return Pairs(first.kinds, kind, head, tail, number, provenance)


def _distinct_columns(rows: Int[Tensor, "n c"]) -> tuple[Int[Tensor, " m"], ...]:
    """Return the columns of the distinct rows in ascending order."""
    return tuple(column.contiguous() for column in torch.unique(rows, dim=0).T)


def _replace_vectors(
    modality: Modality, replace: Replace, generator: torch.Generator, provenance: Mapping[str, str]
) -> Modality:
    values = modality.values.float()
    if replace == "random":
        noise = torch.randn(values.shape, generator=generator)
        values = values.mean(0) + noise * values.std(0, correction=0)
    else:
        values = values[torch.randperm(len(values), generator=generator)]
    return Modality(values, modality.rows, modality.num_entities, provenance)


def _replace_tokens(
    tokens: Tokens, replace: Replace, generator: torch.Generator, provenance: Mapping[str, str]
) -> Tokens:
    if replace == "shuffled":
        entity, token = _permute_ids(tokens.entity, generator), tokens.token
    else:
        entity = tokens.entity
        token = tokens.token[torch.randperm(len(entity), generator=generator)]
        token = _exchange_repeated(entity, token, len(tokens.vocabulary), generator)
    entity, token = _distinct_columns(torch.stack([entity, token], 1))
    return Tokens(tokens.vocabulary, entity, token, tokens.num_entities, provenance)


def _replace_pairs(
    pairs: Pairs, replace: Replace, generator: torch.Generator, provenance: Mapping[str, str]
) -> Pairs:
    """Replace heads or tails; the few pairs that repeat or join an entity to itself are dropped."""
    head, tail = pairs.head, pairs.tail
    if replace == "shuffled":
        head = _permute_ids(head, generator)
    else:
        # Kinds are integers and the noise is below 1/2, so tails are permuted within a kind.
        order = torch.argsort(pairs.kind + torch.rand(len(tail), generator=generator).double() / 2)
        tail = tail[order]
    rows = torch.stack([pairs.kind, head, tail], 1)[head != tail]
    kind, head, tail = _distinct_columns(rows)
    return Pairs(pairs.kinds, kind, head, tail, pairs.num_entities, provenance)


def _permute_ids(ids: Int[Tensor, " n"], generator: torch.Generator) -> Int[Tensor, " n"]:
    """Replace each id by another one of `ids`: a permutation of the distinct ids."""
    distinct, index = torch.unique(ids, return_inverse=True)
    permuted: Tensor = distinct[torch.randperm(len(distinct), generator=generator)][index]
    return permuted


def _exchange_repeated(
    entity: Int[Tensor, " n"], token: Int[Tensor, " n"], size: int, generator: torch.Generator
) -> Int[Tensor, " n"]:
    """Exchange tokens between entities until no entity has a token twice, so that no set shrinks.

    Every exchange removes a repetition and adds none, so this terminates. If no exchange is
    possible (for a token that nearly all entities have), the repetition stays.
    """
    token = token.clone()
    for position in _repeated_positions(entity, token, size).tolist():
        own_tokens = token[entity == entity[position]]
        owners = entity[token == token[position]]
        # The partner lacks this token, and its own token is not in the set of this entity.
        is_partner = ~torch.isin(token, own_tokens) & ~torch.isin(entity, owners)
        partners = is_partner.nonzero().flatten()
        if len(partners):
            draw = int(torch.randint(len(partners), (1,), generator=generator))
            partner = int(partners[draw])
            token[position], token[partner] = token[partner].clone(), token[position].clone()
    return token


def _repeated_positions(
    entity: Int[Tensor, " n"], token: Int[Tensor, " n"], size: int
) -> Int[Tensor, " repeated"]:
    """Return the positions of pairs that occur at an earlier position too."""
    keys, order = torch.sort(entity * size + token, stable=True)
    is_repeated = torch.zeros(len(keys), dtype=torch.bool)
    is_repeated[1:] = keys[1:] == keys[:-1]
    return order[is_repeated].sort().values
