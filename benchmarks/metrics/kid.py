"""``kid``: the kernel inception distance (Binkowski et al. 2018) as clean-fid computes it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from cleanfid import fid
from torch import Tensor

from benchmarks.features import FeatureSpace
from benchmarks.features.inception import Inception
from benchmarks.metrics import Direction, Scores
from benchmarks.metrics.featured import FeatureMetric

SEED = 0
BLOCK = 500
"""Rows of kernel values at a time: 500 by 30,000 are 120 MB."""


class KID(FeatureMetric):
    """Unbiased squared MMD with the kernel ``(x.y / d + 1)^3``, a mean over random subsets.

    Lower is better; identical distributions give 0 in the mean, so that it can be a little
    below 0. The subsets are drawn with a fixed seed from rows sorted by content, so the same
    images always give the same number. Multiply by 1000 for the unit of many papers.

    Args:
        mode: clean-fid's mode, ``clean`` or ``legacy_tensorflow``.
        subsets, subset_size: how many subsets, and how many rows of each side in one.
        space: other features than those of clean-fid, for a distance that is not KID.
    """

    direction: ClassVar[Direction | Mapping[str, Direction]] = "lower"
    least = 2
    what: ClassVar[str] = "KID"

    def __init__(
        self,
        mode: str = "clean",
        subsets: int = 100,
        subset_size: int = 1000,
        space: FeatureSpace | None = None,
    ) -> None:
        super().__init__(space or Inception(mode))
        self._subsets, self._size = subsets, subset_size
        self.protocol = (
            f"{self.what} by clean-fid, {subsets} subsets of at most {subset_size}, on "
            f"{self.space.label}"
        )

    def fit(self, features: np.ndarray) -> None:
        """See :class:`FeatureMetric`."""
        self._reference = features.astype(np.float64)

    def score(self, rows: np.ndarray) -> Scores:
        """See :class:`Metric`."""
        both = (self._reference, rows.astype(np.float64))
        with _seeded(SEED):
            return float(
                fid.kernel_distance(*both, num_subsets=self._subsets, max_subset_size=self._size)
            )

    def standard_error(self, rows: np.ndarray) -> Scores:
        """In closed form, with the reference as it is; NaN for fewer than four samples.

        Not from resampling: a row that is drawn twice makes a pair of equal rows, which the
        unbiased estimate leaves out on purpose, and a subset of all rows is always the same.
        The mean over subsets varies with the samples, as a KID of all of them does, and with
        the draw of the subsets (the law of total variance).
        """
        count = len(rows)
        if count < 4:
            return math.nan
        size = min(count, len(self._reference), self._size)
        sides = (torch.from_numpy(x).to(self.space.device) for x in (rows, self._reference))
        spread = Spread.of(*(side.double() for side in sides))
        whole, subset = spread.variance(count), spread.variance(size)
        return math.sqrt(whole + (subset - whole) / self._subsets)


@dataclass(frozen=True)
class Spread:
    """What the variance of a KID over samples is made of (Hoeffding 1948).

    With a fixed reference a KID is, but for a constant, a U-statistic of the samples: the mean
    over pairs of ``h(x, x') = k(x, x') - g(x) - g(x')``, where ``g(x)`` is the mean of
    ``k(x, y)`` over the reference.

    Attributes:
        single: variance of the mean of h over one of its arguments.
        pair: variance of h.
    """

    single: float
    pair: float

    @classmethod
    def of(cls, rows: Tensor, reference: Tensor) -> Spread:
        """Estimated without bias from four or more rows ``[n, d]``: products of pairs with one
        row in common, with both and with none."""
        n = len(rows)
        g = torch.cat([_kernel(part, reference).mean(1) for part in rows.split(BLOCK)])
        sums, squares = [], 0.0
        for start, part in zip(range(0, n, BLOCK), rows.split(BLOCK), strict=True):
            # The mean of g changes no variance, and keeps the sums small beside their spread.
            h = _kernel(part, rows) - g[start : start + BLOCK, None] - g + g.mean()
            h.diagonal(start).zero_()
            sums.append(h.sum(1))
            squares += float(h.square().sum())
        total = torch.cat(sums)
        stars = float(total.square().sum())
        pairs = n * (n - 1)
        common = (stars - squares) / (pairs * (n - 2))
        apart = (float(total.sum()) ** 2 - 4 * stars + 2 * squares) / (pairs * (n - 2) * (n - 3))
        # An unbiased estimate of a variance that is nearly 0 can be negative.
        return cls(max(common - apart, 0.0), max(squares / pairs - apart, 0.0))

    def variance(self, n: int) -> float:
        """Of the KID of n samples, two or more."""
        return (4 * (n - 2) * self.single + 2 * self.pair) / (n * (n - 1))


def _kernel(rows: Tensor, others: Tensor) -> Tensor:
    return (rows @ others.mT / rows.shape[1] + 1) ** 3


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """clean-fid draws from numpy's global generator: seed it, and leave it as it was."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
