"""How alike entities are in one modality: cosine of vectors, or of weighted sets of tokens.

Similarities are computed between some heads and a pool, entities of the training. They are in
float32. Nothing of the size N * N is made: a product has heads * pool numbers, and what is gathered
or multiplied on the way has at most `NUMBERS` more at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mocme.data.modality import Features, Modality, Tokens

# Numbers that are gathered or multiplied at a time (64 MiB in float32).
NUMBERS = 1 << 24


class Similarities(NamedTuple):
    """Similarities of B heads to P entities of a pool, and which of both have the modality.

    Attributes:
        values: 0 where one of the two does not have the modality.
    """

    values: Float[Tensor, "B P"]
    heads: Bool[Tensor, " B"]
    pool: Bool[Tensor, " P"]


class Space(ABC):
    """The entities of a modality, to be compared."""

    @abstractmethod
    def similarities(self, heads: Int[Tensor, " B"], pool: Int[Tensor, " P"]) -> Similarities:
        """Compare heads, which may be added entities, with entities of the training."""


def spaces_of(features: Features) -> dict[str, Space]:
    """A space for each modality with vectors or tokens, by name."""
    dense = {name: DenseSpace.of(modality) for name, modality in features.dense.items()}
    return {**dense, **{name: TokenSpace.of(tokens) for name, tokens in features.tokens.items()}}


def extended_spaces(spaces: dict[str, Space], features: Features) -> dict[str, Space]:
    """The spaces with added entities, whose ids follow those of the training."""
    extended: dict[str, Space] = {}
    for name, space in spaces.items():
        if isinstance(space, DenseSpace):
            extended[name] = space.extended(features.dense[name])
        elif isinstance(space, TokenSpace):
            extended[name] = space.extended(features.tokens[name])
    return extended


@final
@dataclass(frozen=True, eq=False)
class DenseSpace(Space):
    """Centred vectors of length 1; cosines are products.

    Attributes:
        centre: mean of the training's vectors.
        vectors: of the n entities of the training that have one. A vector equal to the centre is 0,
            and alike to none.
        added: of added entities.
        position: row of each entity in `vectors`, then `added`; -1 without a vector.
    """

    centre: Float[Tensor, " F"]
    vectors: Float[Tensor, "n F"]
    added: Float[Tensor, "a F"]
    position: Int[Tensor, " N"]

    @staticmethod
    def of(modality: Modality) -> DenseSpace:
        """The space of a modality of the training."""
        values = modality.values
        parts = [values[block].double().sum(0) for block in _blocks(*values.shape)]
        centre = torch.stack([*parts, torch.zeros(modality.width, dtype=torch.float64)]).sum(0)
        centre /= max(1, len(values))
        position = torch.full((modality.num_entities,), -1)
        position[modality.rows] = torch.arange(len(values))
        vectors = _unit(values, centre)
        return DenseSpace(centre, vectors, vectors[:0], position)

    def extended(self, modality: Modality) -> DenseSpace:
        """The space with the added entities of a modality, centred as those of the training."""
        new = modality.rows >= len(self.position)
        position = torch.full((modality.num_entities,), -1)
        position[: len(self.position)] = self.position
        position[modality.rows[new]] = len(self.vectors) + torch.arange(int(new.sum()))
        return replace(self, added=_unit(modality.values[new], self.centre), position=position)

    def similarities(self, heads: Int[Tensor, " B"], pool: Int[Tensor, " P"]) -> Similarities:
        row, column = self.position[heads], self.position[pool]
        has_row, has_column = row >= 0, column >= 0
        product = self._product(row[has_row], column[has_column])
        if product.shape == (len(heads), len(pool)):
            return Similarities(product, has_row, has_column)
        values = torch.zeros(len(heads), len(pool))
        at = has_row.nonzero(), has_column.nonzero().flatten()
        values[at] = product
        return Similarities(values, has_row, has_column)

    def _product(self, row: Int[Tensor, " b"], column: Int[Tensor, " p"]) -> Float[Tensor, "b p"]:
        """Products of vectors with those of the training, by position."""
        trained = row < len(self.vectors)
        asked = torch.empty(len(row), self.vectors.shape[1])
        asked[trained] = self.vectors[row[trained]]
        asked[~trained] = self.added[row[~trained] - len(self.vectors)]
        # Gathering vectors costs more than a product that is not needed.
        if 2 * len(column) > len(self.vectors):
            return (asked @ self.vectors.T)[:, column]
        blocks = _blocks(len(column), self.vectors.shape[1])
        parts = [asked @ self.vectors[column[block]].T for block in blocks]
        return torch.cat([asked.new_empty(len(row), 0), *parts], 1)


@final
@dataclass(frozen=True, eq=False)
class TokenSpace(Space):
    """Sets of tokens, weighted by how rare each token is, of length 1.

    A token that d of n entities have weighs log(1 + n / d) (inverse document frequency).

    Attributes:
        weight: of each of V tokens; 0 for one that no entity of the training has.
        matrix: (N, V) CSR in float32, a row for each entity, added ones included.
        inverted: (V, n) CSR in float32, a column for each entity of the training.
        present: which entities have a token.
    """

    weight: Float[np.ndarray, " V"]
    matrix: Any
    inverted: Any
    present: Bool[Tensor, " N"]

    @staticmethod
    def of(tokens: Tokens) -> TokenSpace:
        """The space of a modality of the training."""
        frequency = np.bincount(tokens.token.numpy(), minlength=len(tokens.vocabulary))
        number = int(tokens.present().sum())
        weight = np.where(frequency > 0, np.log1p(number / np.maximum(frequency, 1)), 0.0)
        matrix = _weighted(tokens, weight)
        return TokenSpace(weight, matrix, matrix.T.tocsr(), tokens.present())

    def extended(self, tokens: Tokens) -> TokenSpace:
        """The space with the added entities of a modality, weighted as in the training."""
        return replace(self, matrix=_weighted(tokens, self.weight), present=tokens.present())

    def similarities(self, heads: Int[Tensor, " B"], pool: Int[Tensor, " P"]) -> Similarities:
        column = np.full(self.inverted.shape[1], -1)
        column[pool.numpy()] = np.arange(len(pool))
        values = np.zeros((len(heads), len(pool)), np.float32)
        for block in _blocks(len(heads), self.inverted.shape[1]):
            product = self.matrix[heads[block].numpy()] @ self.inverted
            row = np.repeat(np.arange(product.shape[0]), np.diff(product.indptr))
            at = column[product.indices]
            inside = at >= 0
            values[block][row[inside], at[inside]] = product.data[inside]
        return Similarities(torch.from_numpy(values), self.present[heads], self.present[pool])


def _unit(values: Float[Tensor, "n F"], centre: Float[Tensor, " F"]) -> Float[Tensor, "n F"]:
    """Centred vectors of length 1 in float32; a vector that is the centre becomes 0."""
    unit = torch.zeros(values.shape, dtype=torch.float32)
    for block in _blocks(*values.shape):
        # In float64, because squares of large values are infinite in float32.
        centred = values[block].double() - centre
        length = centred.norm(dim=1, keepdim=True)
        unit[block] = torch.where(length > 0, centred / length, 0.0).float()
    return unit


def _weighted(tokens: Tokens, weight: Float[np.ndarray, " V"]) -> Any:
    """A CSR matrix of entities and tokens with rows of length 1, or 0."""
    # Importing scipy.sparse takes a fifth of a second, so it is deferred.
    from scipy.sparse import csr_matrix

    entity, token = tokens.entity.numpy(), tokens.token.numpy()
    values = weight[token]
    length = np.sqrt(np.bincount(entity, values**2, minlength=tokens.num_entities))
    values = np.divide(values, length[entity], out=np.zeros(len(values)), where=values > 0)
    shape = (tokens.num_entities, len(tokens.vocabulary))
    return csr_matrix((values.astype(np.float32), (entity, token)), shape=shape)


def _blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices of rows with at most `NUMBERS` numbers, or one row."""
    step = max(1, NUMBERS // max(1, width))
    return (slice(start, start + step) for start in range(0, rows, step))
