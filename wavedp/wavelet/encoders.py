"""What turns records into what a prior trains on: frozen, public functions of one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavedp.nn.images import to_float
from wavedp.nn.text import TextEncoder
from wavedp.nn.tokenizer import Tokenizer

PIXELS_AT_ONCE = 512 * 32**2


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
        device = next(self.tokenizer.parameters()).device
        images = torch.from_numpy(np.array(columns["images"]))
        # As much memory at every size: 512 images of 32 px, 8 of 256 px.
        batch = max(1, PIXELS_AT_ONCE // images[0, 0].numel())
        parts = [
            self.tokenizer.encode(to_float(part.to(device)), self.scales).short().cpu()
            for part in images.split(batch)
        ]
        return {"tokens": torch.cat(parts)}


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
        return {"text": self.text(flat).view(shape).half()}
