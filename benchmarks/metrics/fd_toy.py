"""``fd_toy``: Frechet distance between Gaussians fitted to the yardstick's features."""

from __future__ import annotations

import numpy as np

from benchmarks.features.toy import Toy
from benchmarks.metrics import Scores
from benchmarks.metrics.frechet import FrechetMetric


class FDToy(FrechetMetric):
    """Frechet distance in the feature space of the embedded yardstick, by clean-fid.

    Scaled by 100. Lower is better; identical sets give 0. Not an FID.
    """

    def __init__(self) -> None:
        super().__init__(Toy())
        self.protocol = "clean-fid Frechet distance x100 on 128 yardstick features, 32 px by area"

    def score(self, rows: np.ndarray) -> Scores:
        """See :class:`benchmarks.metrics.Metric`."""
        value = super().score(rows)
        assert isinstance(value, float)
        return 100 * value

    def standard_error(self, rows: np.ndarray) -> Scores:
        """See :class:`benchmarks.metrics.Metric`."""
        error = super().standard_error(rows)
        assert isinstance(error, float)
        return 100 * error
