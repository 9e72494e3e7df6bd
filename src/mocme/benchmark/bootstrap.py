"""Paired bootstrap over questions: how certain the difference between two rows is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

RESAMPLES = 10_000
SEED = 0
# Random numbers drawn at a time, to bound memory; the result does not depend on it.
CHUNK = 1 << 22


@dataclass(frozen=True)
class Difference:
    """A difference in mean reciprocal rank.

    Attributes:
        low, high: ends of the 95 % interval.
        questions: number of questions that were resampled.
    """

    mean: float
    low: float
    high: float
    questions: int


def reciprocal(double_ranks: Int[np.ndarray, "S n"]) -> Float[np.ndarray, " n"]:
    """Reciprocal ranks of n questions, averaged over S seeds.

    Args:
        double_ranks: 2 x realistic ranks, which are integers.
    """
    means: Float[np.ndarray, " n"] = (2.0 / double_ranks).mean(0)
    return means


def resampled_means(
    values: Float[np.ndarray, " n"], resamples: int = RESAMPLES, seed: int = SEED
) -> Float[np.ndarray, " resamples"]:
    """Means of samples of size n, each drawn from the n values with replacement."""
    generator = np.random.default_rng(seed)
    count = len(values)
    step = max(1, CHUNK // count)
    means = np.empty(resamples)
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        sample = generator.integers(0, count, size=(rows, count), dtype=np.int32)
        means[first : first + rows] = values[sample].mean(1)
    return means


def difference(
    first: Int[np.ndarray, "S n"],
    second: Int[np.ndarray, "T n"],
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Difference:
    """MRR of the first less MRR of the second, with a percentile interval.

    Paired bootstrap (Efron and Tibshirani, 1993). The unit of resampling is a question with the
    difference of its two reciprocal ranks. These are averaged over the seeds of each row first,
    so the interval covers variation between questions and not between seeds.

    Args:
        first, second: 2 x realistic ranks of the same n questions in the same order.

    Raises:
        ValueError: there are no questions, or their numbers differ.
    """
    if first.shape[1] != second.shape[1] or not first.shape[1]:
        raise ValueError(
            f"{first.shape[1]} and {second.shape[1]} ranks are not of the same questions"
        )
    values = reciprocal(first) - reciprocal(second)
    low, high = np.quantile(resampled_means(values, resamples, seed), (0.025, 0.975))
    return Difference(float(values.mean()), float(low), float(high), len(values))
