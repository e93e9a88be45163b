"""``memorisation``: how near samples come to private records. Evaluation, not private.

The distance of a sample to its nearest private record, in a feature or pixel space that the
protocol names. What it says is for the owner of the data: no epsilon covers it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmarks.features import FeatureSpace
from benchmarks.metrics import Direction, Reads, Scores
from benchmarks.metrics.featured import FeatureMetric
from benchmarks.private_view import for_evaluation
from wavedp.dp.private import PrivateRecords

BLOCK = 1000


def nearest(rows: Tensor, others: Tensor) -> np.ndarray:
    """Euclidean distance of each row ``[n, d]`` to the nearest other ``[m, d]``, ``[n]``.

    Exact to float32 also at 0: the nearest is found by products, its distance by differences.
    """
    found = []
    for part in rows.split(BLOCK):
        index = torch.cdist(part, others).argmin(1)
        found.append((part - others[index]).double().square().sum(1).sqrt())
    return torch.cat(found).cpu().numpy()


class Memorisation(FeatureMetric):
    """Two numbers: ``distance``, the mean over samples, and ``closer``.

    ``closer`` is the share of samples that are nearer to a private record than ``quantile`` of
    the reference images are, real images that the method has not seen: about ``quantile`` for a
    method that has learned the law and no record, 1 for one that copies.

    Args:
        space: where distances are taken.
        quantile: in (0, 1).
    """

    direction: ClassVar[Direction | Mapping[str, Direction]] = {
        "distance": "higher",
        "closer": "lower",
    }
    reads: ClassVar[Reads] = "private"

    def __init__(self, space: FeatureSpace, quantile: float = 0.05) -> None:
        super().__init__(space)
        self._quantile = quantile
        self.protocol = (
            f"distance to the nearest private record on {space.label}; closer: share nearer than "
            f"the {quantile:g} quantile of unseen real images"
        )

    def fit(self, features: np.ndarray) -> None:
        """See :class:`FeatureMetric`."""
        self._unseen = features

    def prepare_private(self, private: PrivateRecords) -> None:
        """See :class:`Metric`. The features stay in memory and are never written."""
        parts: list[np.ndarray] = []
        for_evaluation(private, lambda images: parts.append(self.space(images)))
        self._private = torch.from_numpy(np.concatenate(parts)).to(self.space.device)
        self._near = float(np.quantile(self._distances(self._unseen), self._quantile))

    def describe(
        self, images: Tensor, captions: Sequence[str], real: Tensor | None = None
    ) -> np.ndarray:
        """See :class:`Metric`: one distance per sample, ``[b, 1]``."""
        return self._distances(super().describe(images, captions, real))[:, None]

    def score(self, rows: np.ndarray) -> Scores:
        """See :class:`Metric`."""
        return {"distance": float(rows.mean()), "closer": float((rows < self._near).mean())}

    def _distances(self, features: np.ndarray) -> np.ndarray:
        return nearest(torch.from_numpy(features).to(self.space.device), self._private)
