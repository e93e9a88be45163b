"""Images as the networks see them: float32 in [-1, 1]."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1.0


def to_uint8(images: Tensor) -> Tensor:
    """float in [-1, 1] to uint8, rounding and clipping."""
    return ((images + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def as_tensor(images: np.ndarray) -> Tensor:
    """A view of an array, uint8 ``[n, 3, H, W]``, which may be memory-mapped and read-only.

    For training on corpora that are larger than memory: a batch is read when it is drawn.
    """
    with warnings.catch_warnings():
        # Of memory that cannot be written; nothing here writes.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(images)
