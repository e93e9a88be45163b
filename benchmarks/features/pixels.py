"""The images themselves as features: for distances that need no network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.features import FeatureSpace


class Pixels(FeatureSpace):
    """Pixels in 0..1, averaged over areas to at most ``size`` px.

    Scaled by one over the root of their number, so that the Euclidean distance of two images
    is the root mean square of their differences, in 0..1.
    """

    keep = False

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self._size = size
        self.label = f"pixels at {size} px by area, root mean square in 0..1"
        self.batch = 500

    def load(self, device: torch.device) -> None:
        """See :class:`FeatureSpace`."""

    def extract(self, images: Tensor) -> Tensor:
        """See :class:`FeatureSpace`."""
        floats = images.to(self.device).float() / 255
        if floats.shape[-1] > self._size:
            floats = F.interpolate(floats, self._size, mode="area")
        return floats.flatten(1) / floats[0].numel() ** 0.5
