"""Uncertainty of a score over samples, by the bootstrap (Efron 1979).

The same rows give the same numbers: the draws have a fixed seed, which is not the seed of
anything private.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

SEED = 0


def standard_error(
    rows: np.ndarray,
    score: Callable[[np.ndarray], float | dict[str, float]],
    replicates: int,
) -> float | dict[str, float]:
    """The deviation of a score over samples drawn with replacement.

    A deviation and not percentiles: a Frechet distance of repeated rows is biased upwards, so
    that percentiles would not even hold the score, while its spread is right.

    Args:
        rows: ``[n, d]``, one row per sample.
        score: from such rows to one number, or to several by name.
        replicates: how many times; with fewer than two there is no deviation (NaN).
    """
    draws = np.random.default_rng(SEED)
    scores = [score(rows[draws.integers(len(rows), size=len(rows))]) for _ in range(replicates)]
    first = scores[0] if scores else float("nan")
    if isinstance(first, dict):
        parts = [s for s in scores if isinstance(s, dict)]
        return {name: deviation([part[name] for part in parts]) for name in first}
    return deviation([s for s in scores if isinstance(s, float)])


def standard_error_of_mean(values: np.ndarray) -> float:
    """What the bootstrap of a mean converges to, without its draws: s / sqrt(n)."""
    return deviation(values.ravel()) / math.sqrt(values.size)


def deviation(values: Sequence[float] | np.ndarray) -> float:
    """The sample standard deviation; NaN for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
