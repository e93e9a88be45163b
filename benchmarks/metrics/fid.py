"""``fid``: the Frechet inception distance as clean-fid computes it (Parmar et al. 2022)."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.features.inception import Inception
from benchmarks.metrics.frechet import FrechetMetric


class FID(FrechetMetric):
    """FID on the 2048 features of the Inception of 2015-12-05. Lower is better.

    Args:
        mode: clean-fid's mode, ``clean`` or ``legacy_tensorflow``.
        replicates: bootstrap replicates behind the standard error.

    Raises:
        UserError: an unknown mode.
    """

    what: ClassVar[str] = "FID"
    unlike: ClassVar[str] = ""

    def __init__(self, mode: str = "clean", replicates: int = 20) -> None:
        super().__init__(Inception(mode), replicates)
