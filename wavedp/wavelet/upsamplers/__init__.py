"""Stage 2: what turns the private low band into an image, made of public data alone.

It sees the low band that stage 1 drew and the prompt. Nothing of it has seen private data, so it
is post-processing and costs no privacy. One file per kind: :mod:`~wavedp.wavelet.upsamplers.detail`
trains with the project, :mod:`~wavedp.wavelet.upsamplers.continuation` is the spectral prior
itself, :mod:`~wavedp.wavelet.upsamplers.published` and
:mod:`~wavedp.wavelet.upsamplers.diffusion` bring published weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from wavedp.dp.errors import UserError


@runtime_checkable
class Upsampler(Protocol):
    """A public super-resolution model.

    Attributes:
        factor: how many times larger its images are, a power of two.
        takes: pixels per side of what it enlarges; None if it takes any size.
    """

    factor: int
    takes: int | None

    def upsample(self, low: Tensor, captions: Sequence[str], seed: int) -> Tensor:
        """Images in [-1, 1], ``[n, 3, r, r]``, to ``[n, 3, factor r, factor r]``.

        Args:
            captions: the prompt of each, for models that read it.
            seed: of whatever it draws.
        """

    def check(self, prompts: Sequence[str]) -> None:
        """Refuse weights that do not fit each other, and prompts that it would cut.

        Raises:
            UserError: says which.
        """


def check_factor(upsampler: Upsampler, low: int, resolution: int) -> None:
    """Refuse an upsampler between sizes that it was not made for.

    Raises:
        UserError: names both sizes.
    """
    if upsampler.takes not in (None, low):
        raise UserError(
            f"The upsampler takes images of {upsampler.takes} px and the low band has {low} px; "
            "choose one for this size or set private_scales to match it."
        )
    if low * upsampler.factor != resolution:
        raise UserError(
            f"The upsampler turns {low} px into {low * upsampler.factor} px, not into the "
            f"{resolution} px of the images; choose one of factor {resolution // low} or set "
            "private_scales to match it."
        )
