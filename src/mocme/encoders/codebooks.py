"""Centroids of vectors, by k-means (scikit-learn), for whole vectors or for their parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mocme.encoders.pretrained import extra

Scale = Literal["unit", "none"]
# Vectors of a step of k-means.
BATCH = 4096
Rows = Float[np.ndarray, "n F"]


class FewVectors(ValueError):
    """There are fewer distinct vectors than codes are asked for."""


class Codebook(NamedTuple):
    """Centroids of one or several parts of vectors of width F.

    Attributes:
        mean: of the sample, taken from each vector first. That changes no distance, but keeps the
            vectors near 0, where float32 can tell them apart.
        centroids: (codes, width of the part) for each part, the parts side by side.
    """

    scale: Scale
    mean: Float[np.ndarray, " F"]
    centroids: tuple[Float[np.ndarray, "codes _"], ...]

    @staticmethod
    def fitted(sample: Rows, codes: int, parts: int, scale: Scale, seed: int) -> Codebook:
        """Centroids by mini-batch k-means (Sculley, WWW 2010), started by k-means++.

        One thread computes them, since sums by several depend on how many there are.

        Args:
            sample: (n, F) in float32, finite.

        Raises:
            FewVectors: a part has fewer distinct vectors than codes.
        """
        with extra("scikit-learn", "tokens"):
            from sklearn.cluster import MiniBatchKMeans
            from threadpoolctl import threadpool_limits
        mean = sample.mean(0, dtype=np.float64).astype(np.float32)
        centroids = []
        for number, part in enumerate(_cut(_scaled(sample, scale, mean), parts), 1):
            if (distinct := _distinct(part, codes)) < codes:
                where = f"part {number} of {parts} of them has" if parts > 1 else "there are"
                raise FewVectors(f"{where} only {distinct:,} distinct vectors for {codes:,} codes")
            fit = MiniBatchKMeans(
                codes,
                init="k-means++",
                n_init=1,
                max_iter=100,
                batch_size=BATCH,
                init_size=3 * max(BATCH, codes),
                random_state=seed,
            )
            with threadpool_limits(1):
                fit.fit(part)
            centroids.append(np.ascontiguousarray(fit.cluster_centers_, np.float32))
        return Codebook(scale, mean, tuple(centroids))

    def codes(self, vectors: Rows) -> Int[np.ndarray, "n parts"]:
        """The nearest centroid of each part of each vector, the first of equally near ones."""
        scaled = _scaled(vectors, self.scale, self.mean)
        found = []
        for part, centroids in zip(_cut(scaled, len(self.centroids)), self.centroids, strict=True):
            # The square of a distance, less that of the vector's own length.
            lengths = (centroids.astype(np.float64) ** 2).sum(1)
            far = lengths.astype(np.float32) - 2 * (part @ centroids.T)
            found.append(far.argmin(1))
        return np.stack(found, 1)

    def packed(self) -> tuple[Mapping[str, np.ndarray], dict[str, str]]:
        """Arrays and metadata, as a safetensors file holds them."""
        parts = {f"centroids.{number}": held for number, held in enumerate(self.centroids)}
        return {"mean": self.mean, **parts}, {"format": "mocme-codebook-1", "scale": self.scale}


def _scaled(vectors: Rows, scale: Scale, mean: Float[np.ndarray, " F"]) -> Rows:
    moved: Rows = vectors - mean
    if scale == "none":
        return moved
    moved /= np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
    return moved


def _cut(vectors: Rows, parts: int) -> list[Float[np.ndarray, "n _"]]:
    return [np.ascontiguousarray(part) for part in np.array_split(vectors, parts, axis=1)]


def _distinct(vectors: Rows, enough: int) -> int:
    """How many different vectors there are, counted no further than `enough`."""
    seen: set[bytes] = set()
    for row in vectors:
        # Adding 0 makes -0 the same as 0.
        seen.add((row + np.float32(0)).tobytes())
        if len(seen) >= enough:
            break
    return len(seen)
