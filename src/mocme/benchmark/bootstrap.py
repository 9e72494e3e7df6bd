"""How sure a difference between two rows is: a paired bootstrap over questions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

RESAMPLES = 10_000
SEED = 0
# Numbers that are drawn at a time; the result does not depend on it.
CHUNK = 1 << 22


@dataclass(frozen=True)
class Difference:
    """A difference of mean reciprocal ranks.

    Attributes:
        low, high: the 95 % interval.
        questions: that were resampled.
    """

    mean: float
    low: float
    high: float
    questions: int


def reciprocal(twice: Int[np.ndarray, "S n"]) -> Float[np.ndarray, " n"]:
    """Reciprocal ranks of n questions, averaged over S seeds.

    Args:
        twice: twice the realistic ranks, which are whole numbers.
    """
    means: Float[np.ndarray, " n"] = (2.0 / twice).mean(0)
    return means


def resampled_means(
    values: Float[np.ndarray, " n"], resamples: int = RESAMPLES, seed: int = SEED
) -> Float[np.ndarray, " resamples"]:
    """Means of n values drawn from n with replacement, again and again."""
    generator = np.random.default_rng(seed)
    count = len(values)
    step = max(1, CHUNK // count)
    means = np.empty(resamples)
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        drawn = generator.integers(0, count, size=(rows, count), dtype=np.int32)
        means[first : first + rows] = values[drawn].mean(1)
    return means


def difference(
    first: Int[np.ndarray, "S n"],
    second: Int[np.ndarray, "T n"],
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Difference:
    """First less second, with the interval of a paired bootstrap (Efron and Tibshirani, 1993).

    What is resampled is questions, each with the difference of its two reciprocal ranks; those are
    averaged over the seeds of either row before, so that the interval is one of questions.

    Args:
        first, second: twice the realistic ranks of the same n questions in the same order.

    Raises:
        ValueError: there are no questions, or not equally many.
    """
    if first.shape[1] != second.shape[1] or not first.shape[1]:
        raise ValueError(
            f"{first.shape[1]} and {second.shape[1]} ranks are not of the same questions"
        )
    values = reciprocal(first) - reciprocal(second)
    low, high = np.quantile(resampled_means(values, resamples, seed), (0.025, 0.975))
    return Difference(float(values.mean()), float(low), float(high), len(values))
