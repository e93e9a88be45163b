"""Multi-level 2-D discrete wavelet transform of image batches, as a list of scales.

Scale 0 is the approximation band LL; scale s > 0 holds the three detail bands of one level,
coarse to fine, concatenated on channels in the order LH, HL, HH of PyWavelets (horizontal,
vertical, diagonal). The transform is orthonormal, so squared errors of coefficients and of
pixels are the same number.
"""

from __future__ import annotations

from collections.abc import Sequence

import ptwt
import torch
from torch import Tensor

from wavedp.dp.errors import UserError


def decompose(images: Tensor, levels: int, wavelet: str = "haar") -> list[Tensor]:
    """Images ``[n, c, H, W]`` to ``levels + 1`` scales.

    Returns:
        ``[n, c, H/2^L, W/2^L]`` and then, for l = L..1, ``[n, 3c, H/2^l, W/2^l]``
        (sizes for Haar; longer filters add a border).

    Raises:
        UserError: ``2^levels`` does not divide the image size.
    """
    height, width = images.shape[-2:]
    if height % 2**levels or width % 2**levels:
        raise UserError(
            f"A {levels}-level wavelet transform needs image sizes that divide by {2**levels}, "
            f"got {height}x{width}; change the resolution or the number of levels."
        )
    if levels == 0:
        return [images]
    approximation, *details = ptwt.wavedec2(images, wavelet, level=levels, mode="zero")
    return [approximation, *(torch.cat(list(level), dim=1) for level in details)]


def reconstruct(scales: Sequence[Tensor], wavelet: str = "haar") -> Tensor:
    """The inverse of :func:`decompose`; the first s scales alone give the LL band there."""
    if len(scales) == 1:
        return scales[0]
    details = [ptwt.WaveletDetailTuple2d(*scale.chunk(3, dim=1)) for scale in scales[1:]]
    return torch.as_tensor(ptwt.waverec2((scales[0], *details), wavelet))


def low_band(images: Tensor, levels: int, wavelet: str = "haar") -> Tensor:
    """The LL band of ``levels`` levels as an image in the range of ``images``.

    The orthonormal low-pass doubles the mean at every level, so dividing by ``2^levels``
    gives, for Haar, the average of each ``2^levels`` square block.
    """
    return decompose(images, levels, wavelet)[0] / 2**levels
