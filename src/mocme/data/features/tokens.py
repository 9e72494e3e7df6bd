"""Sets of tokens, and how they enter a training: as facts (entity, says_m, token).

Every vocabulary m gets a node per token and a relation says_m. Its questions have the vocabulary as
their candidate class, all others the entities; a ranking asks among entities only, so it never sees
a token. Numbering keeps that of the graph: entities 0..N-1 come first, then the tokens of each
vocabulary; relations 0..R-1 and their inverses R..2R-1 come first, then says_m and its inverse as
2R + 2m and 2R + 2m + 1.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mocme.data.graph import Graph
from mocme.data.modality import Tokens


def rarest(
    sets: Mapping[int, Iterable[str]] | Iterable[tuple[int, Iterable[str]]],
    num_entities: int,
    *,
    per_entity: int | None,
    at_least: int,
    at_most: float,
    provenance: Mapping[str, str],
) -> Tokens:
    """The `per_entity` rarest tokens of each entity; None for all of them.

    A token counts only if at least `at_least` entities have it and at most the share `at_most` of
    the entities in `sets`. Equally rare ones are taken in alphabetical order.

    Args:
        sets: each entity once. They are taken up one by one, as pairs of numbers, so that the
            texts of all entities need not be held together.
        provenance: to it are added `per_entity` (0 for all) and `frequency`, how many entities have
            each token of the vocabulary, by which the rarest of a new entity are told.
    """
    names, entity, token, number = _interned(sets)
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    token = rank[token]
    counts = np.bincount(token, minlength=len(names))
    # A quotient rounds as `at_most` did: 29 / 100 is 0.29, but 0.29 * 100 is less than 29.
    allowed = (counts >= at_least) & (counts / max(number, 1) <= at_most)
    entity, token = entity[allowed[token]], token[allowed[token]]
    if per_entity is not None:
        by_rarity = np.lexsort((token, counts[token], entity))
        entity, token = entity[by_rarity], token[by_rarity]
        first = np.searchsorted(entity, entity)
        chosen = np.arange(len(entity)) - first < per_entity
        entity, token = entity[chosen], token[chosen]
    used, token = np.unique(token, return_inverse=True)
    ascending = np.lexsort((token, entity))
    return Tokens(
        tuple(names[order[place]] for place in used),
        torch.from_numpy(entity[ascending]),
        torch.from_numpy(token[ascending]),
        num_entities,
        {
            **provenance,
            "per_entity": str(per_entity or 0),
            "frequency": json.dumps([int(counts[place]) for place in used]),
        },
    )


def text_tokens(
    sets: Iterable[tuple[int, Iterable[str]]],
    num_entities: int,
    *,
    unit: str,
    per_entity: int | None,
    at_least: int,
    at_most: float,
    path: str | Path,
    provenance: Mapping[str, str],
) -> tuple[Tokens, int, int]:
    """The rarest tokens of texts, see `rarest`.

    Args:
        sets: the tokens of each entity that has a text, each entity once.
        unit: what the tokens are, in the plural: ``words``, ``bigrams``, ...
        path: the file of the texts, or the first one.

    Returns:
        The tokens, how many entities have a text, and how many of these have no token.

    Raises:
        ValueError: no token is within the limits.
    """
    texts = 0

    def counted() -> Iterator[tuple[int, Iterable[str]]]:
        nonlocal texts
        for pair in sets:
            texts += 1
            yield pair

    tokens = rarest(
        counted(),
        num_entities,
        per_entity=per_entity,
        at_least=at_least,
        at_most=at_most,
        provenance=provenance,
    )
    if not len(tokens.token):
        raise ValueError(
            f"{path}: no {unit[:-1]} occurs in {at_least} entities or more and in at most the "
            f"share {at_most} of the {texts:,} that have a text; set at_least or at_most in this "
            f"modality's table, or leave it out"
        )
    return tokens, texts, texts - int(tokens.present().sum())


def _interned(
    sets: Mapping[int, Iterable[str]] | Iterable[tuple[int, Iterable[str]]],
) -> tuple[list[str], Int[np.ndarray, " n"], Int[np.ndarray, " n"], int]:
    """The tokens in the order of their coming, the pairs of (entity, token), and how many sets."""
    ids: dict[str, int] = {}
    entities, tokens = array("q"), array("q")
    number = 0
    for entity, own in sets.items() if isinstance(sets, Mapping) else sets:
        number += 1
        found = [ids.setdefault(token, len(ids)) for token in dict.fromkeys(own)]
        tokens.extend(found)
        entities.extend([entity] * len(found))
    # Not views: what is empty has no memory to view.
    return list(ids), np.array(entities, np.int64), np.array(tokens, np.int64), number


@dataclass(frozen=True, eq=False)
class TrainingFacts:
    """What a training learns from: links and token facts, in both directions, in one numbering.

    Attributes:
        facts: distinct directed facts (head, relation, tail).
        num_relations: directed ones, says_m and their inverses included.
        inverse: the inverse of each directed relation.
        relation_class: the candidate class of each directed relation's answers; 0 = entities.
        spans: first and last + 1 node of each class.
        excluded: nodes of class 0 that are no training candidates.
        present: which nodes occur in a fact.
        rejected: distinct directed questions and answers that are wrong.
    """

    facts: Int[Tensor, "n 3"]
    num_entities: int
    num_nodes: int
    num_relations: int
    inverse: Int[Tensor, " R2"]
    relation_class: Int[Tensor, " R2"]
    spans: tuple[tuple[int, int], ...]
    excluded: Int[Tensor, " x"]
    present: Bool[Tensor, " nodes"]
    rejected: Int[Tensor, "y 3"] = field(
        default_factory=lambda: torch.empty(0, 3, dtype=torch.int64)
    )

    @property
    def first_token_relation(self) -> int:
        """Links keep their numbers 0..2R-1; every relation from this one on is about tokens."""
        return self.num_relations - 2 * (len(self.spans) - 1)

    @staticmethod
    def of(
        graph: Graph,
        vocabularies: Mapping[str, Tokens],
        candidates: Literal["linked", "trained", "all"] = "trained",
    ) -> TrainingFacts:
        """Facts of the train split and of token sets.

        Args:
            graph: whose numbering is kept; other splits than train are not looked at.
            vocabularies: token sets by modality name; m is the place in this mapping.
            candidates: which entities a training competes against: ``linked``, those of a training
                triple; ``trained``, those of any training fact, tokens included; ``all``.

        Raises:
            ValueError: a token set was made for another number of entities.
        """
        for name, tokens in vocabularies.items():
            if tokens.num_entities != graph.num_entities:
                raise ValueError(
                    f"modality {name!r} was made for {tokens.num_entities} entities, but the graph "
                    f"has {graph.num_entities}; read it again for this graph"
                )
        base = 2 * graph.num_relations
        parts = [graph.directed("train")]
        inverse = [(r + graph.num_relations) % base for r in range(base)]
        classes = [0] * base
        spans = [(0, graph.num_entities)]
        first = graph.num_entities
        for number, tokens in enumerate(vocabularies.values()):
            says = base + 2 * number
            relation = torch.full_like(tokens.entity, says)
            node = tokens.token + first
            parts.append(torch.stack([tokens.entity, relation, node], 1))
            parts.append(torch.stack([node, relation + 1, tokens.entity], 1))
            inverse += [says + 1, says]
            classes += [number + 1, 0]
            spans.append((first, first + len(tokens.vocabulary)))
            first = spans[-1][1]
        facts = torch.cat(parts)
        present = torch.zeros(first, dtype=torch.bool)
        present[facts[:, 0]] = True
        allowed = {
            "linked": graph.linked(),
            "trained": present[: graph.num_entities],
            "all": torch.ones(graph.num_entities, dtype=torch.bool),
        }[candidates]
        return TrainingFacts(
            facts,
            graph.num_entities,
            first,
            len(inverse),
            torch.tensor(inverse),
            torch.tensor(classes),
            tuple(spans),
            (~allowed).nonzero().flatten(),
            present,
            graph.refusals(),
        )
