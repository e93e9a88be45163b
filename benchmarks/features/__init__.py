"""Feature spaces: networks that turn images into vectors, in which metrics compare sets.

Several metrics may use one space: it is opened once per process and device, and the features
of the last batch are remembered, so that each image passes each network once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from benchmarks.batches import Batches
from benchmarks.memo import Memo
from benchmarks.registry import digest_of, find
from wavedp.data.schema import Records


class FeatureSpace(ABC):
    """Images to feature vectors, the same for an image in any batch.

    Attributes:
        label: network, layer, size and resizing, for the protocol of a metric.
        weights: names of its public weights in :mod:`benchmarks.registry`.
        batch: images per forward pass.
        keep: True if features of reference images are worth keeping on disk.
    """

    label: str
    weights: tuple[str, ...] = ()
    batch: int = 50
    keep: bool = True

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self._features = Memo(self._extract_all)

    @abstractmethod
    def load(self, device: torch.device) -> None:
        """Load the network.

        Raises:
            MissingWeights: its weights are not on this machine.
            UserError: a package is not installed, or a file is damaged.
        """

    @abstractmethod
    def extract(self, images: Tensor) -> Tensor:
        """uint8 ``[b, 3, H, W]`` on the CPU to float features ``[b, d]`` on any device."""

    @property
    def key(self) -> str:
        """Everything that its features depend on: label and digests of the weights."""
        return " ".join([self.label, *(digest_of(find(name)) for name in self.weights)])

    def __call__(self, images: Tensor) -> np.ndarray:
        """uint8 ``[n, 3, H, W]`` to float32 features ``[n, d]``."""
        return self._features(images)

    def of_records(self, records: Records) -> np.ndarray:
        """Features ``[n, d]`` of public or evaluation images."""
        parts = [self(images) for images in Batches(records.images)]
        self._features.forget()
        return np.concatenate(parts)

    def _extract_all(self, images: Tensor) -> np.ndarray:
        with torch.inference_mode():
            # Contiguous on the CPU: what networks and resizers see does not depend on strides.
            parts = [self.extract(part).float().cpu() for part in images.cpu().split(self.batch)]
        features: np.ndarray = torch.cat(parts).numpy()
        return features


_opened: dict[tuple[str, str], FeatureSpace] = {}


def shared(space: FeatureSpace, device: torch.device) -> FeatureSpace:
    """The space of this label that is open on this device; opens ``space`` if none is.

    Raises:
        MissingWeights: its weights are not on this machine.
        UserError: a package is not installed, or a file is damaged.
    """
    place = (space.label, str(device))
    if place not in _opened:
        space.device = device
        space.load(device)
        _opened[place] = space
    return _opened[place]


@lru_cache(maxsize=4)
def _pool(workers: int) -> ThreadPoolExecutor:
    # Kept: every new thread may get, and keep, an arena of memory of its own.
    return ThreadPoolExecutor(workers)


def per_image(function: Callable[[np.ndarray], np.ndarray], images: Tensor, workers: int) -> Tensor:
    """Apply a function of one ``[H, W, 3]`` uint8 image to each, in threads; ``[b, 3, h, w]``.

    Pillow, which resizes, does not hold the interpreter's lock. The result does not depend on
    the number of workers.
    """
    rows = images.permute(0, 2, 3, 1).contiguous().numpy()
    if workers <= 1:
        done = [function(row) for row in rows]
    else:
        done = list(_pool(workers).map(function, rows))
    return torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2)
