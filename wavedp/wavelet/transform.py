"""Multi-level 2-D discrete wavelet transform of image batches, as a list of scales.

Scale 0 is the approximation band LL; scale s > 0 holds the three detail bands of one level,
coarse to fine, concatenated on channels in the order of PyWavelets: horizontal, vertical and
diagonal details, also called LH, HL and HH.

One level is two matrix products, ``A X A^T``, with the matrix that PyWavelets' own one-level
transform is: exactly its numbers for each of its wavelets and borders, with gradients, on any
device. Haar, which has no borders to care about, is sums and differences of neighbours. The
usual border is ``periodization``, which gives as many coefficients as pixels; the transform is
then orthonormal for every orthogonal wavelet, so squared errors of coefficients and of pixels
are the same number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pywt
import torch
import torch.nn.functional as F
from torch import Tensor

from wavedp.dp.errors import UserError

PERIODIC = "periodization"


def decompose(
    images: Tensor, levels: int, wavelet: str = "haar", border: str = PERIODIC
) -> list[Tensor]:
    """Images ``[n, c, H, W]`` to ``levels + 1`` scales, as ``pywt.wavedec2``.

    Args:
        wavelet: a name that PyWavelets knows, see ``pywt.wavelist(kind="discrete")``.
        border: a mode of PyWavelets. Others than ``periodization`` make bands a little larger.

    Returns:
        ``[n, c, H/2^L, W/2^L]`` and then, for l = L..1, ``[n, 3c, H/2^l, W/2^l]``, rounded up.

    Raises:
        UserError: PyWavelets does not know the wavelet or the border.
    """
    _check_known(wavelet, border)
    details: list[Tensor] = []
    for _ in range(levels):
        images, detail = _split(images, wavelet, border)
        details.insert(0, detail)
    return [images, *details]


def reconstruct(
    scales: Sequence[Tensor],
    wavelet: str = "haar",
    border: str = PERIODIC,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """The inverse of :func:`decompose`; the first s scales alone give the LL band there.

    Args:
        size: height and width of the images, where they are odd; otherwise they follow.
    """
    low = scales[0]
    for detail in scales[1:]:
        # An odd side has been rounded up on the way down.
        low = _join(low[..., : detail.shape[-2], : detail.shape[-1]], detail, wavelet, border)
    return low if size is None else low[..., : size[0], : size[1]]


def low_band(images: Tensor, levels: int, wavelet: str = "haar") -> Tensor:
    """The LL band of ``levels`` levels as an image in the range of ``images``.

    An orthonormal low-pass doubles the mean at every level, so dividing by ``2^levels`` gives,
    for Haar, the average of each ``2^levels`` square block.
    """
    return decompose(images, levels, wavelet)[0] / 2**levels


def energies(scales: Sequence[Tensor]) -> Tensor:
    """Sum of squares per image and band, ``[n, 1 + 3L]``: LL, then H, V, D of each level.

    For an orthonormal transform a row adds up to the sum of squares of the image.
    """
    bands = [scales[0], *(band for scale in scales[1:] for band in scale.chunk(3, dim=1))]
    return torch.stack([band.square().sum((1, 2, 3)) for band in bands], dim=1)


def pack(scales: Sequence[Tensor]) -> Tensor:
    """Scales as one array ``[n, c, H, W]`` in Mallat's layout: LL in the upper left corner.

    V stands right of LL, H below it, D across. Needs sizes that halve at every level.
    """
    low = scales[0]
    for detail in scales[1:]:
        horizontal, vertical, diagonal = detail.chunk(3, dim=1)
        upper, lower = torch.cat([low, vertical], -1), torch.cat([horizontal, diagonal], -1)
        low = torch.cat([upper, lower], -2)
    return low


def unpack(packed: Tensor, levels: int) -> list[Tensor]:
    """The inverse of :func:`pack`."""
    details: list[Tensor] = []
    for _ in range(levels):
        packed, *bands = _quarters(packed)
        details.insert(0, torch.cat(bands, dim=1))
    return [packed, *details]


def check_divisible(height: int, width: int, levels: int) -> None:
    """Refuse sizes that do not halve ``levels`` times.

    Raises:
        UserError: names the sizes.
    """
    if height % 2**levels or width % 2**levels:
        raise UserError(
            f"A {levels}-level wavelet transform needs image sizes that divide by {2**levels}, "
            f"got {height}x{width}; change the resolution or the number of levels."
        )


def _quarters(packed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """LL, H, V, D of a level in Mallat's layout."""
    upper, lower = packed.split(packed.shape[-2] // 2, dim=-2)
    half = packed.shape[-1] // 2
    low, vertical = upper.split(half, dim=-1)
    horizontal, diagonal = lower.split(half, dim=-1)
    return low, horizontal, vertical, diagonal


def _split(images: Tensor, wavelet: str, border: str) -> tuple[Tensor, Tensor]:
    """One level: LL and the details on channels."""
    height, width = images.shape[-2:]
    if wavelet == "haar" and height % 2 == width % 2 == 0:
        return _split_haar(images)
    rows = _analysis(height, wavelet, border, images.dtype, images.device)
    columns = _analysis(width, wavelet, border, images.dtype, images.device)
    low, *details = _quarters(_both_sides(rows, images, columns))
    return low, torch.cat(details, dim=1)


def _join(low: Tensor, detail: Tensor, wavelet: str, border: str) -> Tensor:
    """The inverse of :func:`_split`."""
    if wavelet == "haar" and low.dtype in (torch.float32, torch.float64):
        return _join_haar(low, detail)
    rows = _synthesis(low.shape[-2], wavelet, border, low.dtype, low.device)
    columns = _synthesis(low.shape[-1], wavelet, border, low.dtype, low.device)
    return _both_sides(rows, pack([low, detail]), columns)


def _both_sides(rows: Tensor, images: Tensor, columns: Tensor) -> Tensor:
    """``rows @ images @ columns^T``."""
    return F.linear(F.linear(images, columns).mT, rows).mT


class _Haar(torch.autograd.Function):
    """One level of the transform. It is orthonormal: the gradient is the inverse of the other."""

    @staticmethod
    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        upper, lower = images[..., ::2, :], images[..., 1::2, :]
        total = (upper + lower).mul_(0.5)
        down = upper - total
        left, right = total[..., ::2], total[..., 1::2]
        down_left, down_right = down[..., ::2], down[..., 1::2]
        n, c, height, width = left.shape
        detail = images.new_empty(n, 3 * c, height, width)
        torch.add(down_left, down_right, out=detail[:, :c])
        torch.sub(left, right, out=detail[:, c : 2 * c])
        torch.sub(down_left, down_right, out=detail[:, 2 * c :])
        return left + right, detail

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, low: Tensor, detail: Tensor) -> Tensor:
        return _join_haar(low, detail)


