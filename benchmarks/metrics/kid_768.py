"""``kid_768``: the kernel distance at the 768 features of ``Mixed_6e``. Not KID."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.features.inception_768 import Inception768
from benchmarks.metrics.kid import KID


class KID768(KID):
    """KID-768. Lower is better. Comparable with no published KID, which has 2048 features.

    Args:
        subsets, subset_size: see :class:`~benchmarks.metrics.kid.KID`.
    """

    unlike: ClassVar[str] = "KID"
    what: ClassVar[str] = "KID-768 (not KID)"

    def __init__(self, subsets: int = 100, subset_size: int = 1000) -> None:
        super().__init__(subsets=subsets, subset_size=subset_size, space=Inception768())
