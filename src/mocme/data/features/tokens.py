"""Sets of tokens, and how a training uses them: as facts (entity, says_m, token).

Each vocabulary m adds one node per token and one relation says_m. The candidates of a query with
says_m are the tokens of its vocabulary; those of all other queries are the entities. A ranking has
only queries of the graph, so tokens never occur in it. Ids of the graph are kept: nodes are
entities 0..N-1, then the tokens of each vocabulary; relations are 0..R-1 and their inverses
R..2R-1, then says_m and its inverse as 2R + 2m and 2R + 2m + 1.
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
from mocme.data.modality import EmptyModality, Tokens


def rarest_tokens(
    sets: Mapping[int, Iterable[str]] | Iterable[tuple[int, Iterable[str]]],
    num_entities: int,
    *,
    per_entity: int | None,
    at_least: int,
    at_most: float,
    provenance: Mapping[str, str],
) -> Tokens:
    """Keep the rarest tokens of each entity.

    A token is kept only if at least `at_least` entities have it, and at most the share `at_most` of
    the entities in `sets`. Of equally rare tokens, the first in alphabetical order is kept.

    Args:
        sets: the tokens of each entity, each entity once. An iterable is consumed one entity at a
            time, so that the texts of all entities need not be in memory together.
        per_entity: the largest number of tokens per entity; None for no limit.
        provenance: provenance of the result, to which `per_entity` (0 for no limit) and `frequency`
            are added: how many entities have each token of the vocabulary. With these, the rarest
            tokens of a new entity can be found.
    """
    names, entity, token, number = _intern(sets)
    # Ids become alphabetical ranks, so that a comparison of ids is one of names.
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    token = rank[token]
    counts = np.bincount(token, minlength=len(names))
    # A quotient is rounded as the literal `at_most` is: 29 / 100 is 0.29, but 0.29 * 100 < 29.
    allowed = (counts >= at_least) & (counts / max(number, 1) <= at_most)
    entity, token = entity[allowed[token]], token[allowed[token]]
    if per_entity is not None:
        by_rarity = np.lexsort((token, counts[token], entity))
        entity, token = entity[by_rarity], token[by_rarity]
        first = np.searchsorted(entity, entity)
        is_rarest = np.arange(len(entity)) - first < per_entity
        entity, token = entity[is_rarest], token[is_rarest]
    used, token = np.unique(token, return_inverse=True)
    ascending = np.lexsort((token, entity))
    return Tokens(
        tuple(names[order[index]] for index in used),
        torch.from_numpy(entity[ascending]),
        torch.from_numpy(token[ascending]),
        num_entities,
        {
            **provenance,
            "per_entity": str(per_entity or 0),
            "frequency": json.dumps([int(counts[index]) for index in used]),
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
    """The rarest tokens of texts, see `rarest_tokens`.

    Args:
        sets: the tokens of each entity that has a text, each entity once.
        unit: what the tokens are, in the plural: ``words``, ``bigrams``, ...
        path: the file of the texts, or the first one.

    Returns:
        The tokens, how many entities have a text, and how many of these have no token.

    Raises:
        EmptyModality: no token is within the limits.
    """
    texts = 0

    def counted() -> Iterator[tuple[int, Iterable[str]]]:
        nonlocal texts
        for pair in sets:
            texts += 1
            yield pair

    tokens = rarest_tokens(
        counted(),
        num_entities,
        per_entity=per_entity,
        at_least=at_least,
        at_most=at_most,
        provenance=provenance,
    )
    if not len(tokens.token):
        remedy = "set at_least or at_most in this modality's table, or leave it out"
        if not texts:
            remedy = "check that the names in it equal those in the facts, or leave it out"
        raise EmptyModality(
            f"{path}: no {unit[:-1]} occurs in {at_least} entities or more and in at most the "
            f"share {at_most} of the {texts:,} that have a text; {remedy}"
        )
    return tokens, texts, texts - int(tokens.present().sum())


def _intern(
    sets: Mapping[int, Iterable[str]] | Iterable[tuple[int, Iterable[str]]],
) -> tuple[list[str], Int[np.ndarray, " n"], Int[np.ndarray, " n"], int]:
    """Number the tokens in order of appearance.

    Returns:
        The tokens; parallel arrays of entity and token ids; the number of sets.
    """
    ids: dict[str, int] = {}
    entities, tokens = array("q"), array("q")
    number = 0
    for entity, entity_tokens in sets.items() if isinstance(sets, Mapping) else sets:
        number += 1
        token_ids = [ids.setdefault(token, len(ids)) for token in dict.fromkeys(entity_tokens)]
        tokens.extend(token_ids)
        entities.extend([entity] * len(token_ids))
    # Copies, because NumPy cannot view an empty array.
    return list(ids), np.array(entities, np.int64), np.array(tokens, np.int64), number


@dataclass(frozen=True, eq=False)
class TrainingFacts:
    """The facts of a training: links and token facts in both directions, with common ids.

    Attributes:
        facts: distinct directed facts (head, relation, tail).
        num_entities: N, the number of entities.
        num_nodes: entities and tokens.
        num_relations: directed relations, with says_m and their inverses.
        inverse: the inverse of each directed relation.
        relation_class: the candidate class of each directed relation; 0 is the entities.
        spans: the first node and the last node + 1 of each candidate class.
        excluded: entities that are not candidates of a training.
        present: a mask of the nodes that occur in a fact.
        rejected: distinct directed facts that are known to be wrong.
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
        """Return 2R: relations of links are below it, relations of tokens start from it."""
        return self.num_relations - 2 * (len(self.spans) - 1)

    @staticmethod
    def of(
        graph: Graph,
        vocabularies: Mapping[str, Tokens],
        candidates: Literal["linked", "trained", "all"] = "trained",
    ) -> TrainingFacts:
        """Combine the train split of a graph with token sets.

        Args:
            graph: the graph; its other splits are not used.
            vocabularies: token sets by modality name; m is the position in this mapping.
            candidates: the entities that are candidates of a training: ``linked``, those of a
                training triple; ``trained``, those of any training fact, tokens included; ``all``.

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
        for m, tokens in enumerate(vocabularies.values()):
            says = base + 2 * m
            relation = torch.full_like(tokens.entity, says)
            node = tokens.token + first
            parts.append(torch.stack([tokens.entity, relation, node], 1))
            parts.append(torch.stack([node, relation + 1, tokens.entity], 1))
            inverse += [says + 1, says]
            classes += [m + 1, 0]
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
