"""Images as the networks see them: float32 in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1.0


def to_uint8(images: Tensor) -> Tensor:
    """float in [-1, 1] to uint8, rounding and clipping."""
    return ((images + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
