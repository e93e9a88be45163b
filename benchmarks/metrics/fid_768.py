"""``fid_768``: Frechet distance at the 768 features of ``Mixed_6e``. Not FID."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.features.inception_768 import Inception768
from benchmarks.metrics.frechet import FrechetMetric


class FID768(FrechetMetric):
    """FID-768. Lower is better. Comparable with no published FID, which has 2048 features.

    Args:
        replicates: bootstrap replicates behind the standard error.
    """

    what: ClassVar[str] = "FID-768"

    def __init__(self, replicates: int = 50) -> None:
        super().__init__(Inception768(), replicates)
