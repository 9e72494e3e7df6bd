"""Sets of tokens, and how they enter a training: as facts (entity, says_m, token).

Every vocabulary m gets a node per token and a relation says_m. Its questions have the vocabulary as
their candidate class, all others the entities; a ranking asks among entities only, so it never sees
a token. Numbering keeps that of the graph: entities 0..N-1 come first, then the tokens of each
vocabulary; relations 0..R-1 and their inverses R..2R-1 come first, then says_m and its inverse as
2R + 2m and 2R + 2m + 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mocme.graph.modalities import Tokens
from mocme.graph.triples import Graph

WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Distinct lower-case words of a text, in order (runs of letters and digits)."""
    return list(dict.fromkeys(WORD.findall(text.lower())))


def rarest(
    sets: Mapping[int, Sequence[str]],
    num_entities: int,
    *,
    per_entity: int,
    at_least: int,
    at_most: float,
    provenance: Mapping[str, str],
) -> Tokens:
    """The `per_entity` rarest tokens of each entity.

    A token counts only if at least `at_least` entities have it and at most the share `at_most` of
    the entities in `sets`. Equally rare ones are taken in alphabetical order.
    """
    counts = Counter(token for tokens in sets.values() for token in set(tokens))
    # A quotient rounds as `at_most` did: 29 / 100 is 0.29, but 0.29 * 100 is less than 29.
    kept = {t for t, count in counts.items() if count >= at_least and count / len(sets) <= at_most}
    chosen = {
        entity: sorted(kept.intersection(tokens), key=lambda t: (counts[t], t))[:per_entity]
        for entity, tokens in sets.items()
    }
    vocabulary = sorted({token for tokens in chosen.values() for token in tokens})
    ids = {token: index for index, token in enumerate(vocabulary)}
    pairs = sorted((e, ids[token]) for e, tokens in chosen.items() for token in tokens)
    table = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    entity, token = table.unbind(1)
    return Tokens(
        tuple(vocabulary), entity.contiguous(), token.contiguous(), num_entities, provenance
    )


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
        )