class _InverseHaar(torch.autograd.Function):
    """The inverse of :class:`_Haar`."""

    @staticmethod
    def forward(low: Tensor, detail: Tensor) -> Tensor:
        horizontal, vertical, diagonal = detail.chunk(3, dim=1)
        n, c, height, width = low.shape
        rows = low.new_empty(n, c, height, 2, 2 * width)
        both = _side_by_side(low + vertical, low - vertical)
        other = _side_by_side(horizontal + diagonal, horizontal - diagonal)
        upper = torch.lerp(both, other, 0.5, out=rows[..., 0, :])
        torch.sub(both, upper, out=rows[..., 1, :])
        return rows.flatten(-3, -2)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        return _split_haar(images)


def _split_haar(images: Tensor) -> tuple[Tensor, Tensor]:
    low, detail = _Haar.apply(images)
    return low, detail


def _join_haar(low: Tensor, detail: Tensor) -> Tensor:
    return torch.as_tensor(_InverseHaar.apply(low, detail))


def _side_by_side(left: Tensor, right: Tensor) -> Tensor:
    """Columns of both in turn, ``[..., w]`` to ``[..., 2w]``."""
    # A complex number lies in memory as a pair: one pass, where stacking takes two. There are
    # none of bfloat16.
    return torch.view_as_real(torch.complex(left, right)).flatten(-2)


@lru_cache(maxsize=64)
def _analysis(
    size: int, wavelet: str, border: str, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """``[2 half, size]``: the low-pass rows, then the high-pass rows."""
    _check_known(wavelet, border)
    return _matrix(pywt.dwt(np.eye(size), wavelet, border, axis=0), 0, dtype, device)


@lru_cache(maxsize=64)
def _synthesis(
    half: int, wavelet: str, border: str, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """``[size, 2 half]``, the inverse of :func:`_analysis`."""
    _check_known(wavelet, border)
    one, zero = np.eye(half), np.zeros((half, half))
    sides = [pywt.idwt(*pair, wavelet, border, axis=0) for pair in ((one, zero), (zero, one))]
    return _matrix(sides, 1, dtype, device)


def _matrix(
    parts: Sequence[np.ndarray], axis: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    return torch.from_numpy(np.concatenate(parts, axis)).to(device, dtype)


def _check_known(wavelet: str, border: str) -> None:
    if wavelet not in pywt.wavelist(kind="discrete"):
        raise UserError(
            f"Unknown wavelet {wavelet!r}; PyWavelets knows haar, db2, sym4, bior2.2 and others, "
            'see pywt.wavelist(kind="discrete").'
        )
    if border not in pywt.Modes.modes:
        raise UserError(f"Unknown border {border!r}: choose one of {', '.join(pywt.Modes.modes)}.")
