"""Stage 2: detail bands from the low band, learned on public images only.

A one-step wavelet-detail network per level: it sees the LL band as an image and predicts the
three detail bands, and a correction of LL for what quantisation did to it; the inverse Haar
transform is its output layer. It is post-processing of a private result, hence free.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.dp.errors import UserError
from wavedp.wavelet.transform import reconstruct


class WaveletUpsampler(nn.Module):
    """Doubles an image ``levels`` times.

    Args:
        levels: how many wavelet levels it restores; the scale factor is ``2**levels``.
        width, depth: channels and residual blocks of each level's network.
    """

    def __init__(self, levels: int = 1, width: int = 48, depth: int = 4) -> None:
        super().__init__()
        self.levels = levels
        self.steps = nn.ModuleList(DetailNet(width, depth) for _ in range(levels))

    def forward(self, low: Tensor) -> Tensor:
        """``[n, 3, r, r]`` in [-1, 1] to ``[n, 3, r 2^levels, r 2^levels]``."""
        for step in self.steps:
            low = step(low)
        return low

    def check_scale(self, low: int, resolution: int) -> None:
        """Refuse to upsample between sizes it was not built for.

        Raises:
            UserError: names both sizes.
        """
        if low * 2**self.levels != resolution:
            raise UserError(
                f"The upsampler turns {low} px into {low * 2**self.levels} px, not into the "
                f"{resolution} px of the images; set upsampler.levels to match private_scales."
            )


class DetailNet(nn.Module):
    """One level: LL ``[n, 3, r, r]`` to the image ``[n, 3, 2r, 2r]``."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(depth)
        )
        self.leave = nn.Conv2d(width, 12, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.constant_(self.leave.get_parameter("bias"), 0.0)

    def forward(self, low: Tensor) -> Tensor:
        """Predict LL correction and details, then invert the transform."""
        x = self.enter(low)
        for block in self.blocks:
            x = x + block(x)
        correction, details = self.leave(F.gelu(x)).split([3, 9], dim=1)
        # The Haar low-pass doubles the mean, so LL in orthonormal units is twice the image.
        return reconstruct([2 * (low + correction), details])


def upsampling_loss(upsampler: nn.Module, low: Tensor, images: Tensor) -> Tensor:
    """Mean absolute error per image ``[b]``, of the pixels and of their local differences.

    The second term weighs edges, which the first one alone lets blur.
    """
    made = upsampler(low)
    error = (made - images).abs().mean((1, 2, 3))
    across = (made.diff(dim=3) - images.diff(dim=3)).abs().mean((1, 2, 3))
    down = (made.diff(dim=2) - images.diff(dim=2)).abs().mean((1, 2, 3))
    return torch.as_tensor(error + across + down)
