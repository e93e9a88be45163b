"""What metrics in a feature space have in common: one row of features per sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.digest import sha256_of_array
from benchmarks.features import FeatureSpace, shared
from benchmarks.kept import kept
from benchmarks.metrics import Metric
from wavedp.data.schema import Records


class FeatureMetric(Metric):
    """A metric whose rows are the features of the samples.

    Subclasses take what they need of the reference features in :meth:`fit`.

    Args:
        space: where images become vectors.
        replicates: bootstrap replicates behind the standard error.
    """

    def __init__(self, space: FeatureSpace, replicates: int = 100) -> None:
        super().__init__()
        self.space = space
        self.weights = space.weights
        self.replicates = replicates
        self._content = ""

    def open(self, device: torch.device) -> None:
        """See :class:`Metric`."""
        self.space = shared(self.space, device)

    def prepare(self, reference: Records) -> None:
        """See :class:`Metric`."""
        self.fit(self.reference_features(reference))

    def reference_features(self, reference: Records) -> np.ndarray:
        """Features of the reference images, kept on disk by content where that pays."""
        if not self.space.keep:
            return self.space.of_records(reference)
        self._content = f"{self.space.key} {sha256_of_array(reference.images)}"
        return kept(f"features {self._content}", lambda: self.space.of_records(reference))

    def keep(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """A statistic of the reference features, kept beside them."""
        return kept(f"{name} {self._content}", make) if self.space.keep else make()

    def fit(self, features: np.ndarray) -> None:
        """Take statistics of the reference features ``[n, d]``."""
        raise NotImplementedError

    def describe(
        self, images: Tensor, captions: Sequence[str], real: Tensor | None = None
    ) -> np.ndarray:
        """See :class:`Metric`."""
        del captions, real
        return self.space(images)
