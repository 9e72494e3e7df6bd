"""Codebooks: centroids of vectors by k-means (scikit-learn), of whole vectors or of their parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mocme.encoders.pretrained import extra

Scaling = Literal["unit", "none"]
# Vectors in one step of mini-batch k-means.
BATCH = 4096
Rows = Float[np.ndarray, "n F"]


class FewVectors(ValueError):
    """There are fewer distinct vectors than codes."""


class Codebook(NamedTuple):
    """Centroids of one or several parts of vectors of width F.

    Attributes:
        mean: the mean of the sample, which is subtracted from each vector first. That changes no
            distance, but keeps vectors near 0, where float32 resolves their differences.
        centroids: (codes, width of the part) for each part, in the order of the columns.
    """

    scale: Scaling
    mean: Float[np.ndarray, " F"]
    centroids: tuple[Float[np.ndarray, "codes _"], ...]

    @staticmethod
    def fit(sample: Rows, codes: int, parts: int, scale: Scaling, seed: int) -> Codebook:
        """Fit centroids by mini-batch k-means (Sculley, WWW 2010), initialised by k-means++.

        It runs in one thread: sums computed by several depend on their number.

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
        for number, part in enumerate(_split(_scaled(sample, scale, mean), parts), 1):
            if (distinct := _count_distinct(part, codes)) < codes:
                where = f"part {number} of {parts} of them has" if parts > 1 else "there are"
                raise FewVectors(f"{where} only {distinct:,} distinct vectors for {codes:,} codes")
            model = MiniBatchKMeans(
                codes,
                init="k-means++",
                n_init=1,
                max_iter=100,
                batch_size=BATCH,
                init_size=3 * max(BATCH, codes),
                random_state=seed,
            )
            with threadpool_limits(1):
                model.fit(part)
            centroids.append(np.ascontiguousarray(model.cluster_centers_, np.float32))
        return Codebook(scale, mean, tuple(centroids))

    def codes(self, vectors: Rows) -> Int[np.ndarray, "n parts"]:
        """The nearest centroid of each part of each vector; the first of equally near ones."""
        scaled = _scaled(vectors, self.scale, self.mean)
        codes = []
        for part, centroids in zip(
            _split(scaled, len(self.centroids)), self.centroids, strict=True
        ):
            # |x - c|^2 = |x|^2 + |c|^2 - 2 x.c; |x|^2 is the same for all centroids.
            lengths = (centroids.astype(np.float64) ** 2).sum(1)
            distances = lengths.astype(np.float32) - 2 * (part @ centroids.T)
            codes.append(distances.argmin(1))
        return np.stack(codes, 1)

    def packed(self) -> tuple[Mapping[str, np.ndarray], dict[str, str]]:
        """Arrays and metadata, as a safetensors file holds them."""
        parts = {f"centroids.{number}": array for number, array in enumerate(self.centroids)}
        return {"mean": self.mean, **parts}, {"format": "mocme-codebook-1", "scale": self.scale}


def _scaled(vectors: Rows, scale: Scaling, mean: Float[np.ndarray, " F"]) -> Rows:
    centred: Rows = vectors - mean
    if scale == "none":
        return centred
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return centred


def _split(vectors: Rows, parts: int) -> list[Float[np.ndarray, "n _"]]:
    return [np.ascontiguousarray(part) for part in np.array_split(vectors, parts, axis=1)]


def _count_distinct(vectors: Rows, limit: int) -> int:
    """The number of distinct vectors, counted up to `limit`."""
    seen: set[bytes] = set()
    for row in vectors:
        # Adding 0 turns -0 into 0.
        seen.add((row + np.float32(0)).tobytes())
        if len(seen) >= limit:
            break
    return len(seen)
