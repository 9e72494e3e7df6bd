"""New content within the range of the training's.

A model extrapolates linearly: a vector that is ten times as long as all others, or a number far
beyond them, would make its entity the first answer of many questions. Such content is brought to
the range of the training, and told; all other content stays as it is, to the bit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import final
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from mocme.core.finite import all_finite
from mocme.data.features.numeric import Scale
from mocme.data.modality import Modality, Tokens

# A vector may be this many times as far from the centre as the farthest of the training: among
# other things, the farthest of few vectors is not the farthest of all there are.
SLACK = 2.0
# Rows of vectors that are compared with the centre at a time.
_PAGE = 4096


@final
@dataclass(frozen=True, eq=False)
class VectorRange:
    """Where the vectors of a modality are.

    Attributes:
        centre: their mean, in float64.
        radius: the distance of the farthest from it; the length of the centre if all are equal.
    """

    centre: Float[Tensor, " F"]
    radius: float

    @staticmethod
    def of(modality: Modality) -> VectorRange:
        """The range of a modality as it was trained; computed once."""
        if modality not in _RANGES:
            pages = modality.values.split(_PAGE)
            total = torch.zeros(modality.width, dtype=torch.float64)
            for page in pages:
                total += page.double().sum(0)
            centre = total / max(1, len(modality.values))
            radius = max((float((p.double() - centre).norm(dim=1).max()) for p in pages), default=0)
            _RANGES[modality] = VectorRange(centre, radius or float(centre.norm()) or 1.0)
        return _RANGES[modality]

    def distance(self, vector: Float[Tensor, " F"]) -> float:
        """Distance of a vector from the centre, in radii."""
        return float((vector.double() - self.centre).norm()) / self.radius

    def clipped(self, vector: Float[Tensor, " F"]) -> Float[Tensor, " F"]:
        """The vector itself within `SLACK` radii, else the nearest one there."""
        distance = self.distance(vector)
        if distance <= SLACK:
            return vector
        offset = (vector.double() - self.centre) * (SLACK / distance)
        return (self.centre + offset).to(vector.dtype)


_RANGES: WeakKeyDictionary[Modality, VectorRange] = WeakKeyDictionary()


def vector_in_range(
    modality: Modality, vector: Float[Tensor, " F"]
) -> tuple[Float[Tensor, " F"], list[str]]:
    """A new vector within the range of a modality, finite in the type that the modality has.

    Returns:
        The vector in its own type, and a note if it was changed.
    """
    known = VectorRange.of(modality)
    distance, clipped = known.distance(vector), known.clipped(vector)
    if not all_finite(clipped.to(modality.values.dtype)):
        largest = torch.finfo(modality.values.dtype).max
        clipped = clipped.clamp(-largest, largest)
    if clipped is vector:
        return vector, []
    return clipped, [
        f"its vector is {distance:.3g} times as far from the centre as the farthest of the "
        f"training; it was brought to {min(distance, SLACK):.3g} times"
    ]


def numbers_in_range(
    modality: Modality,
    scales: dict[str, Scale],
    vector: Float[Tensor, " F"],
    numbers: dict[str, float],
) -> list[str]:
    """Bring the scaled numbers of a vector to the range of the training, in place.

    Args:
        vector: the columns of all attributes, as `Scale` computes them.
        numbers: what they were computed from, by attribute.

    Returns:
        A note for each number that was outside.
    """
    notes = []
    width = modality.width // len(scales)
    for position, (attribute, scale) in enumerate(scales.items()):
        if attribute not in numbers:
            continue
        # The first column rises with the number, the second is 1 where there is one.
        first = position * width
        column, present = modality.values[:, first].float(), modality.values[:, first + 1] > 0
        if not bool(present.any()):
            continue
        low, high = column[present].min(), column[present].max()
        used = vector[first].clamp(low, high)
        if bool(used != vector[first]):
            bounds = [scale.number(float(bound)) for bound in (low, high, used)]
            notes.append(
                f"{attribute} = {numbers[attribute]:g} is outside the range of the training, "
                f"{bounds[0]:g} to {bounds[1]:g}; {bounds[2]:g} was used"
            )
            vector[first] = used
    return notes


def tokens_in_range(modality: Tokens, known: list[str]) -> tuple[list[str], list[str]]:
    """As many tokens as an entity of the training has at most: the rarest.

    Returns:
        These tokens, and the others.
    """
    counts = torch.bincount(modality.entity)
    most = int(counts.max()) if len(counts) else 0
    if len(known) <= most:
        return known, []
    frequency = Counter(modality.token.tolist())
    ids = {token: index for index, token in enumerate(modality.vocabulary)}
    rarest = sorted(known, key=lambda token: (frequency[ids[token]], token))
    return rarest[:most], rarest[most:]
