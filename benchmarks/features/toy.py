"""The embedded yardstick as a feature space: 128 features, on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.features import FeatureSpace
from benchmarks.metrics.yardstick import WEIGHTS, load_yardstick


class Toy(FeatureSpace):
    """Features of :class:`benchmarks.metrics.yardstick.Yardstick`."""

    weights = (WEIGHTS,)
    label = "embedded yardstick (128), 32 px by area"
    batch = 500

    def load(self, device: torch.device) -> None:
        """See :class:`FeatureSpace`."""
        load_yardstick()

    def extract(self, images: Tensor) -> Tensor:
        """See :class:`FeatureSpace`."""
        return load_yardstick().features(images)
