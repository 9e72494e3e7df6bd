"""Which entities have which modality, and whether values look filled in.

A value that was filled in for a missing one is often a vector of zeros or one and the same vector
for many entities. Random vectors, also in use, cannot be told from real ones in this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mocme.core.registry import build
from mocme.data.features.sources import Source, Words, kind_of
from mocme.data.features.tables import read_texts
from mocme.data.graph import Graph
from mocme.data.modality import Features, Modality, Pairs, Tokens
from mocme.data.quality.profile import percentiles


@dataclass(frozen=True)
class VectorCoverage:
    """Vectors of a dense modality.

    Attributes:
        present: entities that have one; share: of all entities.
        zeros: vectors that are all zero.
        groups: sets of two or more entities with one and the same vector, zeros aside.
        in_groups: entities in them; largest: those in the largest; largest_share: of `present`.
    """

    present: int
    share: float
    width: int
    zeros: int
    groups: int
    in_groups: int
    largest: int
    largest_share: float


@dataclass(frozen=True)
class TokenCoverage:
    """Sets of tokens; `sizes` are percentiles of their number, over entities that have one."""

    present: int
    share: float
    vocabulary: int
    pairs: int
    sizes: dict[str, int]


@dataclass(frozen=True)
class PairCoverage:
    """Pairs of entities; `sizes` are percentiles of their number, over entities that are in one.

    Attributes:
        present: entities in a pair, as head or as tail; share: of all entities.
        kinds: how many kinds of pairs there are.
    """

    present: int
    share: float
    kinds: int
    pairs: int
    sizes: dict[str, int]


@dataclass(frozen=True)
class TextCoverage:
    """Texts that words are taken from; `words` are percentiles of their length in words."""

    present: int
    share: float
    words: dict[str, int]


@dataclass(frozen=True)
class Coverage:
    """Modalities by name; a modality made of words stands under `tokens` and under `texts`."""

    dense: dict[str, VectorCoverage] = field(default_factory=dict)
    tokens: dict[str, TokenCoverage] = field(default_factory=dict)
    texts: dict[str, TextCoverage] = field(default_factory=dict)
    pairs: dict[str, PairCoverage] = field(default_factory=dict)


def coverage(features: Features) -> Coverage:
    """How many entities have each modality."""
    return Coverage(
        {name: _vectors(modality) for name, modality in features.dense.items()},
        {name: _token_sets(tokens) for name, tokens in features.tokens.items()},
        pairs={name: _pair_sets(pairs) for name, pairs in features.pairs.items()},
    )


def text_lengths(
    graph: Graph, tables: Mapping[str, Mapping[str, Any]], folder: Path | None
) -> dict[str, TextCoverage]:
    """Lengths of the texts behind modalities that are made of words.

    Args:
        tables: settings of modalities by name, as for `read_features`.
        folder: where their paths start; files that are not there are looked for in the graph's
            own folder.

    Raises:
        ValueError: a file cannot be read, or a setting is wrong.
    """
    home = Path(graph.folder or ".")
    result = {}
    for name, table in tables.items():
        path = f"modalities.{name}"
        settings = {**table, "kind": kind_of(table, path)}
        source = build(Source, settings, path)  # type: ignore[type-abstract]
        if not isinstance(source, Words):
            continue
        lengths = np.zeros(graph.num_entities, np.int64)
        for file, column in zip(source.paths, source.columns, strict=True):
            there = home if folder is None or not (folder / file).exists() else folder
            for entity, text in read_texts(there / file, column, graph.entities)[0].items():
                lengths[entity] += len(text.split())
        held = lengths[lengths > 0]
        result[name] = TextCoverage(
            len(held), _share(len(held), graph.num_entities), percentiles(held)
        )
    return result


def _vectors(modality: Modality) -> VectorCoverage:
    # Adding 0 makes -0 equal to 0 to the bit.
    values = np.ascontiguousarray(modality.values.float().numpy() + np.float32(0))
    zero = ~values.any(1)
    whole = values[~zero].view(np.dtype((np.void, values.shape[1] * values.itemsize))).ravel()
    _, counts = np.unique(whole, return_counts=True)
    repeated = counts[counts > 1]
    largest = int(repeated.max(initial=0))
    present = len(values)
    return VectorCoverage(
        present,
        _share(present, modality.num_entities),
        modality.width,
        int(zero.sum()),
        len(repeated),
        int(repeated.sum()),
        largest,
        _share(largest, present),
    )


def _token_sets(tokens: Tokens) -> TokenCoverage:
    sizes = np.bincount(tokens.entity.numpy(), minlength=tokens.num_entities)
    held = sizes[sizes > 0]
    return TokenCoverage(
        len(held),
        _share(len(held), tokens.num_entities),
        len(tokens.vocabulary),
        len(tokens.entity),
        percentiles(held),
    )


def _pair_sets(pairs: Pairs) -> PairCoverage:
    ends = np.concatenate([pairs.head.numpy(), pairs.tail.numpy()])
    sizes = np.bincount(ends, minlength=pairs.num_entities)
    held = sizes[sizes > 0]
    return PairCoverage(
        len(held),
        _share(len(held), pairs.num_entities),
        len(pairs.kinds),
        len(pairs.kind),
        percentiles(held),
    )


def _share(count: int, whole: int) -> float:
    return count / whole if whole else 0.0
