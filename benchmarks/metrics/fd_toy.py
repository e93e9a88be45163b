"""``fd_toy``: Frechet distance between Gaussians fitted to the yardstick's features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from cleanfid import fid
from torch import Tensor

from benchmarks.metrics.yardstick import load_yardstick
from wavedp.data.schema import Records


class FDToy:
    """Frechet distance in the feature space of the embedded yardstick, by clean-fid.

    The yardstick is clean-fid's custom feature extractor; the distance is clean-fid's own.
    Scaled by 100. Lower is better; identical sets give 0. Not an FID.
    """

    direction: ClassVar[Literal["lower", "higher"]] = "lower"
    needs_text: ClassVar[bool] = False
    protocol = "clean-fid Frechet distance x100 on 128 yardstick features, 32 px by area"

    def __init__(self, batch: int = 500) -> None:
        self._batch = batch
        self._features: list[np.ndarray] = []
        self._mean, self._covariance = np.zeros(0), np.zeros((0, 0))

    def prepare(self, reference: Records) -> None:
        """See :class:`benchmarks.metrics.Metric`."""
        parts = [
            self._extract(torch.from_numpy(np.array(part.images)))
            for part in reference.chunks(self._batch)
        ]
        self._mean, self._covariance = _gaussian(np.concatenate(parts))

    def update(self, images: Tensor, captions: Sequence[str]) -> None:
        """See :class:`benchmarks.metrics.Metric`."""
        del captions
        self._features.append(self._extract(images))

    def compute(self) -> float:
        """See :class:`benchmarks.metrics.Metric`."""
        mean, covariance = _gaussian(np.concatenate(self._features))
        self._features = []
        distance = fid.frechet_distance(mean, covariance, self._mean, self._covariance)
        return 100 * max(float(distance), 0.0)

    def _extract(self, images: Tensor) -> np.ndarray:
        extractor = load_yardstick().features
        return np.asarray(
            fid.get_batch_features(images, extractor, torch.device("cpu")), dtype=np.float64
        )


def _gaussian(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Sorting the rows makes the sums, and so the value, independent of the order of updates.
    features = features[np.lexsort(features.T)]
    return features.mean(0), np.cov(features, rowvar=False)
