"""``kid``: the kernel inception distance (Binkowski et al. 2018) as clean-fid computes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
from cleanfid import fid

from benchmarks import bootstrap
from benchmarks.features.inception import Inception
from benchmarks.metrics import Direction, Scores
from benchmarks.metrics.featured import FeatureMetric

SEED = 0


class KID(FeatureMetric):
    """Unbiased squared MMD with the kernel ``(x.y / d + 1)^3``, a mean over random subsets.

    Lower is better; identical distributions give 0 in the mean, so that it can be a little
    below 0. The subsets are drawn with a fixed seed from rows sorted by content, so the same
    images always give the same number. Multiply by 1000 for the unit of many papers.

    Args:
        mode: clean-fid's mode, ``clean`` or ``legacy_tensorflow``.
        subsets, subset_size: how many subsets, and how many rows of each side in one.
    """

    direction: ClassVar[Direction | Mapping[str, Direction]] = "lower"
    least = 2

    def __init__(self, mode: str = "clean", subsets: int = 100, subset_size: int = 1000) -> None:
        super().__init__(Inception(mode), subsets)
        self._subsets, self._size = subsets, subset_size
        self.protocol = (
            f"KID by clean-fid, {subsets} subsets of at most {subset_size}, on {self.space.label}"
        )

    def fit(self, features: np.ndarray) -> None:
        """See :class:`FeatureMetric`."""
        self._reference = features.astype(np.float64)

    def score(self, rows: np.ndarray) -> Scores:
        """See :class:`Metric`."""
        return self._distance(rows, self._subsets)

    def standard_error(self, rows: np.ndarray) -> Scores:
        """From the spread of single subsets: the m-out-of-n bootstrap (Bickel et al. 1997)."""
        size = min(len(rows), len(self._reference), self._size)
        with _seeded(SEED + 1):
            single = [self._draw(rows, 1) for _ in range(self.replicates)]
        return bootstrap.deviation(single) * float(np.sqrt(size / len(rows)))

    def _distance(self, rows: np.ndarray, subsets: int) -> float:
        with _seeded(SEED):
            return self._draw(rows, subsets)

    def _draw(self, rows: np.ndarray, subsets: int) -> float:
        both = (self._reference, rows.astype(np.float64))
        return float(fid.kernel_distance(*both, num_subsets=subsets, max_subset_size=self._size))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """clean-fid draws from numpy's global generator: seed it, and leave it as it was."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
