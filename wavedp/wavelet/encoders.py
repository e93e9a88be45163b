"""What turns records into what a prior trains on: frozen, public functions of one record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wavedp.dp.errors import UserError
from wavedp.nn.images import to_float
from wavedp.nn.text import TextEncoder
from wavedp.nn.tokenizer import Tokenizer
from wavedp.wavelet.transform import low_band

PIXELS_AT_ONCE = 512 * 32**2


def in_parts(images: np.ndarray, network: nn.Module, encode: Callable[[Tensor], Tensor]) -> Tensor:
    """What a public network makes of images, uint8 ``[b, 3, R, R]``, on the CPU.

    Args:
        network: where it is, the images are taken.
        encode: of some of them, in [-1, 1].
    """
    device = next(network.parameters()).device
    whole = torch.from_numpy(np.array(images))
    # As much memory at every size: 512 images of 32 px, 8 of 256 px.
    batch = max(1, PIXELS_AT_ONCE // whole[0, 0].numel())
    return torch.cat([encode(to_float(part.to(device))).cpu() for part in whole.split(batch)])


@dataclass(frozen=True)
class TokenEncoder:
    """``images`` to ``tokens`` ``[b, t, C]`` of the first scales.

    Attributes:
        tokenizer: public, in eval mode.
        scales: how many leading scales are kept. What is not encoded cannot leak.
    """

    tokenizer: Tokenizer
    scales: int

    @property
    def key(self) -> str:
        """Names this function for a store; raise its number when the encoding changes."""
        return f"TokenEncoder 3 {self.tokenizer.key} scales={self.scales}"

    @torch.no_grad()
    def __call__(self, columns: Mapping[str, Any]) -> dict[str, Tensor]:
        def encode(images: Tensor) -> Tensor:
            return self.tokenizer.encode(images, self.scales).short()

        return {"tokens": in_parts(columns["images"], self.tokenizer, encode)}


@dataclass(frozen=True)
class CaptionEncoder:
    """``captions`` to ``text`` ``[b, captions, slots, width]``.

    Attributes:
        text: the frozen text encoder.
        captions: a public constant; records with fewer repeat theirs, more are cut.
    """

    text: TextEncoder
    captions: int

    @property
    def key(self) -> str:
        """Names this function for a store; raise its number when the encoding changes."""
        return f"CaptionEncoder 3 {self.text.key} captions={self.captions}"

    def __call__(self, columns: Mapping[str, Any]) -> dict[str, Tensor]:
        lists = columns["captions"]
        flat = [own[i % len(own)] for own in lists for i in range(self.captions)]
        shape = len(lists), self.captions, self.text.slots, self.text.width
        text = self.text(flat).view(shape)
        return {"text": text.half() if text.is_floating_point() else text}


@dataclass(frozen=True)
class LowBandEncoder:
    """``images`` to ``low`` ``[b, 3 r r]``: the low band as pixels in [-1, 1], in float32.

    Attributes:
        resolution: R, pixels per side of the images.
        side: r, pixels per side of the low band: R halved some times.
    """

    resolution: int
    side: int

    def __post_init__(self) -> None:
        """Raises:
        UserError: the side is not the resolution halved some times.
        """
        factor = self.resolution // max(self.side, 1)
        if self.side < 1 or factor * self.side != self.resolution or factor & (factor - 1):
            raise UserError(
                f"A low band of {self.side} px cannot be had of images of {self.resolution} px; "
                "choose the resolution halved some times."
            )

    @property
    def key(self) -> str:
        """Names this function for a store; raise its number when the encoding changes."""
        return f"LowBandEncoder 1 side={self.side}"

    def __call__(self, columns: Mapping[str, Any]) -> dict[str, Tensor]:
        images = to_float(torch.from_numpy(np.array(columns["images"])))
        return {"low": self.of(images)}

    def of(self, images: Tensor) -> Tensor:
        """Images in [-1, 1], ``[b, 3, R, R]``, to ``[b, 3 r r]``."""
        levels = (self.resolution // self.side).bit_length() - 1
        return low_band(images, levels).flatten(1)
