"""Which entities have which modality, and whether values look imputed.

A value that replaces a missing one is often a vector of zeros, or the same vector for many
entities. Random vectors, which are also used, cannot be distinguished from real ones in this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mocme.data.features.sources import Words, source_of
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
        groups: sets of two or more entities with the same nonzero vector.
        in_groups: entities in them; largest: entities in the largest; largest_share: of `present`.
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
    """Sets of tokens; `sizes` are percentiles of their size, over entities that have a set."""

    present: int
    share: float
    vocabulary: int
    pairs: int
    sizes: dict[str, int]


@dataclass(frozen=True)
class PairCoverage:
    """Pairs of entities; `sizes` are percentiles of the pairs per entity, over entities in a pair.

    Attributes:
        present: entities in a pair, as head or tail; share: of all entities.
        kinds: number of kinds of pairs.
    """

    present: int
    share: float
    kinds: int
    pairs: int
    sizes: dict[str, int]


@dataclass(frozen=True)
class TextCoverage:
    """Texts whose words are a modality; `words` are percentiles of their length in words."""

    present: int
    share: float
    words: dict[str, int]


@dataclass(frozen=True)
class Coverage:
    """Modalities by name; a modality of words is in `tokens` and in `texts`."""

    dense: dict[str, VectorCoverage] = field(default_factory=dict)
    tokens: dict[str, TokenCoverage] = field(default_factory=dict)
    texts: dict[str, TextCoverage] = field(default_factory=dict)
    pairs: dict[str, PairCoverage] = field(default_factory=dict)


def coverage(features: Features) -> Coverage:
    """The coverage of each modality, without texts."""
    return Coverage(
        {name: _vectors(modality) for name, modality in features.dense.items()},
        {name: _token_sets(tokens) for name, tokens in features.tokens.items()},
        pairs={name: _pair_sets(pairs) for name, pairs in features.pairs.items()},
    )


def text_lengths(
    graph: Graph,
    tables: Mapping[str, Mapping[str, Any]],
    folder: Path | None,
    *,
    trust_code: bool = False,
) -> dict[str, TextCoverage]:
    """Lengths of the texts of modalities of words.

    Args:
        tables: settings of modalities by name, as for `read_features`.
        folder: to which their paths are relative; files that are not in it are read from the
            folder of the graph.
        trust_code: import the classes of the user that the tables name.

    Raises:
        ValueError: a file cannot be read, or a setting is wrong.
    """
    graph_folder = Path(graph.folder or ".")
    coverage_of_texts = {}
    for name, table in tables.items():
        source = source_of(table, f"modalities.{name}", trust_code=trust_code)
        if not isinstance(source, Words):
            continue
        lengths = np.zeros(graph.num_entities, np.int64)
        for file, column in zip(source.paths, source.columns, strict=True):
            home = graph_folder if folder is None or not (folder / file).exists() else folder
            for entity, text in read_texts(home / file, column, graph.entities)[0].items():
                lengths[entity] += len(text.split())
        nonzero = lengths[lengths > 0]
        coverage_of_texts[name] = TextCoverage(
            len(nonzero), _share(len(nonzero), graph.num_entities), percentiles(nonzero)
        )
    return coverage_of_texts


def _vectors(modality: Modality) -> VectorCoverage:
    # Adding 0 turns -0 into 0, because equal vectors must have equal bytes.
    values = np.ascontiguousarray(modality.values.float().numpy() + np.float32(0))
    zero = ~values.any(1)
    vectors = values[~zero].view(np.dtype((np.void, values.shape[1] * values.itemsize))).ravel()
    _, counts = np.unique(vectors, return_counts=True)
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
    nonzero = sizes[sizes > 0]
    return TokenCoverage(
        len(nonzero),
        _share(len(nonzero), tokens.num_entities),
        len(tokens.vocabulary),
        len(tokens.entity),
        percentiles(nonzero),
    )


def _pair_sets(pairs: Pairs) -> PairCoverage:
    ends = np.concatenate([pairs.head.numpy(), pairs.tail.numpy()])
    sizes = np.bincount(ends, minlength=pairs.num_entities)
    nonzero = sizes[sizes > 0]
    return PairCoverage(
        len(nonzero),
        _share(len(nonzero), pairs.num_entities),
        len(pairs.kinds),
        len(pairs.kind),
        percentiles(nonzero),
    )


def _share(count: int, total: int) -> float:
    return count / total if total else 0.0
