"""``fd_clip``: Frechet distance in CLIP's image space (Kynkaanniemi et al. 2023)."""

from __future__ import annotations

from benchmarks.features.clip import Clip
from benchmarks.metrics.frechet import FrechetMetric


class FDClip(FrechetMetric):
    """Frechet distance on CLIP's image embeddings, not normalised. Lower is better. Not FID.

    Args:
        model, weights: see :class:`Clip`.
        replicates: bootstrap replicates behind the standard error.
    """

    def __init__(
        self,
        model: str = "ViT-B-32-quickgelu",
        weights: str = "clip-vit-b-32-openai",
        replicates: int = 50,
    ) -> None:
        super().__init__(Clip(model, weights), replicates)
